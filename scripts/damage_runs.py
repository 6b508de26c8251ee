"""What `damage.py` damages: small runs, finished and killed, sweeps, searches, and the commands that read them.

Everything is made in the current folder, by the commands that a user gives, on data of two classes.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dsnn
from dsnn import store
from dsnn.report import runs as runs_page
from dsnn.run import main, task

DATA, RUN, OTHER, SMALL, FITTED = "own.npz", "run", "other", "small", "fitted"
CLOCKS = ("time/", "carbon/", "compute/speedup", "compute/full_ms", "compute/deployed_ms")
QUICK = (
    *("data=npz", f"data.path={DATA}", "model.hidden=[4]", "train.steps=3", "train.epochs=4", "train.eval_every=1"),
    *("train.checkpoint_s=0", "bayes.samples=3", "baseline=none", "track.tool=none", "run.report=false"),
)
SEARCH = """
objectives: [{metric: val/accuracy, direction: maximize}]
trials: 2
sampler: random
overrides: [experiment=own]
space:
  optimizer.learning_rate: {low: 0.001, high: 0.01, log: true}
"""
KILLED = """
import os, signal, sys
from dsnn.run import main
from dsnn.store import checkpoint
save, left = checkpoint.save, [2]
def save_and_die(*given, **named):
    save(*given, **named)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = save_and_die
sys.argv = ["dsnn", *sys.argv[1:]]
main.main()
"""
"""A command that is killed once its second checkpoint is written."""


class Refused(RuntimeError):
    """What a command complained of, whose exit status was not 0."""


class Crash(RuntimeError):
    """A traceback, where a sentence or a result was promised."""


class Kind(NamedTuple):
    """A kind of thing that is damaged.

    Attributes:
        make: makes it in the current folder.
        readers: what reads it and changes nothing, by name; each returns what it found, and is held to it where the
            kind is sealed.
        again: the command that made it, which is to end in the same results; empty where there is none.
        anew: whether that command can begin anew with resume=false.
        place: the file or folder that is damaged.
        sealed: whether its files have digests, so that no reader may find anything else in them.
    """

    make: Callable[[], None]
    readers: Mapping[str, Callable[[], str]]
    again: tuple[str, ...] = ()
    anew: bool = False
    place: str = RUN
    sealed: bool = True


def command(*words: str) -> str:
    """Gives a command in this process, and returns what it printed.

    Raises:
        Refused: its exit status is not 0.
        Crash: it ended with a traceback, or printed one.
    """
    said, complaint, status = io.StringIO(), io.StringIO(), 1
    sys.argv = ["dsnn", *words]
    task.failures.clear()
    task.unrecorded.clear()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
        try:
            status = main.main()
        except SystemExit as end:
            status = int(end.code) if isinstance(end.code, int) else 1
        except Exception:
            raise Crash(traceback.format_exc()) from None
        finally:
            for name in (task.SWEEP, task.COMMAND):
                os.environ.pop(name, None)
    if "Traceback" in said.getvalue() + complaint.getvalue():
        raise Crash(said.getvalue() + complaint.getvalue())
    if status:
        raise Refused(complaint.getvalue().strip() or said.getvalue().strip())
    return said.getvalue() + complaint.getvalue()


def killed(*words: str) -> None:
    """Gives a command in a process that is killed after its second checkpoint."""
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    if done.returncode != -9:
        raise RuntimeError(f"the command was to be killed, got exit status {done.returncode}: {done.stderr}")


def results(folder: Path) -> dict[str, object]:
    """Returns what every run below a folder found, without clocks; of one that is not whole that it is so."""
    found: dict[str, object] = {}
    for run in sorted({path.parent for name in ("config.yaml", store.DONE) for path in folder.rglob(name)}):
        name = run.relative_to(folder).as_posix()
        if (state := store.state(run).kind) != "done":
            found[name] = state
            continue
        found[f"{name} metrics"] = _timeless(store.read_metrics(run))
        found[f"{name} history"] = store.read_history(run)
        for path in run.glob("*.npz"):
            arrays = store.read_arrays(run, path.name)
            found |= {f"{name} {path.name} {key}": (a.dtype, a.shape, a.tobytes()) for key, a in arrays.items()}
    return found


def files(folder: Path) -> set[str]:
    """Returns the names of all files below a folder, where parts of checkpoints and folders of commands are all alike.

    Orbax draws the names of its parts, and Hydra names a folder after the second in which a sweep's command was given.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = {re.sub(r"/d/[0-9a-f]{32}$", "/d/*", name) for name in names}
    return {re.sub(r"sweeps/[-_0-9]{19}/", "sweeps/*/", name) for name in names}


def prepare() -> None:
    """Writes what all kinds share: data, a search, and a finished run beside the one that is damaged."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 3)).astype(np.float32)
    y = (x[:, 0] + 0.3 * draw.normal(size=120) > 0).astype(np.int32)
    np.savez(DATA, x_train=x[:80], y_train=y[:80], x_test=x[80:], y_test=y[80:])
    Path("conf/search").mkdir(parents=True)
    Path("conf/search/tiny.yaml").write_text(SEARCH, encoding="utf-8")
    command("run", *QUICK, "seed=1", f"run.dir={OTHER}")


# --- Readers


def _timeless(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith(CLOCKS)}


def _page() -> str:
    command("report", f"run={RUN}")
    return Path(RUN, "report.html").read_text(encoding="utf-8")


def _pages(folder: str = ".") -> str:
    command("report", f"runs={folder}")
    found = runs_page.read_runs(Path(folder))
    return "\n".join(f"{run.name}: {run.status} {sorted(run.metrics.items())} {run.reason}" for run in found)


def _compacted() -> str:
    try:
        command("run", *QUICK, f"model.compacted={RUN}", "gates.enabled=false", f"run.dir={SMALL}")
        return str(sorted(_timeless(store.read_metrics(SMALL)).items()))
    finally:
        shutil.rmtree(SMALL, ignore_errors=True)


def _speed() -> str:
    command("speed", f"run={RUN}", "repeats=1")
    return "times, which are never the same"


def _inspected() -> str:
    return command("inspect", "data=npz", f"data.path={DATA}", "picture=picture.png")


def _loaded() -> str:
    try:
        fitted = dsnn.load(FITTED)
    except ValueError as error:
        raise Refused(str(error)) from None
    with np.load(DATA) as own:
        return np.asarray(dsnn.predict(fitted, own["x_test"]).probs).tobytes().hex()


REPORTS = {
    "report run": _page,
    "report runs": _pages,
    "report ledger": lambda: command("report", "ledger=."),
}
MEMBERS = {
    "ensemble": lambda: command("ensemble", f"run={RUN},{OTHER}"),
    "exits": lambda: command("exits", f"run={RUN}", "splits=2"),
}
GATED = {"model.compacted": _compacted, "speed": _speed}


# --- Kinds


def _fitted() -> None:
    with np.load(DATA) as own, contextlib.redirect_stdout(io.StringIO()):
        dsnn.fit(own["x_train"], own["y_train"], hidden=[4], steps=3, epochs=2).save(FITTED)


def _command(*words: str, readers: Mapping[str, Callable[[], str]]) -> Kind:
    given = ("run", *QUICK, *words, f"run.dir={RUN}")
    return Kind(lambda: _silent(*given), readers, given, anew=True)


def _killed(*words: str) -> Kind:
    given = ("run", *QUICK, *words, f"run.dir={RUN}")
    return Kind(lambda: killed(*given), {**REPORTS, **MEMBERS}, given, anew=True, sealed=False)


def _silent(*words: str) -> None:
    command(*words)


_SVI, _MAP = ("train.select=nll",), ("learner=map", "gates.enabled=false")
_CONVERT = ("learner=convert", "convert.method=max", "convert.epochs=4", "convert.batch_size=16", "convert.steps=[3]")
_SWEEP = ("run", "-m", *QUICK, "seed=1,2", f"run.root={RUN}")
_TRIALS = ("search", "search=tiny", "--config-dir=conf", *QUICK, f"root={RUN}")
KINDS = {
    "svi": _command(*_SVI, "run.report=true", readers={**REPORTS, **MEMBERS, **GATED}),
    "svi, killed": _killed(*_SVI),
    "map": _command(*_MAP, readers={**REPORTS, **MEMBERS}),
    "convert": _command(*_CONVERT, readers={**REPORTS, **MEMBERS}),
    "convert, killed": _killed(*_CONVERT),
    "sweep": Kind(lambda: _silent(*_SWEEP), {"report runs": lambda: _pages(RUN)}, _SWEEP),
    "search": Kind(lambda: _silent(*_TRIALS), {"report runs": lambda: _pages(f"{RUN}/tiny/runs")}, _TRIALS),
    "fitted": Kind(_fitted, {"load": _loaded}, place=FITTED),
    "data": Kind(
        lambda: _silent("run", *QUICK, f"run.dir={RUN}"), {"inspect": _inspected, **MEMBERS},
        ("run", *QUICK, f"run.dir={RUN}"), place=DATA,
    ),
}  # fmt: skip
"""Everything that is damaged, by name."""
