#!/usr/bin/env bash
# Sizes and start times of the two installations: all of aiida-difftre, and its engine alone. Prints a table.
# Usage: measure.sh [PYTHON]; some 3 GB in a temporary folder, and minutes.
set -euo pipefail
python=${1:-python3}
tree=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export DIFFTRE_CACHE=$folder/cache PIP_DISABLE_PIP_VERSION_CHECK=1

seconds() { # COMMAND...: wall time, s
    local began
    began=$(date +%s.%N)
    "$@" >/dev/null
    awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }'
}

row() { # NAME PIP-ARGUMENTS...
    local name=$1 environment=$folder/environment began
    shift
    rm -rf "$environment"
    "$python" -m venv "$environment"
    began=$SECONDS
    "$environment/bin/pip" install -q "$@"
    if [ "$name" = engine ]; then "$environment/bin/pip" install -q --no-deps 'jax-md>=0.2.29,<0.3'; fi
    local installed=$((SECONDS - began)) bin=$environment/bin
    local size packages first again
    size=$(du -sm "$environment" | cut -f1)
    packages=$("$bin/pip" list --format freeze | wc -l)
    first=$(seconds "$bin/difftre" --version)
    again=$(seconds "$bin/python" -c 'import aiida_difftre.engine.jobs.sample')
    rm -rf "$folder/job" "$DIFFTRE_CACHE"
    mkdir "$folder/job"
    "$bin/python" "$tree/packaging/engine/tiny_job.py" "$folder/job"
    echo "| $name | $size | $packages | $installed | $first | $again | $(seconds "$bin/difftre" sample "$folder/job/job.json") |"
}

echo "| installation | MB | packages | installed in s | first start, s | import of sampling, s | sampling of 32 atoms, nothing compiled, s |"
echo "|---|---|---|---|---|---|---|"
row all "$tree"
row engine "$tree/packaging/engine"
