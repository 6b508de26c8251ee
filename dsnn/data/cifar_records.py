"""The binary version of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): records of one or two labels and 3072 bytes of image.

An image is 1024 bytes of red, then green, then blue, each row by row. The python version of the sets is never read:
its files are pickles, which run code when they are opened.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from dsnn.data import archive
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE
MAX_BYTES = 1 << 30
"""What all files of an archive may take; the published ones take 184 MB."""


def contents(root: Path, folder: str, file: File, names: tuple[str, ...]) -> dict[str, bytes]:
    """Returns files of a set's archive by their names.

    Args:
        root: the data folder.
        folder: the name of the data set.
        file: the archive.
        names: of the files in it, whatever folder they are in.

    Raises:
        DataError: only the python version is there, the archive is damaged, or it lacks a file.
    """
    pickled = root / folder / file.name.replace("-binary", "-python")
    if pickled.exists() and not (root / folder / file.name).exists():
        raise DataError(
            f"{folder} is read from {file.name}, got {pickled}, whose pickles may run code; fetch "
            f"{file.addresses[0] if file.addresses else file.name} into {pickled.parent} "
            f"(python scripts/fetch_data.py {folder})."
        )
    place = locate(root, folder, file)
    members = archive.members(place, lambda name: PurePosixPath(name).name in names, MAX_BYTES)
    found = {PurePosixPath(name).name: content for name, content in members}
    if missing := [name for name in names if name not in found]:
        raise DataError(
            f"{place} must hold {', '.join(names)}, got none named {missing[0]}; get the published archive."
        )
    return found


def read(content: bytes, classes: Mapping[str, int], where: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the images of a file, bytes ``[n, 32, 32, 3]``, and their labels, int32 ``[n]``, by kind.

    Args:
        content: of the file.
        classes: number of classes of each label of a record, by kind and in the order of the record.
        where: names the file in a sentence.

    Raises:
        DataError: the file is no whole number of records, or a label is no class; with the byte.
    """
    size = len(classes) + PIXELS
    if not content or len(content) % size:
        raise DataError(
            f"{where} must hold records of {size} bytes, got {len(content) % size} bytes of one at byte "
            f"{len(content) // size * size}; it is cut off: get the published archive."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = {}
    for column, (kind, most) in enumerate(classes.items()):
        labels[kind] = records[:, column].astype(np.int32)
        if (labels[kind] >= most).any():
            first = int((labels[kind] >= most).argmax())
            raise DataError(
                f"{where} must hold {kind} labels from 0 to {most - 1}, got {labels[kind][first]} at byte "
                f"{first * size + column}; get the published archive."
            )
    return records[:, len(classes) :].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


def part(parts: list[tuple[np.ndarray, dict[str, np.ndarray]]], kind: str) -> Arrays:
    """Returns the images of some files in [0, 1], ``[n, 32, 32, 3]``, with their labels of one kind."""
    x = np.empty((sum(len(images) for images, _ in parts), SIDE, SIDE, 3), np.float32)
    start = 0
    for images, _ in parts:
        np.divide(images, np.float32(255), out=x[start : start + len(images)])
        start += len(images)
    return Arrays(x, np.concatenate([labels[kind] for _, labels in parts]))
