#!/usr/bin/env bash
# Make an environment for each trainer that has an adapter: setup.sh [trl] [tunix] [skyrl] [verl] [prime_rl]
# The versions of TRL and tunix stand in benchmarks/peers, whose environments these are; here come
# those of the others, which need GPUs and are installed without what needs one, and what the
# selectors need. torch: see benchmarks/peers/setup.sh. prime-rl is in no registry: PRIME_RL says
# where its repository is, an address that git knows.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${DPSJAX_PEERS:-$HOME/.cache/dpsjax-peers}
python=${PYTHON:-python3}
[ $# -gt 0 ] || set -- trl tunix skyrl verl prime_rl

install() { "$root/$side/bin/python" -m pip install --quiet "$@"; }

for side in "$@"; do
  case $side in
  trl | tunix) bash "$here/../../benchmarks/peers/setup.sh" "$side" ;;
  *) "$python" -m venv "$root/$side" ;;
  esac
  case $side in
  skyrl)
    install -r "$here/requirements-skyrl.txt"
    install --no-deps --ignore-requires-python skyrl==0.4.0 skyrl-gym==0.4.0
    ;;
  verl) install torch==2.13.0 verl==0.9.1 TransferQueue==0.1.11 cachetools ;;
  prime_rl)
    install verifiers==0.4.0 pybase64 hatchling
    source=$(mktemp -d)
    git clone --quiet --no-checkout "${PRIME_RL:-https://github.com/PrimeIntellect-ai/prime-rl}" "$source"
    git -C "$source" checkout --quiet 559b44772e471d1538537b8805cc77f3824a5e64 -- src packages pyproject.toml README.md
    install --no-deps --ignore-requires-python "$source/packages/prime-rl-configs" "$source"
    rm -rf "$source"
    ;;
  esac
  install jax==0.10.2 jaxtyping==0.3.11
done
