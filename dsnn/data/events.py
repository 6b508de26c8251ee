"""Lists of events to frames: counts, or the presence, of events in equal bins of time."""

import numpy as np

from dsnn.data.split import DataError

DTYPES = ("float32", "uint8")


def frames(
    times: np.ndarray, channels: np.ndarray, duration: float, steps: int, size: int, counts: bool, dtype: str
) -> np.ndarray:
    """Returns ``[steps, size]`` events per bin of one recording.

    Args:
        times: of the events, in the unit of ``duration``, in any order; those outside [0, duration) are left out.
        channels: of the events, from 0 to ``size - 1``.
        duration: of all bins together.
        steps: number of bins.
        size: number of channels.
        counts: how many events fell in a bin (at most 255 in bytes); otherwise 1 where there was any.
        dtype: ``float32`` or ``uint8``.
    """
    bins = np.floor(times.astype(np.float64) * (steps / duration)).astype(np.int64)
    return binned(bins, channels, steps, size, counts, dtype)


def binned(bins: np.ndarray, channels: np.ndarray, steps: int, size: int, counts: bool, dtype: str) -> np.ndarray:
    """Returns ``[steps, size]`` events per bin, see `frames`; those whose bin is none of the ``steps`` are left out."""
    inside = (bins >= 0) & (bins < steps)
    flat = np.bincount(bins[inside] * size + channels[inside].astype(np.int64), minlength=steps * size)
    return np.minimum(flat, 255 if counts else 1).astype(dtype).reshape(steps, size)


def check_options(steps: int, dtype: str) -> None:
    """Raises ``DataError`` unless the options of an event set are in range."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise DataError(f"steps must be an integer of at least 1, got {steps!r}.")
    if dtype not in DTYPES:
        raise DataError(
            f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}; uint8 takes a quarter of the memory."
        )
