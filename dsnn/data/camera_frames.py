"""Frames of what a 128 x 128 event camera saw: bins of equal time or of equally many events, and coarser pixels.

Bins divide a recording's own span, first event to last, or a given time from its first event. Those of the recording's
own span, and those of equally many events, are known once the recording has ended; bins of ``duration_s`` are known
while it runs.
"""

import dataclasses
import math

import numpy as np

from dsnn.data import event_times, events
from dsnn.data.aedat import Recording
from dsnn.data.split import DataError

SIDE = 128
MAX_BYTES = 1 << 33
"""Of all frames."""

BINS = ("time", "count")


@dataclasses.dataclass(frozen=True)
class CameraFrames:
    """How recordings become frames ``[steps, 128 / pool, 128 / pool, 2]``, the last axis as the polarity is written.

    Attributes:
        steps: number of bins.
        bins: ``time``, bins of equal length, the last one with its end; or ``count``, of equally many events in the
            order of the file (n // steps, the last bin has the rest).
        duration_s: events later than that after the first one are left out, and bins of time share it; None takes the
            recording's own span.
        pool: pixels along either axis that count as one, a divisor of 128.
        counts: events in each bin rather than whether there was any; bytes hold up to 255.
        dtype: ``float32`` or ``uint8``.
    """

    steps: int
    bins: str
    duration_s: float | int | None
    pool: int
    counts: bool
    dtype: str

    def __post_init__(self) -> None:
        events.check_options(self.steps, self.dtype)
        if self.bins not in BINS:
            raise DataError(f"bins must be one of {', '.join(BINS)}, got {self.bins!r}.")
        number = isinstance(self.duration_s, float | int) and not isinstance(self.duration_s, bool)
        if self.duration_s is not None and not (number and 0 < self.duration_s < math.inf):
            raise DataError(
                f"duration_s must be above 0 seconds, got {self.duration_s!r}; leave it out for all of a recording."
            )
        whole = isinstance(self.pool, int) and not isinstance(self.pool, bool) and self.pool > 0
        if not whole or SIDE % self.pool:
            raise DataError(f"pool must divide the {SIDE} pixels of a side, got {self.pool!r}; 2 gives 64 x 64.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a recording's frames."""
        return (self.steps, SIDE // self.pool, SIDE // self.pool, 2)

    def room(self, count: int) -> np.ndarray:
        """Returns zeros for the frames of so many recordings.

        Raises:
            DataError: they would take more than `MAX_BYTES`.
        """
        total = count * math.prod(self.shape) * np.dtype(self.dtype).itemsize
        if total > MAX_BYTES:
            raise DataError(
                f"frames must fit in {MAX_BYTES >> 30} GiB, got {count} of shape {self.shape} in {self.dtype}, "
                f"{total / 2**30:.1f} GiB; set data.options.pool=2, dtype=uint8 or fewer steps."
            )
        return np.zeros((count, *self.shape), self.dtype)

    def of(self, recording: Recording) -> np.ndarray:
        """Returns the frames of a recording."""
        if not len(recording.times):
            return np.zeros(self.shape, self.dtype)
        since = recording.times - recording.times.min()
        span = float(since.max() or 1) if self.duration_s is None else 1e6 * self.duration_s
        index = event_times.bin_of(since, span, self.steps)
        if self.bins == "count":
            kept = index < self.steps
            total = int(kept.sum())
            index[kept] = np.minimum(np.arange(total) // max(total // self.steps, 1), self.steps - 1)
        side = SIDE // self.pool
        places = ((recording.y // self.pool) * side + recording.x // self.pool) * 2 + recording.polarity
        flat = events.binned(index, places, self.steps, side * side * 2, self.counts, self.dtype)
        return flat.reshape(self.shape)
