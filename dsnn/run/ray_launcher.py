"""Hydra's launcher ``hydra/launcher=ray``: the jobs of a sweep on the machines of a Ray cluster.

Hydra's own, hydra-ray-launcher 1.2.2, cannot stand beside the launchers of the extra ``sweep``: it wants cloudpickle
below 3, and an error in one of its jobs ends the sweep without the others' results. This one speaks with Ray alone. A
job whose process or machine dies is run again once, as `dsnn.run.launcher` does it; what it had reached is in its
checkpoint, so all machines have to see the folder of the runs.
"""

import dataclasses
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from dsnn.run import machine, pickled_jobs, task, workers
from dsnn.run.console import console

TARGET = "hydra_plugins.dsnn_ray.Ray"
"""A name under which Hydra takes a launcher; it refuses those that are not in its own package."""

GONE = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError", "LocalRayletDiedError")
"""Ray's errors that say that a job's process or machine is gone."""

TOLD = ("DSNN_", "WANDB_", "JAX_", "XLA_")
"""How the variables begin that jobs get from the command's environment."""


@dataclasses.dataclass
class RayConfig:
    """Options of the launcher, ``hydra.launcher.address=...``.

    Attributes:
        address: of a cluster, host:port or "auto" for the one that this machine belongs to; empty starts one here.
        n_jobs: jobs at a time on a cluster that is started here, -1 for as many as there are cores.
        cpus_per_job: cores that a job is given.
        gpus_per_job: accelerators that a job is given, whole or a share such as 0.5.
    """

    _target_: str = TARGET
    address: str = ""
    n_jobs: int = -1
    cpus_per_job: float = 1.0
    gpus_per_job: float = 0.0


def install() -> None:
    """Makes the launcher known to Hydra, in place of another of its name."""
    ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConfig, provider="dsnn")
    Plugins.instance().class_name_to_class[TARGET] = Ray


class Ray(Launcher):
    """Runs the jobs of a sweep on a Ray cluster."""

    def __init__(self, **options: Any) -> None:
        self._options = RayConfig(**options)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what all jobs share."""
        self._shared = pickled_jobs.Shared(hydra_context, config, task_function)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns what each returned; what became of one that did not is in the sweep's record."""
        calls = pickled_jobs.pickled(self._shared, job_overrides, initial_job_idx)
        ray = _ray()

        def again(job: int, how: str) -> None:
            said = " ".join(job_overrides[job])
            console.print(f"the process of {said} is gone ({how}); the job is run again.", markup=False)

        try:
            with workers.told_to_stop() as told:
                _join(ray, self._options)
                troubles = _work_through(ray, calls, self._options, again, told)
        except workers.Stopped as stop:
            task.stop(stop.args[0])
        finally:
            ray.shutdown()
        for k, trouble in enumerate(troubles):
            if trouble:
                task.record_failure(initial_job_idx + k, job_overrides[k], trouble)
        return [JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED) for overrides in job_overrides]


def _ray() -> Any:
    try:
        import ray  # optional, and slow to import
    except ImportError as error:
        raise ValueError("hydra/launcher=ray needs Ray, which is not installed; pip install 'dsnn[ray]'.") from error
    return ray


def _join(ray: Any, options: RayConfig) -> None:
    """Joins the cluster, or starts one."""
    if options.address:
        ray.init(options.address, logging_level="WARNING")
        return
    jobs = options.n_jobs if options.n_jobs > 0 else max(1, machine.cores() + 1 + options.n_jobs)
    ray.init(num_cpus=round(jobs * options.cpus_per_job), include_dashboard=False, logging_level="WARNING")


def _work_through(
    ray: Any, calls: Sequence[bytes], options: RayConfig, again: Callable[[int, str], None], told: list[int]
) -> list[str]:
    """Returns for each job why it did not end well, empty where it did.

    Raises:
        Stopped: this process was told to stop, and the jobs have ended.
    """
    variables = {name: value for name, value in os.environ.items() if name.startswith(TOLD)}
    remote = ray.remote(_run).options(
        num_cpus=options.cpus_per_job,
        num_gpus=options.gpus_per_job,
        max_retries=0,  # which are silent
        runtime_env={"env_vars": variables},
    )
    gone = tuple(getattr(ray.exceptions, name) for name in GONE)
    ended: dict[int, str] = {}
    deaths = Counter[int]()

    def begun(job: int) -> Any:
        return remote.remote(calls[job], sys.path, os.getcwd())

    at_work = {begun(job): job for job in range(len(calls))}
    while at_work and not told:
        for done in ray.wait(list(at_work), num_returns=1, timeout=workers.LOOK_S)[0]:
            job = at_work.pop(done)
            try:
                ended[job] = ray.get(done)
            except gone as error:
                deaths[job] += 1
                how = type(error).__name__
                if deaths[job] < workers.ATTEMPTS:
                    again(job, how)
                    at_work[begun(job)] = job
                else:
                    ended[job] = workers.DIED.format(times=deaths[job], how=how)
            except ray.exceptions.RayError as error:
                ended[job] = " ".join(str(error).split())
    if told:
        _stop(ray, list(at_work), told)
        raise workers.Stopped(told[0])
    return [ended[job] for job in range(len(calls))]


def _stop(ray: Any, at_work: list[Any], told: list[int]) -> None:
    """Ends jobs after a checkpoint, or once they were told twice or have had their time."""
    for job in at_work:
        ray.cancel(job)
    deadline = time.monotonic() + workers.GRACE_S
    while at_work and len(told) < 2 and time.monotonic() < deadline:
        at_work = ray.wait(at_work, num_returns=len(at_work), timeout=workers.LOOK_S)[1]
    for job in at_work:
        ray.cancel(job, force=True)


def _run(call: bytes, path: list[str], folder: str) -> str:
    """Runs a job in a process of Ray's, and returns why it did not end well."""
    sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
    if Path(folder).is_dir():
        os.chdir(folder)
    try:
        pickle.loads(call)()
    except Exception as error:
        return task.sentence(error)
    return ""
