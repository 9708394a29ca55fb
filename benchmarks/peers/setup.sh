#!/usr/bin/env bash
# Make an environment for each peer: setup.sh [trl] [tunix]
# Where: $DPSJAX_PEERS, by default ~/.cache/dpsjax-peers. Which Python: $PYTHON (3.11 or later).
# torch: the CPU build serves; on Linux the default index has it with CUDA only, some 3 GB more, so
# point pip at an index or a folder with CPU wheels (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS) if you
# can: "2.13.0" then means "2.13.0+cpu".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${DPSJAX_PEERS:-$HOME/.cache/dpsjax-peers}
python=${PYTHON:-python3}
mkdir -p "$root"
[ $# -gt 0 ] || set -- trl tunix
for side in "$@"; do
  [ -f "$here/requirements-$side.txt" ] || { echo "no such side: $side" >&2; exit 2; }
  "$python" -m venv "$root/$side"
  "$root/$side/bin/python" -m pip install --quiet -r "$here/requirements-$side.txt"
  "$root/$side/bin/python" -m pip freeze --exclude-editable >"$root/$side/freeze.txt"
  echo "$side: $root/$side/bin/python"
done
