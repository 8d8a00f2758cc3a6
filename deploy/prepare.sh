#!/bin/sh
# Gives each folder and volume to the user who writes to it. Run by the service `init`, as root
# without a network; what it is given is below /volumes and /node.
#
#   prepare.sh [ROOT]     ROOT is before these paths; by default nothing
set -eu
root="${1:-}"

# give FOLDER USER:GROUP MODE: contents keep their owners if the folder has the right one already.
give() {
    [ -d "$1" ] || return 0
    if [ "$(stat -c %u:%g "$1")" != "$2" ]; then chown -R "$2" "$1"; fi
    chmod "$3" "$1"
}

# A fleet has several of a kind: nats, nats-2, nats-3.
for folder in "$root"/volumes/*; do
    case "$folder" in
        */nats*) give "$folder" 10002:10002 0700 ;;
        */jaeger) give "$folder" 10003:10003 0700 ;;
        */prometheus) give "$folder" 65534:65534 0700 ;;
        */grafana) give "$folder" 472:472 0700 ;;
        */autoscaler*) give "$folder" 10001:10001 0700 ;;
        # The launcher's socket: it is its own, and the agent is in its group.
        */launcher*) give "$folder" 1000:10001 0750 ;;
        *) echo "prepare.sh: whose is $folder?" >&2; exit 1 ;;
    esac
done

# A queue that begins anew counts from the beginning: what nodes of this machine remember of a former
# one would have them refuse all that its autoscaler says.
kept=no anew=no
for folder in "$root"/volumes/nats*; do
    [ -d "$folder" ] || continue
    if [ -d "$folder/jetstream" ]; then kept=yes; else anew=yes; fi
done
if [ "$anew" = yes ] && [ "$kept" = no ]; then
    rm -f "$root"/node/accepted.json "$root"/node-*/accepted.json
fi

# The launcher's, and of a group that the agent is in. Sticky: the agent keeps its own there, and
# cannot put anything in the place of the launcher's. Never their contents: what replicas' containers
# have written there is theirs.
for folder in "$root"/node "$root"/node-*; do
    [ -d "$folder" ] || continue
    chown 1000:10001 "$folder"
    chmod 1770 "$folder"
    if [ ! -e "$folder/environments" ]; then
        mkdir -m 0755 "$folder/environments"
        chown 1000:10001 "$folder/environments"
    fi
done
