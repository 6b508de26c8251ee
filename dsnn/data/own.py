"""One's own data, from whatever they were read: parts drawn where they are missing, labels numbered, gaps filled.

Readers (`npz`, `npy`, `table`, `images`, ...) give arrays by part; here they become a `Split` under one set of rules:
the same rows in another kind of file are the same data.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse

from dsnn.data import labels, missing, precise, streams
from dsnn.data.split import OWN, TASKS, Arrays, DataError, Features, Split, check_fraction, own_fraction, seeded_mask
from dsnn.data.streamed import Streamed

MAX_VALUES = 1 << 31
"""Numbers, 8 GiB in single precision, that a part may have."""


class Raw(NamedTuple):
    """A part as a reader gives it: ``x`` an array, sparse rows or the rows of a table; ``y`` no Python objects."""

    x: Any
    y: np.ndarray


class Divided(NamedTuple):
    """Parts by name, ``train``, ``val`` and ``test``, and what was done to get there."""

    parts: dict[str, Raw]
    notes: tuple[str, ...]


def divided(
    parts: Mapping[str, Raw],
    name: str,
    where: Any,
    *,
    seed: int,
    val_fraction: float | None,
    test_fraction: float | None,
    task: str,
) -> Divided:
    """Returns a training, a validation and a test part, drawn by the seed where they are missing.

    Classes are drawn in proportion, and every class keeps a training example. Training examples without a
    target are left out.

    Args:
        parts: ``train``, and ``val`` and ``test`` where the data have them; ``x`` is anything that a boolean mask
            selects rows of.
        name: of the data set.
        where: the file or folder, for sentences.
        seed: of the draws, which do not depend on what classes are called.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most.
        test_fraction: of all examples where there is no test part, in (0, 1).
        task: classification, multilabel or regression.

    Raises:
        DataError: no test part and no ``test_fraction``, or both; a target missing in the test part; no examples.
    """
    if task not in (*TASKS, OWN):
        raise DataError(f"task must be one of {', '.join(TASKS)}, got {task!r}; set data.options.task to one of them.")
    check_test_fraction(test_fraction, "test" in parts, where)
    whole: dict[str, Raw] = {}
    notes: list[str] = []
    for part, arrays in parts.items():
        y = labels.readable(arrays.y, task, f"y_{part} of {where}")
        _check_one_each(arrays.x, y, part, where)
        whole[part], dropped = _with_targets(Raw(arrays.x, y), part, where, task)
        if dropped:
            notes.append(f"{dropped} examples of the {part} part have no target and were left out.")
    if not len(whole["train"].y):
        raise DataError(f"x_train must not be empty, got 0 examples with a target in {where}; give at least two.")
    if "test" not in whole:
        fraction = check_fraction(test_fraction, 0.0)
        labelled = whole["train"].y
        whole["train"], whole["test"] = _drawn(whole["train"], [seed, 2], fraction, task)
        if not len(whole["test"].y) and round(fraction * len(labelled)):
            raise DataError(
                f"a test part takes classes of two examples and more, got {len(np.unique(labelled))} classes among "
                f"{len(labelled)} examples in {where}; {labels.REGRESSION}, or give a test part."
            )
        if not len(whole["test"].y):
            raise DataError(
                f"the test part must not be empty, got {fraction:g} of {len(whole['train'].y)} examples "
                f"in {where}; raise data.options.test_fraction or give a test part."
            )
        notes.append(f"{len(whole['test'].y)} examples were drawn as the test part (data.options.test_fraction).")
    if "val" not in whole:
        fraction = own_fraction(val_fraction, len(whole["train"].y))
        whole["train"], whole["val"] = _drawn(whole["train"], seed, fraction, task)
    return Divided({part: whole[part] for part in ("train", "val", "test")}, tuple(notes))


def check_test_fraction(test_fraction: Any, has_test: bool, where: Any) -> None:
    """Checks that a test part is given, or asked for, and not both.

    Raises:
        DataError: neither or both, or a fraction outside (0, 1).
    """
    if test_fraction is None:
        if not has_test:
            raise DataError(
                f"a test part must be given or asked for, got none in {where}; add it, or set "
                f"data.options.test_fraction=0.2 to have a fifth of the examples drawn as one."
            )
        return
    number = isinstance(test_fraction, int | float) and not isinstance(test_fraction, bool)
    if not number or not 0 < test_fraction < 1:
        raise DataError(f"data.options.test_fraction must be in (0, 1), got {test_fraction!r}; 0.2 draws a fifth.")
    if has_test:
        raise DataError(
            f"data.options.test_fraction is for data without a test part, got {test_fraction!r} and a test part in "
            f"{where}; leave one of them out."
        )


def checked(parts: Mapping[str, Raw], temporal: bool, where: Any) -> dict[str, Raw]:
    """Returns the parts themselves once their inputs are real numbers of a rank that examples can have.

    Raises:
        DataError: they are not.
    """
    for part, (x, _) in parts.items():
        if x.dtype.kind not in "biuf":
            raise DataError(f"x_{part} must hold real numbers, got dtype {x.dtype} in {where}; convert it.")
        if x.ndim < (3 if temporal else 2):
            axes = "[n, time, features]" if temporal else "[n, features]"
            raise DataError(
                f"x_{part} must be {axes} with temporal={str(bool(temporal)).lower()}, got shape {x.shape} in "
                f"{where}; reshape it{' or set data.temporal=false' if temporal else ''}."
            )
        if not isinstance(x, sparse.csr_array | Streamed) and x.size > MAX_VALUES:
            raise DataError(
                f"x_{part} may hold {MAX_VALUES} numbers, got shape {x.shape} in {where}; give fewer rows or columns."
            )
    return dict(parts)


def split_of(
    parts: Mapping[str, Raw],
    name: str,
    *,
    temporal: bool = False,
    task: str = "classification",
    classes: int | None = None,
    scale: float = 1.0,
    compact: bool = False,
    columns: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Split:
    """Returns the split of `divided` parts: labels numbered, gaps filled, in single precision.

    Args:
        parts: ``train``, ``val`` and ``test``.
        name: of the data set.
        temporal: whether the second axis of ``x`` is time.
        task: classification, multilabel or regression.
        classes: number of classes where labels are class numbers from 0 already.
        scale: ``x`` is multiplied by it.
        compact: whether bytes stay bytes, for a quarter of the memory.
        columns: what the inputs of a table are called.
        notes: what was done before.

    Raises:
        DataError: inputs that are no real numbers or of too low a rank, or labels that cannot be numbered.
    """
    _check_scale(scale)
    y = {part: arrays.y for part, arrays in parts.items()}
    if task == "classification":
        for part, given in y.items():
            _check_rank(given, parts[part].x, temporal, part, name)
        coded = labels.encoded(y, classes, name)
    else:
        outputs = max(int(np.prod(y["train"].shape[1:])), 1)
        coded = labels.Encoded({part: _numbers(v, task, part, name) for part, v in y.items()}, {}, outputs, ())
    x = {part: arrays.x for part, arrays in parts.items()}
    if any(isinstance(one, Streamed) for one in x.values()):
        made = streams.inputs(x, temporal, scale, compact, coded.parts["train"])
    else:
        made = _inputs(x, temporal, scale, compact, columns)
    train, val, test = (Arrays(made.parts[part], coded.parts[part]) for part in ("train", "val", "test"))
    return Split(
        train,
        val,
        test,
        coded.classes,
        name,
        temporal=bool(temporal),
        task=task,
        class_names=coded.names,
        extra={f"{part}/labelled": known for part, known in coded.labelled.items()}
        | made.extra
        | ({missing.COLUMNS: np.array(columns)} if columns else {}),
        notes=(*notes, *made.notes),
    )


def _inputs(
    parts: dict[str, Any], temporal: bool, scale: float, compact: bool, columns: tuple[str, ...]
) -> precise.Cast:
    """Returns inputs at their scale without gaps, in single precision."""
    whole = missing.filled({part: _scaled(x, scale) for part, x in parts.items()}, temporal, columns)
    cast = _single(whole.parts, temporal, compact, columns)
    return precise.Cast(cast.parts, whole.extra | cast.extra, (*whole.notes, *cast.notes))


def _single(parts: dict[str, Features], temporal: bool, compact: bool, columns: tuple[str, ...]) -> precise.Cast:
    if any(isinstance(x, sparse.csr_array) for x in parts.values()):
        return precise.Cast({part: sparse.csr_array(x).astype(np.float32) for part, x in parts.items()}, {}, ())
    if compact and all(x.dtype == np.uint8 for x in parts.values()):
        return precise.Cast(parts, {}, ())
    return precise.single({part: np.asanyarray(x) for part, x in parts.items()}, temporal, columns)


def _drawn(arrays: Raw, seed: Any, fraction: float, task: str) -> tuple[Raw, Raw]:
    single = task == "classification" and arrays.y.ndim == 1
    groups = labels.by_appearance(arrays.y) if single else np.zeros((len(arrays.y), 0))
    mask = seeded_mask(groups, seed, fraction)
    return Raw(arrays.x[~mask], arrays.y[~mask]), Raw(arrays.x[mask], arrays.y[mask])


def _with_targets(arrays: Raw, part: str, where: Any, task: str) -> tuple[Raw, int]:
    """Returns the examples that have a target, and how many have none."""
    none = labels.missing(arrays.y, task)
    count = int(none.sum())
    if count and part == "test":
        raise DataError(
            f"every test example needs a target, got {count} without one in y_test of {where}, the first at index "
            f"{int(none.argmax())}; leave them out or fill them in."
        )
    return (Raw(arrays.x[~none], arrays.y[~none]), count) if count else (arrays, 0)


def _check_one_each(x: Any, y: np.ndarray, part: str, where: Any) -> None:
    if not y.ndim or not x.ndim or x.shape[0] != y.shape[0]:
        raise DataError(
            f"x_{part} and y_{part} must be equally long, got {x.shape[0] if x.ndim else 0} and "
            f"{len(y) if y.ndim else 0} in {where}; drop what has no partner."
        )


def _check_scale(scale: Any) -> None:
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < abs(scale) < float("inf"):
        raise DataError(f"data.options.scale must be a finite number other than 0, got {scale!r}; 1 changes nothing.")


def _scaled(x: Any, scale: float) -> Any:
    return x if scale == 1 else x * np.float32(scale)


def _check_rank(y: np.ndarray, x: Any, temporal: bool, part: str, name: str) -> None:
    if y.ndim == 1 or (temporal and y.shape == x.shape[:2]):
        return
    zeros_ones = y.dtype.kind in "iuf" and y.ndim == 2 and bool(np.isin(y, (0, 1)).all())
    if zeros_ones and (y.sum(1) == 1).all():
        fix = labels.ONE_HOT
    elif zeros_ones:
        fix = "set data.options.task=multilabel for several labels per example"
    else:
        fix = f"give one label per example, or {labels.REGRESSION}"
    raise DataError(
        f"labels must have shape [n] (or [n, time] for temporal data), got {y.shape} in the {part} part of {name!r}; "
        f"{fix}."
    )


def _numbers(y: np.ndarray, task: str, part: str, name: str) -> np.ndarray:
    """Returns targets as the task wants them; numbers stay in double precision where single would lose what differs."""
    if task == OWN:
        return y.astype(np.float32 if y.dtype.kind == "f" else np.int32)
    if y.ndim != 2 or not y.shape[1]:
        raise DataError(
            f"targets must have shape [n, outputs], got {y.shape} in the {part} part of {name!r}; reshape it."
        )
    if task == "regression":
        with np.errstate(over="ignore", invalid="ignore"):
            far = len(y) and bool((np.abs(y.mean(0)) > precise.FAR * y.std(0)).any())
            return y if far else y.astype(np.float32)
    if y.size and not np.isin(y, (0, 1)).all():
        odd = y[~np.isin(y, (0, 1))].flat[0]
        raise DataError(f"multi-label targets must be 0 or 1, got {odd:g} in the {part} part of {name!r}; fix it.")
    return y.astype(np.int32)
