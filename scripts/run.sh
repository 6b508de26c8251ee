#!/usr/bin/env bash
# bash scripts/run.sh [overrides]: trains, evaluates and reports; without overrides the digits experiment.
# DSNN_EXTRAS=cuda (or carbon, nir, comma separated) installs more than the CPU and the sweep tools.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
setup sweep
exec "$PYTHON" -P -m dsnn run "$@"
