"""A user's folder of pictures: a folder per class, in ``train`` and ``test`` or with a test part to be drawn."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsnn.data import folder, foreign, streams
from dsnn.data.split import DataError, Split
from dsnn.store import untrusted

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 1 << 26
"""Of a file before it is scaled down, 67 million."""

MAX_BYTES = 1 << 29


class Header(NamedTuple):
    """What a file says of its picture before it is decoded: height, width, and whether it has colours."""

    height: int
    width: int
    colour: bool


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    size: list[int] | tuple[int, ...] | int | None = None,
    grey: bool | None = None,
    test_fraction: float | None = None,
    stream: str = streams.AUTO,
) -> Split:
    """Returns the split of a folder of pictures, ``[n, height, width, channels]`` in [0, 1].

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training pictures, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``{train,val,test}/<class>/<file>`` or ``<class>/<file>``, png or jpg.
        size: [height, width] that every picture is scaled to, or one number for both; by default the size that all
            of them have.
        grey: one channel rather than three; by default where no picture has colours.
        test_fraction: of the pictures, in (0, 1), to draw as the test part of a folder that has none.
        stream: whether files are read as they are used, see `dsnn.data.npy.load`.

    Raises:
        DataError: an option is out of range, sizes differ and none is given, or a file is no such picture.
    """
    if path is None:
        raise DataError("data set 'images' needs the option path, got none; set it to a folder of pictures by class.")
    found = folder.find(Path(path).expanduser(), SUFFIXES)
    headers = [header(recording.path) for recording in found.recordings]
    shape = _shape(size) or _common(headers, found)
    plain = not any(one.colour for one in headers) if grey is None else grey
    if not isinstance(plain, bool):
        raise DataError(f"data.options.grey must be true or false, got {grey!r}.")
    return folder.split(
        found,
        lambda file: pixels(file, shape, plain),
        "images",
        seed,
        val_fraction,
        test_fraction,
        temporal=False,
        stream=stream,
    )


def header(path: Path) -> Header:
    """Returns what a picture's file says of it.

    Raises:
        DataError: it is no picture, or has too many pixels.
    """
    with _opened(path) as picture:
        turned = _asked(path, picture.getexif).get(0x0112, 1) in (5, 6, 7, 8)  # orientations that swap height and width
        width, height = picture.size[::-1] if turned else picture.size
        return Header(height, width, picture.mode not in ("1", "L", "LA", "I", "I;16", "F"))


def pixels(path: Path, shape: tuple[int, int], grey: bool) -> np.ndarray:
    """Returns a picture ``[height, width, channels]`` in [0, 1], upright, its transparency left out.

    Raises:
        DataError: it does not decode.
    """
    from PIL import Image, ImageOps

    with _opened(path) as opened:
        picture = _asked(path, lambda: ImageOps.exif_transpose(opened))
        if picture.mode in ("I", "I;16", "F"):  # more than eight bits, which conversions would cut off
            wide = np.asarray(picture, np.float32) / 65535
            picture = Image.fromarray(wide).resize(shape[::-1], Image.Resampling.BILINEAR)
            values = np.asarray(picture, np.float32)
            return np.repeat(values[..., None], 1 if grey else 3, axis=-1)
        picture = picture.convert("L" if grey else "RGB")
        if picture.size != shape[::-1]:
            picture = picture.resize(shape[::-1], Image.Resampling.BILINEAR)
        return (np.asarray(picture, np.float32) / 255).reshape(*shape, 1 if grey else 3)


def _asked(path: Path, question: Callable[[], Any]) -> Any:
    """Returns what pillow answers, which may be any error where a picture is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return question()
    except Exception as error:
        raise DataError(f"{path} must be a whole png or jpg picture, got: {untrusted.one_line(error)}.") from error


def _opened(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "pictures are read by pillow, got an installation without it; pip install 'dsnn[images]'."
        ) from error
    with foreign.sentences(path, "a png or jpg picture"):
        untrusted.plain(path, MAX_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(path, formats=("PNG", "JPEG"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"a picture may have {MAX_PIXELS} pixels, got more in {path}; scale it down.") from error
    except Exception as error:  # whatever pillow says of bytes that make no sense
        raise DataError(f"{path} must be a png or jpg picture, got a file that is none; take it out.") from error
    if picture.width * picture.height > MAX_PIXELS:
        picture.close()
        raise DataError(
            f"a picture may have {MAX_PIXELS} pixels, got {picture.width} x {picture.height} in {path}; scale it down."
        )
    return picture


def _shape(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    both = tuple(size) if isinstance(size, list | tuple) else (size, size)
    whole = len(both) == 2 and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in both)
    if not whole or both[0] * both[1] > MAX_PIXELS:
        raise DataError(f"data.options.size must be [height, width] in pixels, got {size!r}; [28, 28] is MNIST's.")
    return int(both[0]), int(both[1])


def _common(headers: list[Header], found: folder.Found) -> tuple[int, int]:
    sizes = sorted({(one.height, one.width) for one in headers})
    if len(sizes) > 1:
        raise DataError(
            f"pictures must have one size, got {len(sizes)}, from {sizes[0][0]} x {sizes[0][1]} to {sizes[-1][0]} x "
            f"{sizes[-1][1]}; set data.options.size=[height,width] to scale them."
        )
    return sizes[0]
