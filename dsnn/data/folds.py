"""Folds: all examples of a set dealt out anew, so that each is tested once, by a network that did not learn from it."""

from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn.data.split import Arrays, DataError, Split, by_class, divide, seeded_mask, size
from dsnn.data.streamed import Streamed

__all__ = ["folded"]

DEALT_BY = 0
"""Seed of the dealing: networks of all seeds have the same folds, and no example is tested twice."""


def folded(split: Split, folds: int, fold: int, seed: int) -> Split:
    """Returns the split whose test part is one fold of all its examples, and whose other parts are of the rest.

    Each class is dealt out evenly. As large a share of the rest validates as validated before. Nothing is known here of
    who spoke or whose heart it was: examples of one source may come to lie in several folds. What a reader filled in by
    the set's own training part, such as a value that was missing, stays.

    Args:
        split: as it was read, before its held-out part has roles.
        folds: how many, at least 2.
        fold: which of them is tested, from 0.
        seed: chooses the examples that validate.

    Raises:
        DataError: examples that are read as they are used, too few of them, or side information of single parts.
    """
    parts = (split.train, split.val, split.test)
    if any(isinstance(part.x, Streamed) for part in parts):
        raise DataError(
            f"data.folds deals out examples in memory, got {split.name}, which is read as it is used; set "
            f"data.stream=never, or leave data.folds out."
        )
    if split.extra or split.truth:
        known = ", ".join(sorted((*split.extra, *split.truth)))
        raise DataError(
            f"data.folds deals out examples anew, got {split.name}, which knows more of its parts ({known}); leave "
            f"data.folds out."
        )
    every = Arrays(_joined([part.x for part in parts if size(part)]), np.concatenate([part.y for part in parts]))
    if size(every) < 2 * folds:
        raise DataError(
            f"data.folds must leave two examples a fold, got {folds} folds of {size(every)} examples; lower data.folds."
        )
    rest, test = divide(every, _dealt(by_class(np.asarray(every.y)), folds) == fold)
    share = size(split.val) / max(size(split.train) + size(split.val), 1)
    train, val = divide(rest, seeded_mask(np.asarray(rest.y), seed, share))
    note = f"All {size(every)} examples are in {folds} folds by class, and fold {fold} is the test part."
    return split._replace(train=train, val=val, test=test, notes=(*split.notes, note))


def _dealt(labels: np.ndarray, folds: int) -> np.ndarray:
    """Returns the fold of each example: those of a class one after another, in a drawn order."""
    chance = np.random.default_rng(DEALT_BY).random(len(labels))
    found = np.empty(len(labels), int)
    found[np.lexsort((chance, labels))] = np.arange(len(labels)) % folds
    return found


def _joined(xs: list[Any]) -> Any:
    return sparse.csr_array(sparse.vstack(xs)) if sparse.issparse(xs[0]) else np.concatenate(xs)
