"""One job as Hydra's launchers run it, in this process or in another that finds it here by its name."""

import os
import signal
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig

from dsnn import store
from dsnn.config import Config
from dsnn.run import schema, sweep_record
from dsnn.run.console import console
from dsnn.store import track

SWEEP = "DSNN_SWEEP"
COMMAND = "DSNN_SWEEP_COMMAND"
"""Where a sweep is recorded, and under which name its command is, in the environment of its jobs."""

failures: list[BaseException] = []
"""What ended jobs of this process that are no part of a sweep, and what stopped a sweep."""


unrecorded: list[str] = []
"""Why lines that belong into the record of a sweep are not there."""


def run(config: Config, **options: Any) -> tuple[Path, dict[str, Any]]:
    """Runs a configuration as `dsnn.run.job.run` does, and tells W&B the end of runs that were killed after theirs."""
    from dsnn.run import job, population

    directories = [job.directory_of(one) for one in population.members(config)]
    ended = [directory for directory in directories if config.resume and store.is_done(directory)]
    found = job.run(config, **options)
    for directory in ended:
        told = track.settle(directory, tool=config.track.tool, mode=config.track.wandb)
        if told is not None and told.complete:
            console.print(f"W&B has been told the end of {directory}, which was killed before it could.", markup=False)
            if hint := told.sync_hint:
                console.print(f"to send it to W&B: {hint}", markup=False)
    return found


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
            _record(sweep, entry)
        _, entry["metrics"] = run(typed, group=sweep.stem if sweep else None, wait=sweep is not None)
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
            _record(sweep, entry)


def record_failure(number: int, overrides: Sequence[str], reason: str) -> None:
    """Records that a job of the sweep failed, for one that could not do it itself."""
    console.print(f"{' '.join(overrides)} failed: {reason}", markup=False)
    if SWEEP in os.environ:
        record = Path(os.environ[SWEEP])
        try:
            sweep_record.fail(record, os.environ.get(COMMAND, ""), number, _said(overrides), reason)
        except OSError as error:
            unrecorded.append(sentence(error))


def _record(record: Path, entry: dict[str, Any]) -> None:
    """Adds a line to the record; a disk that does not take it must not hide how the job ended."""
    try:
        sweep_record.add(record, entry)
    except OSError as error:
        unrecorded.append(sentence(error))
        console.print(f"the record of the sweep lacks a line: {unrecorded[-1]}", markup=False)


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
