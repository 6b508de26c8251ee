"""Missing values: gaps are filled with the training median of their column, what comes after a series' end with zero.

That zero is of the scaled inputs, so that steps beyond the end of a series say nothing: `scaling` takes it there.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse

from dsnn.data.scaling import scaling
from dsnn.data.split import DataError, Features

LENGTHS, COLUMNS = "lengths", "columns"
"""Where `Split.extra` has the steps of each series, after the part's name, and the names of a table's inputs."""

SHOWN = 8


class Filled(NamedTuple):
    """Inputs without gaps.

    Attributes:
        parts: inputs by part.
        extra: number of steps of each series, int32 ``[n]``, under ``train/lengths`` and the like; empty where no
            series ends early.
        notes: what was filled, a sentence each.
    """

    parts: dict[str, Features]
    extra: dict[str, np.ndarray]
    notes: tuple[str, ...]


def filled(parts: Mapping[str, Features], temporal: bool, columns: Sequence[str] = ()) -> Filled:
    """Returns inputs whose NaN are filled in; infinite values are not touched.

    Args:
        parts: ``[n, ...]`` or ``[n, time, ...]`` by part, ``train`` among them; sparse rows get zeros.
        temporal: whether the second axis is time; NaN in every channel from some step on then means that the series
            has ended.
        columns: what they are called, for what is said; by default by their numbers.

    Raises:
        DataError: nothing in the training part has a value.
    """
    where = {part: _gaps(x) for part, x in parts.items()}
    if not any(gaps.any() for gaps in where.values()):
        return Filled(dict(parts), {}, ())
    if where["train"].size and where["train"].all():
        raise DataError(
            f"values must be finite, got nothing but NaN in x of the train part, of shape {where['train'].shape}; give "
            f"values."
        )
    if any(isinstance(x, sparse.csr_array) for x in parts.values()):
        return _zeros(parts, where)
    arrays = {part: np.array(x) for part, x in parts.items()}
    lasts = {part: lengths(gaps) for part, gaps in where.items()} if temporal else {}
    ended = any((steps < arrays[part].shape[1]).any() for part, steps in lasts.items())
    notes = []
    inside = dict(where)
    if ended:
        tails = {part: np.arange(x.shape[1]) >= lasts[part][:, None] for part, x in arrays.items()}
        inside = {part: gaps & ~over_channels(tails[part], gaps) for part, gaps in where.items()}
    if any(gaps.any() for gaps in inside.values()):
        notes.append(_fill(arrays, where, inside, columns))
    extra: dict[str, np.ndarray] = {}
    if ended:
        _end(arrays, tails)
        extra = {f"{part}/{LENGTHS}": steps for part, steps in lasts.items()}
        every = np.concatenate(list(lasts.values()))
        notes.append(
            f"series last from {every.min()} to {every.max()} steps; those beyond an end hold what is zero once scaled."
        )
    return Filled(dict(arrays), extra, tuple(notes))


def _gaps(x: Features) -> np.ndarray:
    values = np.asarray(x.data if isinstance(x, sparse.csr_array) else x)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


def lengths(gaps: np.ndarray) -> np.ndarray:
    """Returns how many steps a series has until the last one with a value, int32 ``[n]``."""
    known = np.asarray(~gaps.all(tuple(range(2, gaps.ndim))))
    return np.where(known.any(1), known.shape[1] - known[:, ::-1].argmax(1), 0).astype(np.int32)


def over_channels(steps: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Returns what is said of steps ``[n, time]`` with axes for the channels of another array."""
    return steps.reshape(*steps.shape, *[1] * (like.ndim - 2))


def _fill(
    arrays: dict[str, np.ndarray],
    where: Mapping[str, np.ndarray],
    inside: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> str:
    """Fills gaps in place with the training median of their column, and says so."""
    columns: list[int] = []
    empty: list[int] = []
    total = 0
    last = arrays["train"].shape[-1]
    for column in range(last):
        holes = {part: gaps[..., column] for part, gaps in inside.items()}
        if not any(hole.any() for hole in holes.values()):
            continue
        values = arrays["train"][..., column]
        known = values[~where["train"][..., column] & np.isfinite(values)]
        (columns if known.size else empty).append(column)
        median = np.median(known) if known.size else 0.0
        for part, hole in holes.items():
            total += int(hole.sum())
            arrays[part][..., column][hole] = median
    said = []
    if columns:
        said.append(f"those of {listed(columns, last, names)} with its training median")
    if empty:
        said.append(f"those of {listed(empty, last, names)}, which has no training value, with 0")
    return f"{total} missing values of x were filled in, {' and '.join(said)}."


def _end(arrays: dict[str, np.ndarray], tails: Mapping[str, np.ndarray]) -> None:
    """Fills the steps after the end of every series, in place."""
    train = arrays["train"]
    valid = train[~tails["train"]]
    value = scaling(valid, False).shift if train.ndim == 3 else 0.0
    for part, tail in tails.items():
        arrays[part][tail] = value


def _zeros(parts: Mapping[str, Features], where: Mapping[str, np.ndarray]) -> Filled:
    rows: dict[str, Features] = {}
    for part, x in parts.items():
        if isinstance(x, sparse.csr_array):
            rows[part] = sparse.csr_array((np.where(where[part], 0, x.data), x.indices, x.indptr), shape=x.shape)
        else:
            rows[part] = np.where(where[part], 0, np.asarray(x))
    total = sum(int(gaps.sum()) for gaps in where.values())
    return Filled(rows, {}, (f"{total} missing values of sparse rows were set to 0.",))


def listed(columns: Sequence[int], of: int, names: Sequence[str] = ()) -> str:
    """Returns ``column 3 of 20``, or several of them, or all; by name where they have one."""
    if len(columns) == of and of > 1:
        return f"all {of} columns"
    called = [f"{names[column]!r}" if names else str(column) for column in columns[:SHOWN]]
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return f"column{'s' if len(columns) > 1 else ''} {', '.join(called)}{more} of {of}"
