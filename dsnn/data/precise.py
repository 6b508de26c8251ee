"""Numbers in single precision: what differs between examples must outlive the cast.

Single precision has seven digits: of times in seconds since 1970, or of any column around 1e8, it leaves nothing but
the part that all examples share. Such columns are taken relative to their training median, in double precision.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dsnn.data.missing import listed
from dsnn.data.split import Features

CENTRE = "centre/shift"
FAR = 1e4
"""A mean of so many standard deviations costs a thousandth of one in single precision."""


class Cast(NamedTuple):
    """Inputs in single precision, what was subtracted from each column, or nothing, and what to say of it."""

    parts: dict[str, Features]
    extra: dict[str, np.ndarray]
    notes: tuple[str, ...]


def single(parts: Mapping[str, np.ndarray], temporal: bool, columns: Sequence[str] = ()) -> Cast:
    """Returns inputs in single precision; what is too large for it becomes infinite.

    Args:
        parts: ``[n, ...]`` or ``[n, time, ...]`` by part, ``train`` among them; every value is known.
        temporal: whether the second axis is time.
        columns: what they are called, for what is said.
    """
    train = parts["train"]
    table = train.ndim == (3 if temporal else 2)
    shift = _centre(train) if table and _finer(train.dtype) and train.size else None
    with np.errstate(over="ignore"):  # what overflows is infinite, and is refused as that
        if shift is None:
            return Cast({part: x.astype(np.float32, copy=False) for part, x in parts.items()}, {}, ())
        cast: dict[str, Features] = {
            part: (np.asarray(x, np.float64) - shift).astype(np.float32) for part, x in parts.items()
        }
    far = np.flatnonzero(shift).tolist()
    said = ", ".join(f"{shift[column]:g}" for column in far[:3]) + (", ..." if len(far) > 3 else "")
    note = (
        f"the training median ({said}) was subtracted from {listed(far, len(shift), columns)}, since single precision "
        f"cannot tell such values apart; a network in use needs its inputs alike."
    )
    return Cast(cast, {CENTRE: shift}, (note,))


def _finer(dtype: np.dtype) -> bool:
    return dtype.kind in "iuf" and np.promote_types(dtype, np.float32) != np.float32


def _centre(train: np.ndarray) -> np.ndarray | None:
    """Returns what to subtract from each column, zero from most; None where single precision will do."""
    rows = train.reshape(-1, train.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.mean(0, dtype=np.float64)
        far = np.abs(mean) > FAR * rows.std(0, dtype=np.float64)
    shift = np.zeros(len(mean))
    for column in np.flatnonzero(far):
        values = rows[:, column]
        if np.isfinite(mean[column]) and (values != values[0]).any():
            shift[column] = np.median(values)
    return shift if shift.any() else None
