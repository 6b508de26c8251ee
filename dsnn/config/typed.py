"""Values as the annotations of a configuration say, from callers and files that may give anything."""

import dataclasses
import math
import types
import typing
from typing import Any

import numpy as np

LARGEST = 1 << 63
"""What whole numbers stay below in size."""

SHOWN = 60


def checked(name: str, kind: Any, value: Any) -> Any:
    """Returns a value of the kind that an annotation names: numpy's numbers as Python's, tuples as lists.

    Args:
        name: of the option, for the sentence.
        kind: ``int``, ``float``, ``bool``, ``str``, ``list[...]``, ``dict[...]``, a union of these, or a dataclass.
        value: of any kind. A whole number will do for ``float``, and for ``int`` one that is written as a fraction.

    Raises:
        ValueError: it is of another kind.
    """
    plain = _plain(value)
    if kind is Any:
        return plain
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        for one in inner:
            try:
                return checked(name, one, plain)
            except ValueError:
                continue
        raise _wrong(name, " or ".join(map(_called, inner)), value)
    if kind in (None, types.NoneType):
        if plain is None:
            return None
    elif origin is list:
        if isinstance(plain, list | tuple):
            return [checked(f"{name}[{n}]", inner[0], one) for n, one in enumerate(plain)]
    elif origin is dict:
        if isinstance(plain, dict) and all(isinstance(key, str) for key in plain):
            return plain
    elif kind is bool or kind is str:
        if isinstance(plain, kind):
            return plain
    elif kind is int:
        if isinstance(plain, float) and plain.is_integer():
            plain = int(plain)
        if isinstance(plain, int) and not isinstance(plain, bool) and abs(plain) < LARGEST:
            return plain
    elif kind is float:
        if isinstance(plain, int | float) and not isinstance(plain, bool) and (plain != plain or abs(plain) < 1e300):
            return float(plain)
        if plain in (math.inf, -math.inf):
            return plain
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if isinstance(plain, kind):
            return plain
    else:
        return plain
    raise _wrong(name, _called(kind), value)


def hints(kind: Any) -> dict[str, Any]:
    """Returns the annotations of a dataclass by field."""
    return typing.get_type_hints(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _called(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "nothing"}
    if kind in names:
        return names[kind]
    return {list: "a list", dict: "options by name"}.get(typing.get_origin(kind), getattr(kind, "__name__", str(kind)))


def _wrong(name: str, wanted: str, value: Any) -> ValueError:
    said = repr(value)
    shown = said if len(said) <= SHOWN else f"{said[:SHOWN]}..."
    return ValueError(f"{name} must be {wanted}, got {''.join(s if s.isprintable() else ' ' for s in shown)}.")
