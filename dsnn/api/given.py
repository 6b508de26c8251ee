"""Arrays that a call was given, as data: every input that a run of one's own data takes, without its file."""

from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn import data
from dsnn.data import own
from dsnn.data.missing import LENGTHS, lengths, over_channels
from dsnn.data.precise import CENTRE
from dsnn.data.split import own_fraction

FILL = "given/fill"
"""Where `Split.extra` has what a gap of each column is filled with."""

TASKS = ("auto", "classification", "multilabel", "regression")
NAME, SAVED = "yours", "saved"
"""What data of a call are called, and what stands for those of a network that was loaded."""


def split_of(x: Any, y: Any, task: str, temporal: bool, held_out: float | None, seed: int) -> data.Split:
    """Returns examples with a held-out part, classes in proportion; all of them stand for the test part as well.

    Args:
        x: inputs ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``; sparse rows; gaps are NaN.
        y: labels by any name ``[n]`` (or ``[n, time]``, one at every step), numbers, or 0 and 1 of several labels.
        task: one of `TASKS`.
        temporal: whether the second axis of ``x`` is time.
        held_out: share of the examples that trains nothing; None is the usual one.
        seed: of the draw.

    Raises:
        ValueError: what cannot be learned, in one sentence.
    """
    inputs = sparse.csr_array(x) if sparse.issparse(x) else np.asarray(x)
    targets = np.asarray(y)
    if task not in TASKS:
        raise ValueError(f"task must be auto, classification or regression, or multilabel, got {task!r}.")
    if held_out is not None and not 0 <= held_out < 1:
        raise ValueError(f"held_out must be in [0, 1), got {held_out}; 0.2 holds out a fifth of the examples.")
    count = inputs.shape[0] if inputs.ndim else 0
    if not targets.ndim or len(targets) != count or not len(targets):
        raise ValueError(
            f"y must hold one target for each of {count} inputs, got {targets.dtype} of shape {targets.shape}."
        )
    task = _task(targets, task)
    if task == "regression" and targets.ndim == 1:
        targets = targets[:, None]
    whole = own.Raw(inputs, targets)
    fraction = own_fraction(held_out, len(targets))
    divided = own.divided(
        {"train": whole, "test": whole}, NAME, "y", seed=seed, val_fraction=fraction, test_fraction=None, task=task
    )
    made = own.split_of(divided.parts, NAME, temporal=temporal, task=task, notes=divided.notes)
    return data.check(made._replace(extra={**made.extra, **_fill(divided.parts["train"].x)}))


def inputs_of(split: data.Split, x: Any) -> np.ndarray:
    """Returns new inputs as the network of a split reads them: gaps filled, at its scale.

    Raises:
        ValueError: of another shape.
    """
    values = x.toarray() if sparse.issparse(x) else np.asarray(x)
    wanted = split.train.x.shape[1:]
    if (*values.shape[1:], 1) == wanted:  # grey images, which convolutions read with a channel axis
        values = values[..., None]
    if values.shape[1:] != wanted:
        raise ValueError(f"x must be [n, {', '.join(map(str, wanted))}], got shape {values.shape}.")
    if CENTRE in split.extra:
        values = np.asarray(values, np.float64) - split.extra[CENTRE]
    values = np.asarray(values, np.float32)
    gaps = np.isnan(values)
    scale = data.scaling_of(split)
    ended = _beyond(gaps) if split.temporal and f"train/{LENGTHS}" in split.extra else np.zeros(gaps.shape, bool)
    if FILL in split.extra and gaps.any():
        values = np.where(gaps & ~ended, split.extra[FILL], values)
    values = np.where(ended, 0.0, values).astype(np.float32)
    values = values if scale is None else scale(values)
    return np.where(ended, np.float32(0), values)


def _task(targets: np.ndarray, task: str) -> str:
    if task != "auto":
        return task
    if targets.dtype.kind != "f":
        return "classification"
    known = targets[~np.isnan(targets)]
    if known.size and not (known % 1 != 0).any():
        raise ValueError(
            f"y must be labels (integers or text), or numbers to predict (fractions, or task='regression'), got whole "
            f"numbers as {targets.dtype}; y.astype(int) is classes."
        )
    return "regression"


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
