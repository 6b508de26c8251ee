"""The record of a sweep: which jobs it has, how each ended, and whether the whole is done.

A sweep is named by its overrides, so the same command goes on with the same record and the same W&B group. Each job
adds a line when it starts and a line when it ends; the last line about a job says how it stands.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ELSEWHERE = ("run", "track", "compute", "resume", "data.root")  # may change when a sweep goes on
LOST = "failed: its process ended without a word (killed, or out of memory)"


def record_file(root: Path, arguments: Iterable[str]) -> Path:
    """Returns where the sweep of a command line is recorded, ``<root>/sweeps/<name>.jsonl``."""
    told = (a for a in arguments if not a.startswith(("-", "hydra")))
    told = (a for a in told if not any(f"{a.split('=')[0]}.".startswith(f"{name}.") for name in ELSEWHERE))
    words = sorted(told)
    experiment = next((w.split("=", 1)[1] for w in words if w.startswith("experiment=")), "sweep")
    name = experiment.replace(",", "+")[:40]
    return root / "sweeps" / f"{name}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}.jsonl"


def add(record: Path, entry: dict[str, Any]) -> None:
    """Adds a line; one write, so that the lines of parallel jobs do not mix."""
    file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(file)


def jobs(record: Path) -> list[dict[str, Any]]:
    """Returns the last entry of each job, in the order in which they first started; torn lines are passed over."""
    last: dict[str, dict[str, Any]] = {}
    for line in record.read_text().splitlines() if record.exists() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        last[entry["overrides"]] = entry
    return [job | {"status": LOST} if job["status"] == "running" else job for job in last.values()]


def draw_front(jobs: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draws accuracy over modelled energy of the deployed networks of a sweep, and returns the path.

    None where fewer than two jobs know both, or none differs in energy.
    """
    done = [job for job in jobs if "deployed/accuracy" in job.get("metrics", {})]
    metrics = [job["metrics"] for job in done]
    # jobs that differ in their seed alone are one configuration
    words = [[word for word in str(job["overrides"]).split(" ") if not word.startswith("seed=")] for job in done]
    settings = [" ".join(word for word in own if not all(word in other for other in words)) for own in words]
    names = {name for m in metrics for name in m if name.startswith("energy/") and name.endswith("/snn_nj")}
    own = sorted(name for name in names if name.count("/") == 2 and all(name in m for m in metrics))
    if len(metrics) < 2 or not own or len({m[own[0]] for m in metrics}) < 2:
        return None
    # Matplotlib is not worth its start-up to every other command
    from dsnn import plots

    figure = plots.accuracy_energy(
        np.array([m[own[0]] for m in metrics]),
        np.array([m["deployed/accuracy"] for m in metrics]),
        settings,
        own[0].split("/")[1],
    )
    return plots.save_png(figure, path)
