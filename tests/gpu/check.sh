#!/usr/bin/env bash
# The engine on a GPU: known answers against the CPU, compile times, throughput, an update, memory. Writes JSON.
# Usage: check.sh [OUTPUT] [OPTIONS of check.py]; six minutes at most, and nothing from a network.
# LIMIT: s, for all of it (360). PYTHON: the Python that has JAX with CUDA (python3). WHEELS: a folder of wheels of what else it lacks, put in with
#   pip download --no-deps -d wheels absl-py ase jaxtyping jraph optax periodictable pydantic pydantic-core pymbar \
#       safetensors typing-inspection annotated-types 'jax-md>=0.2.29,<0.3'
set -euo pipefail
tree=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3}
output=${1:-gpu.json}
shift || true
export PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    "$python" -m pip install -q --no-index --no-deps --target "$packages" "$WHEELS"/*.whl
    export PYTHONPATH=$PYTHONPATH:$packages
fi
timeout "${LIMIT:-360}" "$python" "$tree/tests/gpu/check.py" --output "$output" "$@"
