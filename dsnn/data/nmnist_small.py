"""A small N-MNIST (Orchard et al. 2015): digits seen by an event camera.

The first 1000 training and 100 test recordings, about 4100 events each. They last some 300 ms; what comes after 310 ms,
in two of a hundred, is left out.

The subset was published with SLAYER (Shrestha & Orchard 2018) as a folder of event files, without an archive to
download: either the archive ``NMNISTsmall.tar.xz`` or that folder, ``NMNISTsmall``, serves. An event takes five bytes:
x, y, one bit of polarity (1: brighter) and 23 bits of time in microseconds.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np

from dsnn.data import archive, events
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, seeded_mask

FOLDER = "NMNISTsmall"
FILES = (
    File(
        "NMNISTsmall.tar.xz",
        ("eab05b425b4827b9e301f75f706094f47cd6b8b26be6d1453d70d750aa89ecfb",),
        (),
        page="https://github.com/bamsumit/slayerPytorch/tree/master/example/NMNISTsmall (the folder serves as well)",
    ),
)
CONTENT_SHA256 = "60afeb2bc22514efdb84dd8a1f469f1059c621f06a1361765dc477b55bc21208"
SIDE = 34
DURATION_US = 310_000.0
LISTS = ("train1K.txt", "test100.txt")
DEFAULT_VALIDATION = 0.1


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 25,
    counts: bool = False,
    dtype: str = "float32",
) -> Split:
    """Returns the split: ``[n, steps, 34, 34, 2]``, the last axis darker, brighter.

    Args:
        root: the data folder.
        seed: chooses the validation recordings.
        val_fraction: of the 1000 training recordings, in [0, 1); a tenth by default.
        steps: equal bins of the 310 ms; a thousand recordings take 9.2 MB a step as float32.
        counts: events in each bin rather than whether there was any.
        dtype: ``float32``, or ``uint8`` for a quarter of the memory.

    Raises:
        DataError: an option is out of range, or the files are not this set.
    """
    events.check_options(steps, dtype)
    content = _content(root)
    train, test = (_part(content, name, steps, counts, dtype) for name in LISTS)
    mask = seeded_mask(np.asarray(train.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    names = tuple("0123456789")
    return Split(*divide(train, mask), test, 10, "nmnist-small", temporal=True, class_names=names)


def _content(root: Path) -> dict[str, bytes]:
    """Returns the recordings and lists by file name, from the archive or, without one, from the published folder."""
    folder = root / "nmnist-small" / FOLDER
    if not (folder.parent / FILES[0].name).exists() and folder.is_dir():
        content = _wanted((path.name, path.read_bytes()) for path in sorted(folder.iterdir()) if path.is_file())
        found = content_digest(content)
        if found != CONTENT_SHA256:
            raise DataError(
                f"{folder} is not the published folder: expected content sha256 {CONTENT_SHA256}, found {found}; "
                f"get it again from {FILES[0].page}."
            )
        return content
    return _wanted(archive.members(locate(root, "nmnist-small", FILES[0])))


def _wanted(members: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    named = ((PurePosixPath(name).name, content) for name, content in members)
    return {name: content for name, content in named if name.endswith(".bs2") or name in LISTS}


def content_digest(content: dict[str, bytes]) -> str:
    """Returns the sha256 of the names and digests of all files, however they were packed."""
    lines = (f"{name} {hashlib.sha256(content[name]).hexdigest()}\n" for name in sorted(content))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _part(content: dict[str, bytes], name: str, steps: int, counts: bool, dtype: str) -> Arrays:
    rows = [line.split() for line in content[name].decode().splitlines() if line.strip() and line[0] != "#"]
    x = np.zeros((len(rows), steps, SIDE * SIDE * 2), dtype)
    for frames, (number, _) in zip(x, rows, strict=True):
        frames[:] = events.frames(*read(content[f"{number}.bs2"]), DURATION_US, steps, SIDE * SIDE * 2, counts, dtype)
    y = np.array([int(label) for _, label in rows], np.int32)
    return Arrays(x.reshape(len(rows), steps, SIDE, SIDE, 2), y)


def read(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the time in microseconds and the channel, ``(y * 34 + x) * 2 + polarity``, of every event of a file.

    Raises:
        DataError: the file is not a list of five-byte events on 34 x 34 pixels.
    """
    if len(content) % 5:
        raise DataError(f"an event file must be a multiple of 5 bytes long, got {len(content)}; it is cut off.")
    byte = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int64)
    if byte.size and byte[:, :2].max() >= SIDE:
        raise DataError(f"events must lie on {SIDE} x {SIDE} pixels, got {int(byte[:, :2].max())}.")
    times = (byte[:, 2] & 0x7F) << 16 | byte[:, 3] << 8 | byte[:, 4]
    return times, (byte[:, 1] * SIDE + byte[:, 0]) * 2 + (byte[:, 2] >> 7)
