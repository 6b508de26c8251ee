#!/usr/bin/env bash
# bash scripts/lock.sh python3.13: writes requirements-3.13.lock from a clean environment with the newest versions.
set -eu
export PYTHON="${1:?say which interpreter, such as python3.13}"
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
found="$(interpreter "$ASKED")" || die "$ASKED is no Python 3.11 or newer that runs."
name="$(version "$found")"
clean="$(mktemp -d)"
trap 'rm -rf "$clean"' EXIT
extras=dev,sweep,nir,data,carbon,docs
"$found" -m venv "$clean"
"$clean/bin/python" -m pip install --quiet -e "$ROOT[$extras]"
pins="$("$clean/bin/python" -m pip freeze --exclude-editable)"
{
    echo "# Exact versions for CPU on Python $name, of dsnn with the extras ${extras//,/, }."
    echo "# Constraints, not requirements: scripts/setup.sh installs what pyproject.toml asks for at these versions."
    echo "# Written by: bash scripts/lock.sh python$name"
    tr 'A-Z_' 'a-z-' <<<"$pins" | LC_ALL=C sort -t = -k 1,1
} >"$ROOT/requirements-$name.lock"
