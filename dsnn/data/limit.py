"""Fewer examples of the same make: a training part drawn by class, and a sample of any part to measure on."""

from collections.abc import Mapping

import numpy as np

from dsnn.data.split import Arrays, Split, by_class, hold_out, size
from dsnn.data.streamed import Streamed

LOOKED_AT, LOOKED_AT_BYTES = 10_000, 1 << 27
"""Examples, and bytes of them, that stand for a part which is too large to be looked at as a whole."""

LEAST_SHARDS, MOST_SHARDS = 4, 64
"""Shards that such examples are drawn from."""


def limited(split: Split, count: int, rng: np.random.Generator) -> Split:
    """Returns the split with at most ``count`` training examples, in their original order.

    Each class keeps its proportion, and one example at least where ``count`` allows one of every class. Labels of
    another kind (per step, several, numbers) are drawn uniformly. What `Split.extra` and `Split.truth` say of the
    training part, under names such as ``train/labelled``, stays aligned with it.

    Args:
        split: whose training part is drawn from.
        count: how many examples to keep, at least 1.
        rng: consumed.
    """
    total = size(split.train)
    if count >= total:
        return split
    rows = np.flatnonzero(hold_out(by_class(np.asarray(split.train.y)), count, rng, every=True))

    def drawn(side: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: v[rows] if n.startswith("train/") and len(v) == total else v for n, v in side.items()}

    train = Arrays(split.train.x[rows], split.train.y[rows])
    return split._replace(train=train, extra=drawn(split.extra), truth=drawn(split.truth))


def sample(part: Arrays, count: int, seed: int = 0) -> Arrays:
    """Returns at most ``count`` examples of a part, drawn evenly and left in their order, for what is measured on some.

    The first rows would not do: a folder's examples come class by class, and a table may be sorted.

    Args:
        part: of a split.
        count: how many examples, at least 1; all of them where there are no more.
        seed: of the draw; the same examples every time.
    """
    total = size(part)
    if total <= count:
        return part
    rows = np.sort(np.random.default_rng(seed).choice(total, count, replace=False))
    return Arrays(part.x[rows], part.y[rows])


def looked_at(part: Arrays) -> Arrays:
    """Returns the examples that stand for a part where all of it would be looked at.

    All of them where they are arrays; of a stream `LOOKED_AT`, or as many as `LOOKED_AT_BYTES` hold, evenly drawn. Of
    shards that are read as a whole some are drawn instead, and examples from these.
    """
    x = part.x
    if not isinstance(x, Streamed):
        return part
    each = max(x.nbytes // max(len(x), 1), 1)
    count = max(min(LOOKED_AT, LOOKED_AT_BYTES // each), 1)
    if count >= len(x):
        return Arrays(x[np.arange(len(x))], part.y)
    rng = np.random.default_rng(0)
    among = np.arange(len(x))
    if (shard := x.shard) is not None:
        few = rng.permutation(np.unique(shard))
        sizes = np.cumsum([np.count_nonzero(shard == one) for one in few[:MOST_SHARDS]])
        enough = int(np.searchsorted(sizes, count)) + 1
        among = np.flatnonzero(np.isin(shard, few[: max(enough, min(LEAST_SHARDS, len(few)))]))
    rows = np.sort(rng.choice(among, min(count, len(among)), replace=False))
    return Arrays(x[rows], part.y[rows])
