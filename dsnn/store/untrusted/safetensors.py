"""Files of tensors in the safetensors format, which holds numbers and their names and nothing that could run.

Eight bytes give the length of a header in JSON (little-endian), which gives dtype, shape and place of each tensor; the
numbers follow it, without holes (the format's own description, version 0.4 and later).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsnn.store.untrusted.arrays import MAX_ARRAYS
from dsnn.store.untrusted.files import MAX_TEXT, UntrustedError, opened, parsed_json, size_of

__all__ = ["safetensors"]

DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip
"""NumPy's names of the format's dtypes; bfloat16, which NumPy has not, is read as its bits."""

METADATA = "__metadata__"

_MAX_AXES = 32
_PREFIX = 8


class _Place(NamedTuple):
    """Where a tensor stands among the numbers, and what it is."""

    start: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]


def safetensors(path: str | Path, most: int = MAX_ARRAYS) -> dict[str, np.ndarray]:
    """Returns the tensors of a ``.safetensors`` file by name; bfloat16 becomes float32, with the same values.

    Args:
        path: of the file.
        most: bytes that the numbers may take.

    Raises:
        UntrustedError: the file is damaged, too large, no such file, or has a dtype that NumPy has not.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    with opened(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        length = int.from_bytes(stream.read(_PREFIX), "little")
        if size < _PREFIX or length > min(MAX_TEXT, size - _PREFIX):
            raise UntrustedError(
                f"{path} must begin with the length of its header, at most {min(MAX_TEXT, max(0, size - _PREFIX))} "
                f"bytes here, got {length}; it is no safetensors file, or not all of one."
            )
        numbers = size - _PREFIX - length
        if numbers > most:
            raise UntrustedError(f"{path} may hold {size_of(most)} of numbers, got {size_of(numbers)}.")
        places = _places(stream.read(length), numbers, path)
        found = {}
        for place in places:
            raw = bytearray(place.end - place.start)
            if stream.readinto(raw) != len(raw):
                raise UntrustedError(f"{path} ends inside of {place.name}; copy it again.")
            found[place.name] = _array(raw, place, path)
    return found


def _places(header: bytes, numbers: int, path: Path) -> list[_Place]:
    """Returns where the tensors are, first to last."""
    try:
        said = parsed_json(header.decode(), f"the header of {path}")
    except UnicodeDecodeError as error:
        raise UntrustedError(f"the header of {path} must be text in UTF-8, got other bytes.") from error
    if not isinstance(said, dict):
        raise UntrustedError(f"the header of {path} must map names to tensors, got a {type(said).__name__}.")
    places = sorted(_place(name, one, path) for name, one in said.items() if name != METADATA)
    # a name that is there twice leaves a hole as well
    for before, after in zip([0, *(place.end for place in places)], [*places, None], strict=True):
        start, what = (numbers, "the end") if after is None else (after.start, after.name)
        if start != before:
            raise UntrustedError(
                f"tensors of {path} must follow each other without holes, got {what} at byte {start} where {before} "
                "bytes stand before it; it is damaged, or not all of it is here."
            )
    return places


def _place(name: str, said: Any, path: Path) -> _Place:
    if not isinstance(said, dict) or not {"dtype", "shape", "data_offsets"} <= set(said):
        raise UntrustedError(f"{name} in {path} must have dtype, shape and data_offsets, got {str(said)[:80]}.")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UntrustedError(f"{name} in {path} must have one of the dtypes {', '.join(DTYPES)}, got {dtype!r}.")
    if not _counts(shape) or len(shape) > _MAX_AXES:
        raise UntrustedError(f"{name} in {path} must have a shape of sizes, got {str(shape)[:80]}.")
    if not _counts(offsets) or len(offsets) != 2:
        raise UntrustedError(f"{name} in {path} must have its first byte and its end, got {str(offsets)[:80]}.")
    needed = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if (held := offsets[1] - offsets[0]) != needed:
        raise UntrustedError(f"{name} in {path} must have {needed} bytes for {dtype} of shape {shape}, got {held}.")
    return _Place(offsets[0], offsets[1], name, dtype, tuple(shape))


def _counts(said: Any) -> bool:
    """Returns whether something is a list of integers that are not negative."""
    return isinstance(said, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in said)


def _array(raw: bytearray, place: _Place, path: Path) -> np.ndarray:
    if place.dtype == "BOOL" and max(raw, default=0) > 1:
        raise UntrustedError(f"{place.name} in {path} must be truth values, got a byte above 1.")
    flat = np.frombuffer(raw, DTYPES[place.dtype])
    if place.dtype == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(place.shape)
