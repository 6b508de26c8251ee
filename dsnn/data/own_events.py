"""A user's event recordings: a folder per class with one file per recording, or HDF5 files in the format of SHD.

What a file may be is told by its suffix:

- ``.npz``: arrays ``t`` (times) and ``channel``, or ``x``, ``y`` and optionally ``p`` (polarity 0 or 1);
- ``.bin`` and ``.bs2``: the five-byte events of N-MNIST, 34 x 34 pixels and two polarities, microseconds;
- ``.aedat`` and ``.aedat4``: event cameras, read with Tonic where that is installed;
- ``.h5``: many recordings in one file, ``spikes/times`` in seconds, ``spikes/units`` and ``labels``, as SHD has them.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from dsnn.data import events, folder, nmnist_small, own
from dsnn.data.split import DataError, Split

SUFFIXES = (".npz", ".bin", ".bs2", ".aedat", ".aedat4")
MAX_EVENTS = 1 << 28
STEPS, FRAMES = 50, 20


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    steps: int = 0,
    duration: float = 0.0,
    channels: list[int] | tuple[int, ...] | int = 0,
    counts: bool = False,
    dtype: str = "float32",
    test_fraction: float | None = None,
) -> Split:
    """Returns the split of a folder of event recordings, ``[n, steps, channels...]``.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training recordings, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``<class>/<file>``, ``{train,val,test}/<class>/<file>``, a folder with ``*train*.h5`` and ``*test*.h5``,
            or one ``.h5`` file.
        steps: equal bins of the duration; 0 takes 50, and 20 where a step is a frame of pixels.
        duration: of all bins, in the unit of the times in the files; 0 takes the last event of all recordings.
        channels: number of channels, or [height, width, polarities]; 0 takes the largest of all recordings.
        counts: events in each bin rather than whether there was any.
        dtype: ``float32``, or ``uint8`` for a quarter of the memory.
        test_fraction: of the recordings, in (0, 1), where there is no test part; a fifth where there are no parts.

    Raises:
        DataError: an option is out of range, or a file is not what its suffix says.
    """
    if path is None:
        raise DataError("data set 'events' needs the option path, got none; set it to a folder or an .h5 file.")
    events.check_options(STEPS if isinstance(steps, int) and steps == 0 else steps, dtype)
    if not (isinstance(duration, (int, float)) and 0 <= duration < float("inf")):
        raise DataError(f"duration must be at least 0, got {duration!r}; 0 takes the longest recording.")
    place = Path(path).expanduser()
    size = _channels(channels)
    if place.is_file() or list(place.glob("*.h5")):
        return _from_h5(place, seed, val_fraction, steps, duration, size, counts, dtype, test_fraction)
    found = folder.find(place, SUFFIXES)
    recordings = {r.path: _read(r.path) for r in found.recordings}
    shape = size or tuple(int(n) for n in np.max([_extent(c) for _, c in recordings.values()], axis=0))
    last = max((float(t.max()) for t, _ in recordings.values() if len(t)), default=0.0)
    span = duration or _beyond(last)
    bins = steps or _bins(shape)

    def frames(file: Path) -> np.ndarray:
        times, where = recordings[file]
        flat = _flat(where, shape, file)
        return events.frames(times, flat, span, bins, int(np.prod(shape)), counts, dtype).reshape(bins, *shape)

    held = folder.drawn_by_default(found, test_fraction)
    return folder.split(found, frames, "events", seed, val_fraction, held, np.dtype(dtype))


def _bins(shape: tuple[int, ...]) -> int:
    """Returns how many bins recordings have where nobody says; frames of pixels take long to learn."""
    return FRAMES if len(shape) > 1 else STEPS


def _beyond(last: float) -> float:
    return float(np.nextafter(np.float64(last), np.inf)) if last > 0 else 1.0


def _channels(channels: Any) -> tuple[int, ...]:
    given = tuple(channels) if isinstance(channels, (list, tuple)) else (channels,)
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in given) or (0 in given and len(given) > 1):
        raise DataError(f"channels must be a number or [height, width, polarities], got {channels!r}.")
    return () if given == (0,) else given


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns times ``[n]`` and integer places ``[n, axes]`` (channel, or y, x, polarity)."""
    if path.stat().st_size > 16 * MAX_EVENTS:
        raise DataError(f"{path} may hold {MAX_EVENTS} events, got {path.stat().st_size} bytes; cut it.")
    match path.suffix.lower():
        case ".npz":
            return _npz(path)
        case ".bin" | ".bs2":
            times, channel = nmnist_small.read(path.read_bytes())
            side = nmnist_small.SIDE
            return times, np.stack([channel // 2 // side, channel // 2 % side, channel % 2], 1)
    return _aedat(path)


def _npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = set(archive.files)
            axes = ["channel"] if "channel" in names else ["y", "x", *(["p"] if "p" in names else [])]
            if "t" not in names or not set(axes) <= names:
                raise DataError(
                    f"{path} must hold t and channel, or t, x, y, got {', '.join(sorted(names)) or 'nothing'}."
                )
            times, *where = (archive[name] for name in ("t", *axes))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} must be an .npz file of plain arrays, got: {error}.") from error
    if any(a.ndim != 1 or len(a) != len(times) for a in (times, *where)):
        raise DataError(f"{path} must hold arrays of one length, got {[a.shape for a in (times, *where)]}.")
    if not all(np.issubdtype(a.dtype, np.integer) or a.dtype == bool for a in where):
        raise DataError(f"channels in {path} must be integers, got {', '.join(str(a.dtype) for a in where)}.")
    if not np.issubdtype(times.dtype, np.number) or not np.isfinite(times).all():
        raise DataError(f"times in {path} must be finite numbers, got dtype {times.dtype} or NaN.")
    return times, np.stack([a.astype(np.int64) for a in where], 1)


def _aedat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import tonic.io  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError(f"{path} needs the package tonic, which is not installed; pip install tonic.") from error
    try:
        if path.suffix.lower() == ".aedat4":
            found = tonic.io.read_aedat4(str(path))
            parts = {name: np.asarray(found[name]) for name in ("t", "y", "x", "p")}
        else:
            # Tonic's own readers of whole files take two values of the three that its header function returns
            version, start, *_ = tonic.io.read_aedat_header_from_file(str(path))
            events = tonic.io.get_aer_events_from_file(str(path), version, start)
            at = np.asarray(events["address"]).astype(np.int64)
            shifts = {"x": (17, 0x1FFF), "y": (2, 0x1FFF), "p": (1, 1)}  # AEDAT 3
            if version < 3:
                shifts = {"x": (8, 0x7F), "y": (1, 0x7F), "p": (0, 1)}  # DVS128 in AEDAT 2
            parts = {name: (at >> shift) & mask for name, (shift, mask) in shifts.items()}
            parts["t"] = np.asarray(events["timeStamp"])
    except ImportError as error:
        raise DataError(f"{path} needs a package that tonic did not find: {error}.") from error
    except Exception as error:  # whatever a reader of another library says of a file that it cannot read
        raise DataError(f"{path} must be an AEDAT recording, got: {' '.join(str(error).split())}.") from error
    return parts["t"], np.stack([parts[name].astype(np.int64) for name in ("y", "x", "p")], 1)


def _extent(where: np.ndarray) -> np.ndarray:
    return where.max(0) + 1 if len(where) else np.ones(where.shape[1], np.int64)


def _flat(where: np.ndarray, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if where.shape[1] != len(shape):
        raise DataError(f"{path} has {where.shape[1]} axes of channels, expected {len(shape)} as in channels={shape}.")
    if len(where) and (where.min() < 0 or (where >= shape).any()):
        raise DataError(f"channels in {path} must lie within {shape}, got up to {tuple(int(n) for n in where.max(0))}.")
    return np.ravel_multi_index(tuple(where.T), shape) if len(where) else np.zeros(0, np.int64)


def _from_h5(
    place: Path,
    seed: int,
    val_fraction: float | None,
    steps: int,
    duration: float,
    size: tuple[int, ...],
    counts: bool,
    dtype: str,
    test_fraction: float | None,
) -> Split:
    files = [place] if place.is_file() else [_one(place, "train"), _one(place, "test")]
    parts = [_lists(file) for file in files]
    units = int(np.prod(size)) if size else 1 + max((int(u.max()) for p in parts for u in p[1] if len(u)), default=0)
    span = duration or _beyond(max((float(t.max()) for p in parts for t in p[0] if len(t)), default=0.0))
    shape = size or (units,)
    steps = steps or _bins(shape)

    def arrays(part: tuple[list, list, np.ndarray], file: Path) -> own.Raw:
        x = np.zeros((len(part[2]), steps, units), dtype)
        for row, times, channel in zip(x, part[0], part[1], strict=True):
            if len(times) != len(channel) or (len(channel) and (channel.max() >= units or channel.min() < 0)):
                raise DataError(f"{file} must give every event a unit below {units}, got one that does not.")
            row[:] = events.frames(times, channel, span, steps, units, counts, dtype)
        return own.Raw(x.reshape(len(x), steps, *shape), part[2])

    made = [arrays(part, file) for part, file in zip(parts, files, strict=True)]
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
    return own.split_of(whole.parts, "events", temporal=True, notes=whole.notes, compact=True)


def _one(place: Path, part: str) -> Path:
    found = [file for file in sorted(place.glob(f"*{part}*.h5")) if folder.inside(file, place)]
    if len(found) != 1:
        raise DataError(f"{place} must hold one *{part}*.h5, got {', '.join(p.name for p in found) or 'none'}.")
    return found[0]


def _lists(place: Path) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    try:
        import h5py  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError(f"{place} needs the package h5py, which is not installed; pip install h5py.") from error
    try:
        with h5py.File(place, "r") as file:
            total = 0
            for name in ("spikes/times", "spikes/units", "labels"):
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    raise DataError(f"{name} of {place} must lie in the file itself, got nothing or a link.")
                total += file[name].size
            if total > MAX_EVENTS:
                raise DataError(f"{place} may hold {MAX_EVENTS} recordings, got {total}; split it.")
            times, units = list(file["spikes/times"][:]), list(file["spikes/units"][:])
            labels = np.asarray(file["labels"][:])
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise DataError(f"{place} must be HDF5 with spikes/times, spikes/units and labels, got: {error}.") from error
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(f"labels in {place} must be integers [n], got {labels.dtype} {labels.shape}.")
    if not len(times) == len(units) == len(labels):
        raise DataError(
            f"{place} must hold times, units and a label each, got {len(times)}, {len(units)}, {len(labels)}."
        )
    return times, units, labels.astype(np.int32)
