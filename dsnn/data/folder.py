"""A user's folder of recordings: which files belong to which part and class, without following links out of it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsnn.data import own, streams
from dsnn.data.readers import FileReader
from dsnn.data.split import DataError, Split
from dsnn.data.streamed import Streamed

PARTS = ("train", "val", "test")
DEFAULT_TEST = 0.2
MAX_FILES = 1_000_000
MAX_BYTES = 1 << 33


class Recording(NamedTuple):
    """A file and what its place in the folder says of it."""

    path: Path
    part: str
    label: str


class Found(NamedTuple):
    """The recordings of a folder, sorted by path within each part, and the names of its classes."""

    recordings: tuple[Recording, ...]
    classes: tuple[str, ...]


def find(folder: Path, suffixes: tuple[str, ...]) -> Found:
    """Returns the recordings in ``folder/<class>/`` or ``folder/{train,val,test}/<class>/``; no link leads out of it.

    Args:
        folder: every folder in it is a class, or a part of them.
        suffixes: of the files that count, in lower case; others are passed over.

    Raises:
        DataError: no folder, no such file, or fewer than two classes.
    """
    if not folder.is_dir():
        raise DataError(f"data.path must be a folder with a folder per class, got {folder}, which is none.")
    parts = [name for name in PARTS if (folder / name).is_dir()]
    roots = {name: folder / name for name in parts} if "train" in parts else {"": folder}
    recordings: list[Recording] = []
    for part, root in roots.items():
        for group in sorted(root.iterdir()):
            if not group.is_dir() or not inside(group, folder):
                continue
            for path in sorted(group.iterdir()):
                if path.suffix.lower() in suffixes and path.is_file() and not path.is_symlink():
                    recordings.append(Recording(path, part, group.name))
                if len(recordings) > MAX_FILES:
                    raise DataError(f"{folder} may hold {MAX_FILES} recordings, got more; split it up.")
    if not recordings:
        raise DataError(f"{folder} must hold <class>/<file> with {' or '.join(suffixes)} files, got none.")
    classes = tuple(sorted({recording.label for recording in recordings}))
    if len(classes) < 2:
        raise DataError(f"{folder} must hold at least two classes (folders of files), got {', '.join(classes)}.")
    return Found(tuple(recordings), classes)


def inside(path: Path, folder: Path) -> bool:
    """Returns whether a path lies in a folder once every link has been followed."""
    return path.resolve().is_relative_to(folder.resolve())


def split(
    found: Found,
    read: Callable[[Path], np.ndarray],
    name: str,
    seed: int,
    val_fraction: float | None,
    test_fraction: float | None,
    dtype: Any = np.float32,
    *,
    temporal: bool = True,
    stream: str = streams.AUTO,
) -> Split:
    """Returns the split of a folder; parts that it does not name are drawn by the seed, each class in proportion.

    Args:
        found: the recordings.
        read: the array of one file, ``[time, ...]`` if ``temporal``.
        name: of the data set.
        seed: draws the parts.
        val_fraction: of the training recordings; by default a fifth, and 5 000 at most.
        test_fraction: of all recordings where the folder has no test part; None refuses such a folder.
        dtype: of the arrays.
        temporal: whether the first axis of what is read is time.
        stream: whether files are read as they are used, see `dsnn.data.npy.load`.
    """
    reader = FileReader([recording.path for recording in found.recordings], read, np.dtype(dtype))
    if stream == streams.ALWAYS or (stream == streams.AUTO and streams.too_large(reader)):
        x: Any = Streamed(reader)
    else:
        x = _whole(reader, temporal)
    y = np.array([r.label for r in found.recordings])
    where = np.array([r.part or "train" for r in found.recordings])
    parts = {part: own.Raw(x[where == part], y[where == part]) for part in PARTS if (where == part).any()}
    if "train" not in parts:
        raise DataError(f"the folder train of {name!r} must hold recordings, got none; add some to each class.")
    whole = own.divided(
        parts,
        name,
        found.recordings[0].path.parent.parent,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        task="classification",
    )
    return own.split_of(whole.parts, name, temporal=temporal, notes=whole.notes, compact=True)


def _whole(reader: FileReader, temporal: bool) -> np.ndarray:
    """Returns what all files hold."""
    size = math.prod(reader.shape) * reader.dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(
            f"recordings must fit in {MAX_BYTES >> 30} GiB, got {reader.shape[0]} of shape {reader.shape[1:]}, "
            f"{size / 2**30:.1f} GiB; use {'fewer steps or dtype=uint8' if temporal else 'a smaller size'}, or leave "
            f"data.stream=never out."
        )
    x = np.zeros(reader.shape, reader.dtype)
    for row, file in zip(x, reader.files, strict=True):
        row[...] = reader.decode(file)
    return x


def drawn_by_default(found: Found, test_fraction: float | None) -> float | None:
    """Returns the share of a folder's recordings to test on: a fifth where it has no parts and none is given."""
    unnamed = all(recording.part == "" for recording in found.recordings)
    return DEFAULT_TEST if unnamed and test_fraction is None else test_fraction
