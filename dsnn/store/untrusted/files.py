"""Plain files as bytes, text, JSON and YAML: bounded in size and depth, without tags, aliases or references."""

import io
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MAX_TEXT = 1 << 26
"""Bytes of a text file: 64 MiB."""

MAX_YAML = 1 << 20
"""Bytes of a YAML file, which take a thousand times longer to read than those of others."""

MAX_DEPTH = 64
"""Mappings and lists within each other."""

_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
"""A string of JSON, closed or not, or a bracket outside of strings."""


class UntrustedError(ValueError):
    """A file that breaks a rule, in one sentence that names it."""

    def __init__(self, sentence: str = ""):
        super().__init__(printable(sentence))


# --- Bytes and text


@contextmanager
def opened(path: str | Path) -> Iterator[io.BufferedReader]:
    """Opens a plain file for reading.

    Args:
        path: of the file; a pipe, a device or a folder is refused.

    Raises:
        UntrustedError: no plain file, or one that cannot be read.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise UntrustedError(
                f"{path} must be a plain file, got: {'Is a directory' if path.is_dir() else 'a pipe or a device'}."
            )
        stream = path.open("rb")
    except (FileNotFoundError, UntrustedError):
        raise
    except NotADirectoryError as error:  # below a file there is nothing either
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
    except (OSError, ValueError) as error:
        raise UntrustedError(f"{path} must be a file that can be read, got: {reason(error)}.") from error
    with stream:
        yield stream


def plain(path: str | Path, most: int) -> Path:
    """Returns the path of a plain file, for the reader of another library.

    Args:
        path: of the file; a pipe, a device or a folder is refused.
        most: bytes that it may have.

    Raises:
        UntrustedError: no plain file, one that cannot be read, or one that is too long.
        FileNotFoundError: there is nothing at the path.
    """
    with opened(path) as file:
        held = os.fstat(file.fileno()).st_size
    if held > most:
        raise UntrustedError(f"{path} may have {size_of(most)}, got {size_of(held)}.")
    return Path(path)


def content(path: str | Path, most: int = MAX_TEXT) -> bytes:
    """Returns the bytes of a plain file.

    Args:
        path: of the file; a pipe, a device or a folder is refused.
        most: bytes that it may have.

    Raises:
        UntrustedError: no such file, no plain one, or one that is too long.
        FileNotFoundError: there is nothing at the path.
    """
    with opened(path) as file:
        read = file.read(most + 1)
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
    depth = 0
    for token in _NESTING.finditer(said):  # asked here, since how deep a parser goes depends on the interpreter
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > MAX_DEPTH:
            raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.")
    try:
        return json.loads(said)
    except ValueError as error:
        raise UntrustedError(f"{where} must be JSON, got: {error}.") from error


def yaml_mapping(path: str | Path, most: int = MAX_YAML) -> dict[str, Any]:
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
    try:
        _check_events(said, where)
        value = yaml.safe_load(said)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError) as error:
        if isinstance(error, UntrustedError):
            raise
        raise UntrustedError(f"{where} must be YAML of plain values, got: {one_line(error)}.") from error
    _check_depth(value, where)
    return value


def _check_events(said: str, where: str) -> None:
    depth = 0
    for event in yaml.parse(said, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UntrustedError(f"{where} must be YAML without aliases, got *{event.anchor}.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UntrustedError(f"{where} may be nested {MAX_DEPTH} deep, got deeper.")


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


def size_of(count: int) -> str:
    """Returns a number of bytes as a person says it."""
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 28 else f"{count} bytes"


def reason(error: Exception) -> str:
    """Returns what the system said of a file."""
    return getattr(error, "strerror", None) or one_line(error)


def one_line(error: BaseException) -> str:
    """Returns what another library said, short and without its full stop."""
    return re.sub(r"\s+", " ", str(error)).strip()[:300].rstrip(".") or type(error).__name__


def printable(said: str) -> str:
    """Returns a sentence on one line, without signs that move a terminal or that no terminal can show."""
    return "".join(sign if sign.isprintable() else " " for sign in said)
