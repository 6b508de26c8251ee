#!/usr/bin/env bash
# bash scripts/gpu_check.sh [options]: everything that only a GPU can show, in one table to send back and one JSON file.
# It compares the kernels with the scan, runs programs on the device and on the CPU, runs the tests of both, and the
# benchmark against the frameworks that it finds. DSNN_CUDA=cuda13 installs JAX for CUDA 13; --help lists the options.
# Without a GPU it says so and ends; --cpu walks through all of it with tiny sizes.
set -u
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
dry=""
for argument in "$@"; do
    case "$argument" in --cpu | --help | -h) dry=1 ;; esac
done
if [ -z "$dry" ] && ! nvidia-smi -L >/dev/null 2>&1; then
    die "gpu_check needs an NVIDIA GPU, got none that nvidia-smi sees; --cpu walks through all of it with tiny sizes."
fi
if [ -n "$dry" ]; then setup dev; else setup "dev,${DSNN_CUDA:-cuda}"; fi
cd "$ROOT" || exit
exec "$PYTHON" scripts/gpu_check.py "$@"
