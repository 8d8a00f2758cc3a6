#!/bin/sh
# Takes out of a Triton home what this image never runs, and puts the server where its wrapper
# looks for it.
#
#   trim.sh HOME
set -eu

home="$1"
mkdir "$home/libexec"
mv "$home/bin/tritonserver" "$home/libexec/tritonserver"

# The base image has its interpreter's library; a second copy is 20 MB.
for library in "$home"/lib/libpython3.[0-9]*.so.1.0; do
    if ldconfig -p | grep -q "$(basename "$library")"; then rm "$library"; fi
done

# The wheel carries libraries for the stubs of every Python: those nobody here is linked to go.
# Names of a wheel's libraries have a hash in them, so nothing finds them by another way.
linked="$(LD_LIBRARY_PATH="$home/lib" ldd "$home/libexec/tritonserver" \
    "$home/backends/python/libtriton_python.so" \
    "$home/backends/python/triton_python_backend_stub")"
if echo "$linked" | grep 'not found'; then
    echo "trim.sh: libraries above are missing: Triton would not start" >&2
    exit 1
fi
for library in "$home"/lib/*; do
    echo "$linked" | grep -qF "/$(basename "$library") " || rm "$library"
done

# pip is for the environments of models; what packages it brings for itself stays, their caches go.
find "$home" -name __pycache__ -type d -prune -exec rm -rf {} +
rm -rf "$home"/base-env/lib/python3*/site-packages/numpy/*/tests
