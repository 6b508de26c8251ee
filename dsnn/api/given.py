"""Arrays that a call was given, as data: every input that a run of one's own data takes, without its file."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse

from dsnn import data, tasks
from dsnn.data import labels, own
from dsnn.data.missing import LENGTHS, lengths, over_channels
from dsnn.data.precise import CENTRE
from dsnn.data.split import TASKS, own_fraction
from dsnn.store.untrusted import one_line

FILL = "given/fill"
"""Where `Split.extra` has what a gap of each column is filled with."""

NAME, SAVED = "yours", "saved"
"""What data of a call are called, and what stands for those of a network that was loaded."""


def split_of(x: Any, y: Any, task: str, temporal: bool, held_out: float | None, seed: int) -> data.Split:
    """Returns examples with a held-out part, classes in proportion; all of them stand for the test part as well.

    Args:
        x: inputs ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``; sparse rows; gaps are NaN.
        y: labels by any name ``[n]`` (or ``[n, time]``, one at every step), numbers, or 0 and 1 of several labels.
        task: "auto", one of `dsnn.data.split.TASKS`, or "own", whose targets stay as they are.
        temporal: whether the second axis of ``x`` is time.
        held_out: share of the examples that trains nothing; None is the usual one.
        seed: of the draw.

    Raises:
        ValueError: what cannot be learned, in one sentence.
    """
    inputs, targets = numbers(x), _targets(y)
    if task not in (tasks.AUTO, *TASKS, tasks.OWN):
        raise ValueError(
            f"task must be auto, classification, multilabel or regression, got {task!r}; one of your own is an object "
            "or package.module:attribute."
        )
    if held_out is not None and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}; 0.2 holds out a fifth of the examples.")
    count = inputs.shape[0] if inputs.ndim else 0
    if not targets.ndim or len(targets) != count or not len(targets):
        raise ValueError(
            f"y must hold one target for each of {count} inputs, got {targets.dtype} of shape {targets.shape}."
        )
    notes: tuple[str, ...] = ()
    if task == "auto":
        task, notes = tasks.guess(targets)
    inputs, targets, left_out = _with_targets(inputs, targets, task)
    notes += left_out
    whole = own.Raw(inputs, targets)
    fraction = own_fraction(held_out, len(targets))
    divided = own.divided(
        {"train": whole, "test": whole}, NAME, "y", seed=seed, val_fraction=fraction, test_fraction=None, task=task
    )
    made = own.split_of(divided.parts, NAME, temporal=temporal, task=task, notes=(*notes, *divided.notes))
    return data.check(made._replace(extra={**made.extra, **_fill(divided.parts["train"].x)}))


def inputs_of(split: data.Split, x: Any) -> np.ndarray:
    """Returns new inputs as the network of a split reads them: gaps filled, at its scale.

    Raises:
        ValueError: of another shape, or no real numbers.
    """
    values = numbers(x)
    values = values.toarray() if isinstance(values, sparse.csr_array) else values
    wanted = split.train.x.shape[1:]
    if (*values.shape[1:], 1) == wanted:  # grey images, which convolutions read with a channel axis
        values = values[..., None]
    if values.shape[1:] != wanted:
        raise ValueError(f"x must be [n, {', '.join(map(str, wanted))}], got shape {values.shape}.")
    if CENTRE in split.extra:
        values = np.asarray(values, np.float64) - split.extra[CENTRE]
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is said not to be finite
        values = np.asarray(values, np.float32)
    gaps = np.isnan(values)
    scale = data.scaling_of(split)
    ended = _beyond(gaps) if split.temporal and f"train/{LENGTHS}" in split.extra else np.zeros(gaps.shape, bool)
    if FILL in split.extra and gaps.any():
        values = np.where(gaps & ~ended, split.extra[FILL], values)
    values = np.where(ended, 0.0, values).astype(np.float32)
    values = values if scale is None else scale(values)
    return np.where(ended, np.float32(0), values)


def numbers(x: Any) -> Any:
    """Returns inputs of a call as an array, or as sparse rows; masked values are gaps.

    Raises:
        ValueError: no real numbers, or rows of unequal length.
    """
    if sparse.issparse(x):
        if x.ndim != 2 or x.dtype.kind not in "biuf":
            raise ValueError(f"sparse x must be [n, features] of real numbers, got {x.dtype} of shape {x.shape}.")
        return sparse.csr_array(x if x.dtype != np.float16 else x.astype(np.float32))
    values = _array(x, "x")
    if values.dtype.kind == "O":
        values = _mixed(values, "x")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"x must hold real numbers, got dtype {values.dtype}; convert it.")
    return values


def _targets(y: Any) -> np.ndarray:
    """Returns targets of a call as numbers or text."""
    if sparse.issparse(y):
        y = y.toarray()
    values = _array(y, "y")
    return _mixed(values, "y") if values.dtype.kind == "O" and values.ndim else values


def _array(values: Any, name: str) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        masked: Any = values
        values = masked.astype(np.float64).filled(np.nan) if masked.dtype.kind in "biuf" else masked.filled()
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be an array, got one that is none ({one_line(error)}); series of unequal length are filled "
            "up to the longest with NaN."
        ) from error
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):  # bfloat16 and the like
        return array.astype(np.float32)
    return array


def _mixed(values: np.ndarray, name: str) -> np.ndarray:
    """Returns an array of Python's objects as what they all are: text, truth values or numbers, None a gap in these."""
    flat = values.ravel().tolist()
    kinds = {type(one) for one in flat}
    if kinds <= {str}:
        return np.array(flat, dtype=str).reshape(values.shape)
    if kinds <= {bool, np.bool_}:
        return np.array(flat, bool).reshape(values.shape)
    plain = [np.nan if one is None else one for one in flat]
    odd = [one for one in plain if not isinstance(one, bool | int | float | np.number) or isinstance(one, complex)]
    if odd:
        raise ValueError(
            f"{name} must hold numbers{' or text' if name == 'y' else ''} of one kind, got {str(odd[0])[:40]!r} among "
            f"{', '.join(sorted(kind.__name__ for kind in kinds))}; convert it."
        )
    try:
        return np.array(plain, int if all(isinstance(one, int) for one in plain) else float).reshape(values.shape)
    except OverflowError as error:
        raise ValueError(f"{name} must hold numbers, got one of more than 64 bits; name classes by text.") from error


def _with_targets(inputs: Any, targets: np.ndarray, task: str) -> tuple[Any, np.ndarray, tuple[str, ...]]:
    """Returns the examples that have a target; one at every step may be missing at some."""
    none = labels.missing(targets, task)
    if not none.any():
        return inputs, targets, ()
    if none.all():
        raise ValueError(f"y must hold a target for some of {len(targets)} inputs, got none.")
    return inputs[~none], targets[~none], (f"{none.sum()} examples have no target and were left out.",)


def _fill(train: Any) -> dict[str, np.ndarray]:
    """Returns the training median of every column, where the training part has gaps."""
    if sparse.issparse(train) or train.dtype.kind != "f" or not np.isnan(train).any():
        return {}
    rows = np.asarray(train).reshape(-1, train.shape[-1])
    known = [column[np.isfinite(column)] for column in rows.T]
    return {FILL: np.array([np.median(values) if len(values) else 0.0 for values in known], np.float32)}


def _beyond(gaps: np.ndarray) -> np.ndarray:
    """Returns where steps lie beyond the end of a series, which holds NaN in every channel from there on."""
    tail = np.arange(gaps.shape[1]) >= lengths(gaps)[:, None]
    return np.broadcast_to(over_channels(tail, gaps), gaps.shape)
