"""What the tests of sweeps share: a network that learns in seconds, and the door in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from dsnn import store

TINY = [
    "model.hidden=[12]",
    "train.steps=4",
    "train.epochs=4",
    "train.eval_every=2",
    "train.checkpoint_s=0",
    "bayes.samples=3",
    "run.report=false",
    "track.wandb=disabled",
]
CLOCKS = ("time/", "carbon/", "compute/speedup", "compute/full_ms", "compute/deployed_ms", "population/")


def door(*arguments: str, module: str = "experiments.run") -> list[str]:
    return [sys.executable, "-m", module, *TINY, *arguments]


def ran(*arguments: str, code: int | None = 0, module: str = "experiments.run", **environment: str) -> str:
    done = subprocess.run(
        door(*arguments, module=module), capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    said = done.stdout + done.stderr
    assert code is None or done.returncode == code, said
    assert "Traceback" not in said, said
    return said


def timeless(directory: Path) -> dict:
    return {k: v for k, v in store.read_metrics(directory).items() if not k.startswith(CLOCKS)}


def finished(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/DONE"))
