"""Which task data are: said by them, guessed from targets, or named by a user."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dsnn import resolve
from dsnn.data import Split, per_step
from dsnn.data.split import OWN
from dsnn.tasks.classes import Classes, balanced
from dsnn.tasks.labels import Labels
from dsnn.tasks.numbers import Numbers
from dsnn.tasks.own import Own
from dsnn.tasks.steps import Steps
from dsnn.tasks.task import BALANCED, Task, refuse

AUTO = "auto"
"""The task that the data are."""

MOST_LEVELS = 20
"""Whole numbers in floating point that are classes; more of them may be numbers to predict."""


class Choice(NamedTuple):
    """What a configuration says of a task.

    Attributes:
        task: "auto" is that of the data; or one's own, ``package.module:attribute``.
        options: of one's own.
        every_step: whether one class an example is held against the outputs of all steps alike.
        skip: first steps that do not count, where every step counts.
        balanced: whether all classes count alike.
        input_noise: whether the noise of numbers depends on the input.
    """

    task: str = AUTO
    options: Mapping[str, Any] = {}
    every_step: bool = False
    skip: int = 0
    balanced: bool = False
    input_noise: bool = False


def of(what: Any, choice: Choice | None = None) -> Task:
    """Returns the task of data, or of bare targets.

    Args:
        what: a `dsnn.data.Split`, or targets as a call gives them.
        choice: what a configuration says; None leaves all to the data.

    Raises:
        ValueError: an option that is for another task, or one's own that is none.
    """
    choice = Choice() if choice is None else choice
    if not isinstance(what, Split):
        targets = np.asarray(what)
        return _made(guess(targets)[0], targets.ndim == 2 and targets.shape[1] > 1, choice)
    task = _made(what.task, per_step(what), choice)
    if choice.balanced:
        refuse(task, "balanced", what.name)
        if choice.every_step:
            raise ValueError(BALANCED.format(name=what.name))
        return Classes(balanced(np.asarray(what.train.y), what.classes))
    return task


def _made(name: str, stepwise: bool, choice: Choice) -> Task:
    """Returns the task of a name in `dsnn.data.Split`, or the user's own."""
    if choice.task != AUTO:
        return _own(choice)
    tasks: dict[str, Task] = {
        "classification": Steps(choice.skip) if stepwise else Classes((), choice.every_step, choice.skip),
        "multilabel": Labels(),
        "regression": Numbers(choice.input_noise),
    }
    if name == OWN:
        raise ValueError("targets of one's own need their task, got none; give task=package.module:attribute.")
    return tasks[name]


def _own(choice: Choice) -> Own:
    found = resolve.piece("task", choice.task)
    if isinstance(found, type) or not callable(getattr(found, "likelihood", None)):
        found = resolve.called("task", choice.task, {}, choice.options)
    elif choice.options:
        raise ValueError(
            f"task_options are for a class or a function, got {', '.join(map(str, choice.options))} with an object, "
            f"{choice.task}; leave them out."
        )
    return Own(found, choice.task)


def guess(targets: np.ndarray) -> tuple[str, tuple[str, ...]]:
    """Returns the task that a call's targets stand for, as `Split.task` has it, and what is said of it.

    Raises:
        ValueError: whole numbers in floating point that may be either.
    """
    if targets.dtype.kind != "f":
        return "classification", ()
    known = targets[~np.isnan(targets)]
    if not known.size or (known % 1 != 0).any():
        return "regression", ()
    levels = len(np.unique(known))
    if (targets.ndim > 1 and targets.shape[1] > 1) or not 2 <= levels <= min(MOST_LEVELS, len(known) / 2):
        raise ValueError(
            f"y must be labels (integers or text), or numbers to predict (fractions, or task='regression'), got "
            f"{levels} whole numbers as {targets.dtype}; y.astype(int) is classes."
        )
    return "classification", (
        f"y holds {levels} whole numbers, which are classes; task='regression' predicts numbers.",
    )
