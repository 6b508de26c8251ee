"""The jobs of a sweep as functions without arguments that another process runs, for the launchers of this house."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dsnn.run import task


class Shared(NamedTuple):
    """What all jobs of a sweep share, as Hydra gives it to a launcher."""

    context: HydraContext
    config: DictConfig
    function: TaskFunction


def pickled(shared: Shared, job_overrides: Sequence[Sequence[str]], first: int) -> list[bytes]:
    """Returns for each job a pickled function without arguments, and makes the folder of the sweep.

    Args:
        shared: by all jobs.
        job_overrides: of each job.
        first: number of the first.
    """
    import cloudpickle  # type: ignore[import-untyped]  # comes with joblib

    setup_globals()
    Path(str(shared.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    process = (Singleton.get_state(), sys.argv, sys.orig_argv)
    return [
        cloudpickle.dumps(functools.partial(_run, first + k, list(overrides), shared, *process))
        for k, overrides in enumerate(job_overrides)
    ]


def _run(
    number: int,
    overrides: list[str],
    shared: Shared,
    singletons: dict[Any, Any],
    words: list[str],
    command: list[str],
) -> None:
    """Runs one job in this process, which was started for it, as Hydra's launchers do."""
    sys.argv, sys.orig_argv = words, command  # what the run's record of its environment calls its command
    setup_globals()
    Singleton.set_state(singletons)
    own = shared.context.config_loader.load_sweep_config(shared.config, overrides)
    with open_dict(own):
        own.hydra.job.id = f"{own.hydra.job.name}_{number}"
        own.hydra.job.num = number
    HydraConfig.instance().set_config(own)
    done = run_job(
        hydra_context=shared.context,
        config=own,
        task_function=shared.function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    _ = done.return_value  # raises what the job did
    if task.unrecorded:
        raise OSError(task.unrecorded.pop())
