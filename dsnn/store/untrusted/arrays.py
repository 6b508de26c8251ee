"""Arrays of NumPy's files: what each says of its size is compared with what is there before anything is unpacked."""

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NoReturn, cast

import numpy as np

from dsnn.store.untrusted.files import UntrustedError, one_line, opened, size_of

MAX_ARRAYS = 1 << 34
"""Bytes that the arrays of an archive may take once they are unpacked: 16 GiB."""

MAX_MEMBERS = 100_000
"""Arrays that an archive may hold."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How NumPy packs arrays; other methods may take memory before they give any."""

_Stream = IO[bytes] | io.BufferedIOBase  # a member of an archive is the latter only

MAGIC = b"\x93NUMPY"

UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
    IndexError,
    MemoryError,
    OverflowError,
)
"""What the standard library and NumPy raise of bytes that make no sense, besides OSError and EOFError."""

_HEADER = 1 << 16
_LAST = 0x10FFFF


def arrays(
    path: str | Path, names: Callable[[list[str]], Collection[str]] | None = None, most: int = MAX_ARRAYS
) -> dict[str, np.ndarray]:
    """Returns the arrays of an ``.npz`` file, none of them pickled.

    Args:
        path: of the file.
        names: given the names in the file, those to read, all of them by default.
        most: bytes that the arrays which are read may take.

    Raises:
        UntrustedError: the file is no such archive, or an array cannot be read.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    with opened(path) as stream:
        return _unpacked(stream, path, names, most)


def arrays_of(content: bytes, what: str, most: int = MAX_ARRAYS) -> dict[str, np.ndarray]:
    """Returns the arrays of an ``.npz`` archive in memory, such as a record of a larger file; none are pickled.

    Args:
        content: of the archive.
        what: it is, for sentences.
        most: bytes that its arrays may take.

    Raises:
        UntrustedError: it is no such archive, or an array cannot be read.
    """
    return _unpacked(io.BytesIO(content), what, None, most)


def headers(path: str | Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and dtype of each array of an ``.npz`` file by name, as their headers say; no values are read.

    Raises:
        UntrustedError: the file is no such archive, or a header cannot be read.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    with opened(path) as stream, _archive(stream, path) as archive:
        found = {}
        for name, info in _members(archive, path).items():
            try:
                with archive.open(info) as member:
                    shape, _, dtype = _header(member)
            except (OSError, EOFError, *UNREADABLE) as error:
                raise UntrustedError(
                    f"{name} in {path} cannot be read ({one_line(error)}); write the file again."
                ) from (error)
            _refuse_objects(dtype, f"{name} of {path}")
            found[name] = (shape, dtype)
        return found


def mapped(path: str | Path) -> np.ndarray:
    """Returns the array of an ``.npy`` file, its values read where they are used.

    Args:
        path: of the file.

    Raises:
        UntrustedError: the file holds no plain array, or not all of it.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    with opened(path) as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise UntrustedError(f"{path} must be an .npy file written by numpy.save, got another kind of file.")
        stream.seek(0)
        try:
            shape, fortran, dtype = _header(stream)
        except (OSError, EOFError, *UNREADABLE) as error:
            raise UntrustedError(
                f"{path} must be an .npy file written by numpy.save, got: {one_line(error)}."
            ) from error
        _refuse_objects(dtype, str(path))
        start = stream.tell()
        said, held = math.prod(shape) * dtype.itemsize, stream.seek(0, 2) - start
    if said != held:
        raise UntrustedError(f"{path} must hold the {said} bytes that its header says, got {held}; write it again.")
    order: Literal["F", "C"] = "F" if fortran else "C"
    if not said:
        return np.empty(shape, dtype, order)
    found = np.memmap(path, dtype, "r", start, shape, order)
    if not _characters(found):
        raise UntrustedError(f"{path} must hold text, got characters that do not exist; write it again.")
    return found


def _unpacked(
    stream: _Stream, what: object, names: Callable[[list[str]], Collection[str]] | None, most: int
) -> dict[str, np.ndarray]:
    with _archive(stream, what) as archive:
        members = _members(archive, what)
        wanted = list(members) if names is None else list(names(list(members)))
        total = sum(members[name].file_size for name in wanted)
        if total > most:
            raise UntrustedError(f"{what} may unpack to {size_of(most)}, got {size_of(total)}; give fewer rows.")
        return {name: _member(archive, members[name], name, what) for name in wanted}


@contextmanager
def _archive(stream: _Stream, what: object) -> Iterator[zipfile.ZipFile]:
    if stream.read(len(MAGIC)) == MAGIC:
        raise UntrustedError(f"{what} must be an .npz file, got a single .npy array; write it with numpy.savez.")
    stream.seek(0)
    try:
        archive = zipfile.ZipFile(cast(IO[bytes], stream))
    except (OSError, EOFError, *UNREADABLE) as error:
        raise UntrustedError(
            f"{what} must be an .npz file written by numpy.savez, got: not a .npz archive of plain arrays "
            f"({one_line(error)})."
        ) from error
    with archive:
        yield archive


def _members(archive: zipfile.ZipFile, what: object) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if len(members) != len(archive.infolist()) or len(members) > MAX_MEMBERS:
        raise UntrustedError(f"{what} may hold {MAX_MEMBERS} arrays, each name once, got {len(members)} names.")
    return members


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, path: object) -> np.ndarray:
    def refuse(said: str, cause: BaseException | None = None) -> NoReturn:
        raise UntrustedError(f"{name} in {path} cannot be read ({said}); write the file again.") from cause

    if info.compress_type not in METHODS or info.flag_bits & 1:
        refuse("it is encrypted, or packed in a way that NumPy does not")
    try:
        with archive.open(info) as stream:
            shape, fortran, dtype = _header(stream)
            _refuse_objects(dtype, f"{name} of {path}")
            values = math.prod(list(shape))
            said, held = values * dtype.itemsize, info.file_size - stream.tell()
            if said != held:
                refuse(f"its header says {said} bytes, the archive {held}")
            raw: np.ndarray = np.empty(said, np.uint8)
            _fill(stream, raw)
            if stream.read(1):  # reads on to the checksum
                refuse("it is longer than its header says")
            array = raw.view(dtype) if said else np.empty(values, dtype)
            if not _characters(array):
                refuse("it is text with characters that do not exist")
            return array.reshape(shape, order="F" if fortran else "C")
    except UntrustedError:
        raise
    except (OSError, EOFError, *UNREADABLE) as error:
        refuse(one_line(error), error)


def _header(stream: _Stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():  # old spellings of a header are read as well
        warnings.simplefilter("ignore")
        if version == (1, 0):
            found = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER)
        elif version in ((2, 0), (3, 0)):
            found = np.lib.format.read_array_header_2_0(stream, max_header_size=_HEADER)
        else:
            raise ValueError(f"version {version} of the format is not known")
    shape, _, dtype = found
    if any(length < 0 for length in shape):
        raise ValueError(f"the shape {shape} is none")
    if dtype.subdtype is not None or dtype.names is not None or (not dtype.itemsize and 0 not in shape):
        raise ValueError(f"values of dtype {dtype} are no numbers")
    return found


def _refuse_objects(dtype: np.dtype, where: str) -> None:
    if dtype.hasobject:
        raise UntrustedError(
            f"arrays must be plain numbers, got pickled objects in {where}, which are refused because loading them "
            "runs code; save plain arrays of a numeric dtype, series of unequal length filled up to the longest with "
            "NaN, and names as text (dtype=str)."
        )


def _characters(array: np.ndarray) -> bool:
    """Returns whether text holds nothing that is no character, which would raise where it is read."""
    if array.dtype.kind != "U" or not array.size or not array.dtype.itemsize:
        return True
    codes = np.ravel(array, order="K").view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return bool(codes.max() <= _LAST)


def _fill(stream: _Stream, array: np.ndarray) -> None:
    room, done = array.data, 0
    while done < len(room):
        part = stream.read(min(1 << 22, len(room) - done))
        if not part:
            raise EOFError(f"it ends after {done} of {len(room)} bytes")
        room[done : done + len(part)] = part
        done += len(part)
