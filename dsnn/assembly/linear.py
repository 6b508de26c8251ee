"""What a linear model makes of the data: the least that a network has to reach to be worth its energy.

Logistic regression for classes and labels, ridge regression for numbers, by scikit-learn, on the inputs that the
network sees. Its strength is chosen by cross-validation on the training part.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sparse

from dsnn import evaluate, tasks
from dsnn.data.limit import looked_at
from dsnn.data.rows import Rows
from dsnn.data.scaling import target_scaling
from dsnn.data.split import Arrays, Split, size
from dsnn.data.streamed import Streamed
from dsnn.tasks import Losses
from dsnn.tasks.classes import class_losses
from dsnn.tasks.labels import label_losses
from dsnn.tasks.numbers import number_losses

STRENGTHS = (0.01, 0.1, 1.0, 10.0)
"""Inverse strengths of the logistic penalty, in units of which 1 is a standard normal prior of every weight."""

RIDGES = tuple(10.0**k for k in range(-3, 5))
MOST_COLUMNS = 20_000
"""Series of more numbers than this are read by the mean and the last of each channel."""

MOST_SOUGHT = 2_000_000
"""Training values beyond which the strength is not sought but 1."""

FOLDS = 5
ITERATIONS = 200
BATCH = 256
"""Examples of a stream that are asked about at a time."""

SELECTING = "val"


class LinearModel(NamedTuple):
    """A fitted linear model.

    Attributes:
        name: "logistic regression" or "ridge regression".
        scores: metrics of the selecting part, such as ``val/accuracy``, and of the test part, in the targets' unit.
        losses: of each example that selects; None where there are none.
    """

    name: str
    scores: dict[str, float]
    losses: Losses | None


def linear_model(split: Split, seed: int = 0, task: tasks.Task | None = None) -> LinearModel | None:
    """Returns the linear model of a split, None where its task has none or there is only one class.

    Args:
        split: prepared as the network gets it; only the training part is learned from.
        seed: of the folds.
        task: what is learned; None is the data's own.
    """
    kind = (tasks.of(split) if task is None else task).facts.linear
    if not kind or not size(split.train):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # iterations that did not end; the fit is used all the same
        train = looked_at(split.train)
        return MODELS[kind](split, columns(split, train.x), np.asarray(train.y), seed)


def columns(split: Split, x: Any) -> Any:
    """Returns inputs as rows of numbers: flat, or of long series the mean and the last step of each channel."""
    if sparse.issparse(x):
        return x
    if isinstance(x, Rows):
        return x.tocsr()
    if isinstance(x, Streamed):
        return np.concatenate(
            [columns(split, x[rows]) for rows in np.array_split(np.arange(len(x)), len(x) // 256 + 1)]
        )
    values = np.asarray(x, np.float32)
    if split.temporal and int(np.prod(values.shape[1:])) > MOST_COLUMNS:
        values = np.concatenate([values.mean(1), values[:, -1]], axis=-1)
    return values.reshape(len(values), -1)


def _classes(split: Split, x: Any, y: np.ndarray, seed: int) -> LinearModel | None:
    from sklearn.linear_model import LogisticRegression  # here, since it takes a second to import
    from sklearn.model_selection import StratifiedKFold

    if len(np.unique(y)) < 2:
        return None

    def fitted(strength: float, rows: Any) -> Any:
        return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(x[rows], y[rows])

    rarest = int(np.bincount(y)[np.unique(y)].min())
    strength, every = 1.0, np.arange(len(y))
    if rarest >= FOLDS and x.shape[0] * x.shape[1] <= MOST_SOUGHT:
        folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(np.zeros(len(y)), y))

        def lost(strength: float) -> float:
            models = [(fitted(strength, train), held) for train, held in folds]
            return float(
                np.mean([evaluate.nll(_probabilities(m, x[held], split.classes), y[held]) for m, held in models])
            )

        strength = min(STRENGTHS, key=lost)
    model = fitted(strength, every)
    scores: dict[str, float] = {}
    losses: Losses | None = None
    for part, arrays in _parts(split):
        probs, labels = (
            _answers(split, arrays.x, lambda rows: _probabilities(model, rows, split.classes)),
            np.asarray(arrays.y),
        )
        scores |= {
            f"{part}/accuracy": evaluate.accuracy(probs, labels),
            f"{part}/nll": evaluate.nll(probs, labels),
            f"{part}/ece": evaluate.ece(probs, labels),
            f"{part}/balanced_accuracy": evaluate.balanced_accuracy(probs, labels),
        }
        losses = class_losses(probs, labels) if part == SELECTING else losses
    return LinearModel("logistic regression", scores, losses)


def _answers(split: Split, x: Any, predict: Callable[[Any], np.ndarray]) -> np.ndarray:
    """Returns what a model says of inputs, of which a stream's are read a batch at a time."""
    if not isinstance(x, Streamed):
        return predict(columns(split, x))
    some = np.array_split(np.arange(len(x)), len(x) // BATCH + 1)
    return np.concatenate([predict(columns(split, x[rows])) for rows in some])


def _probabilities(model: Any, x: Any, classes: int) -> np.ndarray:
    """Returns class probabilities with a column for every class; those without a training example have almost none."""
    probs = np.full((x.shape[0], classes), 1e-12)
    probs[:, model.classes_] = model.predict_proba(x)
    return probs / probs.sum(-1, keepdims=True)


def _labels(split: Split, x: Any, y: np.ndarray, seed: int) -> LinearModel:
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    models = [
        (LogisticRegression(max_iter=ITERATIONS) if len(np.unique(column)) > 1 else DummyClassifier()).fit(x, column)
        for column in y.T
    ]
    scores: dict[str, float] = {}
    losses: Losses | None = None
    for part, arrays in _parts(split):
        labels = np.asarray(arrays.y)
        probs = _answers(split, arrays.x, lambda rows: np.stack([_last_column(one, rows) for one in models], axis=-1))
        probs = np.clip(probs, 1e-12, 1 - 1e-12)
        one_by_one = evaluate.binary(probs, labels)
        scores |= {
            f"{part}/accuracy": evaluate.accuracy(*one_by_one),
            f"{part}/nll": evaluate.nll(*one_by_one) * labels.shape[1],
        }
        losses = label_losses(probs, labels) if part == SELECTING else losses
    return LinearModel("logistic regression", scores, losses)


def _last_column(model: Any, rows: Any) -> np.ndarray:
    """Returns the probability that a label is on; of one that never changed, what it always was."""
    probs = model.predict_proba(rows)
    return probs[:, -1] if len(model.classes_) > 1 else np.full(len(probs), float(model.classes_[0]))


def _ridge(split: Split, x: Any, y: np.ndarray, seed: int) -> LinearModel:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=RIDGES).fit(x, y)
    deviation = np.sqrt(np.mean((y - model.predict(x).reshape(y.shape)) ** 2, 0) * len(y) / max(len(y) - x.shape[1], 1))
    deviation = np.maximum(deviation, 1e-12)
    unit = target_scaling(split)
    scale = np.ones(y.shape[1]) if unit is None else np.broadcast_to(unit.scale, y.shape[1:])
    scores: dict[str, float] = {}
    losses: Losses | None = None
    for part, arrays in _parts(split):
        targets = np.asarray(arrays.y, float)
        error = targets - _answers(split, arrays.x, model.predict).reshape(targets.shape)
        log_prob = (-0.5 * (error / deviation) ** 2 - np.log(deviation * scale) - 0.5 * np.log(2 * np.pi)).sum(-1)
        scores |= {
            f"{part}/rmse": float(np.sqrt(np.mean((error * scale) ** 2))),
            f"{part}/r2": evaluate.r2(targets - error, targets),
            f"{part}/nll": -float(log_prob.mean()),
        }
        if part == SELECTING:
            losses = number_losses(targets - error, log_prob + np.log(scale).sum(), targets)
    return LinearModel("ridge regression", scores, losses)


def _parts(split: Split) -> list[tuple[str, Arrays]]:
    return [(part, arrays) for part in (SELECTING, "test") if size(arrays := getattr(split, part))]


MODELS: dict[str, Callable[[Split, Any, np.ndarray, int], LinearModel | None]] = {
    "logistic regression": _classes,
    "logistic regression of each label": _labels,
    "ridge regression": _ridge,
}
"""By the name that a task gives its linear model (`dsnn.tasks.Facts.linear`)."""
