#!/bin/sh
# Checks that protos/ breaks nobody who was built against main.
#
#   scripts/check_breaking.sh BUF
set -eu

buf=$1

for main in origin/main main; do
    if git rev-parse --quiet --verify "$main:protos" >/dev/null 2>&1; then
        base=$(mktemp -d)
        trap 'rm -rf "$base"' EXIT
        git archive "$main" buf.yaml protos | tar -x -C "$base"
        "$buf" breaking --against "$base"
        exit
    fi
done
echo "buf breaking: this clone has no main to compare protos/ with; skipped."
