"""Data sets that are read as they are used: what a source of one's own may give, and how any split becomes one."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dsnn.data import missing, precise
from dsnn.data.error import DataError
from dsnn.data.limit import looked_at
from dsnn.data.readers import ArrayReader, ExampleReader, Examples
from dsnn.data.split import OWN, Arrays, Features, Split, divide, own_fraction, seeded_mask
from dsnn.data.streamed import Cast, Filled, Reader, Single, Streamed

AUTO, ALWAYS, NEVER = "auto", "always", "never"
STREAMS = (AUTO, ALWAYS, NEVER)
MOST_IN_MEMORY = 1 << 31
"""Bytes in single precision, 2 GiB of all parts, up to which files that could be streamed are read into memory."""


class Stream(NamedTuple):
    """A data set whose examples are read one by one, when they are used; what ``data.source`` may give for a `Split`.

    Attributes:
        train: examples by their numbers, ``len(train)`` and ``train[k] -> (x, y)``, as ``grain.sources`` have them; or
            `Arrays`. With an attribute ``labels``, the targets of all, they need not be read once for their targets.
        test: the examples that are reported.
        classes: number of classes, labels or outputs.
        name: of the data set.
        val: the examples that choices are made on; None draws them from the training examples by the seed.
        temporal: True when the first axis of an example's ``x`` is time.
        task: ``classification``, ``multilabel``, ``regression`` or ``own``.
        class_names: one name per class, or empty.
    """

    train: "Examples | Arrays"
    test: "Examples | Arrays"
    classes: int
    name: str
    val: "Examples | Arrays | None" = None
    temporal: bool = False
    task: str = "classification"
    class_names: tuple[str, ...] = ()


def split_of(stream: Stream, seed: int, val_fraction: float | None) -> Split:
    """Returns the split of a stream; its targets are in memory, its inputs are not.

    Args:
        stream: what a source gave.
        seed: draws the part that selects and certifies, where the stream has none.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most.

    Raises:
        DataError: a part does not say how many examples it has, or has none, or its examples are no pairs.
    """
    train, test = _part(stream.train, stream), _part(stream.test, stream)
    if stream.val is not None:
        val = _part(stream.val, stream)
    else:
        y = np.asarray(train.y)
        mask = seeded_mask(y, seed, own_fraction(val_fraction, len(y)))
        train, val = divide(train, mask)
    cast = inputs({"train": train.x, "val": val.x, "test": test.x}, stream.temporal, compact=True)
    return Split(
        Arrays(cast.parts["train"], train.y),
        Arrays(cast.parts["val"], val.y),
        Arrays(cast.parts["test"], test.y),
        stream.classes,
        stream.name,
        temporal=stream.temporal,
        task=stream.task,
        class_names=stream.class_names,
        extra=cast.extra,
        notes=cast.notes,
    )


def streamed(split: Split) -> Split:
    """Returns a split whose dense inputs are read a batch at a time, wherever they lie."""
    parts = {
        name: part._replace(x=Streamed(ArrayReader(np.asarray(part.x))))
        for name in ("train", "val", "test", "certify")
        if (part := getattr(split, name)) is not None and isinstance(part.x, np.ndarray)
    }
    if "train" not in parts and not isinstance(split.train.x, Streamed):
        raise DataError(
            f"data.stream=always is for dense inputs, got sparse rows in {split.name!r}; leave data.stream out."
        )
    return split._replace(**parts)


def in_memory(split: Split) -> Split:
    """Returns a split with all inputs as arrays, whatever memory that takes."""
    parts = {
        name: part._replace(x=part.x[np.arange(len(part.x))])
        for name in ("train", "val", "test", "certify")
        if (part := getattr(split, name)) is not None and isinstance(part.x, Streamed)
    }
    return split._replace(**parts) if parts else split


def is_streamed(split: Split) -> bool:
    """Returns whether the training part is read as it is used."""
    return isinstance(split.train.x, Streamed)


def too_large(*readers: Reader) -> bool:
    """Returns whether inputs would take more than `MOST_IN_MEMORY` in single precision."""
    return sum(int(np.prod(reader.shape, dtype=np.int64)) for reader in readers) * 4 > MOST_IN_MEMORY


def inputs(parts: Mapping[str, Any], temporal: bool, scale: float = 1.0, compact: bool = False) -> precise.Cast:
    """Returns inputs that are scaled, filled and brought to single precision as they are read.

    What is filled in, and what is subtracted from columns that single precision cannot tell apart, is that of the
    training examples that `dsnn.data.looked_at` draws.

    Args:
        parts: `Streamed` inputs by part, ``train`` among them.
        temporal: whether the second axis is time.
        scale: they are multiplied by it.
        compact: whether bytes stay bytes.

    Raises:
        DataError: series that end early, which are for arrays in memory.
    """
    train = parts["train"]
    raw = dataclasses.replace(train, gaps=True)
    seen = np.asarray(looked_at(Arrays(raw, np.zeros(len(train)))).x)
    casts: list[Cast] = []
    notes = [f"inputs are read as they are used; what looks at all of them looked at {len(seen)} of {len(train)}."]
    extra: dict[str, np.ndarray] = {}
    gaps = np.isnan(seen) if seen.dtype.kind == "f" else np.zeros(1, bool)
    if gaps.any():
        if temporal and (missing.lengths(gaps) < seen.shape[1]).any():
            raise DataError(
                "series that end early (NaN from some step on) are for arrays in memory, got some in a stream; fill "
                "them up with what means nothing, or set data.stream=never."
            )
        fill = Filled(_medians(seen))
        seen = fill(seen)
        casts.append(fill)
        notes.append(f"missing values are filled in with the median of their column among these {len(seen)}.")
    if not (compact and scale == 1 and train.dtype == np.uint8):
        scaled = seen if scale == 1 else seen * np.float32(scale)
        found = precise.single({"train": scaled}, temporal)
        casts.append(Single(scale, found.extra.get(precise.CENTRE)))
        extra, notes = found.extra, [*notes, *found.notes]
    changed: dict[str, Features] = {name: _then(x, casts) for name, x in parts.items()}
    return precise.Cast(changed, extra, tuple(notes))


def _medians(x: np.ndarray) -> np.ndarray:
    """Returns the median of each column, 0 where it has no value, ``[column]``."""
    rows = x.reshape(-1, x.shape[-1])
    known = [column[np.isfinite(column)] for column in rows.T]
    return np.array([np.median(column) if column.size else 0.0 for column in known])


def _then(x: Streamed, casts: list[Cast]) -> Streamed:
    for cast in casts:
        x = x.then(cast)
    return x


def _part(given: Any, stream: Stream) -> Arrays:
    if isinstance(given, Arrays):
        return Arrays(Streamed(ArrayReader(np.asarray(given.x))), np.asarray(given.y))
    reader = ExampleReader(given, stream.name)
    y = reader.labels()
    whole = stream.task == "regression" or (stream.task == OWN and y.dtype.kind == "f")
    return Arrays(Streamed(reader), y.astype(np.float32 if whole else np.int32))
