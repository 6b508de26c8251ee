#!/usr/bin/env bash
# bash scripts/test.sh [pytest arguments]: ruff, the format check, the type checker, then pytest. All of them run.
# Without arguments one variant of each test runs (`--variants 0`: all, see tests/variants.py), and a quick part of the
# tests follows on the newest Python that is found, in an environment of its own.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
EXTRAS=dev,sweep,nir,data
setup "$EXTRAS"
cd "$ROOT" || exit

# What another version of Python, JAX, Flax or NumPy would break first, in about two minutes.
QUICK=(
    tests/test_imports.py
    tests/test_contracts.py
    tests/test_derivatives.py
    tests/test_meaning.py
    tests/test_rng.py
    tests/test_rundir.py
    tests/test_api.py::test_fit_learns_and_predict_says_how_sure_it_is
)

TWO=(-n 2 --dist loadfile --no-loadscope-reorder) # the order of files is that of tests/conftest.py
failed=""
check() {
    local name="$1" started=$SECONDS
    shift
    "$@" || failed="$failed${failed:+, }$name"
    echo "dsnn: $name took $((SECONDS - started)) s." >&2
}

newer() { # the newest interpreter that has a lock file, where that is newer than the environment's
    local own name
    own="$(version "$PYTHON")"
    for name in $(locked); do
        ((${name#3.} > ${own#3.})) || return
        interpreter "python$name" && return
    done
    return 1
}

quick() ( # in a subshell: an installation that fails is a failed check
    ASKED="$1"
    VENV="$ROOT/.venv-$(version "$1")"
    PYTHON="$VENV/bin/python"
    setup "$EXTRAS"
    "$PYTHON" -m pytest --variants 1 "${TWO[@]}" "${QUICK[@]}"
)

check "ruff check" "$PYTHON" -m ruff check .
check "ruff format --check" "$PYTHON" -m ruff format --check .
check "mypy" "$PYTHON" -m mypy
check "pytest" "$PYTHON" -m pytest "${TWO[@]}" "$@"
if [ $# = 0 ]; then
    if found="$(newer)"; then
        check "pytest on Python $(version "$found")" quick "$found"
    else
        echo "dsnn: no Python newer than $(version "$PYTHON") was found; the tests ran on that one alone." >&2
    fi
fi
[ -z "$failed" ] || die "failed: $failed."
