"""What a process takes of its machine, settled before JAX starts: accelerators, memory, compiled programs, peers."""

import contextlib
import os

import jax

from dsnn.config import ComputeConfig, Config
from dsnn.learn import mesh
from dsnn.native.allocator import keep_memory
from dsnn.native.programs import use_cache
from dsnn.run import devices, peers


def prepare(config: Config) -> None:
    """Settles what this process may use; a process that has been settled stays as it is, as JAX does."""
    compute = config.compute
    if compute.keep_memory:
        keep_memory()
    devices.claim(compute.devices_per_job, compute.memory_fraction)
    host_devices(compute, config.population.size)
    use_cache(compute.cache)
    if compute.coordinator and not jax.distributed.is_initialized():
        mesh.join(compute.coordinator, compute.processes, compute.process)
        peers.heed()


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_devices(compute: ComputeConfig, members: int) -> None:
    """Lets the CPU pose as several devices; too late once JAX has started, which is then left as it is."""
    count = compute.host_devices
    if not count and members > 1:
        count = min(members, cores())
    if count > 1:
        with contextlib.suppress(RuntimeError):  # JAX's word for having started
            jax.config.update("jax_num_cpu_devices", count)
