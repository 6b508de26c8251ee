"""Inputs that are read when they are used: an array by its shape, of which a batch at a time is in memory.

A part of a split whose ``x`` is `Streamed` is learned from and assessed without ever being read as a whole. What looks
at all of it, such as a scaling, looks at a sample instead (`dsnn.data.looked_at`).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.data.error import DataError

MOST_WHOLE_BYTES = 1 << 28
"""What may be read at once, 256 MiB, where a few of the examples are asked for as one array."""


@runtime_checkable
class Reader(Protocol):
    """Where examples lie. It is copied into the processes that read, so it is picklable and opens its files itself."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all examples, ``(n, ...)``."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Dtype of what `rows` gives."""
        ...

    @property
    def shard(self) -> np.ndarray | None:
        """Number of the shard of each example, integers ``[n]``; None where any order of reading costs the same."""
        ...

    @property
    def together(self) -> int:
        """How many shards are mixed with each other when an epoch is shuffled; 1 without shards."""
        ...

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns examples ``[len(index), ...]`` by their numbers, in that order.

        Raises:
            DataError: what should be there is not.
        """
        ...


_ROWS = 1024


@runtime_checkable
class Cast(Protocol):
    """Changes a batch ``[batch, ...]`` of inputs as it is read, each example by itself; picklable."""

    def __call__(self, x: np.ndarray, /) -> np.ndarray:
        """Returns the batch as it is used."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """Inputs ``[n, ...]`` of which those are read that are indexed.

    A list of numbers gives an array; a slice or a mask gives fewer examples, unread. As a whole it becomes an array
    (`numpy.asarray`) up to `MOST_WHOLE_BYTES`.

    Attributes:
        reader: where they lie.
        index: numbers of these examples there; None is all of them.
        casts: what is done to them once they are read.
        gaps: whether NaN may be among them.
    """

    reader: Reader
    index: np.ndarray | None = None
    casts: tuple[Cast, ...] = ()
    gaps: bool = False

    @functools.cached_property
    def _example(self) -> np.ndarray:
        """No examples, as a batch of them would come."""
        none = np.zeros((0, *self.reader.shape[1:]), self.reader.dtype)
        return self._changed(none)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as an array."""
        count = self.reader.shape[0] if self.index is None else len(self.index)
        return (count, *self._example.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype as an array."""
        return self._example.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as an array."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice) or (isinstance(at, np.ndarray) and at.dtype == bool):
            return dataclasses.replace(self, index=self._numbers()[at])
        numbers = np.asarray(at if not isinstance(at, tuple) else None)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise TypeError(f"examples are chosen by numbers, a mask or a slice, got {at!r}.")
        count = len(self)
        if numbers.size and not -count <= numbers.min() <= numbers.max() < count:
            raise IndexError(f"examples are numbered from 0 to {count - 1}, got {numbers.min()} to {numbers.max()}.")
        numbers = np.where(numbers < 0, numbers + count, numbers)
        places = numbers if self.index is None else self.index[numbers]
        return self._read(places[None])[0] if numbers.ndim == 0 else self._read(places)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.nbytes > MOST_WHOLE_BYTES:
            raise DataError(
                f"this reads all examples at once, which may take {MOST_WHOLE_BYTES >> 20} MiB, got "
                f"{self.nbytes >> 20} MiB of a stream; choose some of them, or set data.stream=never."
            )
        return np.asarray(self[np.arange(len(self))], dtype)

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(np.asarray(self))

    def min(self) -> float:
        """Returns the smallest value, for which every example is read."""
        return min(float(rows.min()) for rows in self._in_turn())

    def max(self) -> float:
        """Returns the largest value, for which every example is read."""
        return max(float(rows.max()) for rows in self._in_turn())

    def then(self, cast: Cast) -> "Streamed":
        """Returns the inputs with one more change to what is read."""
        return dataclasses.replace(self, casts=(*self.casts, cast))

    @property
    def shard(self) -> np.ndarray | None:
        """Number of the shard of each example; None where they may be read in any order."""
        whole = self.reader.shard
        return whole if whole is None or self.index is None else whole[self.index]

    def _in_turn(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), _ROWS):
            yield self[np.arange(start, min(start + _ROWS, len(self)))]

    def _numbers(self) -> np.ndarray:
        return np.arange(self.reader.shape[0]) if self.index is None else self.index

    def _changed(self, rows: np.ndarray) -> np.ndarray:
        for cast in self.casts:
            rows = cast(rows)
        return rows

    def _read(self, places: np.ndarray) -> np.ndarray:
        rows = self.reader.rows(places)
        wanted = (len(places), *self.reader.shape[1:])
        if rows.shape != wanted:
            raise DataError(f"examples must have the shape {wanted[1:]}, got {rows.shape[1:]}; a reader gave them.")
        rows = self._changed(rows)
        if rows.dtype.kind == "f" and not self.gaps and not math.isfinite(_sum(rows)):
            bad = ~np.isfinite(rows.reshape(len(rows), -1)).all(1)
            if bad.any():
                raise DataError(
                    f"values must be finite, got NaN or infinite ones in example {places[bad.argmax()]} of a stream; "
                    f"remove or fill them in."
                )
        return rows


class Channelled(NamedTuple):
    """Grey images with an axis of one channel."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns them."""
        return x[..., None]


class Single(NamedTuple):
    """Inputs times a scale, less what is subtracted from each column in double precision, in single precision."""

    scale: float = 1.0
    shift: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns them."""
        with np.errstate(over="ignore"):  # what overflows is infinite, and is refused as that
            scaled = x if self.scale == 1 else x * np.float32(self.scale)
            return (scaled if self.shift is None else np.asarray(scaled, np.float64) - self.shift).astype(np.float32)


class Filled(NamedTuple):
    """Gaps, which are NaN, filled with the value of their column ``[column]``; of series ``[n, time, ...]`` inside."""

    values: np.ndarray
    temporal: bool = False

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns inputs without gaps.

        Raises:
            DataError: a series has ended before its last step.
        """
        if self.temporal and x.size and np.isnan(x[:, -1]).reshape(len(x), -1).all(1).any():
            raise DataError(
                "series that end early (NaN from some step on) are for arrays in memory, got some in a stream; fill "
                "them up with what means nothing, or set data.stream=never."
            )
        return np.where(np.isnan(x), self.values, x).astype(x.dtype)


class Within(NamedTuple):
    """Refuses what lies outside [0, 1]."""

    name: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the inputs themselves.

        Raises:
            DataError: a value lies outside.
        """
        low, high = (x.min(), x.max()) if x.size else (0.0, 1.0)
        if low < 0 or high > 1:
            raise DataError(
                f"rate and latency codes need inputs in [0, 1], got {low:g} to {high:g} in a batch of {self.name!r}; "
                f"rescale the data or use the direct encoding."
            )
        return x


def _sum(rows: np.ndarray) -> float:
    """Returns a sum that is finite where all values are, but for overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(rows.sum())
