"""When events happened: clocks of many kinds, counted so that a recording's time begins near 0, in equal bins.

Times in files count from the start of a recording, of a device, from 1970 or from a stimulus. A recording whose first
event lies further from 0 than the longest recording lasts (or than the bins reach), or before 0, cannot count from its
own start: its times are taken from its first event.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsnn.data.split import DataError

MICROSECOND = np.timedelta64(1, "us")


class Clocked(NamedTuple):
    """Times of all recordings on clocks that begin near 0.

    Attributes:
        times: of each recording's events, at least 0.
        span: what all bins cover, in the unit of the times.
        notes: what was done, a sentence each.
    """

    times: list[np.ndarray]
    span: float
    notes: tuple[str, ...]


def numbers(times: np.ndarray, where: str) -> np.ndarray:
    """Returns times as whole or real numbers; numpy's dates and durations in microseconds.

    Args:
        times: as a file holds them.
        where: names the file in a sentence.

    Raises:
        DataError: text, truth values, or times that are not finite.
    """
    kind = times.dtype.kind
    if not times.size:
        return np.zeros(0, np.int64)
    if kind == "u":
        return times.astype(np.uint64)
    if kind == "i":
        return times.astype(np.int64)
    try:
        if kind == "M":
            times = times - times.min()
        if kind in "mM":
            times = times / MICROSECOND
    except (TypeError, OverflowError) as error:
        raise DataError(f"times in {where} must be finite numbers, got dtype {times.dtype}; convert them.") from error
    if times.dtype.kind != "f":
        raise DataError(f"times in {where} must be finite numbers, got dtype {times.dtype}; convert them.")
    with np.errstate(over="ignore"):
        real = times.astype(np.float64)
    if not np.isfinite(real).all():
        odd = real[~np.isfinite(real)]
        raise DataError(f"times in {where} must be finite numbers, got {odd[0]} among them; leave such events out.")
    return real


def clocked(times: Sequence[np.ndarray], duration: float | int, names: Sequence[str]) -> Clocked:
    """Returns times that count from near 0, and how far the bins reach.

    Args:
        times: `numbers` of each recording.
        duration: of all bins, in the unit of the times; 0 takes the longest recording.
        names: of the recordings, for what is said.
    """
    ends = {n: (one.min().item(), one.max().item()) for n, one in enumerate(times) if len(one)}
    lasting = max((last - first for first, last in ends.values()), default=0)
    reach = duration or lasting or max((last for _, last in ends.values()), default=0)
    away = [n for n, (first, _) in ends.items() if first < 0 or first > reach]
    moved = away
    if 2 * len(away) > len(ends) or any(ends[n][0] < 0 for n in away):
        moved = list(ends)  # one clock for all: what began near 0 did so by chance
    counted = list(times)
    for n in moved:
        counted[n] = _since(times[n], ends[n])
    notes = []
    if away:
        first = away[0]
        notes.append(
            f"times of {len(away)} of {len(times)} recordings do not begin near 0 (the first event of {names[first]} "
            f"is at {ends[first][0]:g}): those of {len(moved)} count from their first event."
        )
    last = max((float(one.max()) for one in counted if len(one)), default=0.0)
    return Clocked(counted, float(duration or last or 1.0), tuple(notes))


def bin_of(times: np.ndarray, span: float, steps: int) -> np.ndarray:
    """Returns the bin of every event, integers below ``steps``; ``steps`` for one beyond the span.

    The last bin holds its end as well, so that the last event of a recording has a bin.

    Args:
        times: at least 0.
        span: of all bins, above 0.
        steps: number of bins.
    """
    real = times.astype(np.float64)
    if span > 1e290:  # products below stay finite
        real, span = real * 1e-100, span * 1e-100
    with np.errstate(over="ignore"):
        index = np.minimum(np.floor(real * steps / span), steps - 1)
    return np.where(real <= span, index, steps).astype(np.int64)


def _since(times: np.ndarray, ends: tuple[float | int, float | int]) -> np.ndarray:
    """Returns times from the first one, in whole numbers as long as those reach."""
    first, last = ends
    if times.dtype.kind == "f":
        with np.errstate(over="ignore"):
            since = times - first
        return since if np.isfinite(since).all() else times / 4 - first / 4
    if last - first < 2**63:
        return (times - np.array([first], times.dtype)).astype(np.int64)
    return times.astype(np.float64) - float(first)
