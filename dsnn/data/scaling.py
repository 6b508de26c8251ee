"""Inputs brought to one scale, from the training part alone: a network's first weights expect numbers of order one.

Columns of tables and channels of series are standardised. Zeros that mean "nothing" are kept: of images, of data that
are mostly zero and of spikes only the scale changes, and zeros and ones are left as they are.
"""

from typing import NamedTuple

import numpy as np

from dsnn.data.split import Split
from dsnn.types import Array, Float

SHIFT, SCALE = "scaling/shift", "scaling/scale"
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


def scaling(x: np.ndarray, temporal: bool) -> Scaling:
    """Returns the scaling of training inputs; a column that never changes has the scale 1.

    Args:
        x: ``[n, ...]``, or ``[n, time, ...]`` with ``temporal``.
        temporal: whether the second axis is time.
    """
    values = np.asarray(x, np.float64)
    none = Scaling(np.zeros(()), np.ones(()))
    if not values.size or np.isin(values, (0.0, 1.0)).all():
        return none
    columns = values.ndim == (3 if temporal else 2)
    nothing = (values == 0).mean() > MOSTLY
    if not columns or nothing:
        size = np.sqrt((values[values != 0] ** 2).mean()) if (values != 0).any() else 1.0
        return none._replace(scale=np.asarray(size or 1.0))
    rows = values.reshape(-1, values.shape[-1])
    shift, scale = rows.mean(0), rows.std(0)
    constant = scale <= 1e-7 * np.maximum(np.abs(shift), 1e-30)
    return Scaling(shift, np.where(constant, 1.0, scale))


def standardised(split: Split) -> Split:
    """Returns the split with every part scaled as the training part asks, and that in ``extra``; sparse rows stay."""
    if SCALE in split.extra or not isinstance(split.train.x, np.ndarray | Array):
        return split
    found = scaling(np.asarray(split.train.x), split.temporal)
    parts = {
        name: part._replace(x=found(np.asarray(part.x)))
        for name in ("train", "val", "test", "certify")
        if (part := getattr(split, name)) is not None
    }
    return split._replace(**parts, extra={**split.extra, SHIFT: found.shift, SCALE: found.scale})


def scaling_of(split: Split) -> Scaling | None:
    """Returns how the inputs of a split were scaled, None where they stand as they were given."""
    return Scaling(split.extra[SHIFT], split.extra[SCALE]) if SCALE in split.extra else None
