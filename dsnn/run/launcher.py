"""Hydra's launcher ``hydra/launcher=joblib`` on processes that may die, see `dsnn.run.workers`.

It takes the place of joblib's own, under its name and with its options. Of these ``hydra.launcher.n_jobs`` holds, -1
for as many as there are cores; the others say how joblib hands over arrays, which jobs do not have.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from dsnn.run import machine, pickled_jobs, ray_launcher, task, workers
from dsnn.run.console import console

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"


def install() -> None:
    """Puts `Workers` in the place of joblib's launcher, where that is installed, and makes Ray's known."""
    ray_launcher.install()
    known = Plugins.instance().class_name_to_class
    if JOBLIB in known:
        known[JOBLIB] = Workers


class Workers(Launcher):
    """Runs the jobs of a sweep in processes, several at a time."""

    def __init__(self, n_jobs: int = -1, **options: Any) -> None:
        self._count = n_jobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what all jobs share."""
        self._shared = pickled_jobs.Shared(hydra_context, config, task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what each returned; what became of one that did not is in the sweep's record."""
        calls = pickled_jobs.pickled(self._shared, job_overrides, initial_job_idx)
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
