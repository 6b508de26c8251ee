"""A deep ensemble of finished runs: ``python -m experiments.ensemble run=DIR,DIR[,DIR] [json=FILE]``.

The predictive of the ensemble (Lakshminarayanan et al. 2017) is the mean of its members' predictives, each drawn as in
its own assessment. Members are trained, and their epochs selected, one by one; nothing is chosen here. The table has
every member and the ensemble on the same test part; the energy of an ensemble is the sum of its members'.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dsnn import data, store, tasks
from dsnn.run import assess
from dsnn.run.finished import Finished, finished, options

KNOWN = {"run": "", "json": "", "trust": "false"}
ENERGIES = {
    "energy/nj": "energy/{}/snn_nj",
    "energy/arithmetic/nj": "energy/{}/arithmetic/snn_nj",
    "energy/memory/nj": "energy/{}/memory/snn_nj",
}


def test_probabilities(run: Finished) -> np.ndarray:
    """Returns a member's predictive class probabilities on its test part, ``[n, class]`` or ``[n, time, class]``."""
    setup, settled = run.setup, run.settled
    ask = assess.asking(setup, settled, setup.task.predictor(setup.bayesian))
    return np.asarray(ask(setup.split.test.x).probs)


def scores(run: Finished, probs: np.ndarray) -> dict[str, float]:
    """Returns the test scores of class probabilities under the rules of a run's task."""
    return run.setup.task.averaged(probs, run.setup.task.targets(run.setup.split, "test"))


def ensemble(runs: list[Finished]) -> dict[str, dict[str, float]]:
    """Returns the scores of every member by the name of its directory (its path where names are equal), and "ensemble".

    Raises:
        ValueError: one run alone, or runs with different test parts or without classes.
    """
    if len(runs) < 2:
        raise ValueError(f"an ensemble needs two runs or more, got {len(runs)}; give run=DIR,DIR.")
    first = runs[0].setup.split
    for run in runs:
        split = run.setup.split
        tasks.refuse(run.setup.task, "ensemble", str(run.directory))
        if not _same(first.test.x, split.test.x) or not np.array_equal(first.test.y, split.test.y):
            raise ValueError(f"members must have one test part, {runs[0].directory} and {run.directory} differ.")
    names = [run.directory.name for run in runs]
    if len({*names, "ensemble"}) <= len(runs):
        names = [str(run.directory) for run in runs]
    probs = [test_probabilities(run) for run in runs]
    members = [scores(run, own) | _energies(run) for run, own in zip(runs, probs, strict=True)]
    whole = scores(runs[0], np.mean(probs, 0))
    whole |= {name: sum(m[name] for m in members) for name in ENERGIES if all(name in m for m in members)}
    return dict(zip(names, members, strict=True)) | {"ensemble": whole}


def _same(one: Any, other: Any) -> bool:
    """Returns whether two parts hold the same inputs; those of a stream are compared a batch at a time."""
    if not isinstance(one, data.Streamed) or not isinstance(other, data.Streamed):
        return bool(np.array_equal(one, other))
    rows = range(0, len(one), tasks.EVAL_BATCH)
    numbers = (np.arange(start, min(start + tasks.EVAL_BATCH, len(one))) for start in rows)
    return one.shape == other.shape and all(np.array_equal(one[some], other[some]) for some in numbers)


def _energies(run: Finished) -> dict[str, float]:
    metrics, profile = store.read_metrics(run.directory), run.setup.config.energy.profile
    found = {name: metrics.get(key.format(profile)) for name, key in ENERGIES.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def markdown(table: dict[str, dict[str, float]]) -> str:
    """Returns the table as Markdown, a row for each network."""
    names = list(table["ensemble"])
    rows = [["", *names], ["---"] * (len(names) + 1)]
    rows += [[name, *(f"{found.get(key, float('nan')):.4g}" for key in names)] for name, found in table.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; returns 2 when the call cannot be meant."""
    try:
        given = options(sys.argv[1:] if arguments is None else arguments, KNOWN)
        table = ensemble([finished(directory) for directory in given["run"].split(",")])
    except (ValueError, store.RunDirError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(table))
    if given["json"]:
        Path(given["json"]).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
