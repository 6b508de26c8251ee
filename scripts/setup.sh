# Sourced by the other scripts. `setup EXTRA,...` leaves $PYTHON pointing at an environment, .venv, that holds dsnn and
# those extras at the versions of its Python's lock file. A stamp of all that decides the outcome makes every later call
# a mere look. PYTHON=python3.13 (a name or a path) asks for an interpreter; an environment of another version is made anew.

ROOT="$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
ASKED="${PYTHON:-}"
unset PYTHON # what is run in the environment is not to take its interpreter for somebody's wish
VENV="$ROOT/.venv"
PYTHON="$VENV/bin/python"

die() {
    echo "dsnn: $*" >&2
    exit 1
}

version() { # "3.13"; a name on the PATH is not enough: a version manager's shim may stand there for nothing
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

recent() {
    [[ "$(version "$1")" =~ ^3\.([0-9]+)$ ]] && ((BASH_REMATCH[1] >= 11))
}

locked() { # the Pythons that have a lock file, newest first
    local minor
    for ((minor = 40; minor >= 11; minor--)); do
        [ ! -f "$ROOT/requirements-3.$minor.lock" ] || echo "3.$minor"
    done
}

interpreter() { # what a name stands for: the command, else what pyenv has installed without switching it on
    local candidate
    for candidate in "$1" "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/"$1"; do
        recent "$candidate" && echo "$candidate" && return
    done
    return 1
}

choose() { # the user's own python3 where it has a lock file, else the newest that has one, else any
    local name
    if [ -f "$ROOT/requirements-$(version python3).lock" ]; then
        echo python3
        return
    fi
    for name in $(locked) 3 "" 3.14; do
        interpreter "python$name" && return
    done
    return 1
}

make_venv() {
    local python="$ASKED" name
    if [ -n "$python" ] || python="$(choose)"; then
        "$python" -m venv --clear "$VENV" >&2 ||
            die "$python cannot make a virtual environment; on Debian or Ubuntu install the package python3-venv."
        return
    fi
    if command -v uv >/dev/null; then # uv brings its own Python
        for name in $(locked); do
            uv venv --quiet --seed --clear --python "$name" "$VENV" >&2 && return
        done
    fi
    die "no Python 3.11 or newer was found; install one (python.org, your system's packages, or uv) and run this again."
}

lock_of() { # the lock file of a version; the newest for a Python that is newer than all of them
    local newest
    read -r newest <<<"$(locked)"
    if [ -f "$ROOT/requirements-$1.lock" ]; then
        echo "$ROOT/requirements-$1.lock"
    else
        echo "dsnn: Python $1 has no lock file yet; taking that of $newest (PYTHON=python$newest is what was tried)." >&2
        echo "$ROOT/requirements-$newest.lock"
    fi
}

install() {
    local lock
    lock="$(lock_of "$(version "$PYTHON")")"
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$PYTHON" -c "$lock" -e "$1" >&2 && return
        echo "dsnn: uv could not install; trying pip." >&2
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -c "$lock" -e "$1" >&2
}

outcome() { # what decides it; pyvenv.cfg tells of an environment that somebody made anew by hand
    echo "$ROOT $1 $(cat "$ROOT/pyproject.toml" "$ROOT"/requirements-*.lock "$VENV/pyvenv.cfg" 2>/dev/null | cksum)"
}

setup() {
    local extras="$1${DSNN_EXTRAS:+,$DSNN_EXTRAS}" stamp found wanted=""
    if [ -n "$ASKED" ]; then
        found="$(interpreter "$ASKED")" ||
            die "PYTHON must name a Python 3.11 or newer that runs, got $ASKED; write PYTHON=python3.13, or its path."
        ASKED="$found"
        wanted="$(version "$ASKED")"
    fi
    stamp="$VENV/dsnn-${extras//,/-}.stamp"
    if [ -x "$PYTHON" ] && [ -f "$stamp" ] && [[ "$(<"$stamp")" = "$(outcome "$extras") $wanted"* ]]; then
        return
    fi
    if [ -n "$wanted" ] && [ "$(version "$PYTHON")" != "$wanted" ]; then
        make_venv
    fi
    # An interrupted call may have left an environment without pip.
    { "$PYTHON" -c 'import pip' || "$PYTHON" -m ensurepip; } >/dev/null 2>&1 || make_venv
    recent "$PYTHON" || die "the Python in $VENV is older than 3.11; remove that folder and run this again."
    echo "dsnn: installing into ${VENV##*/} (once; a minute or two)." >&2
    install "$ROOT[$extras]" ||
        die "the installation failed, for the reason above; the next call tries again."
    printf '%s' "$(outcome "$extras") $(version "$PYTHON")" >"$stamp"
}
