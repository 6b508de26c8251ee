"""A user's folder of recordings: which files belong to which part and class, without following links out of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, own_fraction, seeded_mask

PARTS = ("train", "val", "test")
DEFAULT_TEST = 0.2
MAX_FILES = 1_000_000
MAX_BYTES = 1 << 33


class Recording(NamedTuple):
    """A file and what its place in the folder says of it."""

    path: Path
    part: str
    label: int


class Found(NamedTuple):
    """The recordings of a folder, sorted by path, and the names of its classes."""

    recordings: tuple[Recording, ...]
    classes: tuple[str, ...]


def find(folder: Path, suffixes: tuple[str, ...]) -> Found:
    """Returns the recordings in ``folder/<class>/`` or ``folder/{train,val,test}/<class>/``.

    Args:
        folder: every folder in it is a class, or a part of them.
        suffixes: of the files that count, in lower case; others are passed over.

    Raises:
        DataError: no folder, no such file, fewer than two classes, or a class that only one part has.
    """
    if not folder.is_dir():
        raise DataError(f"data.path must be a folder with a folder per class, got {folder}, which is none.")
    parts = [name for name in PARTS if (folder / name).is_dir()]
    roots = {name: folder / name for name in parts} if "train" in parts else {"": folder}
    files: list[tuple[Path, str, str]] = []
    for part, root in roots.items():
        for path in sorted(root.glob("*/*")):
            if path.suffix.lower() in suffixes and path.is_file() and not path.is_symlink():
                files.append((path, part, path.parent.name))
            if len(files) > MAX_FILES:
                raise DataError(f"{folder} may hold {MAX_FILES} recordings, got more; split it up.")
    if not files:
        raise DataError(f"{folder} must hold <class>/<file> with {' or '.join(suffixes)} files, got none.")
    classes = tuple(sorted({name for _, _, name in files}))
    if len(classes) < 2:
        raise DataError(f"{folder} must hold at least two classes (folders of files), got {', '.join(classes)}.")
    recordings = tuple(Recording(path, part, classes.index(name)) for path, part, name in files)
    if "train" in roots and not any(r.part == "test" for r in recordings):
        raise DataError(f"{folder} has a folder train and needs a folder test beside it, got {', '.join(parts)}.")
    return Found(recordings, classes)


def split(
    found: Found,
    read: Callable[[Path], np.ndarray],
    name: str,
    seed: int,
    val_fraction: float | None,
    test_fraction: float,
    dtype: Any = np.float32,
) -> Split:
    """Returns the split of a folder; parts that it does not name are drawn by the seed, each class in proportion.

    Args:
        found: the recordings.
        read: the array ``[time, ...]`` of one file.
        name: of the data set.
        seed: draws the parts.
        val_fraction: of the training recordings; by default a fifth, and 5 000 at most.
        test_fraction: of all recordings where the folder has no parts.
        dtype: of the arrays.
    """
    check_fraction(test_fraction, DEFAULT_TEST)
    first = read(found.recordings[0].path)
    size = len(found.recordings) * first.size * np.dtype(dtype).itemsize
    if size > MAX_BYTES:
        raise DataError(
            f"recordings must fit in {MAX_BYTES >> 30} GiB, got {len(found.recordings)} of shape {first.shape}, "
            f"{size / 2**30:.1f} GiB; use fewer steps or dtype=uint8."
        )
    x = np.zeros((len(found.recordings), *first.shape), dtype)
    for row, recording in zip(x, found.recordings, strict=True):
        row[...] = read(recording.path)
    y = np.array([r.label for r in found.recordings], np.int32)
    parts = np.array([r.part for r in found.recordings])
    if (parts == "").all():
        held = seeded_mask(y, seed, test_fraction)
        parts = np.where(held, "test", "train")
    arrays = {part: Arrays(x[parts == part], y[parts == part]) for part in PARTS}
    train, val = arrays["train"], arrays["val"]
    if not len(val.y):
        fraction = own_fraction(val_fraction, len(train.y))
        train, val = divide(train, seeded_mask(np.asarray(train.y), seed, fraction))
    names = found.classes
    return Split(train, val, arrays["test"], len(names), name, temporal=True, class_names=names)
