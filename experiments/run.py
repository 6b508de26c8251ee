"""The door: ``python -m experiments.run [experiment=NAME] [option=value ...]``, with ``-m`` to sweep values."""

import json
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from dsnn import checkpoint, rundir, train
from experiments import door, schema
from experiments.console import console, sweep_table

SWEEP = "DSNN_SWEEP"
EXPECTED = (ValueError, rundir.RunDirError, checkpoint.CheckpointError, train.TrainingError, OSError)


_failure: list[BaseException] = []


@hydra.main(config_path="../conf", config_name="config", version_base="1.3")
def _hydra_job(composed: DictConfig) -> None:
    """Runs one job; Hydra must not see its errors, which it would print as tracebacks and a sweep would end with."""
    sweep = os.environ.get(SWEEP)
    entry: dict[str, Any] = {"dir": "", "overrides": " ".join(HydraConfig.get().overrides.task), "status": "stopped"}
    try:
        from experiments import job  # jax starts here, after what a launcher has set in the environment

        typed = schema.typed(composed)
        entry["dir"] = str(job.directory_of(typed))
        _, entry["metrics"] = job.run(typed, group=Path(sweep).stem if sweep else None)
        entry["status"] = "done"
    except Exception as error:
        entry["status"] = f"failed: {_sentence(error)}"
        if not sweep:
            _failure.append(error)
            return
        entry["traceback"] = traceback.format_exc()
        console.print(entry["status"])
    finally:
        if sweep:
            with Path(sweep).open("a") as file:
                file.write(json.dumps(entry) + "\n")


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main() -> int:
    """Runs or sweeps; returns the exit status."""
    from experiments.job import Interrupted

    if door.wants_help():
        door.show_help()
        return 0
    sweep = None
    try:
        # options before values, which Hydra's own parser insists on
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda a: not a.startswith("-"))
        door.check(sys.argv[1:])
        sys.argv[1:] = [schema.appended(argument) for argument in sys.argv[1:]]
        schema.register()
        if any(a in ("-m", "--multirun") for a in sys.argv[1:]):
            sweep = Path(_option("run.root", "outputs")) / "sweeps" / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
            sweep.parent.mkdir(parents=True, exist_ok=True)
            os.environ[SWEEP] = str(sweep.absolute())
        if all(not a.startswith(("-", "hydra")) for a in sys.argv[1:]):
            from experiments import job

            job.run(schema.compose(sys.argv[1:]))
        else:
            _hydra_job()
        if _failure:
            raise _failure[0]
    except Interrupted as stop:
        console.print(str(stop))
        return stop.exit_code
    except KeyboardInterrupt:
        console.print("stopped at once; the last checkpoint stands, and the same command goes on from it.")
        return 130
    except EXPECTED as error:
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 1
    if sweep is None:
        return 0
    runs = [json.loads(line) for line in sweep.read_text().splitlines()]
    sweep_table(runs)
    return int(any(run["status"] != "done" for run in runs))


def _option(name: str, default: str) -> str:
    return next((a.split("=", 1)[1] for a in sys.argv[1:] if a.startswith(f"{name}=")), default)


if __name__ == "__main__":
    sys.exit(main())
