"""A user's targets, whatever they are called: classes become numbers from 0 in the order of their sorted names.

What a class is called changes nothing but `Split.class_names`: text, numbers that begin at 1, {0, 7} or negative ones.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dsnn.data.split import DataError

ONE_HOT = "turn one-hot rows into class numbers with argmax"
REGRESSION = "set data.options.task=regression to learn numbers"
SHOWN = 5
MAX_CLASSES = 1 << 20


class Encoded(NamedTuple):
    """Class numbers by part.

    Attributes:
        parts: int32 ``[n]`` or ``[n, time]``.
        labelled: bool, False at steps without a label; empty where every step has one.
        classes: how many there are.
        names: what the user calls them; empty where they are called 0, 1, 2, ...
    """

    parts: dict[str, np.ndarray]
    labelled: dict[str, np.ndarray]
    classes: int
    names: tuple[str, ...]


def readable(y: np.ndarray, task: str, where: str) -> np.ndarray:
    """Returns targets of a kind that the task can use: ``[n, 1]`` labels flat, numbers with an axis of outputs.

    Args:
        y: as it was read; no Python objects.
        task: one of `dsnn.data.split.TASKS`.
        where: names it in a sentence.

    Raises:
        DataError: text for numbers, fractions for classes, or neither text nor real numbers.
    """
    text = y.dtype.kind in "US"
    if not text and y.dtype.kind not in "biuf":
        raise DataError(f"{where} must hold real numbers or text, got dtype {y.dtype}; convert it.")
    if task != "classification":
        if text:
            raise DataError(
                f"targets must be numbers with task={task}, got text of dtype {y.dtype} in {where}; set "
                f"data.options.task=classification or convert it."
            )
        if task == "regression":
            return np.asarray(y[:, None] if y.ndim == 1 else y, np.float64)
        return y.astype(np.int8) if y.dtype == bool else y
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8", "replace")
    if np.issubdtype(y.dtype, np.floating):
        known = y[~np.isnan(y)].astype(np.float64)
        if (odd := known[known != np.round(known)]).size:
            raise DataError(f"labels must be integers or text, got {odd.flat[0]:g} in {where}; {REGRESSION}.")
        if (wild := known[np.abs(known) > 2**53]).size:
            raise DataError(f"labels must be finite, got {wild.flat[0]:g} in {where}; name classes by small numbers.")
    return y


def missing(y: np.ndarray, task: str) -> np.ndarray:
    """Returns a bool ``[n]``: whether an example lacks a target; one with a class at every step does not."""
    stepwise = task == "classification" and y.ndim == 2 and y.shape[1] > 1
    if stepwise or not np.issubdtype(y.dtype, np.floating):
        return np.zeros(len(y), bool)
    return np.isnan(y).any(tuple(range(1, y.ndim)))


def by_appearance(y: np.ndarray) -> np.ndarray:
    """Returns integers ``[n]`` that tell classes apart by where they first appear, and so whatever they are called."""
    _, first, members = np.unique(y, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[members].astype(np.int64)


def encoded(y: Mapping[str, np.ndarray], classes: int | None, name: str) -> Encoded:
    """Returns class numbers: the place of each label among the sorted labels of the training part.

    Args:
        y: `readable` labels by part, ``train`` among them.
        classes: their number where labels are class numbers from 0 already; None reads the classes off the training
            part.
        name: of the data set.

    Raises:
        DataError: fewer than two classes, a label that the training part has not, or one beyond ``classes``.
    """
    labelled = {
        part: ~np.isnan(values)
        for part, values in y.items()
        if values.ndim == 2 and np.issubdtype(values.dtype, np.floating) and np.isnan(values).any()
    }
    labelled = {part: labelled.get(part, np.ones(y[part].shape, bool)) for part in y} if labelled else {}
    seen = {part: values[labelled[part]] if labelled else values for part, values in y.items()}
    if classes is not None:
        return _numbered(y, seen, labelled, classes, name)
    levels = np.unique(seen["train"])
    if len(levels) < 2:
        raise DataError(
            f"classification needs at least two classes, got {len(seen['train'])} training labels of {name!r} that "
            f"are all {_said(levels)}; give examples of another class, or {REGRESSION}."
        )
    for part, values in seen.items():
        unknown = np.setdiff1d(values, levels)
        if len(unknown):
            raise DataError(
                f"every label must be among those of the training part ({_said(levels)}), got {_said(unknown)} in the "
                f"{part} part of {name!r} alone; add training examples of it, or set data.options.classes for class "
                f"numbers from 0."
            )
    numbers = {
        part: np.searchsorted(levels, np.where(labelled[part], values, levels[0]) if labelled else values)
        for part, values in y.items()
    }
    plain = levels.dtype.kind not in "Ub" and np.array_equal(levels, np.arange(len(levels)))
    names = () if plain else tuple(map(_plain, levels))
    return Encoded({part: codes.astype(np.int32) for part, codes in numbers.items()}, labelled, len(levels), names)


def _numbered(
    y: Mapping[str, np.ndarray],
    seen: Mapping[str, np.ndarray],
    labelled: dict[str, np.ndarray],
    classes: int,
    name: str,
) -> Encoded:
    if isinstance(classes, bool) or not isinstance(classes, int) or not 2 <= classes <= MAX_CLASSES:
        raise DataError(f"classes must be an integer from 2 to {MAX_CLASSES}, got {classes!r}.")
    for part, values in seen.items():
        if values.dtype.kind == "U" or (values.size and not 0 <= values.min() <= values.max() < classes):
            wrong = np.unique(values) if values.dtype.kind == "U" else values[(values < 0) | (values >= classes)]
            raise DataError(
                f"labels must be class numbers from 0 to {classes - 1}, got {_plain(wrong[0])} in the {part} part of "
                f"{name!r}; leave data.options.classes out to have labels numbered."
            )
    numbers = {part: np.where(labelled[part], values, 0) if labelled else values for part, values in y.items()}
    return Encoded({part: n.astype(np.int32) for part, n in numbers.items()}, labelled, classes, ())


def _said(levels: np.ndarray) -> str:
    shown = ", ".join(_plain(level) for level in levels[:SHOWN])
    return f"{shown} and {len(levels) - SHOWN} more" if len(levels) > SHOWN else shown or "missing"


def _plain(level: object) -> str:
    """Returns a label as a person would write it: 7 for 7.0, and nothing that would move a terminal."""
    text = f"{level:g}" if isinstance(level, np.floating) else str(level)
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)
