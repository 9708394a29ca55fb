#!/usr/bin/env bash
# Make an environment for each trainer that has an adapter: setup.sh [trl] [tunix]
# The trainers' versions stand in benchmarks/peers, whose environments these are; here comes what
# the selectors need.
set -euo pipefail
root=${DPSJAX_PEERS:-$HOME/.cache/dpsjax-peers}
[ $# -gt 0 ] || set -- trl tunix
bash "$(dirname "$0")/../../benchmarks/peers/setup.sh" "$@"
for side in "$@"; do
  "$root/$side/bin/python" -m pip install --quiet jax==0.10.2 jaxtyping==0.3.11
done
