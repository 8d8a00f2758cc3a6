#!/bin/sh
# Gives each folder and volume to the user who writes to it. Run by the service `init`, as root
# without a network; what it is given is below /volumes and /node.
set -eu

# give FOLDER USER MODE: contents keep their owners if the folder has the right one already.
give() {
    [ -d "$1" ] || return 0
    if [ "$(stat -c %u "$1")" != "$2" ]; then chown -R "$2:$2" "$1"; fi
    chmod "$3" "$1"
}

give /volumes/nats 10002 0700
give /volumes/jaeger 10003 0700
give /volumes/prometheus 65534 0700
give /volumes/grafana 472 0700
give /volumes/autoscaler 10001 0700
give /volumes/launcher 10001 0700
# Never its contents: what replicas' containers have written there is theirs.
if [ -d /node ]; then
    chown 10001:10001 /node
    chmod 0750 /node
fi
