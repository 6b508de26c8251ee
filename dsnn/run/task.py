"""One job as Hydra's launchers run it, in this process or in another that finds it here by its name."""

import os
import signal
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig

from dsnn.run import schema, sweep_record
from dsnn.run.console import console

SWEEP = "DSNN_SWEEP"
COMMAND = "DSNN_SWEEP_COMMAND"
"""Where a sweep is recorded, and under which name its command is, in the environment of its jobs."""

failures: list[BaseException] = []
"""What ended jobs of this process that are no part of a sweep, and what stopped a sweep."""


def run_job(composed: Any) -> None:
    """Runs one job; Hydra must not see its errors, which it would print as tracebacks and a sweep would end with."""
    from dsnn.run import job

    sweep = Path(os.environ[SWEEP]) if SWEEP in os.environ else None
    told = HydraConfig.get()
    entry: dict[str, Any] = {
        "command": os.environ.get(COMMAND, ""),
        "job": told.job.num if sweep else 0,
        "dir": "",
        "overrides": _said(told.overrides.task),
        "status": "running",
    }
    try:
        typed = schema.named(composed, _began_in(told))
        entry["dir"] = str(job.directory_of(typed))
        if sweep:
            sweep_record.add(sweep, entry)
        _, entry["metrics"] = job.run(typed, group=sweep.stem if sweep else None, wait=sweep is not None)
        entry["status"] = "done"
    except job.Interrupted as stop:
        entry["status"] = f"stopped: {stop}"
        failures.append(stop)
        if callable(signal.getsignal(stop.signal_number)) and stop.signal_number == signal.SIGUSR2:
            signal.raise_signal(stop.signal_number)  # the launcher's turn: it puts the job back into its queue
        if sweep:
            raise KeyboardInterrupt from None  # ends the sweep, not only this job
    except (Exception, SystemExit) as error:  # a piece of one's own may exit, and a sweep goes on
        entry["status"] = f"failed: {sentence(error)}"
        if not sweep:
            failures.append(error)
            return
        entry["traceback"] = traceback.format_exc()
        console.print(entry["status"], markup=False)
    finally:
        if sweep:
            sweep_record.add(sweep, entry)


def record_failure(number: int, overrides: Sequence[str], reason: str) -> None:
    """Records that a job of the sweep failed, for one that could not do it itself."""
    console.print(f"{' '.join(overrides)} failed: {reason}", markup=False)
    if SWEEP in os.environ:
        sweep_record.fail(Path(os.environ[SWEEP]), os.environ.get(COMMAND, ""), number, _said(overrides), reason)


def stop(signal_number: int) -> NoReturn:
    """Ends a sweep that was told to stop, whose jobs have ended."""
    from dsnn.run.job import Interrupted

    told = "the sweep was told to stop; the same command goes on with what is left."
    failures.append(Interrupted(told, signal_number))
    raise KeyboardInterrupt from None  # Hydra would print any other as a traceback


def _began_in(told: Any) -> str:
    """Returns the folder that paths of this job are relative to, where Hydra has changed into another; else nothing."""
    if not told.job.chdir:
        return ""
    base = str(told.runtime.cwd)
    for name in ("DSNN_DATA", "DSNN_CACHE"):
        if name in os.environ:
            os.environ[name] = os.path.join(base, os.environ[name])
    return base


def _said(overrides: Sequence[str]) -> str:
    return " ".join(overrides).replace("\\:", ":")


def sentence(error: BaseException) -> str:
    """Returns an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
