"""Recordings of events as files hold them: npz, five-byte events, event cameras, and HDF5 lists as SHD has them."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsnn.data import aedat, event_times, foreign, nmnist_small
from dsnn.data.split import DataError
from dsnn.store import untrusted

SUFFIXES = (".npz", ".bin", ".bs2", ".aedat", ".aedat4")
MAX_EVENTS = 1 << 28
"""Of all recordings together."""

MAX_RECORDINGS = 1_000_000
MAX_PLACE = (1 << 31) - 2
MAX_POLARITY = 15
PIXELS = ("y", "x", "p")


class Events(NamedTuple):
    """A recording.

    Attributes:
        times: ``[n]``, see `dsnn.data.event_times.numbers`.
        where: int32 ``[n, axes]``.
        axes: ``("channel",)``, ``("y", "x")`` or ``("y", "x", "p")``.
        name: of the recording, for sentences.
    """

    times: np.ndarray
    where: np.ndarray
    axes: tuple[str, ...]
    name: str


def read(path: Path) -> Events:
    """Returns the recording in a file, told by its suffix.

    Raises:
        DataError: the file is not what its suffix says.
    """
    with foreign.sentences(path, "a recording of events"):
        untrusted.plain(path, 32 * MAX_EVENTS)
        match path.suffix.lower():
            case ".npz":
                return _npz(path)
            case ".bin" | ".bs2":
                return _five_bytes(path)
            case ".aedat":
                return _aedat(path)
        return _aedat4(path)


def read_lists(path: Path) -> tuple[list[Events], np.ndarray]:
    """Returns the recordings in an HDF5 file, ``spikes/times`` and ``spikes/units``, and their ``labels``.

    Raises:
        DataError: the file is no HDF5, or has not these lists.
    """
    with (
        foreign.sentences(path, "HDF5 with spikes/times, spikes/units and labels"),
        untrusted.hdf5(path, 16 * MAX_EVENTS) as file,
    ):
        for place in ("spikes/times", "spikes/units", "labels"):
            if (count := file.size(place)) > MAX_EVENTS:
                raise DataError(f"{path} may hold {MAX_EVENTS} values, got {count} in {place}; split it.")
        labels = file.text("labels") if file.is_text("labels") else file.values("labels")
        if labels.ndim != 1 or len(labels) > MAX_RECORDINGS:
            raise DataError(
                f"labels in {path} must be [n] for at most {MAX_RECORDINGS} recordings, got shape {labels.shape}."
            )
        times, units = file.lists("spikes/times"), file.lists("spikes/units")
    if not len(times) == len(units) == len(labels):
        raise DataError(
            f"{path} must hold times, units and a label each, got {len(times)}, {len(units)}, {len(labels)}."
        )
    pairs = enumerate(zip(times, units, strict=True))
    return [_checked(t, {"channel": u}, f"recording {n} of {path}") for n, (t, u) in pairs], labels


def check_alike(recordings: list[Events]) -> tuple[str, ...]:
    """Returns what places of events are called, the same in all recordings.

    Raises:
        DataError: some have channels and others pixels, or nothing happened in any.
    """
    first = recordings[0]
    for one in recordings:
        if one.axes != first.axes:
            raise DataError(
                f"recordings must all have channels, or all x and y (and p), got {', '.join(first.axes)} in "
                f"{first.name} and {', '.join(one.axes)} in {one.name}; write them alike."
            )
    total = sum(len(one.times) for one in recordings)
    if total > MAX_EVENTS:
        raise DataError(f"recordings may hold {MAX_EVENTS} events in all, got {total}; use fewer.")
    if not total:
        raise DataError(f"recordings must hold events, got none in any of {len(recordings)}, such as {first.name}.")
    return first.axes


def _npz(path: Path) -> Events:
    chosen: list[str] = []

    def wanted(names: list[str]) -> list[str]:
        axes = ["channel"] if "channel" in names else ["y", "x", *(["p"] if "p" in names else [])]
        if "t" not in names or not set(axes) <= set(names):
            given = ", ".join(sorted(names)[:20]) or "nothing"
            raise DataError(f"{path} must hold t and channel, or t, x, y, got {given}.")
        chosen.extend(["t", *axes])
        return chosen

    found = untrusted.arrays(path, wanted, 32 * MAX_EVENTS)
    return _checked(found["t"], {name: found[name] for name in chosen[1:]}, str(path))


def _five_bytes(path: Path) -> Events:
    try:
        times, channel = nmnist_small.read(untrusted.content(path, 5 * MAX_EVENTS))
    except DataError as error:
        raise DataError(f"{path} must be a recording of five-byte events: {error}") from error
    side = nmnist_small.SIDE
    return _checked(times, {"y": channel // 2 // side, "x": channel // 2 % side, "p": channel % 2}, str(path))


def _aedat(path: Path) -> Events:
    found = aedat.read(untrusted.content(path, 8 * MAX_EVENTS), str(path))
    return _checked(found.times, {"y": found.y, "x": found.x, "p": found.polarity}, str(path))


def _aedat4(path: Path) -> Events:
    try:
        import tonic.io  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError(f"{path} needs the package tonic, which is not installed; pip install tonic.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = tonic.io.read_aedat4(str(path))
        parts = {name: np.asarray(found[name]) for name in ("t", *PIXELS)}
    except ImportError as error:
        raise DataError(f"{path} needs a package that tonic did not find: {error}.") from error
    except Exception as error:  # whatever a reader of another library says of a file that it cannot read
        raise DataError(f"{path} must be an AEDAT recording, got: {untrusted.one_line(error)}.") from error
    return _checked(parts["t"], {name: parts[name] for name in PIXELS}, str(path))


def _checked(times: np.ndarray, places: dict[str, np.ndarray], name: str) -> Events:
    if any(a.ndim != 1 or len(a) != len(times) for a in (times, *places.values())):
        shapes = [a.shape for a in (times, *places.values())]
        raise DataError(f"{name} must hold arrays of one length, got {shapes}.")
    columns = [(_polarity if axis == "p" else _place)(values, axis, name) for axis, values in places.items()]
    return Events(event_times.numbers(times, name), np.stack(columns, 1), tuple(places), name)


def _place(values: np.ndarray, axis: str, name: str) -> np.ndarray:
    """Returns places as int32, whole numbers in floating point among them."""
    if not values.size:
        return np.zeros(0, np.int32)
    kind = values.dtype.kind
    if kind not in "biuf" or (kind == "f" and not (np.isfinite(values).all() and (values == np.round(values)).all())):
        raise DataError(
            f"channels in {name} must be integers, got {axis} of dtype {values.dtype}"
            f"{' with fractions' if kind == 'f' else ''}; round them."
        )
    low, high = values.min().item(), values.max().item()
    if low < 0 or high > MAX_PLACE:
        raise DataError(f"channels in {name} must be from 0 to {MAX_PLACE}, got {axis} from {low:g} to {high:g}.")
    return values.astype(np.int32)


def _polarity(values: np.ndarray, axis: str, name: str) -> np.ndarray:
    """Returns polarities 0 and 1, whether they are written so or as -1 and 1."""
    if values.size and values.dtype.kind in "if" and values.min() == -1:
        if not np.isin(values, (-1, 1)).all():
            raise DataError(f"polarities in {name} must be 0 and 1, or -1 and 1, got both -1 and others than 1.")
        return (values > 0).astype(np.int32)
    if values.size and values.dtype.kind in "iuf" and values.max() > MAX_POLARITY:
        raise DataError(f"polarities in {name} must be 0 and 1, or -1 and 1, got {values.max():g}.")
    return _place(values, axis, name)
