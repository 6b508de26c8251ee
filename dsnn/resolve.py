"""Names of pieces: ``LIF``, or ``mylab.cells:QIF``, an attribute of a module of one's own.

Wherever an option names a piece (a cell, a network, a guide, a family of gates, a learner, a data source, a metric, a
callback, an encoder, a surrogate, a noise), ``package.module:attribute`` will do as well. The module is looked for
where Python looks, and last in the current folder.

Code runs only where this process was told its name: on its command line, in its configuration folders, by a call. A
name that stands in a *stored* run is not enough, see `trust`.
"""

import importlib
import inspect
import re
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dsnn.suggest import did_you_mean

FOREIGN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
LOCAL = "local:"
"""How names begin that stand for objects of this process which no module holds."""

_trusted: set[str] = set()
_told: list[bool] = []
"""Filled once this process was told to trust whatever is stored."""

_local: dict[str, Any] = {}


def is_foreign(name: object) -> bool:
    """Returns whether a name is ``package.module:attribute``, or stands for an object of this process."""
    return isinstance(name, str) and (name in _local or FOREIGN.fullmatch(name) is not None)


def check_name(option: str, name: str, known: Iterable[str]) -> None:
    """Checks a name of a piece without looking for it.

    Raises:
        ValueError: neither a built-in name nor ``package.module:attribute``.
    """
    known = tuple(known)
    if name in known or is_foreign(name):
        return
    hint = did_you_mean(name, known, "a piece of your own is named package.module:attribute.", most=1)
    allowed = f"one of {', '.join(known)}" if known else "package.module:attribute"
    raise ValueError(f"{option} must be {allowed}, got {name!r}; {hint}")


def trust(*names: str) -> None:
    """Tells this process that it may import these names."""
    _trusted.update(name for name in names if is_foreign(name))


def trust_stored() -> None:
    """Tells this process that it may import whatever a stored run or network names."""
    _told.append(True)


def foreign_names(options: Any) -> Iterator[str]:
    """Yields the foreign names that stand anywhere in nested options."""
    if isinstance(options, Mapping):
        for value in options.values():
            yield from foreign_names(value)
    elif isinstance(options, list | tuple):
        for value in options:
            yield from foreign_names(value)
    elif is_foreign(options):
        yield options


class Piece:
    """A piece that equals itself alone: a module that is loaded again has others of the same name."""

    def __init__(self, piece: Any):
        self.piece = piece

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Piece) and self.piece is other.piece

    def __hash__(self) -> int:
        return id(self.piece)


def name_of(piece: Any) -> str:
    """Returns a name for a piece that a call was given: itself if it is one, else where it can be imported.

    An object that no module holds, such as a function of a notebook, gets a name that means something in this process
    alone.
    """
    if isinstance(piece, str):
        trust(piece)
        return piece
    module, name = getattr(piece, "__module__", None), getattr(piece, "__qualname__", None)
    if module and name and module != "__main__" and "<" not in name and _found(module, name) is piece:
        trust(f"{module}:{name}")
        return f"{module}:{name}"
    for known, other in _local.items():
        if other is piece:
            return known
    called = getattr(piece, "__name__", type(piece).__name__).strip("<>")
    name = f"{LOCAL}{called}_{secrets.token_hex(4)}"
    hold(name, piece)
    return name


def hold(name: str, piece: Any) -> None:
    """Lets a name stand for an object in this process."""
    _local[name] = piece


def piece(option: str, name: str) -> Any:
    """Returns the object that a foreign name stands for.

    Args:
        option: that holds the name, for sentences.
        name: ``package.module:attribute``.

    Raises:
        ValueError: nobody told this process the name; there is no such module or attribute; or importing it failed.
    """
    if name in _local:
        return _local[name]
    if name.startswith(LOCAL):
        raise ValueError(
            f"{option} stands for an object of the process that made it, got {name!r}; put it into a module and give "
            f"package.module:attribute."
        )
    if name not in _trusted and not _told:
        raise ValueError(
            f"{option} names code that this process was not told to run, got {name!r} from a stored configuration; "
            "give trust=true, in Python trust=True, if you trust whoever stored it."
        )
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        missing = getattr(error, "name", None)
        if missing and (module == missing or module.startswith(f"{missing}.")):
            raise ValueError(
                f"{option} names a module that Python does not find, got {module!r}; install it, or run where it lies."
            ) from None
        raise ValueError(f"{option} names the module {module!r}, whose import failed: {_sentence(error)}.") from error
    except Exception as error:
        raise ValueError(f"{option} names the module {module!r}, whose import failed: {_sentence(error)}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [one for one in dir(found) if not one.startswith("_")]
            hint = did_you_mean(part, public, "see what the module defines.", most=1)
            raise ValueError(f"{option} names an attribute that {module} has not, got {attribute!r}; {hint}")
        found = getattr(found, part)
    return found


def called(
    option: str, name: str, offered: Mapping[str, Any], options: Mapping[str, Any], *, given: tuple[Any, ...] = ()
) -> Any:
    """Returns what a piece gives that is called with what its signature names.

    Args:
        option: that holds the name, for sentences; its own options are those of ``options``.
        name: of the piece.
        offered: keyword arguments that it gets where its signature names them.
        options: keyword arguments of the user's, each of which it must take.
        given: positional arguments.

    Raises:
        ValueError: nothing that can be called, an option that it does not take, or one that it needs and does not get.
    """
    make = piece(option, name)
    if not callable(make):
        raise ValueError(f"{option} must name a class or a function, got {name!r}, a {type(make).__name__}.")
    keywords = arguments(f"{option}={name}", make, offered, options, given)
    return make(*given, **keywords)


def arguments(
    what: str,
    make: Callable[..., Any],
    offered: Mapping[str, Any],
    options: Mapping[str, Any],
    given: tuple[Any, ...] = (),
) -> dict[str, Any]:
    """Returns the keyword arguments of a call: what is offered and named, and the user's options, all of them checked.

    Raises:
        ValueError: an option that it does not take, or one that it needs and does not get.
    """
    # what a class of Flax is called with says nothing of what it takes
    own = isinstance(make, type) and make.__init__ is not object.__init__  # type: ignore[misc]
    try:
        parameters = list(inspect.signature(make.__init__ if own else make).parameters.values())[1 if own else 0 :]
    except (TypeError, ValueError):
        parameters = []
    named = [p for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][: len(given)]
    takes = [p.name for p in named if p not in places]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for option in options:
        if option not in takes and not anything:
            listed = ", ".join(takes) or "none"
            raise ValueError(
                f"{what} takes the options {listed}, got {option!r}; {did_you_mean(option, takes, most=1)}"
            )
    keywords = {key: value for key, value in offered.items() if key in takes} | dict(options)
    missing = [p.name for p in named if p.name in takes and p.default is p.empty and p.name not in keywords]
    if missing:
        raise ValueError(
            f"{what} needs the options {', '.join(missing)}, got {', '.join(keywords) or 'none'}; give them."
        )
    return keywords


def _found(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
