#!/usr/bin/env bash
# bash scripts/test.sh [pytest arguments]: ruff, the format check, the type checker, then pytest. All of them run.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup dev,sweep,nir,data
cd "$ROOT" || exit

failed=""
check() {
    local name="$1" started=$SECONDS
    shift
    "$PYTHON" -m "$@" || failed="$failed${failed:+, }$name"
    echo "dsnn: $name took $((SECONDS - started)) s." >&2
}
check "ruff check" ruff check .
check "ruff format --check" ruff format --check .
check "mypy" mypy
check "pytest" pytest -n 2 --dist loadfile "$@"
[ -z "$failed" ] || die "failed: $failed."
