#!/bin/sh
# Installs one lock into the virtual environment of an image: `install.sh LOCK [PIP OPTIONS…]`, run while it is built.
set -eu
lock=$1
shift
python -m pip --python /opt/venv/bin/python install --no-compile --no-deps --require-hashes --find-links /wheels \
    -r "$lock" "$@"
python -m pip --python /opt/venv/bin/python check
packages=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python prune.py "$packages" /opt/venv/bin
# Byte code that is never compared with its source: its times do not survive every way of copying an image.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages"
