#!/usr/bin/env bash
# bash scripts/run.sh [overrides]: trains, evaluates and reports; without overrides the digits experiment.
# DSNN_EXTRAS=cuda (or cuda13, carbon, nir, comma separated) installs more than the CPU and the sweep tools;
# PYTHON=python3.13 says which interpreter .venv is made with.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup sweep
exec "$PYTHON" -P -m dsnn run "$@"
