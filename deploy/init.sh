#!/bin/sh
# Writes what compose needs and no repository may hold: .env and secrets/. Run it once; run again,
# it adds what is missing and changes nothing.
#
#   sh deploy/init.sh [--node] [--directory DIR]
#
# DIR is where to write; the default is deploy, beside compose.yaml. With --node it prepares a
# machine that joins a mesh: secrets/nats_credentials must be there, copied from the mesh's machine.
#
# Needs a POSIX shell and /dev/urandom. The engine's socket is found by DOCKER_HOST, else it is
# /var/run/docker.sock.
set -eu

here="$(cd "$(dirname "$0")" && pwd)"
directory="$here"
joins=no
while [ $# -gt 0 ]; do
    case "$1" in
        --directory)
            [ $# -ge 2 ] || { echo "init.sh: --directory needs a folder" >&2; exit 2; }
            directory="$2"; shift 2 ;;
        --node) joins=yes; shift ;;
        -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) echo "init.sh: unknown argument $1; see --help" >&2; exit 2 ;;
    esac
done

umask 077
mkdir -p "$directory"
directory="$(cd "$directory" && pwd)"
secrets="$directory/secrets"
env_file="$directory/.env"
mkdir -p "$secrets"
chmod 700 "$secrets"

# secret NAME: its text on standard input. Containers read it as users of their own, so the file may
# be read by all; its folder may be entered by its owner alone.
secret() {
    if [ -s "$secrets/$1" ]; then cat > /dev/null; return 0; fi
    cat > "$secrets/.$1.new"
    chmod 444 "$secrets/.$1.new"
    mv "$secrets/.$1.new" "$secrets/$1"
    echo "wrote $secrets/$1"
}

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

mesh_secrets() {
    printf 'forebay:%s\n' "$(random)" | secret nats_credentials
    password="$(sed -n 's/^forebay://p' "$secrets/nats_credentials")"
    [ -n "$password" ] || {
        echo "init.sh: $secrets/nats_credentials is not of the form forebay:PASSWORD" >&2
        exit 1
    }
    printf 'user: "forebay"\npassword: "%s"\n' "$password" | secret nats_authorization
    {
        echo 'routes: ['
        for server in nats nats-2 nats-3; do
            printf '  "nats://forebay:%s@%s:6222"\n' "$password" "$server"
        done
        echo ']'
    } | secret nats_routes
    random | secret grafana_admin_password
}

if [ "$joins" = no ]; then
    mesh_secrets
elif [ -s "$secrets/nats_credentials" ]; then
    # Read in a container by a user of its own, as above.
    chmod 444 "$secrets/nats_credentials"
else
    echo "init.sh: copy secrets/nats_credentials of the mesh to $secrets first" >&2
    exit 1
fi

socket="${DOCKER_HOST:-unix:///var/run/docker.sock}"
case "$socket" in
    unix://*) socket="${socket#unix://}" ;;
    *)
        echo "init.sh: DOCKER_HOST is $socket; the launcher needs a Unix socket of this machine" >&2
        exit 1 ;;
esac

# setting NAME VALUE: written unless the file has it.
setting() {
    if grep -q "^$1=" "$env_file" 2> /dev/null; then return 0; fi
    printf '%s=%s\n' "$1" "$2" >> "$env_file"
    echo "wrote $1=$2 to $env_file"
}

if [ ! -e "$env_file" ]; then
    echo "# Settings of deploy/compose.yaml; .env.example has them all." > "$env_file"
fi
if [ "$(uname -s)" = Linux ]; then
    [ -S "$socket" ] || {
        echo "init.sh: there is no socket $socket: start Docker, or say DOCKER_HOST=unix:///path" >&2
        exit 1
    }
    gid="$(stat -L -c %g "$socket")"
    cpus="$(getconf _NPROCESSORS_ONLN)"
    memory_kib="$(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo)"
    # A quarter is left to the services and the system.
    setting FOREBAY_NODE_AGENT_CPUS "$cpus"
    setting FOREBAY_NODE_AGENT_MEMORY_BYTES "$((memory_kib * 1024 / 4 * 3))"
else
    # Docker Desktop: the socket that containers see is of the machine it runs, and root's.
    gid=0
fi
setting DOCKER_GID "$gid"
[ "$socket" = /var/run/docker.sock ] || setting DOCKER_SOCKET "$socket"
name="$(uname -n | tr '[:upper:]' '[:lower:]' | sed 's/\..*//; s/[^a-z0-9-]/-/g; s/^[^a-z]*//; s/-*$//')"
setting FOREBAY_NODE "${name:-node-1}"
[ "$directory" = "$here" ] || setting FOREBAY_SECRETS_DIR "$secrets"
