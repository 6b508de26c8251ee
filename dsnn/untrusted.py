"""Files that somebody else may have written, or that a disk has damaged: read with caps, and refused in one sentence.

No reader runs code, follows a reference out of the file, or takes more memory than its cap. What a reader cannot make
sense of is an `UntrustedError`, which names the file, the rule and what was found.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import yaml

__all__ = [
    "MAX_ARRAYS",
    "MAX_TEXT",
    "UntrustedError",
    "arrays",
    "content",
    "json_object",
    "parsed_json",
    "parsed_yaml",
    "text",
    "yaml_mapping",
]

MAX_TEXT = 1 << 26
"""Bytes of a text file: 64 MiB."""

MAX_ARRAYS = 1 << 34
"""Bytes that the arrays of an archive may take once they are unpacked: 16 GiB."""

MAX_MEMBERS = 100_000
"""Arrays that an archive may hold."""

MAX_DEPTH = 64
"""Mappings and lists within each other."""

_HEADER = 1 << 16
_Stream = IO[bytes] | BufferedIOBase  # a member of an archive is the latter only


class UntrustedError(ValueError):
    """A file that breaks a rule, in one sentence that names it."""


# --- Bytes and text


def content(path: str | Path, most: int = MAX_TEXT) -> bytes:
    """Returns the bytes of a plain file.

    Args:
        path: of the file; a pipe, a device or a folder is refused.
        most: bytes that it may have.

    Raises:
        UntrustedError: no such file, no plain one, or one that is too long.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UntrustedError(f"{path} must be a plain file, got {'a folder' if path.is_dir() else 'a device'}.")
        with path.open("rb") as file:
            read = file.read(most + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, UntrustedError):
            raise
        raise UntrustedError(f"{path} must be a file that can be read, got: {_reason(error)}.") from error
    if len(read) > most:
        raise UntrustedError(f"{path} may have {most} bytes, got more.")
    return read


def text(path: str | Path, most: int = MAX_TEXT) -> str:
    """Returns the text of a UTF-8 file, whatever the locale says.

    Raises:
        UntrustedError: as `content`, or the file is not UTF-8.
        FileNotFoundError: there is nothing at the path.
    """
    try:
        return content(path, most).decode()
    except UnicodeDecodeError as error:
        raise UntrustedError(f"{path} must be text in UTF-8, got the byte {error.object[error.start]:#04x}.") from error


# --- JSON and YAML


def json_object(path: str | Path, most: int = MAX_TEXT) -> dict[str, Any]:
    """Returns the mapping in a JSON file.

    Raises:
        UntrustedError: the file does not hold a JSON object of moderate size and depth.
        FileNotFoundError: there is nothing at the path.
    """
    value = parsed_json(text(path, most), str(path))
    if not isinstance(value, dict):
        raise UntrustedError(f"{path} must hold a JSON object, got {_kind(value)}.")
    return value


def parsed_json(said: str, where: str) -> Any:
    """Returns the value of a JSON text.

    Args:
        said: the text.
        where: names it in an error.

    Raises:
        UntrustedError: the text is not JSON, or nested too deep.
    """
    try:
        value = json.loads(said)
    except RecursionError:
        raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.") from None
    except ValueError as error:
        raise UntrustedError(f"{where} must be JSON, got: {error}.") from error
    _check_depth(value, where)
    return value


def yaml_mapping(path: str | Path, most: int = 1 << 22) -> dict[str, Any]:
    """Returns the mapping in a YAML file; an empty file is an empty one.

    Raises:
        UntrustedError: the file does not hold a YAML mapping of plain values, without aliases.
        FileNotFoundError: there is nothing at the path.
    """
    value = parsed_yaml(text(path, most), str(path))
    if value is not None and not isinstance(value, dict):
        raise UntrustedError(f"{path} must hold a YAML mapping, got {_kind(value)}.")
    return {str(key): below for key, below in (value or {}).items()}


def parsed_yaml(said: str, where: str) -> Any:
    """Returns the value of a YAML text of plain values: no tags that make objects, and no aliases.

    An alias may repeat what it names without end, in itself or doubling at each level.

    Args:
        said: the text.
        where: names it in an error.

    Raises:
        UntrustedError: the text is not such YAML, or nested too deep.
    """
    depth = 0
    try:
        for event in yaml.parse(said, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # asked here, since the parser takes ever longer the deeper it is
                raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.")
            if isinstance(event, yaml.AliasEvent):
                raise UntrustedError(f"{where} must be YAML without aliases, got *{event.anchor}.")
        value = yaml.safe_load(said)
    except RecursionError:
        raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError) as error:
        if isinstance(error, UntrustedError):
            raise
        raise UntrustedError(f"{where} must be YAML of plain values, got: {_one_line(error)}.") from error
    _check_depth(value, where)
    return value


# --- Arrays


def arrays(
    path: str | Path, names: Callable[[list[str]], Collection[str]] | None = None, most: int = MAX_ARRAYS
) -> dict[str, np.ndarray]:
    """Returns the arrays of an ``.npz`` file, none of them pickled.

    What each array says of its own size is compared with what the archive says before anything is unpacked.

    Args:
        path: of the file.
        names: given the names in the file, those to read, all of them by default.
        most: bytes that the arrays which are read may take.

    Raises:
        UntrustedError: the file is no such archive, or an array cannot be read.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    with _archive(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(members) != len(archive.infolist()) or len(members) > MAX_MEMBERS:
            raise UntrustedError(f"{path} may hold {MAX_MEMBERS} arrays, each name once, got {len(members)} names.")
        wanted = list(members) if names is None else list(names(list(members)))
        total = sum(members[name].file_size for name in wanted)
        if total > most:
            raise UntrustedError(f"{path} may unpack to {_size(most)}, got {_size(total)}; give fewer rows.")
        return {name: _member(archive, members[name], name, path) for name in wanted}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        if path.exists() and not path.is_file():
            raise UntrustedError(f"{path} must be a plain file, got {'a folder' if path.is_dir() else 'a device'}.")
        stream = path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UntrustedError(f"{path} must be a file that can be read, got: {_reason(error)}.") from error
    with stream:
        _refuse_single(stream, path)
        try:
            archive = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
            raise UntrustedError(f"{path} must be an .npz file written by numpy.savez, got: {error}.") from error
        with archive:
            yield archive


def _refuse_single(stream: _Stream, path: Path) -> None:
    if stream.read(6) == b"\x93NUMPY":
        raise UntrustedError(f"{path} must be an .npz file, got a single .npy array; write it with numpy.savez.")
    stream.seek(0)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, path: Path) -> np.ndarray:
    def refuse(said: str, cause: BaseException | None = None) -> NoReturn:
        raise UntrustedError(f"{name} in {path} cannot be read ({said}); write the file again.") from cause

    try:
        with archive.open(info) as stream:
            shape, fortran, dtype = _header(stream)
            if dtype.hasobject:
                raise UntrustedError(
                    f"arrays must be plain numbers, got pickled objects in {name} of {path}, which are refused because "
                    f"loading them runs code; save {name} with a numeric dtype, series of unequal length filled up to "
                    "the longest with NaN, and names as text (dtype=str)."
                )
            values = 1
            for length in shape:  # Python's own integers do not overflow
                values *= length
            said, held = values * dtype.itemsize, info.file_size - stream.tell()
            if said != held:
                refuse(f"its header says {said} bytes, the archive {held}")
            raw: np.ndarray = np.empty(said, np.uint8)
            _fill(stream, raw)
            if stream.read(1):  # reads on to the checksum
                refuse("it is longer than its header says")
            array = raw.view(dtype) if said else np.empty(values, dtype)
            if (
                dtype.kind == "U"
                and said
                and raw.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder)).max() > 0x10FFFF
            ):
                refuse("it is text with characters that do not exist")
    except UntrustedError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        refuse(_one_line(error), error)
    except (ValueError, SyntaxError, TypeError, MemoryError, OverflowError, RecursionError) as error:
        refuse(_one_line(error), error)
    return array.reshape(shape, order="F" if fortran else "C")


def _header(stream: _Stream) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        found = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER)
    elif version in ((2, 0), (3, 0)):
        found = np.lib.format.read_array_header_2_0(stream, max_header_size=_HEADER)
    else:
        raise ValueError(f"version {version} of the format is not known")
    if any(length < 0 for length in found[0]):
        raise ValueError(f"the shape {found[0]} is none")
    return found


def _fill(stream: _Stream, array: np.ndarray) -> None:
    room, done = array.data, 0
    while done < len(room):
        part = stream.read(min(1 << 22, len(room) - done))
        if not part:
            raise EOFError(f"it ends after {done} of {len(room)} bytes")
        room[done : done + len(part)] = part
        done += len(part)


# --- Words


def _check_depth(value: Any, where: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [below for one in level for below in _within(one)]
        if not level:
            return
    raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.")


def _within(value: Any) -> Collection[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _kind(value: Any) -> str:
    names = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 28 else f"{count} bytes"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or _one_line(error)


def _one_line(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:300].rstrip(".") or type(error).__name__
