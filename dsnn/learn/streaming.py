"""An epoch over examples that are read as it runs: some batches at a time are on the device, the next ones are read.

The updates are those of `dsnn.learn.epoch_program` in the same order, whose compiled step this calls for some batches
after the others; so a run is the same with its examples in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import rng
from dsnn.data import feed
from dsnn.data.feed import Feed
from dsnn.learn.fit import LearnerOf, Settings
from dsnn.learn.mesh import local
from dsnn.native import programs
from dsnn.protocols import Batch
from dsnn.types import Array

CHUNK_BYTES, MOST_BATCHES = 1 << 25, 256
"""What one call of the compiled step is given: batches of 32 MiB in all, and as many at most."""

AHEAD_EPOCHS, AHEAD_EXAMPLES = 20, 1 << 21
"""Epochs whose order readers are given at once, and examples of them; one epoch where it is longer."""


class _Reading(NamedTuple):
    """Readers that stand before the first batch of an epoch."""

    arrays: Feed
    root: bytes
    epoch: int
    end: int
    batches: Iterator[tuple[np.ndarray, np.ndarray]]


class StreamedEpoch:
    """``run(settings, state, feed, epoch) -> (state, infos)``, as a compiled `dsnn.learn.epoch_program` is called.

    Args:
        family: the learner for given settings, built while the program is traced.
        batch_size: examples per update, of all processes.
        place: says where a batch is computed, see `dsnn.learn.mesh.Spread`.
        transform: ``(x, key) -> x`` changes the inputs of a batch.
        updates: per epoch; 0 is a pass over the data.
        put: brings batches ``[batches, batch, ...]`` of this process to the devices.
    """

    def __init__(
        self,
        family: LearnerOf,
        batch_size: int,
        place: Callable[[Batch], Batch] = lambda batch: batch,
        transform: Callable[[Any, Any], Any] | None = None,
        updates: int = 0,
        put: Callable[[Batch], Batch] = jax.device_put,
    ):
        self.batch_size, self.updates, self._put = batch_size, updates, put
        self._reading: _Reading | None = None

        def run(settings: Settings, state: Any, some: Batch, epoch: Array, first: Array) -> tuple[Any, Any]:
            learner = family(settings)
            if transform is None:
                return jax.lax.scan(lambda s, batch: learner.step(s, place(batch)), state, some)
            key, changed = rng.stream(settings.root, "augment", epoch), transform

            def step(s: Any, at: tuple[Batch, Array]) -> tuple[Any, Any]:
                (x, y), number = at
                return learner.step(s, place(Batch(changed(x, rng.stream(key, "augment", number)), y)))

            return jax.lax.scan(step, state, (some, first + jnp.arange(some.y.shape[0])))

        self._program = programs.Program(run, donate_argnums=1)

    def ahead(self, settings: Settings, state: Any, arrays: Feed, epoch: Any) -> None:
        """Begins to compile what a call will need."""
        for size in sorted(set(self._sizes(arrays)), reverse=True):
            own = self.batch_size // arrays.process[1]
            x, y = np.zeros((size, own, *arrays.x.shape[1:]), arrays.x.dtype), arrays.y[:0]
            some = self._given(x, np.zeros((size, own, *y.shape[1:]), y.dtype))
            self._program.ahead(settings, state, some, jnp.asarray(epoch), jnp.asarray(0))

    def __call__(self, settings: Settings, state: Any, arrays: Feed, epoch: Any) -> tuple[Any, Any]:
        """Returns the state after an epoch and the infos of its updates, ``[update, ...]``.

        Raises:
            DataError: an example cannot be read.
        """
        number, infos, first = int(epoch), [], 0
        reading, self._reading = self._read(arrays, local(settings.root), number), None
        for x, y in feed.chunks(reading.batches, self._sizes(arrays)):
            some = self._given(x, y)
            state, info = self._program(settings, state, some, jnp.asarray(number), jnp.asarray(first))
            infos.append(info)
            first += len(y)
        self._reading = reading._replace(epoch=number + 1)
        infos = [local(info) for info in infos]
        return state, jax.tree.map(lambda *parts: np.concatenate([np.asarray(part) for part in parts]), *infos)

    def _read(self, arrays: Feed, root: Array, epoch: int) -> _Reading:
        """Returns readers that stand before an epoch: those of the last one, since processes take seconds to start."""
        words = np.asarray(jax.random.key_data(root)).tobytes()
        left = self._reading
        if left and left.arrays is arrays and (left.root, left.epoch) == (words, epoch) and epoch < left.end:
            return left
        fit = AHEAD_EXAMPLES // (self._updates(arrays) * self.batch_size)
        end = epoch + min(max(fit, 1), AHEAD_EPOCHS)
        orders = [feed.order_of(arrays, root, one, self.batch_size, self.updates) for one in range(epoch, end)]
        return _Reading(arrays, words, epoch, end, feed.batches(arrays, np.concatenate(orders)))

    def _updates(self, arrays: Feed) -> int:
        return self.updates or len(arrays.x) // self.batch_size

    def _given(self, x: np.ndarray, y: np.ndarray) -> Batch:
        batches: Any = (x, y)
        return self._put(Batch(*batches))

    def _sizes(self, arrays: Feed) -> list[int]:
        """Returns how many batches each call is given; of two sizes at most, so that two programs serve any epoch."""
        total = self._updates(arrays)
        each = max(arrays.x.nbytes // max(len(arrays.x), 1) * self.batch_size, 1)
        most = int(min(max(CHUNK_BYTES // each, 1), MOST_BATCHES, total))
        size = next((size for size in range(most, most // 2, -1) if total % size == 0), most)
        rest = [total % size] if total % size else []
        return [size] * (total // size) + rest
