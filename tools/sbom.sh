#!/usr/bin/env bash
# Writes a bill of materials of what an environment holds (CycloneDX, JSON): tools/sbom.sh VENV FILE
# Needs cyclonedx-py (pip install cyclonedx-bom), in whatever environment.
set -euo pipefail
venv=${1:?VENV FILE} file=${2:?VENV FILE}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cyclonedx-py environment "$venv/bin/python" --pyproject "$root/pyproject.toml" --mc-type application \
    --output-reproducible --output-format JSON --output-file "$file"
