"""Fewer examples of the same make: a training part drawn by class, and a sample of any part to measure on."""

from collections.abc import Mapping

import numpy as np

from dsnn.data.split import Arrays, Split, by_class, hold_out, size
from dsnn.data.streamed import Streamed

LOOKED_AT, LOOKED_AT_BYTES = 10_000, 1 << 27
"""Examples, and bytes of them, that stand for a part which is too large to be looked at as a whole."""

LEAST_SHARDS = 4
"""Shards that such examples are drawn from, where there are so many."""


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
    mask = hold_out(by_class(np.asarray(split.train.y)), count, rng, every=True)
    rows = np.flatnonzero(mask)

    def drawn(side: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {n: v[rows] if n.startswith("train/") and len(v) == total else v for n, v in side.items()}

    x = split.train.x
    train = Arrays(x[mask] if isinstance(x, Streamed) else x[rows], split.train.y[rows])
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

    All of them where they are arrays; of a stream `LOOKED_AT`, or as many as `LOOKED_AT_BYTES` hold, each class in
    proportion. Of shards that are read as a whole some are drawn, more of them until every class is among them.
    """
    x = part.x
    if not isinstance(x, Streamed):
        return part
    each = max(x.nbytes // max(len(x), 1), 1)
    count = max(min(LOOKED_AT, LOOKED_AT_BYTES // each), 1)
    if count >= len(x):
        return Arrays(x[np.arange(len(x))], part.y)
    rng, labels = np.random.default_rng(0), by_class(np.asarray(part.y))
    among = np.ones(len(x), bool) if x.shard is None else np.isin(x.shard, _some_shards(x.shard, labels, count, rng))
    there = np.flatnonzero(among)
    quota = _quota(labels, labels[there], count)
    rows = [rng.permutation(there[labels[there] == label])[:wanted] for label, wanted in quota.items()]
    chosen = np.sort(np.concatenate(rows))
    return Arrays(x[chosen], part.y[chosen])


def _some_shards(shard: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Returns shards that hold so many examples, and every class."""
    few: list[int] = []
    held, lacking = 0, set(np.unique(labels).tolist())
    for one in rng.permutation(np.unique(shard)):
        mine = labels[shard == one]
        found = lacking & set(mine.tolist())
        if found or held < count or len(few) < LEAST_SHARDS:
            few.append(int(one))
            held, lacking = held + len(mine), lacking - found
    return few


def _quota(whole: np.ndarray, there: np.ndarray, count: int) -> dict[int, int]:
    """Returns how many examples of each class to draw, one at least, as its share of the whole says."""
    classes, sizes = np.unique(whole, return_counts=True)
    wanted = np.maximum(np.round(count * sizes / sizes.sum()), 1).astype(int)
    return {int(k): min(int(n), int(np.count_nonzero(there == k))) for k, n in zip(classes, wanted, strict=True)}
