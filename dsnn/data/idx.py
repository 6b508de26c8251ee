"""The IDX format of MNIST and of the sets that took its place: four gzipped files of bytes."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_seed, last_held_out

MAX_BYTES = 1 << 30
IMAGE_CLASSES = 10
SEQUENCES = ("image", "rows", "pixels")


def read(place: Path, rank: int) -> np.ndarray:
    """Returns the array of unsigned bytes in a gzipped IDX file (LeCun, Cortes & Burges 1998, "file format").

    Args:
        place: the ``.gz`` file.
        rank: the number of axes it must have: 3 for images, 1 for labels.

    Raises:
        DataError: it is not gzip, not IDX of unsigned bytes, of another rank, or its length is not what it declares.
    """
    try:
        with gzip.open(place) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{place} must be a whole gzip file, got one that does not unpack ({error}).") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{place} may unpack to {MAX_BYTES} bytes, got more; get the published file.")
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] != rank:
        raise DataError(
            f"{place} must hold IDX unsigned bytes of rank {rank} (it begins 000008{rank:02x}), got "
            f"{content[:4].hex() or 'nothing'}; images are rank 3 and labels rank 1."
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=min(rank, (len(content) - 4) // 4), offset=4))
    body = len(content) - 4 - 4 * rank
    if len(shape) < rank or body != math.prod(shape):
        raise DataError(f"{place} must hold the {math.prod(shape)} bytes that it declares, got {max(body, 0)}.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def images(root: Path, folder: str, files: tuple[File, ...]) -> Arrays:
    """Returns the images of a pair of files in [0, 1] as ``[n, height, width, 1]``, with their labels.

    Args:
        root: the data folder.
        folder: the name of the data set.
        files: the images, then the labels.
    """
    pixels, labels = (read(locate(root, folder, file), rank) for file, rank in zip(files, (3, 1), strict=True))
    return Arrays(pixels[..., None].astype(np.float32) / np.float32(255), labels.astype(np.int32))


def split(
    root: Path,
    name: str,
    files: tuple[File, ...],
    val_fraction: float | None,
    names: tuple[str, ...],
    sequence: str = "image",
    permutation: int | None = None,
) -> Split:
    """Returns a set of four IDX files; validation is the end of the training file, by default its last 5000 images.

    Args:
        root: the data folder.
        name: of the set, and of its folder.
        files: training images and labels, test images and labels.
        val_fraction: of the training images, in [0, 1), or None for 5000.
        names: of the classes.
        sequence: ``image``; ``rows``, one row a step; or ``pixels``, one pixel a step. The last two are temporal.
        permutation: seed of one fixed order of the pixels, for ``pixels`` only; None keeps theirs.

    Raises:
        DataError: an option is not one of these, or a file is not what it should be.
    """
    if sequence not in SEQUENCES:
        raise DataError(f"sequence must be one of {', '.join(SEQUENCES)}, got {sequence!r}.")
    if permutation is not None and sequence != "pixels":
        raise DataError(f"permutation needs sequence=pixels, got sequence={sequence}; leave one of them out.")
    parts = (images(root, name, files[:2]), images(root, name, files[2:]))
    train, test = (Arrays(_sequence(np.asarray(part.x), sequence, permutation), part.y) for part in parts)
    parts = last_held_out(train, val_fraction)
    return Split(*parts, test, IMAGE_CLASSES, name, temporal=sequence != "image", class_names=names)


def _sequence(x: np.ndarray, sequence: str, permutation: int | None) -> np.ndarray:
    match sequence:
        case "rows":
            return x[..., 0]
        case "pixels":
            pixels = x.reshape(len(x), -1, 1)
            if permutation is None:
                return pixels
            return pixels[:, np.random.default_rng(check_seed(permutation)).permutation(pixels.shape[1])]
        case _:
            return x
