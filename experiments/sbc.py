"""Simulation-based calibration of a stochastic LIF neuron: ``python -m experiments.sbc [FILE.json] [SEED]``."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from dsnn import rng
from dsnn.bayes import sbc
from dsnn.run.console import console
from experiments import recorded_lif

REPLICATES = 200


def main(file: str | None = None, seed: str = "0") -> int:
    """Prints p-values and coverages; returns 0 if all are as an exact posterior has them."""
    started = time.monotonic()
    result = sbc.calibrate(
        recorded_lif.model(),
        "spikes",
        rng.root(int(seed)),
        replicates=REPLICATES,
        progress=lambda done, total: console.print(f"{done} of {total} replicates"),
    )
    rows = {
        name: {
            "chi_square_p": result.p_value(name),
            "coverage_90": result.coverage(name),
            "correlation": float(np.corrcoef(np.log(result.truth[name]), np.log(result.mean[name]))[0, 1]),
        }
        for name in result.ranks
    }
    for name, row in rows.items():
        console.print(f"{name:10s}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    console.print(f"{time.monotonic() - started:.0f} s")
    if file is not None:
        Path(file).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(r["chi_square_p"] < 0.01 or not 0.85 <= r["coverage_90"] <= 0.95 for r in rows.values()))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
