"""Functions of the user's own that hear of a fit or a run: callbacks on the way, metrics at the end; and patience."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dsnn import resolve
from dsnn.protocols import Finished, Progress


def asked(names: Sequence[str], moment: Progress) -> bool:
    """Returns whether a callback ends learning; every one of them is asked."""
    answers = [bool(_heard("callbacks", name, moment)) for name in names]
    return any(answers)


def measured(names: Sequence[str], finished: Finished) -> dict[str, float]:
    """Returns what metrics say, each of which is told what those before it have said.

    Raises:
        ValueError: a metric that gives no dictionary of finite numbers, or a name that is taken.
    """
    found: dict[str, float] = {}
    for name in names:
        told = finished._replace(metrics={**finished.metrics, **found})
        given = _heard("metrics", name, told)
        if not isinstance(given, Mapping):
            raise ValueError(f"a metric must give a dictionary of numbers, got a {type(given).__name__} from {name}.")
        for key, value in given.items():
            if key in told.metrics or key in found:
                raise ValueError(f"a metric must have a name of its own, got {key!r} from {name}; choose another.")
            found[str(key)] = _number(value, key, name)
    return found


def lost_patience(scores: Sequence[float], patience: int) -> bool:
    """Returns whether the last scores, as many as patience has, are no better (lower) than one before; 0 never is."""
    return bool(patience and scores) and len(scores) - 1 - list(scores).index(min(scores)) >= patience


def _heard(option: str, name: str, moment: Any) -> Any:
    """Returns what a function says, and in one sentence what it raises."""
    function = resolve.piece(option, name)
    try:
        return function(moment)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{name} of {option} failed: {type(error).__name__}: {said}; mend it, and the same command goes on from "
            "what was learned."
        ) from error


def _number(value: Any, key: object, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"a metric must be a number, got {value!r} for {key!r} from {name}.") from None
    if not math.isfinite(number):
        raise ValueError(f"a metric must be finite, got {number} for {key!r} from {name}.")
    return number
