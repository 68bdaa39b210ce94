#!/usr/bin/env bash
# Writes requirements/ci.lock: every package that tests and lint need, with its version and the hashes of its files.
# Run it after a pin of constraints.txt has moved. Needs uv (pip install uv) and an index.
#
#   tools/lock.sh [--check]     --check only says whether the lock is up to date
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../requirements"
check=${1:-}
made=$(mktemp)
trap 'rm -f "$made"' EXIT
[[ $check == --check ]] || rm -f ci.lock
[[ ! -e ci.lock ]] || cp ci.lock "$made"  # what is locked stays, unless a pin says otherwise
uv pip compile --quiet --generate-hashes --universal --python-version 3.10 --constraints constraints.txt \
    --custom-compile-command "tools/lock.sh" --output-file "$made" runtime.txt dev.txt networks.txt view.txt
if [[ $check == --check ]]; then
    cmp -s "$made" ci.lock || { echo "lock: requirements/ci.lock is not up to date: run tools/lock.sh" >&2; exit 1; }
    exit 0
fi
mv "$made" ci.lock
chmod 644 ci.lock
