"""One job as Hydra's launchers run it, in this process or in another that finds it here by its name."""

import os
import signal
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from dsnn.run import schema, sweep_record
from dsnn.run.console import console

SWEEP = "DSNN_SWEEP"

failures: list[BaseException] = []
"""What ended jobs of this process that are no part of a sweep, and what stopped a sweep."""


def run_job(composed: Any) -> None:
    """Runs one job; Hydra must not see its errors, which it would print as tracebacks and a sweep would end with."""
    from dsnn.run import job

    sweep = Path(os.environ[SWEEP]) if SWEEP in os.environ else None
    entry: dict[str, Any] = {
        "dir": "",
        "overrides": " ".join(HydraConfig.get().overrides.task).replace("\\:", ":"),
        "status": "running",
    }
    try:
        typed = schema.named(composed)
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
    except Exception as error:
        entry["status"] = f"failed: {sentence(error)}"
        if not sweep:
            failures.append(error)
            return
        entry["traceback"] = traceback.format_exc()
        console.print(entry["status"], markup=False)
    finally:
        if sweep:
            sweep_record.add(sweep, entry)


def sentence(error: BaseException) -> str:
    """Returns an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
