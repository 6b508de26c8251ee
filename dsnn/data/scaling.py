"""Inputs and numbers to predict brought to one scale, from the training part alone: a network expects order one.

Columns of tables and channels of series are standardised. Zeros that mean "nothing" are kept: of images, of data that
are mostly zero and of spikes only the scale changes; spikes are left as they are. Targets of a regression
are standardised for learning, and answers are given in their own unit again.
"""

from typing import Any, NamedTuple

import numpy as np

from dsnn.data.limit import looked_at
from dsnn.data.split import Split
from dsnn.data.streamed import Streamed
from dsnn.types import Array, Float

SHIFT, SCALE = "scaling/shift", "scaling/scale"
TARGET_SHIFT, TARGET_SCALE = "scaling/target_shift", "scaling/target_scale"
PARTS = ("train", "val", "test", "certify")
MOSTLY = 0.5
"""Share of zeros from which on a zero is taken to mean that there is nothing."""


class Scaling(NamedTuple):
    """Inputs become ``(x - shift) / scale``; both are of an example's last axis, or of one number."""

    shift: Float[np.ndarray, "..."]
    scale: Float[np.ndarray, "..."]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns scaled inputs in single precision; what is taken from what is not."""
        return ((np.asarray(x, np.float64) - self.shift) / self.scale).astype(np.float32)

    def undone(self, x: np.ndarray) -> np.ndarray:
        """Returns scaled inputs as they came; zeros are zeros again."""
        raw = np.asarray(x, np.float64) * self.scale + self.shift
        return np.where(np.abs(raw) > 1e-5 * (np.abs(self.shift) + self.scale), raw, 0.0).astype(np.float32)


def scaling(x: np.ndarray, temporal: bool, *, zeros_mean_nothing: bool = True) -> Scaling:
    """Returns the scaling of training values; a column that never changes has the scale 1.

    Args:
        x: ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``.
        temporal: whether the second axis is time.
        zeros_mean_nothing: whether zeros stay zero where most values are.
    """
    values = np.asarray(x, np.float64)
    none = Scaling(np.zeros(()), np.ones(()))
    columns = values.ndim == (3 if temporal else 2)
    table = columns and not temporal
    if not values.size or (not table and np.isin(values, (0.0, 1.0)).all()):
        return none
    nothing = zeros_mean_nothing and (values == 0).mean() > MOSTLY
    if not columns or nothing:
        size = np.sqrt((values[values != 0] ** 2).mean()) if (values != 0).any() else 1.0
        return none._replace(scale=np.asarray(size or 1.0))
    rows = values.reshape(-1, values.shape[-1])
    shift, scale = rows.mean(0), rows.std(0)
    constant = scale <= 1e-7 * np.maximum(np.abs(shift), 1e-30)
    return Scaling(shift, np.where(constant, 1.0, scale))


def standardised(split: Split) -> Split:
    """Returns the split with every part scaled as the training part asks, and that in ``extra``.

    Sparse rows stay as they are.
    """
    if SCALE in split.extra or TARGET_SCALE in split.extra:
        return split
    parts = {name: part for name in PARTS if (part := getattr(split, name)) is not None}
    extra = dict(split.extra)
    if isinstance(split.train.x, np.ndarray | Array | Streamed):
        found = scaling(np.asarray(looked_at(split.train).x), split.temporal)
        parts = {name: part._replace(x=_at(found, part.x)) for name, part in parts.items()}
        extra |= {SHIFT: found.shift, SCALE: found.scale}
    if split.task == "regression":
        unit = scaling(np.asarray(split.train.y), temporal=False, zeros_mean_nothing=False)
        parts = {name: part._replace(y=unit(np.asarray(part.y))) for name, part in parts.items()}
        extra |= {TARGET_SHIFT: unit.shift, TARGET_SCALE: unit.scale}
    return split._replace(**parts, extra=extra)


def _at(scale: Scaling, x: Any) -> Any:
    return x.then(scale) if isinstance(x, Streamed) else scale(np.asarray(x))


def scaling_of(split: Split) -> Scaling | None:
    """Returns how the inputs of a split were scaled, None where they stand as they were given."""
    return Scaling(split.extra[SHIFT], split.extra[SCALE]) if SCALE in split.extra else None


def target_scaling(split: Split) -> Scaling | None:
    """Returns how the numbers to predict were scaled, ``[output]``, None where they stand as they were given."""
    scaled = TARGET_SCALE in split.extra
    return Scaling(split.extra[TARGET_SHIFT], split.extra[TARGET_SCALE]) if scaled else None
