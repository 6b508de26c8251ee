"""A user's event recordings: a folder per class with one file per recording, or HDF5 files in the format of SHD.

What a file may be is told by its suffix:

- ``.npz``: arrays ``t`` (times) and ``channel``, or ``x``, ``y`` and optionally ``p`` (polarity 0 or 1, or -1 or 1);
- ``.bin`` and ``.bs2``: the five-byte events of N-MNIST, 34 x 34 pixels and two polarities, microseconds;
- ``.aedat``: event cameras, AEDAT 2 of a DVS128 and AEDAT 3, and ``.aedat4``, read with Tonic where that is installed;
- ``.h5``: many recordings in one file, ``spikes/times`` in seconds, ``spikes/units`` and ``labels``, as SHD has them.

Times that do not begin near 0 count from the first event of their recording, and a note says so
(`dsnn.data.event_times`).
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsnn.data import event_files, event_times, events, folder, own, streams
from dsnn.data.event_files import Events
from dsnn.data.split import DataError, Split

STEPS, FRAMES = 50, 20
MOST_EXAMPLE_BYTES = 1 << 28
"""Bytes on average that a recording's frames may take where they are made as they are used."""


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    steps: int = 0,
    duration: float | int = 0.0,
    channels: list[int] | tuple[int, ...] | int = 0,
    counts: bool = False,
    dtype: str = "float32",
    test_fraction: float | None = None,
    stream: str = streams.AUTO,
) -> Split:
    """Returns the split of a folder of event recordings, ``[n, steps, channels...]``.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training recordings, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``<class>/<file>``, ``{train,val,test}/<class>/<file>``, a folder with ``*train*.h5`` and ``*test*.h5``,
            or one ``.h5`` file.
        steps: equal bins of the duration; 0 takes 50, and 20 where a step is a frame of pixels.
        duration: of all bins, in the unit of the times in the files (microseconds where these are numpy's dates and
            durations); 0 takes the last event of all recordings. Events after it are left out, and a note says so.
        channels: number of channels, or [height, width, polarities]; 0 takes the largest of all recordings.
        counts: events in each bin rather than whether there was any; bytes hold up to 255, and a note says so.
        dtype: ``float32``, or ``uint8`` for a quarter of the memory.
        test_fraction: of the recordings, in (0, 1), where there is no test part; a fifth where there are no parts.
        stream: whether frames of files in folders are made as they are used, see `dsnn.data.npy.load`; their events
            are in memory.

    Raises:
        DataError: an option is out of range, or a file is not what its suffix says.
    """
    if path is None:
        raise DataError("data set 'events' needs the option path, got none; set it to a folder or an .h5 file.")
    events.check_options(STEPS if isinstance(steps, int) and steps == 0 else steps, dtype)
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not 0 <= duration < 1e300:
        raise DataError(f"duration must be at least 0, got {duration!r}; 0 takes the longest recording.")
    place = Path(path).expanduser()
    size = _channels(channels)
    if place.is_file() or list(place.glob("*.h5")):
        files = [place] if place.is_file() else [_one(place, "train"), _one(place, "test")]
        parts = [event_files.read_lists(file) for file in files]
        frames = _frames([one for lists, _ in parts for one in lists], size, steps, duration, counts, dtype)
        return _of_lists(frames, [y for _, y in parts], place, seed, val_fraction, test_fraction)
    found = folder.find(place, event_files.SUFFIXES)
    files = [recording.path for recording in found.recordings]
    most = folder.MAX_BYTES if stream == streams.NEVER else max(folder.MAX_BYTES, len(files) * MOST_EXAMPLE_BYTES)
    frames = _frames([event_files.read(file) for file in files], size, steps, duration, counts, dtype, most)
    row = {file: n for n, file in enumerate(files)}
    held = folder.drawn_by_default(found, test_fraction)
    split = folder.split(
        found,
        lambda file: frames.of(row[file]),
        "events",
        seed,
        val_fraction,
        held,
        np.dtype(dtype),
        stream=stream,
    )
    return split._replace(notes=(*split.notes, *frames.notes()))


@dataclasses.dataclass(frozen=True)
class _Frames:
    """Recordings on one grid of bins and channels.

    Attributes:
        recordings: of one kind.
        clock: their times.
        shape: channels, or height, width and polarities.
        cells: the same by the axes of the recordings, of which channels have one.
        steps: bins.
        counts: whether events are counted.
        dtype: of the frames.
    """

    recordings: Sequence[Events]
    clock: event_times.Clocked
    shape: tuple[int, ...]
    cells: tuple[int, ...]
    steps: int
    counts: bool
    dtype: str

    def of(self, number: int) -> np.ndarray:
        """Returns a recording ``[steps, channels...]``."""
        flat, often = self._found(number)
        out = np.zeros(self.steps * math.prod(self.shape), self.dtype)
        out[flat] = np.minimum(often, self._most()) if self.counts else 1
        return out.reshape(self.steps, *self.shape)

    def notes(self) -> tuple[str, ...]:
        """Returns what was done to the recordings, a sentence each."""
        said = list(self.clock.notes)
        times, span = self.clock.times, self.clock.span
        if silent := sum(not len(one) for one in times):
            said.append(f"{silent} of {len(times)} recordings hold no event, and are silent throughout.")
        if late := sum(int((one.astype(np.float64) > span).sum()) for one in times):
            said.append(f"{late} events after the duration, {span:g}, were left out (data.options.duration).")
        if self.counts and self._most() < math.inf:
            full = sum(bool((self._found(n)[1] > self._most()).any()) for n in range(len(times)))
            if full:
                said.append(
                    f"counts above 255 were cut to it in {full} of {len(times)} recordings; dtype=float32 has room."
                )
        return tuple(said)

    def _found(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places in the flat frames where something happened, and how often."""
        index = event_times.bin_of(self.clock.times[number], self.clock.span, self.steps)
        inside = index < self.steps
        places = self.recordings[number].where[inside].astype(np.int64)
        every = np.ravel_multi_index((index[inside], *places.T), (self.steps, *self.cells))
        return np.unique(every, return_counts=True)

    def _most(self) -> float:
        return 255.0 if self.dtype == "uint8" else math.inf


def _frames(
    recordings: Sequence[Events],
    size: tuple[int, ...],
    steps: int,
    duration: float | int,
    counts: bool,
    dtype: str,
    most_bytes: int = folder.MAX_BYTES,
) -> _Frames:
    """Returns the grid of all recordings, which has been found to fit."""
    axes = event_files.check_alike(list(recordings))
    cells = (math.prod(size),) if size and axes == ("channel",) else size
    if size and len(cells) != len(axes):
        raise DataError(
            f"data.options.channels must have a number for each of {', '.join(axes)}, got {list(size)}; "
            f"{recordings[0].name} has these."
        )
    extents = [_extent(one.where) for one in recordings]
    wide = [max(widths) for widths in zip(*extents, strict=True)]
    shape = size or tuple(wide)
    if size and any(most > least for most, least in zip(wide, cells, strict=True)):
        odd = next(n for n, each in enumerate(extents) if any(a > b for a, b in zip(each, cells, strict=True)))
        raise DataError(
            f"channels in {recordings[odd].name} must lie within {list(size)}, got up to "
            f"{[n - 1 for n in extents[odd]]}."
        )
    bins = steps or (FRAMES if len(shape) > 1 else STEPS)  # frames of pixels take long to learn
    total = len(recordings) * bins * math.prod(shape) * np.dtype(dtype).itemsize
    if total > most_bytes:
        largest = recordings[max(range(len(extents)), key=lambda n: math.prod(extents[n]))]
        raise DataError(
            f"recordings must fit in {folder.MAX_BYTES >> 30} GiB, got {len(recordings)} of shape {(bins, *shape)}, "
            f"{total / 2**30:.4g} GiB, the largest {', '.join(axes)} in {largest.name}; mend it, or set fewer "
            "data.options.steps or dtype=uint8."
        )
    clock = event_times.clocked([one.times for one in recordings], duration, [one.name for one in recordings])
    return _Frames(recordings, clock, shape, cells or shape, bins, counts, dtype)


def _extent(where: np.ndarray) -> list[int]:
    return [int(n) + 1 for n in where.max(0)] if len(where) else [1] * where.shape[1]


def _channels(channels: Any) -> tuple[int, ...]:
    given = tuple(channels) if isinstance(channels, (list, tuple)) else (channels,)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= event_files.MAX_PLACE for n in given)
    if not whole or not given or (0 in given and len(given) > 1):
        raise DataError(f"channels must be a number or [height, width, polarities], got {channels!r}.")
    return () if given == (0,) else given


def _of_lists(
    frames: _Frames,
    labels: list[np.ndarray],
    place: Path,
    seed: int,
    val_fraction: float | None,
    test_fraction: float | None,
) -> Split:
    """Returns the split of recordings in one file, or in one for training and one to test on."""
    made, start = [], 0
    for y in labels:
        x = np.zeros((len(y), frames.steps, *frames.shape), frames.dtype)
        for n, row in enumerate(x):
            row[...] = frames.of(start + n)
        made.append(own.Raw(x, y))
        start += len(y)
    held = folder.DEFAULT_TEST if len(made) == 1 and test_fraction is None else test_fraction
    whole = own.divided(
        dict(zip(("train", "test"), made, strict=False)),
        "events",
        place,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=held,
        task="classification",
    )
    return own.split_of(whole.parts, "events", temporal=True, notes=(*whole.notes, *frames.notes()), compact=True)


def _one(place: Path, part: str) -> Path:
    found = [file for file in sorted(place.glob(f"*{part}*.h5")) if folder.inside(file, place)]
    if len(found) != 1:
        raise DataError(f"{place} must hold one *{part}*.h5, got {', '.join(p.name for p in found[:5]) or 'none'}.")
    return found[0]
