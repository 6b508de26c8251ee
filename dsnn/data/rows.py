"""Sparse rows on a device, made dense a batch at a time inside the compiled step.

A matrix of counts of words has a hundred times more zeros than values. Every row is padded to the longest one, ELLPACK
(Grimes, Kincaid & Young 1979), so that shapes are static and a batch of rows is a gather and a scatter.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse

from dsnn.data.scaling import SCALE, SHIFT
from dsnn.data.split import DataError, Split
from dsnn.types import Array

MAX_PADDED = 1 << 28
"""Values and places of padded rows, 2 GiB in all."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
    """Padded sparse rows; ``rows[index]`` is dense, and ``len`` and ``shape`` are those of the dense array.

    Attributes:
        columns: of each value, integers ``[n, longest]``; 0 where a row is filled up.
        values: ``[n, longest]``; 0 where a row is filled up.
        width: columns of the dense rows.
    """

    columns: Any  # JAX rebuilds a tree of placeholders too, which no array type fits
    values: Any
    width: int = dataclasses.field(metadata={"static": True})

    ndim = 2
    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the dense array."""
        return len(self), self.width

    def __getitem__(self, index: Any) -> Any:
        return densify(self.columns[index], self.values[index], self.width)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __jax_array__(self) -> Array:
        return jnp.asarray(self[:])

    def min(self) -> float:
        """Returns the smallest value of the dense rows."""
        return float(min(self.values.min(initial=0.0), 0.0))

    def max(self) -> float:
        """Returns the largest value of the dense rows."""
        return float(max(self.values.max(initial=0.0), 0.0))

    def tocsr(self) -> sparse.csr_array:
        """Returns the rows as scipy has them."""
        values, columns = np.asarray(self.values), np.asarray(self.columns)
        there = values != 0
        pointers = np.concatenate([[0], np.cumsum(there.sum(1))])
        return sparse.csr_array((values[there], columns[there], pointers), shape=self.shape)


def densify(columns: Any, values: Any, width: int) -> Any:
    """Returns rows ``[..., width]`` with the values at their columns, those of one column added up.

    Works inside ``jax.jit``; NumPy's arrays give NumPy's.

    Args:
        columns: integers ``[..., longest]`` below ``width``.
        values: ``[..., longest]``.
        width: of the dense rows.
    """
    if isinstance(values, np.ndarray):
        flat = values.reshape(-1, values.shape[-1])
        dense = np.zeros((len(flat), width), values.dtype)
        np.add.at(dense, (np.arange(len(flat))[:, None], columns.reshape(flat.shape)), flat)
        return dense.reshape(*values.shape[:-1], width)
    flat = values.reshape(-1, values.shape[-1])
    places = jnp.arange(flat.shape[0])[:, None]
    blank = jnp.zeros((flat.shape[0], width), values.dtype)
    return blank.at[places, columns.reshape(flat.shape)].add(flat).reshape(*values.shape[:-1], width)


def padded(x: sparse.csr_array, name: str) -> Rows:
    """Returns sparse rows as `Rows`.

    Args:
        x: ``[n, columns]``, its indices checked.
        name: of the data set, for a sentence.

    Raises:
        DataError: the longest row makes all of them too long to pad.
    """
    lengths = np.diff(x.indptr)
    longest = max(int(lengths.max(initial=0)), 1)
    if len(lengths) * longest > MAX_PADDED:
        raise DataError(
            f"sparse rows are padded to the longest, which may take {MAX_PADDED} values, got {len(lengths)} rows of up "
            f"to {longest} in {name!r}; leave out the most frequent columns or the longest rows."
        )
    slots = np.arange(longest) < lengths[:, None]
    columns, values = np.zeros(slots.shape, np.int32), np.zeros(slots.shape, np.float32)
    columns[slots], values[slots] = x.indices, x.data
    return Rows(columns, values, int(x.shape[1]))


def sparse_standardised(split: Split) -> Split:
    """Returns the split with sparse parts at one scale, the root mean square of training values; zeros stay zero.

    Zeros and ones are left as they are, as `dsnn.data.standardised` leaves spikes.
    """
    if SCALE in split.extra or not isinstance(split.train.x, sparse.csr_array):
        return split
    values = np.asarray(split.train.x.data, np.float64)
    ones = np.isin(values, (0.0, 1.0)).all()
    scale = 1.0 if ones else float(np.sqrt((values[values != 0] ** 2).mean()))
    parts = {
        name: part._replace(x=(part.x / np.float32(scale)).astype(np.float32))
        for name in ("train", "val", "test", "certify")
        if (part := getattr(split, name)) is not None
    }
    return split._replace(**parts, extra={**split.extra, SHIFT: np.zeros(()), SCALE: np.asarray(scale)})


def on_device(split: Split) -> Split:
    """Returns the split with its sparse parts as `Rows`; dense ones stay."""
    parts = {
        name: part._replace(x=padded(sparse.csr_array(part.x), split.name))
        for name in ("train", "val", "test", "certify")
        if (part := getattr(split, name)) is not None and sparse.issparse(part.x)
    }
    return split._replace(**parts) if parts else split
