#!/bin/sh
# Makes a virtual environment with pip in it, without root.
#
#   scripts/make_venv.sh PYTHON DIRECTORY
#
# Debian and Ubuntu keep pip's wheels out of Python (package python3-venv). Where they are missing,
# pip comes from the Python's own pip if it has one, else from the package python3-pip-whl, which
# is downloaded and unpacked, not installed.
set -eu

python=$1
directory=$2

if "$python" -c 'import ensurepip' 2>/dev/null; then
    exec "$python" -m venv --clear "$directory"
fi

"$python" -m venv --clear --without-pip "$directory"

if "$python" -m pip --version >/dev/null 2>&1; then
    exec "$python" -m pip --python "$directory/bin/python" install --quiet pip
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

download() {
    (cd "$scratch" && apt-get -q "$@" download python3-pip-whl >>"$scratch/log" 2>&1)
}

download_with_own_lists() {
    mkdir -p "$scratch/lists/partial" "$scratch/cache/archives/partial"
    # Lists and cache in a directory of ours; apt's own user could not enter it, and hooks of the
    # machine would clean up what belongs to root.
    set -- -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User= \
        -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success=
    apt-get -q "$@" update >>"$scratch/log" 2>&1 && download "$@"
}

if ! command -v apt-get >/dev/null || ! { download || download_with_own_lists; }; then
    test -s "$scratch/log" && tail -n 5 "$scratch/log" >&2
    echo "$python cannot install pip into a virtual environment. Install Python's venv" \
        "(Debian, Ubuntu: apt-get install python3-venv) and try again." >&2
    rm -rf "$directory"
    exit 1
fi

dpkg -x "$scratch"/python3-pip-whl_*.deb "$scratch/unpacked"
wheel=$(ls "$scratch"/unpacked/usr/share/python-wheels/pip-*.whl)
"$directory/bin/python" "$wheel/pip" install --quiet --no-index "$wheel"
