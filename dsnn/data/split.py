"""What a data set is once loaded: three parts of plain arrays, and the sentences said when they make no sense."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import scipy.sparse as sparse

from dsnn.data.error import DataError as DataError
from dsnn.data.streamed import Streamed, Within
from dsnn.types import Array

Features: TypeAlias = np.ndarray | Array | sparse.csr_array | Streamed
OWN_VALIDATION, OWN_MOST = 0.2, 5000
TASKS = ("classification", "multilabel", "regression")
OWN = "own"
"""Targets that a task of one's own reads, as they come."""


class Arrays(NamedTuple):
    """Inputs and targets of one part of a data set, aligned on the first axis.

    Attributes:
        x: float32 ``[n, ...]``, ``[n, time, ...]`` when the split is temporal, or a scipy CSR array ``[n, features]``.
            Arrays already moved to a device serve as well, and inputs that are read when they are used, `Streamed`.
        y: int32 ``[n]``, or ``[n, time]`` for a label per step; int32 0/1 ``[n, classes]`` for multi-label targets;
            float32 ``[n, outputs]`` for regression.
    """

    x: Features
    y: np.ndarray | Array


class Split(NamedTuple):
    """A data set: training, validation and test parts, and what is needed to read them.

    Attributes:
        train: the examples that parameters are learned from; empty for sets that have only a test part.
        val: the examples that choices are made on; may be empty. Until `assign_roles` divides them, those that certify
            are among them.
        test: the examples that are reported.
        classes: number of classes, of labels (multi-label), or of outputs (regression, and of one's own).
        name: the name it was loaded by.
        temporal: True when the second axis of ``x`` is time.
        task: ``classification``, ``multilabel`` or ``regression``; ``own`` are targets that a task of one's own reads.
        class_names: one name per class, or empty.
        truth: the planted truth of a generated set (which sites matter, how hard each example is), or empty.
        extra: side information aligned with a part, under names such as ``test/labelled``; or empty.
        certify: the examples on which risks and coverages are promised, which chose nothing; None until `assign_roles`.
        notes: what was done to the data while they were read, a sentence each.
    """

    train: Arrays
    val: Arrays
    test: Arrays
    classes: int
    name: str
    temporal: bool = False
    task: str = "classification"
    class_names: tuple[str, ...] = ()
    truth: Mapping[str, np.ndarray] = {}
    extra: Mapping[str, np.ndarray] = {}
    certify: Arrays | None = None
    notes: tuple[str, ...] = ()


def size(arrays: Arrays) -> int:
    """Returns the number of examples in a part (``len`` of the tuple itself would be 2)."""
    return arrays.x.shape[0]


def input_shape(split: Split) -> tuple[int, ...]:
    """Returns the shape of one example at one time step, such as ``(28, 28, 1)``."""
    return split.test.x.shape[2 if split.temporal else 1 :]


def steps(split: Split) -> int | None:
    """Returns the number of time steps of a temporal split, None for a static one."""
    return split.test.x.shape[1] if split.temporal else None


def per_step(split: Split) -> bool:
    """Returns True when every time step has its own label."""
    return split.task == "classification" and split.test.y.ndim == 2


def require_training(split: Split) -> Split:
    """Returns the split itself.

    Raises:
        DataError: there is nothing to train on.
    """
    if size(split.train) == 0:
        raise DataError(
            f"training needs a training part, got {split.name!r}, which has only a test part of "
            f"{size(split.test)} examples; use it as out-of-distribution data."
        )
    return split


def require_unit_range(split: Split) -> Split:
    """Returns the split itself; rate and latency codes ask this of their inputs.

    Raises:
        DataError: a value lies outside [0, 1].
    """
    for part in ("train", "val", "test"):
        x = getattr(split, part).x
        if size(getattr(split, part)) == 0:
            continue
        if isinstance(x, Streamed):  # every batch is looked at as it is read
            split = split._replace(**{part: getattr(split, part)._replace(x=x.then(Within(split.name)))})
            continue
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            raise DataError(
                f"rate and latency codes need inputs in [0, 1], got {low:g} to {high:g} in the {part} part of "
                f"{split.name!r}; rescale the data or use the direct encoding."
            )
    return split


def check(split: Split) -> Split:
    """Returns the split itself once its values, labels, lengths and shapes have been found sound.

    Raises:
        DataError: the first rule broken.
    """
    if split.task not in (*TASKS, OWN):
        raise DataError(f"task must be one of {', '.join(TASKS)}, got {split.task!r}.")
    if size(split.test) == 0:
        raise DataError(f"the test part of {split.name!r} must not be empty, got 0 examples; give at least one.")
    for part in ("train", "val", "test"):
        arrays = getattr(split, part)
        where = f"the {part} part of {split.name!r}"
        _check_lengths(arrays, where)
        _check_finite(arrays.x, f"x in {where}")
        if arrays.x.shape[1:] != split.test.x.shape[1:]:
            raise DataError(
                f"all parts must hold examples of one shape, got {arrays.x.shape[1:]} in {where} and "
                f"{split.test.x.shape[1:]} in its test part; make them agree."
            )
        _check_targets(arrays, split, where)
    return split


def _check_lengths(arrays: Arrays, where: str) -> None:
    if arrays.x.ndim < 2:
        raise DataError(
            f"x must have an axis of examples and at least one of features, got rank {arrays.x.ndim} in {where}; "
            f"reshape it to [n, features]."
        )
    if 0 in arrays.x.shape[1:]:
        raise DataError(f"examples must not be empty, got shape {arrays.x.shape} in {where}; give at least a feature.")
    if arrays.y.ndim < 1 or arrays.x.shape[0] != arrays.y.shape[0]:
        raise DataError(
            f"x and y must have one entry per example, got {arrays.x.shape[0]} inputs and "
            f"{arrays.y.shape[0] if arrays.y.ndim else 0} targets in {where}; drop what has no partner."
        )


def _check_finite(values: Features, what: str) -> None:
    if isinstance(values, Streamed):  # looks at every batch that it reads
        return
    good = np.isfinite(np.asarray(values.data if isinstance(values, sparse.csr_array) else values))
    if not good.all():
        first = tuple(int(i) for i in np.argwhere(~good)[0])
        raise DataError(
            f"values must be finite, got {int((~good).sum())} NaN or infinite ones in {what}, the first at index "
            f"{first}; remove or fill them in."
        )


def require_finite(x: Any) -> Any:
    """Returns the inputs themselves; inside a compiled function they are not looked at.

    A spiking network turns what is not a number into silence and answers all the same.

    Raises:
        DataError: a value is NaN or infinite.
    """
    if isinstance(x, jax.core.Tracer):
        return x
    values = np.asarray(x)
    # one sum is a pass over memory without a temporary array; it is finite where all are, but for overflow
    if values.dtype.kind in "fc":
        with np.errstate(over="ignore", invalid="ignore"):
            sound = np.isfinite(values.sum())
        if not sound:
            _check_finite(values, "the inputs")
    return x


def check_targets(split: Split) -> None:
    """Checks the targets of every part: their shape, dtype and range.

    Raises:
        DataError: the first rule broken.
    """
    for part in ("train", "val", "test"):
        _check_targets(getattr(split, part), split, f"the {part} part of {split.name!r}")


def _check_targets(arrays: Arrays, split: Split, where: str) -> None:
    _TARGETS[split.task](arrays, split, where)


def _check_numbers(arrays: Arrays, split: Split, where: str) -> None:
    y = arrays.y
    if y.ndim != 2 or y.shape[1] != split.classes:
        raise DataError(f"regression targets must have shape [n, {split.classes}], got {y.shape} in {where}.")
    _check_finite(y, f"y in {where}")


def _check_own(arrays: Arrays, split: Split, where: str) -> None:
    if arrays.y.dtype.kind not in "biuf":
        raise DataError(f"targets must be numbers, got {arrays.y.dtype} in {where}; convert them.")
    _check_finite(arrays.y, f"y in {where}")


def _check_integers(y: np.ndarray, where: str) -> None:
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"labels must be integers, got {y.dtype} in {where}; convert them to class numbers from 0.")


def _check_labels(arrays: Arrays, split: Split, where: str) -> None:
    y = np.asarray(arrays.y)
    _check_integers(y, where)
    if y.ndim != 2 or y.shape[1] != split.classes or (y.size and (y.min() < 0 or y.max() > 1)):
        raise DataError(
            f"multi-label targets must be 0 or 1 with shape [n, {split.classes}], got shape {y.shape} in {where}."
        )


def _check_classes(arrays: Arrays, split: Split, where: str) -> None:
    y = np.asarray(arrays.y)
    _check_integers(y, where)
    if y.ndim != 1 and not (split.temporal and y.shape == arrays.x.shape[:2]):
        raise DataError(
            f"labels must have shape [n] (or [n, time] for temporal data), got {y.shape} in {where}; "
            f"turn one-hot rows into class numbers with argmax."
        )
    if y.size and (y.min() < 0 or y.max() >= split.classes):
        wrong = int(y.min()) if y.min() < 0 else int(y.max())
        raise DataError(
            f"labels must be class numbers from 0 to {split.classes - 1}, got {wrong} in {where}; "
            f"renumber the labels or set the number of classes."
        )


_TARGETS = dict(zip((*TASKS, OWN), (_check_classes, _check_labels, _check_numbers, _check_own), strict=True))


def check_seed(seed: int) -> int:
    """Returns the seed.

    Raises:
        DataError: it is not a non-negative integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DataError(f"seed must be a non-negative integer, got {seed!r}; use 0, 1, 2, ...")
    return int(seed)


def check_fraction(val_fraction: float | None, default: float) -> float:
    """Returns the fraction of the training part to hold out, the default where None was given.

    Raises:
        DataError: the fraction is outside [0, 1).
    """
    if val_fraction is None:
        return default
    if isinstance(val_fraction, bool) or not isinstance(val_fraction, int | float) or not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction must be in [0, 1), got {val_fraction!r}; 0.1 holds out a tenth of training.")
    return float(val_fraction)


def own_fraction(val_fraction: float | None, count: int) -> float:
    """Returns the fraction of a stranger's training part to hold out: by default a fifth, and 5 000 at most.

    Half of it selects and half certifies, which takes 50 examples at least (`dsnn.data.assign_roles`).
    """
    return check_fraction(val_fraction, min(OWN_VALIDATION, OWN_MOST / max(count, 1)))


def hold_out(
    labels: np.ndarray, count: int, rng: np.random.Generator, *, every: bool = False, spare: bool = False
) -> np.ndarray:
    """Returns a boolean mask that marks ``count`` examples, each class in proportion (largest remainders).

    Args:
        labels: one integer per example; pass zeros to draw without regard to classes.
        count: how many to mark, from 0 to ``len(labels)``.
        rng: consumed.
        every: whether classes too rare for a share of their own get one example from those with most above theirs,
            if ``count`` is enough for one of every class.
        spare: whether every class keeps one example that is not marked; fewer than ``count`` are marked where that
            leaves too few.
    """
    if not len(labels):
        return np.zeros(0, bool)
    _, members = np.unique(labels, return_inverse=True)
    totals = np.bincount(members)
    share = totals * (count / len(labels))
    quota = np.floor(share).astype(int)
    largest = np.argsort(-(share - quota), kind="stable")
    quota[largest[: count - quota.sum()]] += 1
    if every and count >= len(quota):
        quota = np.maximum(quota, 1)
        while quota.sum() > count:
            quota[np.where(quota > 1, quota - share, -np.inf).argmax()] -= 1
    if spare:
        quota = np.minimum(quota, totals - 1)
        for _ in range(min(count, int((totals - 1).sum())) - int(quota.sum())):
            quota[np.where(quota < totals - 1, share - quota, -np.inf).argmax()] += 1
    mask = np.zeros(len(labels), bool)
    for group, wanted in enumerate(quota):
        mask[rng.permutation(np.flatnonzero(members == group))[:wanted]] = True
    return mask


def seeded_mask(labels: np.ndarray, seed: int | list[int], fraction: float) -> np.ndarray:
    """Returns a boolean mask of the examples that validate, each class in proportion; one of each is left unmarked.

    Args:
        labels: one integer per example; labels of another kind are not stratified.
        seed: the same seed gives the same mask.
        fraction: of the examples, in [0, 1).
    """
    rng = np.random.default_rng(seed)
    return hold_out(by_class(labels), round(len(labels) * fraction), rng, spare=True)


def by_class(labels: np.ndarray) -> np.ndarray:
    """Returns what `hold_out` draws by: class numbers as they are, zeros for labels that are no class per example."""
    single = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return labels if single else np.zeros(len(labels), int)


def divide(arrays: Arrays, mask: np.ndarray) -> tuple[Arrays, Arrays]:
    """Returns (train, val): the examples that are not marked and those that are, both in their original order."""
    return Arrays(arrays.x[~mask], arrays.y[~mask]), Arrays(arrays.x[mask], arrays.y[mask])


def last_held_out(train: Arrays, val_fraction: float | None, count: int = 5000) -> tuple[Arrays, Arrays]:
    """Returns (train, val) of a published training part: its last ``count`` examples validate, or a given fraction."""
    n = size(train)
    held = round(n * check_fraction(val_fraction, min(count, n) / n)) if n else 0
    return Arrays(train.x[: n - held], train.y[: n - held]), Arrays(train.x[n - held :], train.y[n - held :])


def divide_extra(name: str, train: np.ndarray, test: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Returns side information by part, divided as ``divide`` divides the examples that it belongs to."""
    return {f"train/{name}": train[~mask], f"val/{name}": train[mask], f"test/{name}": test}
