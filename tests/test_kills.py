"""Kills at random moments over every kind of learner: the same command then ends as if nothing had happened.

Fifty of them take half an hour on one core: ``pytest -m slow tests/test_kills.py``.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sweeping import TINY

sys.path.append(str(Path(__file__).parents[1] / "scripts"))  # last, so that it shadows nothing
from damage_runs import files, results

KILLS, GONE_S, END_S = 50, 10.0, 300.0
SEARCH = """
objectives: [{metric: val/accuracy, direction: maximize}]
trials: 3
sampler: random
overrides: [experiment=own]
space:
  optimizer.learning_rate: {low: 0.001, high: 0.01, log: true}
"""
QUICK = ["data=npz", "data.path=own.npz", *TINY, "baseline=none"]
ONLINE = ["train.encoding=rate", "gates.enabled=false", "halting.enabled=false"]
COMMANDS = {
    "svi": ["run", *QUICK, "train.select=nll"],
    "map": ["run", *QUICK, "learner=map", "gates.enabled=false", "run.report=true"],
    "fptt": ["run", *QUICK, *ONLINE, "learner=fptt", "fptt.window=2", "model.readout=last"],
    "tbptt": ["run", *QUICK, *ONLINE, "learner=tbptt", "tbptt.window=2"],
    "convert": ["run", *QUICK, "learner=convert", "convert.method=max", "convert.epochs=4", "convert.steps=[4]"],
    "population": ["run", *QUICK, "population.size=2"],
    "ensemble": ["run", *QUICK, "bayes.guide=ensemble", "bayes.members=2"],
    "search": ["search", "search=kills", "--config-dir=conf", *QUICK],
    "sweep": ["run", "-m", *QUICK, "seed=1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
}
"""A small command for each kind of learner."""


class Whole(NamedTuple):
    """What a command leaves that nothing disturbs, and the seconds that it takes."""

    root: Path
    seconds: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with data, a search and compiled programs, where all commands are given."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "conf" / "search").mkdir(parents=True)
    (folder / "conf" / "search" / "kills.yaml").write_text(SEARCH, encoding="utf-8")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(240, 6)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
    np.savez(folder / "own.npz", x_train=x[:180], y_train=y[:180], x_test=x[180:], y_test=y[180:])
    return folder


def begun(folder: Path, kind: str, root: str) -> "subprocess.Popen[str]":
    """Returns the process of a command, which leads a session of its own, so that what it started can be found."""
    place = f"root={root}" if kind == "search" else f"run.root={root}"
    cache = str(folder / "programs")
    return subprocess.Popen(
        [sys.executable, "-m", "dsnn", *COMMANDS[kind], place],
        cwd=folder,
        env={**os.environ, "DSNN_CACHE": cache, "JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(folder: Path, kind: str, root: str) -> float:
    """Gives a command, holds it to a good end, and returns the seconds that it took."""
    began = time.monotonic()
    process = begun(folder, kind, root)
    said = process.communicate(timeout=END_S)[0]
    assert process.returncode == 0, said
    assert "Traceback" not in said, said
    return time.monotonic() - began


@pytest.fixture(scope="module")
def wholes(folder: Path) -> dict[str, Whole]:
    """What was run undisturbed so far, by the kind of learner."""
    return {}


def whole(folder: Path, kind: str, wholes: dict[str, Whole]) -> Whole:
    """Returns what a command leaves; given twice, since the first one compiles."""
    if kind not in wholes:
        ended(folder, kind, f"{kind} compiled")
        wholes[kind] = Whole(folder / f"{kind} whole", ended(folder, kind, f"{kind} whole"))
    return wholes[kind]


def of_session(leader: int) -> list[int]:
    """Returns the processes that are alive in a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            status, _, _, session, *_ = stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(session) == leader and status != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("number", range(KILLS))
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    number: int, folder: Path, wholes: dict[str, Whole]
) -> None:
    kind = list(COMMANDS)[number % len(COMMANDS)]
    undisturbed = whole(folder, kind, wholes)
    draw, tried, killed = random.Random(number), 0, False
    while not killed:  # a command that ended before its kill is none that was killed
        tried += 1
        root = f"{kind} {number} {tried}"
        process = begun(folder, kind, root)
        time.sleep(draw.uniform(0.1, 0.95) * undisturbed.seconds)
        process.send_signal(signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
    told = time.monotonic()
    while left := of_session(process.pid):
        assert time.monotonic() - told < GONE_S, f"{left} outlived the command that started them"
        time.sleep(0.05)
    ended(folder, kind, root)
    found, wanted = results(folder / root), results(undisturbed.root)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert files(folder / root) == files(undisturbed.root)
