"""One run on many devices, of one process or of many: where the batch, or the posterior samples, are computed.

Parameters and data stand on every device; XLA inserts the sums. A run therefore draws the same random numbers and makes
the same updates as on one device, up to the order in which floats are added.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn.types import Array

DEVICE = "device"


@dataclasses.dataclass(frozen=True)
class Spread:
    """What is spread over a row of devices.

    Attributes:
        mesh: the devices, of all processes.
        over: "data" or "samples".
    """

    mesh: Mesh
    over: str

    @property
    def devices(self) -> int:
        """How many devices share the work."""
        return self.mesh.size

    def replicated(self, tree: Any) -> Any:
        """Returns a tree with every array whole on every device; in many processes each gives the same values."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, whole)
        return jax.tree.map(lambda leaf: _global(leaf, whole), tree)

    def batch(self, batch: Any) -> Any:
        """Returns a batch, inside a compiled program, with its examples shared out when data are spread."""
        return self._shared(batch) if self.over == "data" else batch

    def particles(self, function: Callable[..., Any], keys: Array) -> Any:
        """Returns ``vmap(function)(keys)`` with the keys shared out when samples are spread."""
        if self.over != "samples":
            return jax.vmap(function)(keys)
        return jax.vmap(function, spmd_axis_name=DEVICE)(self._shared(keys))

    def _shared(self, tree: Any) -> Any:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec(DEVICE)))


def _global(leaf: Any, sharding: NamedSharding) -> Array:
    """Returns a global array from this process's copy; `jax.device_put` cannot reach the devices of others."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _global(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def spread(over: str, *, batch_size: int, particles: int) -> Spread | None:
    """Returns how a run is spread over all devices there are; None for "none" or a single device.

    Args:
        over: "none", "data" or "samples".
        batch_size: examples per update.
        particles: samples of the objective per update.

    Raises:
        ValueError: the batch, or the particles, cannot be dealt out evenly.
    """
    count = jax.device_count()
    if over == "none" or count == 1:
        return None
    name, size = ("train.batch_size", batch_size) if over == "data" else ("svi.particles", particles)
    if size % count:
        raise ValueError(
            f"{name} must be a multiple of the {count} devices that share it, got {size}; "
            f"set {name}={-(-size // count) * count}, or compute.split=none."
        )
    return Spread(Mesh(np.array(jax.devices()), (DEVICE,)), over)


def join(coordinator: str, processes: int, process: int) -> None:
    """Joins the processes that compute one run; called before anything else touches a device.

    Args:
        coordinator: host:port of process 0, or "auto" to ask SLURM or another cluster that JAX knows.
        processes: how many there are.
        process: which of them this is.
    """
    patience_s = 3600  # the first process still evaluates when the others have nothing left to do
    if coordinator == "auto":
        jax.distributed.initialize(shutdown_timeout_seconds=patience_s)
    else:
        jax.distributed.initialize(coordinator, processes, process, shutdown_timeout_seconds=patience_s)


def leads() -> bool:
    """Whether this process writes the run's files; the others compute alongside."""
    return jax.process_index() == 0


def local(tree: Any) -> Any:
    """Returns replicated arrays as arrays of this process alone, for work that the others take no part in."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0) if isinstance(leaf, jax.Array) else leaf, tree)


def agreed(flag: int) -> int:
    """Returns the largest flag of all processes, so that they stop together."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils  # slow to import, and needed by few

    return int(jnp.max(multihost_utils.process_allgather(jnp.asarray(flag))))
