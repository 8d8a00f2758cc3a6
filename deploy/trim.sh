#!/bin/sh
# Takes out of a virtual environment what only building and testing need, and compiles the rest.
#
#   trim.sh ENVIRONMENT
set -eu

environment="$1"
python="$environment/bin/python"
packages="$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"

"$environment/bin/pip" uninstall --quiet --yes setuptools wheel
"$environment/bin/pip" uninstall --quiet --yes pip
rm -rf "$environment"/include "$environment"/share/man
find "$packages" -type d \( -name tests -o -name testing -o -name test \) -prune \
    ! -path '*/numpy/testing' -exec rm -rf {} +
# Sources of extensions, of use to a compiler.
find "$packages" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \
    -o -name '*.hpp' -o -name '*.a' -o -name '*.pyi' \) -delete
# By the file's content rather than its time: an image keeps the times it was built with.
find "$packages" -name __pycache__ -type d -prune -exec rm -rf {} +
"$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
