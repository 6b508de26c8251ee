"""One run on many devices, of one process or of many: where batch, posterior samples and wide parameters are computed.

The devices form a grid with an axis for each of these that is dealt out; what is not dealt out stands whole on every
device, and XLA inserts the sums. A run therefore draws the same random numbers and makes the same updates as on one
device, up to the order in which floats are added.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn.learn.learner import Learner
from dsnn.types import Array

DATA, SAMPLES, MODEL = "data", "samples", "model"
AXES = (DATA, SAMPLES, MODEL)
"""Axes of the grid of devices, in its order: neighbours share a model, since they have most to tell each other."""

WIDE = 128
"""Shortest axis of an array that is dealt out; below, sending costs more than is saved."""


class Held(NamedTuple):
    """What one device holds of a learner's state, in bytes.

    Attributes:
        each: on every device.
        all: of the whole state.
        whole: of arrays that could not be dealt out, which every device holds whole.
    """

    each: int
    all: int
    whole: int


@dataclasses.dataclass(frozen=True)
class Spread:
    """What is spread over a grid of devices.

    Attributes:
        mesh: the devices, of all processes; its axes are some of `AXES`.
    """

    mesh: Mesh

    @property
    def devices(self) -> int:
        """How many devices share the work."""
        return self.mesh.size

    def over(self, axis: str) -> bool:
        """Whether something is dealt out along an axis."""
        return axis in self.mesh.axis_names

    def replicated(self, tree: Any) -> Any:
        """Returns a tree with every array whole on every device; in many processes each gives the same values."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, whole)
        return jax.tree.map(lambda leaf: _global(leaf, whole), tree)

    def batch(self, batch: Any) -> Any:
        """Returns a batch, inside a compiled program, with its examples shared out when data are spread."""
        return self._shared(batch, DATA) if self.over(DATA) else batch

    def part(self) -> tuple[int, int]:
        """Returns which part of every batch this process reads, and how many parts there are: ``(part, parts)``.

        Processes whose devices compute the same examples read the same part.
        """
        if not self.over(DATA):
            return 0, 1
        along = self.mesh.devices.reshape(self.mesh.shape[DATA], -1)  # the first of the axes
        mine = [row for row, devices in enumerate(along) if any(one in jax.local_devices() for one in devices)]
        return mine[0] // len(mine), len(along) // len(mine)

    def from_local(self, batch: Any, axis: int = 0) -> Any:
        """Returns the global batch of which every process has read its own rows.

        Args:
            batch: tree of arrays ``[row, ...]``, the rows of `part` in order; all processes give as many.
            axis: of the rows.
        """
        rows = (*[None] * axis, DATA) if self.over(DATA) else ()
        shared = NamedSharding(self.mesh, PartitionSpec(*rows))
        return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(shared, np.asarray(rows)), batch)

    def particles(self, function: Callable[..., Any], keys: Array) -> Any:
        """Returns ``vmap(function)(keys)`` with the keys shared out when samples are spread."""
        if not self.over(SAMPLES):
            return jax.vmap(function)(keys)
        return jax.vmap(function, spmd_axis_name=SAMPLES)(self._shared(keys, SAMPLES))

    def home(self, leaf: Any) -> NamedSharding:
        """Returns where an array of a state lies: dealt out along its longest axis, of equal ones the last.

        An array whose axes are shorter than `WIDE`, or no multiple of the devices, stays whole.
        """
        shape = leaf.shape
        count = self.mesh.shape[MODEL] if self.over(MODEL) else 1
        wide = [axis for axis, size in enumerate(shape) if size >= WIDE and size % count == 0]
        if count == 1 or not wide:
            return NamedSharding(self.mesh, PartitionSpec())
        longest = max(wide, key=lambda axis: (shape[axis], axis))
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, MODEL))

    def dealt(self, state: Any) -> Any:
        """Returns a learner's state, inside a compiled program, with every array where it lies, see `home`."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.home(leaf)), state)

    def learner(self, learner: Learner) -> Learner:
        """Returns the learner whose state begins where its arrays lie, see `home`, and is there after every step."""

        def step(state: Any, batch: Any) -> tuple[Any, Any]:
            new, info = learner.step(state, batch)
            return self.dealt(new), info

        return learner._replace(init=lambda: self.dealt(learner.init()), step=step)

    def gathered(self, tree: Any) -> Any:
        """Returns arrays whole, as arrays of this process alone; where some are dealt out, every process has to ask."""
        if not self.over(MODEL):
            return local(tree)
        if jax.process_count() == 1:
            return jax.device_put(tree, jax.local_devices()[0])
        return local(jax.jit(lambda tree: tree, out_shardings=NamedSharding(self.mesh, PartitionSpec()))(tree))

    def held(self, state: Any) -> Held:
        """Returns what each device holds of a state, given as arrays or their shapes."""
        leaves = [(leaf, self.home(leaf)) for leaf in jax.tree.leaves(state)]
        every = sum(_bytes(leaf, leaf.shape) for leaf, _ in leaves)
        each = sum(_bytes(leaf, home.shard_shape(leaf.shape)) for leaf, home in leaves)
        whole = sum(_bytes(leaf, leaf.shape) for leaf, home in leaves if home.is_fully_replicated)
        return Held(each, every, whole)

    def _shared(self, tree: Any, axis: str) -> Any:
        return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, PartitionSpec(axis)))


def _bytes(leaf: Any, shape: tuple[int, ...]) -> int:
    """Returns the bytes of an array of a leaf's kind; a random key has those of its words."""
    key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    words = jax.eval_shape(jax.random.key_data, leaf) if key else leaf
    return math.prod((*shape, *words.shape[leaf.ndim :])) * words.dtype.itemsize


def _global(leaf: Any, sharding: NamedSharding) -> Array:
    """Returns a global array from this process's copy; `jax.device_put` cannot reach the devices of others."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _global(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def axes(split: str) -> dict[str, int]:
    """Returns the axes that a ``compute.split`` names with their sizes, in the order of `AXES`; none for "none".

    Args:
        split: "none", or axes joined by "+", each with the number of its devices or without: ``data:2+model``. The one
            without, whose size is given as 0, takes the devices that are left.

    Raises:
        ValueError: an unknown axis, one named twice, a size that is none, or two axes without.
    """
    if split == "none":
        return {}
    named: dict[str, int] = {}
    for word in split.split("+"):
        name, colon, size = word.strip().partition(":")
        if name not in AXES or name in named or (colon and not (size.isdecimal() and int(size))):
            raise ValueError(
                f"compute.split must be none, or {', '.join(AXES)} joined by +, each once, with the number of its "
                f"devices behind a colon or without, got {split!r}; data:2+model:2 are four devices."
            )
        named[name] = int(size or 0)
    if list(named.values()).count(0) > 1:
        raise ValueError(
            f"compute.split must leave at most one axis without a number, got {split!r}; data:2+model has two rows."
        )
    return {name: named[name] for name in AXES if name in named}


def spread(split: str, *, batch_size: int, particles: int) -> Spread | None:
    """Returns how a run is spread over all devices there are; None for "none" or a single device.

    Args:
        split: what is dealt out, see `axes`.
        batch_size: examples per update.
        particles: samples of the objective per update.

    Raises:
        ValueError: the batch, or the particles, cannot be dealt out evenly, or the axes are no grid of the devices.
    """
    count, named = jax.device_count(), axes(split)
    if not named or count == 1:
        return None
    given = math.prod(size for size in named.values() if size)
    if count % given or (given != count and 0 not in named.values()):
        raise ValueError(
            f"compute.split must name as many devices as there are, {count}, got {split!r} for {given}; leave one "
            "number out, and its axis takes what is left (compute.host_devices=N makes N of a CPU)."
        )
    sizes = {name: size or count // given for name, size in named.items()}
    for axis, option, size in ((DATA, "train.batch_size", batch_size), (SAMPLES, "svi.particles", particles)):
        if size % (share := sizes.get(axis, 1)):
            raise ValueError(
                f"{option} must be a multiple of the {share} devices that share it, got {size}; "
                f"set {option}={-(-size // share) * share}, or compute.split=none."
            )
    return Spread(Mesh(np.array(jax.devices()).reshape(tuple(sizes.values())), tuple(sizes)))


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


def require_alike(count: int, what: str) -> None:
    """Checks that all processes count the same.

    Raises:
        ValueError: they do not.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils  # slow to import, and needed by few

    counts = np.asarray(multihost_utils.process_allgather(np.asarray(count)))
    if len(set(counts.tolist())) > 1:
        raise ValueError(
            f"every process must see the same {what}, got {', '.join(map(str, counts.tolist()))}; give all of them the "
            f"same folder of data."
        )


def agreed(flag: int) -> int:
    """Returns the largest flag of all processes, so that they stop together."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils  # slow to import, and needed by few

    return int(jnp.max(multihost_utils.process_allgather(jnp.asarray(flag))))
