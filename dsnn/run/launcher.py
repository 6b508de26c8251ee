"""Hydra's launcher ``hydra/launcher=joblib`` on processes that may die, see `dsnn.run.workers`.

It takes the place of joblib's own, under its name and with its options. Of these ``hydra.launcher.n_jobs`` holds, -1
for as many as there are cores; the others say how joblib hands over arrays, which jobs do not have.
"""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dsnn.run import machine, task, workers
from dsnn.run.console import console

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"


def install() -> None:
    """Puts `Workers` in the place of joblib's launcher, where that is installed."""
    known = Plugins.instance().class_name_to_class
    if JOBLIB in known:
        known[JOBLIB] = Workers


class Workers(Launcher):
    """Runs the jobs of a sweep in processes, several at a time."""

    def __init__(self, n_jobs: int = -1, **options: Any) -> None:
        self._count = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what all jobs share."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what each returned; what became of one that did not is in the sweep's record."""
        import cloudpickle  # type: ignore[import-untyped]  # comes with joblib

        setup_globals()
        Path(str(self._config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        shared = (self._context, self._config, self._task, Singleton.get_state(), sys.argv, sys.orig_argv)
        calls = [
            cloudpickle.dumps(functools.partial(_run, initial_job_idx + k, list(overrides), *shared))
            for k, overrides in enumerate(job_overrides)
        ]
        count = min(processes(self._count), len(calls))

        def again(job: int, how: str) -> None:
            said = " ".join(job_overrides[job])
            console.print(f"the process of {said} ended without a word ({how}); the job is run again.", markup=False)

        try:
            ended = workers.work_through(calls, count, again, max(1, machine.cores() // count))
        except workers.Stopped as stop:
            task.stop(stop.args[0])
        for k, one in enumerate(ended):
            if one.trouble:
                task.record_failure(initial_job_idx + k, job_overrides[k], one.trouble)
        return [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]


def processes(count: int) -> int:
    """Returns how many processes ``n_jobs`` stands for: so many, or with -1 as many as cores, with -2 one less.

    Raises:
        ValueError: It is 0.
    """
    if not count:
        raise ValueError("hydra.launcher.n_jobs must be above 0, or -1 for as many as there are cores, got 0.")
    return count if count > 0 else max(1, machine.cores() + 1 + count)


def _run(
    number: int,
    overrides: list[str],
    context: HydraContext,
    config: DictConfig,
    function: TaskFunction,
    singletons: dict[Any, Any],
    words: list[str],
    command: list[str],
) -> None:
    """Runs one job in this process, which was started for it, as Hydra's launchers do."""
    sys.argv, sys.orig_argv = words, command  # what the run's record of its environment calls its command
    setup_globals()
    Singleton.set_state(singletons)
    own = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(own):
        own.hydra.job.id = f"{own.hydra.job.name}_{number}"
        own.hydra.job.num = number
    HydraConfig.instance().set_config(own)
    done = run_job(
        hydra_context=context,
        config=own,
        task_function=function,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    _ = done.return_value  # raises what the job did
    if task.unrecorded:
        raise OSError(task.unrecorded.pop())
