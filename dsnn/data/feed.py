"""Batches of streamed examples in the order of an epoch, read ahead by Grain while the last ones are learned."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from dsnn import rng
from dsnn.data.batches import epoch_permutation
from dsnn.data.error import DataError
from dsnn.data.streamed import Streamed
from dsnn.types import Array, Key

THREADS, AHEAD, AHEAD_BYTES = 2, 16, 1 << 27
"""Threads that read in this process, and batches, and bytes of them, that all readers together are ahead at most."""


class Feed(NamedTuple):
    """Streamed training examples, and how they are read.

    Attributes:
        x: inputs.
        y: targets of all of them, ``[n, ...]``.
        workers: processes that read; 0 reads in threads of this one.
        process: which part of every batch is read here, and of how many equal ones.
    """

    x: Streamed
    y: np.ndarray
    workers: int = 0
    process: tuple[int, int] = (0, 1)


def order_of(feed: Feed, root: Key[Array, ""], epoch: int, batch_size: int, updates: int = 0) -> np.ndarray:
    """Returns the numbers of an epoch's examples, ``[batches, batch]``: a function of the root key and the epoch alone.

    Examples that may be read in any order come as those of arrays in memory do. Shards come in a drawn order, a few at
    a time, and the examples of these are mixed.

    Args:
        feed: of the examples.
        root: root key of the run.
        epoch: from 0.
        batch_size: examples of a batch, of all processes.
        updates: batches of an epoch that is no pass over the data, see `dsnn.data.epoch_order`; 0 is a pass.
    """
    n = len(feed.x)
    batches = n // batch_size
    wanted = updates or batches
    first = epoch * wanted
    passes = range(first // batches, (first + wanted - 1) // batches + 1)
    words = tuple(np.asarray(jax.random.key_data(root)).ravel().tolist())
    rows = [_pass(feed, words, root, one, batch_size) for one in passes]
    start = first - passes[0] * batches
    return np.concatenate(rows)[start : start + wanted]


def _pass(feed: Feed, words: tuple[int, ...], root: Key[Array, ""], number: int, batch_size: int) -> np.ndarray:
    """Returns the order of a pass; that of the last one is kept, since many epochs may be of one pass."""
    key = (feed.x, words, number, batch_size)
    if key not in _LAST:
        _LAST.clear()
        n, shard = len(feed.x), feed.x.shard
        if shard is None:
            _LAST[key] = np.asarray(epoch_permutation(rng.stream(root, "data", number), n, batch_size))
        else:
            rows = _by_shard(shard, feed.x.reader.together, root, number)[: n // batch_size * batch_size]
            _LAST[key] = rows.reshape(-1, batch_size)
    return _LAST[key]


_LAST: dict[tuple[object, ...], np.ndarray] = {}


def batches(feed: Feed, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ``(x, y)`` of the batches of an order, of each the part that this process reads.

    Args:
        feed: of the examples.
        order: numbers of the examples, ``[batches, batch]``.

    Raises:
        DataError: Grain is not installed, or an example cannot be read.
    """
    try:
        import grain  # an extra, and a second to import
        from absl import flags
    except ImportError as error:
        raise DataError("a stream is read with grain, which is not installed: pip install 'dsnn[data]'.") from error
    k, count = feed.process
    size = order.shape[1] // count
    rows = order[:, k * size : (k + 1) * size]
    made: Any = grain.MapDataset.source(_Batches(feed.x, feed.y, rows))
    each = max(feed.x.nbytes // max(len(feed.x), 1) * size, 1)
    ahead = int(min(max(AHEAD_BYTES // each // max(feed.workers, 1), 1), AHEAD))
    options = grain.ReadOptions(num_threads=min(THREADS, ahead), prefetch_buffer_size=ahead)
    made = made.to_iter_dataset(options)
    if feed.workers:
        if not flags.FLAGS.is_parsed():  # Grain asks for the flags of a program, which this is not
            flags.FLAGS.mark_as_parsed()
        made = made.mp_prefetch(grain.MultiprocessingOptions(num_workers=feed.workers, per_worker_buffer_size=ahead))
    for batch in made:
        if isinstance(batch, _Refused):
            raise DataError(batch.sentence)
        yield batch


def chunks(
    source: Iterator[tuple[np.ndarray, np.ndarray]], sizes: list[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields several batches at a time, ``[batches, batch, ...]``, as many as the sizes say."""
    for size in sizes:
        taken = list(itertools.islice(source, size))
        yield np.stack([x for x, _ in taken]), np.stack([y for _, y in taken])


class _Refused(NamedTuple):
    """What could not be read; it crosses processes, which an error does not do whole."""

    sentence: str


class _Batches:
    """The batches of an order by their numbers, as Grain reads them."""

    def __init__(self, x: Streamed, y: np.ndarray, rows: np.ndarray):
        self.x, self.y, self.rows = x, y, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        index = self.rows[number]
        try:
            return self.x[index], self.y[index]
        except DataError as error:
            return _Refused(str(error))


def _by_shard(shard: np.ndarray, together: int, root: Key[Array, ""], number: int) -> np.ndarray:
    """Returns the examples of a pass over shards: groups of them in a drawn order, each mixed within itself."""
    words = np.asarray(jax.random.key_data(rng.stream(root, "data", number))).ravel()
    drawn = np.random.default_rng([int(word) for word in words])
    there = drawn.permutation(np.unique(shard))
    place = np.empty(int(shard.max()) + 1, np.int64)
    place[there] = np.arange(len(there)) // together
    group = place[shard]
    mixed = drawn.permutation(len(shard))
    return mixed[np.argsort(group[mixed], kind="stable")]
