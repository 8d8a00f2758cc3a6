#!/bin/sh
# Generates the Python stubs of protos/ with the pinned generator.
#
#   scripts/make_stubs.sh PYTHON [DIRECTORY]
#
# PYTHON has grpcio-tools; DIRECTORY is the Python root, the repository's unless said otherwise.
set -eu

python=$1
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
into=${2:-$root}

cd "$root/protos"
exec "$python" -m grpc_tools.protoc --proto_path=. \
    --python_out="$into" --pyi_out="$into" --grpc_python_out="$into" forebay/v1/*.proto
