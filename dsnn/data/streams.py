"""Inputs that are read as they are used, brought to one scale and precision, and which data are read so."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsnn.data import precise
from dsnn.data.error import DataError
from dsnn.data.limit import looked_at
from dsnn.data.readers import ArrayReader
from dsnn.data.scaling import PARTS
from dsnn.data.split import Arrays, Features, Split
from dsnn.data.streamed import Cast, Filled, Reader, Single, Streamed

AUTO, ALWAYS, NEVER = "auto", "always", "never"
STREAMS = (AUTO, ALWAYS, NEVER)
MOST_IN_MEMORY = 1 << 31
"""Bytes in single precision, 2 GiB of all parts, up to which files that could be streamed are read into memory."""


def streamed(split: Split) -> Split:
    """Returns a split whose dense inputs are read a batch at a time, wherever they lie."""
    parts = {
        name: part._replace(x=Streamed(ArrayReader(np.asarray(part.x))))
        for name in PARTS
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
        for name in PARTS
        if (part := getattr(split, name)) is not None and isinstance(part.x, Streamed)
    }
    return split._replace(**parts) if parts else split


def is_streamed(split: Split) -> bool:
    """Returns whether the training part is read as it is used."""
    return isinstance(split.train.x, Streamed)


def too_large(*readers: Reader) -> bool:
    """Returns whether inputs would take more than `MOST_IN_MEMORY` in single precision."""
    return sum(int(np.prod(reader.shape, dtype=np.int64)) for reader in readers) * 4 > MOST_IN_MEMORY


def inputs(
    parts: Mapping[str, Any],
    temporal: bool,
    scale: float = 1.0,
    compact: bool = False,
    labels: np.ndarray | None = None,
) -> precise.Cast:
    """Returns inputs that are scaled, filled and brought to single precision as they are read.

    What is filled in, and what is subtracted from columns that single precision cannot tell apart, is that of the
    training examples that `dsnn.data.looked_at` draws.

    Args:
        parts: `Streamed` inputs by part, ``train`` among them.
        temporal: whether the second axis is time.
        scale: they are multiplied by it.
        compact: whether bytes stay bytes.
        labels: of the training examples, each class of which is looked at; None is no class.

    Raises:
        DataError: series that end early, which are for arrays in memory.
    """
    train = parts["train"]
    raw = dataclasses.replace(train, gaps=True)
    seen = np.asarray(looked_at(Arrays(raw, np.zeros(len(train)) if labels is None else labels)).x)
    casts: list[Cast] = []
    fills = seen.dtype.kind == "f"
    filled = ", and gaps are filled with the median of their column among these" if fills else ""
    notes = [
        f"inputs are read as they are used; what looks at all of them looks at {len(seen)} of {len(train)}{filled}."
    ]
    extra: dict[str, np.ndarray] = {}
    if fills:
        fill = Filled(_medians(seen), temporal)
        seen = fill(seen)
        casts.append(fill)
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
