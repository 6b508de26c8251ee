# Sourced by run.sh and test.sh. `setup EXTRA,...` leaves $PYTHON pointing at a .venv that holds dsnn and those extras
# at the versions of requirements.lock. A stamp of all that decides the outcome makes every later call a mere look.

ROOT="$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"

die() {
    echo "dsnn: $*" >&2
    exit 1
}

recent() { # a name on the PATH is not enough: a version manager's shim may stand there for nothing
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

make_venv() {
    local candidate
    for candidate in python3.12 python3.11 python3 python3.13 python3.14 python; do
        if recent "$candidate"; then
            "$candidate" -m venv --clear "$VENV" >&2 ||
                die "$candidate cannot make a virtual environment; on Debian or Ubuntu install the package python3-venv."
            return
        fi
    done
    if command -v uv >/dev/null; then # uv brings its own Python
        uv venv --quiet --seed --clear --python 3.12 "$VENV" >&2 && return
    fi
    die "no Python 3.11 or newer was found; install one (python.org, your system's packages, or uv) and run this again."
}

install() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$PYTHON" -c "$ROOT/requirements.lock" -e "$1" >&2 && return
        echo "dsnn: uv could not install; trying pip." >&2
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$ROOT/requirements.lock" -e "$1" >&2
}

setup() {
    local extras="$1${DSNN_EXTRAS:+,$DSNN_EXTRAS}" stamp now
    stamp="$VENV/dsnn-${extras//,/-}.stamp"
    now="$ROOT $extras $(cat "$ROOT/pyproject.toml" "$ROOT/requirements.lock" | cksum)"
    if [ -x "$PYTHON" ] && [ -f "$stamp" ] && [ "$(<"$stamp")" = "$now" ]; then
        return
    fi
    # An interrupted call may have left an environment without pip.
    { "$PYTHON" -c 'import pip' || "$PYTHON" -m ensurepip; } >/dev/null 2>&1 || make_venv
    recent "$PYTHON" || die "the Python in $VENV is older than 3.11; remove that folder and run this again."
    echo "dsnn: installing into .venv (once; a minute or two)." >&2
    install "$ROOT[$extras]" ||
        die "the installation failed, for the reason above; the next call tries again."
    printf '%s' "$now" >"$stamp"
}
