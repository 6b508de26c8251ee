"""What a process takes of its machine, settled before JAX starts: accelerators, memory, compiled programs, peers."""

import logging
import os
import tempfile
from pathlib import Path

import jax

from dsnn import mesh
from dsnn.allocator import keep_memory
from dsnn.config import ComputeConfig, Config
from experiments import devices

CACHE = "DSNN_CACHE"
KEPT_BYTES = 2 * 2**30


def prepare(config: Config) -> None:
    """Settles what this process may use; a process that has been settled stays as it is, as JAX does."""
    compute = config.compute
    if compute.keep_memory:
        keep_memory()
    devices.claim(compute.devices_per_job, compute.memory_fraction)
    _host_devices(compute, config.population.size)
    use_cache(compute.cache)
    if compute.coordinator and not jax.distributed.is_initialized():
        mesh.join(compute.coordinator, compute.processes, compute.process)


def cache_folder() -> Path:
    """Returns where compiled programs are kept: DSNN_CACHE, or dsnn in the user's cache folder."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsnn" / "programs"


def use_cache(folder: str) -> None:
    """Keeps compiled programs in a folder that later processes read; a folder that cannot be written is passed over.

    Args:
        folder: "auto", "none" or a path.
    """
    if folder == "none":
        jax.config.update("jax_compilation_cache_dir", None)
        return
    chosen = cache_folder() if folder == "auto" else Path(folder)
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=chosen):
            pass
    except OSError as error:
        logging.getLogger(__name__).warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    _prune(chosen)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prune(folder: Path) -> None:
    """Removes the oldest programs of a folder that has grown beyond its bound; JAX needs another library for that."""
    files = sorted((file.stat().st_mtime, file.stat().st_size, file.path) for file in os.scandir(folder))
    excess = sum(size for _, size, _ in files) - KEPT_BYTES
    for _, size, path in files:
        if excess <= 0:
            return
        Path(path).unlink(missing_ok=True)
        excess -= size


def _host_devices(compute: ComputeConfig, members: int) -> None:
    """Lets the CPU pose as several devices; too late once JAX has started, which is then left as it is."""
    count = compute.host_devices
    if not count and members > 1:
        count = min(members, cores())
    if count > 1 and not _started():
        jax.config.update("jax_num_cpu_devices", count)


def _started() -> bool:
    from jax._src import xla_bridge  # JAX has no public word for it

    return xla_bridge.backends_are_initialized()
