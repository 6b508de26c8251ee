"""What a person should know of their data before a network learns them, a sentence each with what to do about it.

Nothing here stops a run: what cannot be learned is refused where it is read (`dsnn.data.split.check`).
"""

from collections import Counter

import numpy as np
import scipy.sparse as sparse

from dsnn.data.limit import looked_at
from dsnn.data.missing import COLUMNS, LENGTHS, listed
from dsnn.data.split import OWN, Arrays, Split, per_step, size

UNBALANCED = 5.0
"""Examples of the most frequent class to one of the rarest that are worth a word."""

UNLIKE = 100.0
"""Ratio of the standard deviations of two columns that is worth a word."""

MOST_VALUES = 1 << 28
MANY_CLASSES = 20
MISSING = {"", "nan", "none", "null", "na", "n/a", "?"}
"""What missing labels are called, in lower case, where they became text."""


def worries(split: Split) -> tuple[str, ...]:
    """Returns what is odd about a data set, as it was read: unprepared and unscaled.

    Args:
        split: of any task; empty parts are passed over.
    """
    if not size(split.train):
        return ()
    seen = split._replace(train=looked_at(split.train), test=looked_at(split.test))
    repeated = _repeated(split) if seen.train.x is split.train.x else []  # of a sample it would say too little
    every = (*_columns(seen, size(split.train)), *_labels(split), *repeated, *_lengths(split))
    return tuple(sentence for sentence in every if sentence)


def _columns(split: Split, count: int) -> list[str]:
    """Says what is odd of columns of tables, and of channels of series, of which so many examples train."""
    x, found = split.train.x, []
    features = int(np.prod(x.shape[1:]))
    if features > count:
        found.append(
            f"there are more inputs ({features}) than training examples ({count}), so that chance alone "
            f"can separate them: trust the test part only."
        )
    if isinstance(x, sparse.csr_array) or x.ndim != (3 if split.temporal else 2):
        return found
    names = split.extra.get(COLUMNS, np.array([])).tolist()
    rows = np.asarray(x).reshape(-1, x.shape[-1])
    spread = rows.std(0, dtype=np.float64)
    still = np.flatnonzero((rows == rows[0]).all(0))
    if len(still):
        found.append(
            f"an input that never changes in training says nothing: {listed(still.tolist(), x.shape[-1], names)}."
        )
    moving = np.delete(spread, still)
    if len(moving) > 1 and moving.max() > UNLIKE * moving.min():
        found.append(
            f"the columns differ in scale by up to {moving.max() / moving.min():.1g} times: data.standardise=auto, "
            f"which experiment=own sets, brings them to one."
        )
    return found


def _labels(split: Split) -> list[str]:
    if split.task == "multilabel":
        share = np.asarray(split.train.y).mean(0)
        still = np.flatnonzero((share == 0) | (share == 1)).tolist()
        return (
            [f"a label that never changes in training teaches nothing: {listed(still, split.classes)}."]
            if still
            else []
        )
    if split.task in ("regression", OWN):
        y = np.asarray(split.train.y, np.float64)
        still = np.flatnonzero((y == y[:1]).all(0)).tolist()
        return (
            [f"a target that never changes in training teaches nothing: {listed(still, split.classes)}."]
            if still
            else []
        )
    y = np.asarray(split.train.y)
    if (known := split.extra.get("train/labelled")) is not None:
        y = y[known]
    counts = np.bincount(y.ravel(), minlength=split.classes)
    found = []
    present = np.flatnonzero(counts)
    if len(present) < split.classes:
        absent = [name_of(split, int(label)) for label in np.flatnonzero(counts == 0)]
        found.append(f"a class without a training example cannot be learned: {_some(absent)} of {split.classes}.")
    if not per_step(split):
        if len(present) > MANY_CLASSES and len(present) > len(y) / 3:
            found.append(
                f"nearly every label is another one, {len(present)} among {len(y)} training examples: this looks like "
                f"a regression (data.options.task=regression)."
            )
            return found
        alone = [name_of(split, int(label)) for label in np.flatnonzero(counts == 1)]
        if alone:
            found.append(f"a class with one training example cannot be checked on held-out ones: {_some(alone)}.")
    if unnamed := [name for name in split.class_names if name.lower() in MISSING]:
        found.append(
            f"a class is called {unnamed[0]!r}, as missing labels are once they are text: leave such examples out, or "
            f"give NaN for them."
        )
    most, least = (present[counts[present].argmax()], present[counts[present].argmin()])
    if counts[most] > UNBALANCED * counts[least]:
        found.append(
            f"classes are unbalanced, {counts[most]} of {name_of(split, int(most))} to {counts[least]} of "
            f"{name_of(split, int(least))}: an accuracy of {counts[most] / counts.sum():.1%} takes no learning; "
            f"train.class_weight=balanced counts all classes alike."
        )
    return found


def _repeated(split: Split) -> list[str]:
    """Says how many test rows were seen in training, and how many equal training rows disagree."""
    if isinstance(split.train.x, sparse.csr_array) or split.train.x.size + split.test.x.size > MOST_VALUES:
        return []
    train, test = _rows(split.train), _rows(split.test)
    seen, found = set(train), []
    if again := sum(row in seen for row in test):
        found.append(
            f"{again} of {len(test)} test examples are training examples too, so that the test part flatters: leave "
            f"repeated ones out of it."
        )
    if split.task not in ("regression", OWN):
        answers: dict[int, set[bytes]] = {}
        for row, y in zip(train, np.asarray(split.train.y), strict=True):
            answers.setdefault(row, set()).add(y.tobytes())
        torn = {row for row, given in answers.items() if len(given) > 1}
        if torn:
            total = sum(count for row, count in Counter(train).items() if row in torn)
            found.append(
                f"{total} training examples equal another one that is labelled otherwise; no network can tell."
            )
    return found


def _rows(part: Arrays) -> list[int]:
    return [hash(np.ascontiguousarray(row).tobytes()) for row in np.asarray(part.x)]


def _lengths(split: Split) -> list[str]:
    lengths = split.extra.get(f"train/{LENGTHS}")
    if lengths is None or not len(lengths) or split.task in ("regression", OWN) or np.asarray(split.train.y).ndim != 1:
        return []
    y = np.asarray(split.train.y)
    means = np.array([lengths[y == label].mean() for label in np.unique(y)])
    spread = max(float(lengths.std()), 1e-12)
    if np.ptp(means) <= spread:
        return []
    return [
        f"classes differ in how long their series last, {means.min():.3g} to {means.max():.3g} steps in the mean: a "
        f"network may learn that rather than what they hold."
    ]


def name_of(split: Split, label: int) -> str:
    """Returns what a class is called, its number where it has no name."""
    return split.class_names[label] if label < len(split.class_names) else str(label)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
