"""How sequences are read: one step after another, summed over time, or as one input that holds all steps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dsnn.data.split import Arrays, DataError, Split, per_step
from dsnn.data.streamed import Streamed

__all__ = ["VIEWS", "viewed"]


def _summed(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32).sum(1)


def _whole(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(*x.shape[:2], 1, math.prod(x.shape[2:]))


_READ: dict[str, Callable[[Any], np.ndarray]] = {"summed": _summed, "whole": _whole}
VIEWS = ("steps", *_READ)


def viewed(split: Split, view: str) -> Split:
    """Returns the split as a view shows it; static data have no other than "steps".

    Args:
        split: as it was read, before its held-out part has roles.
        view: "steps" leaves it as it is; "summed" adds up the steps, ``[n, ...]``; "whole" is one input of all steps,
            ``[n, time, 1, feature]``, whose height is time.

    Raises:
        DataError: another view of static data, or of labels at every step.
    """
    if view == "steps":
        return split
    if not split.temporal:
        raise DataError(f"data.view={view} is for sequences, {split.name!r} is static; leave data.view out.")
    if per_step(split):
        raise DataError(
            f"data.view={view} is one input with one answer, {split.name!r} has a label at every step; leave it out."
        )
    train, val, test = (Arrays(_seen(part.x, view), part.y) for part in (split.train, split.val, split.test))
    return split._replace(train=train, val=val, test=test, temporal=False)


def _seen(x: Any, view: str) -> Any:
    return x.then(_READ[view]) if isinstance(x, Streamed) else _READ[view](x)
