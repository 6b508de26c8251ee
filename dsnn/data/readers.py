"""Readers of `Streamed` inputs: of arrays, of mapped files, of single examples, and of files with one example each."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dsnn.data.error import DataError
from dsnn.store import untrusted
from dsnn.store.untrusted import UntrustedError, one_line

KEPT_BYTES = 1 << 28
"""What readers keep of what they decoded, 256 MiB: that of shards and recordings that come again soon."""


class Kept:
    """The last few arrays that were decoded, up to a number of bytes; safe in many threads.

    It is empty in every process that it is copied to.

    Args:
        decode: makes the arrays of a key.
        most_bytes: of all arrays that are kept; the last one is kept whatever its size.
    """

    def __init__(self, decode: Callable[[Any], np.ndarray], most_bytes: int = KEPT_BYTES):
        self.decode, self.most_bytes = decode, most_bytes
        self._begin()

    def _begin(self) -> None:
        self._lock, self._arrays, self._bytes = threading.Lock(), OrderedDict[Hashable, np.ndarray](), 0
        self._decoding: dict[Hashable, threading.Lock] = {}

    def __getstate__(self) -> tuple[Any, int]:
        return self.decode, self.most_bytes

    def __setstate__(self, state: tuple[Any, int]) -> None:
        self.decode, self.most_bytes = state
        self._begin()

    def __call__(self, key: Hashable) -> np.ndarray:
        """Returns the array of a key, decoded by one thread where several want it."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
            turn = self._decoding.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if key in self._arrays:
                    return self._arrays[key]
            made = self.decode(key)
            with self._lock:
                replaced = self._arrays.pop(key, None)
                self._bytes += made.nbytes - (0 if replaced is None else replaced.nbytes)
                self._arrays[key] = made
                while self._bytes > self.most_bytes and len(self._arrays) > 1:
                    self._bytes -= self._arrays.popitem(last=False)[1].nbytes
                self._decoding.pop(key, None)
            return made


class ArrayReader:
    """Reads rows of an array in memory.

    Args:
        array: ``[n, ...]``.
    """

    shard, together = None, 1

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns rows by their numbers."""
        return np.asarray(self.array[index])


class MappedReader:
    """Reads rows of an ``.npy`` file, of which nothing else is in memory.

    Args:
        path: of the file.

    Raises:
        UntrustedError: the file holds no plain array, or not all of it.
    """

    shard, together = None, 1

    def __init__(self, path: Path):
        self.path = path
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self._bytes = path.stat().st_size

    @functools.cached_property
    def _array(self) -> np.ndarray:
        return untrusted.mapped(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns rows by their numbers.

        Raises:
            DataError: the file has become shorter, or is no longer there.
        """
        try:
            if self._array.shape != self.shape or self.path.stat().st_size != self._bytes:
                raise DataError(
                    f"{self.path} must stay as it was when the run began, {self._bytes} bytes of shape {self.shape}, "
                    f"got {self.path.stat().st_size} bytes; restore it."
                )
            return np.asarray(self._array[index])
        except (UntrustedError, OSError) as error:
            raise DataError(f"{self.path} can no longer be read ({one_line(error)}); restore it.") from error


@runtime_checkable
class Examples(Protocol):
    """Single examples by their numbers, as ``grain.sources`` and lists have them.

    ``labels``, an array of all targets, saves a pass over the examples where there is one.
    """

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, number: int) -> Any:
        """Returns ``(x, y)`` or a mapping with ``x`` and ``y``."""
        ...


class ExampleReader:
    """Reads inputs of examples that a source gives one by one.

    Args:
        source: `Examples`.
        name: of the data, for sentences.

    Raises:
        DataError: the number of examples is unknown or 0, or the first is no pair of numbers.
    """

    shard, together = None, 1

    def __init__(self, source: Any, name: str):
        self.source, self.name = source, name
        count = count_of(source, name)
        first = self.example(0)[0]
        self.shape, self.dtype = (count, *first.shape), first.dtype

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the example of a number, ``(x, y)``.

        Raises:
            DataError: there is none, or none of the kind of the others.
        """
        try:
            made = self.source[number]
        except (IndexError, StopIteration, EOFError) as error:
            raise DataError(
                f"a stream must hold as many examples as its len() says, {len(self.source)}, got none at {number} "
                f"of {self.name!r}; mend the source: checkpoints stay, and a command of the same data goes on."
            ) from error
        pair = (made["x"], made["y"]) if isinstance(made, dict) and {"x", "y"} <= made.keys() else made
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"an example of a stream must be (x, y), or a mapping with x and y, got {type(made).__name__} as "
                f"number {number} of {self.name!r}."
            )
        x, y = np.asarray(pair[0]), np.asarray(pair[1])
        if x.dtype.kind not in "biuf":
            raise DataError(f"x must hold real numbers, got dtype {x.dtype} in example {number} of {self.name!r}.")
        return x, y

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns inputs by their numbers."""
        found = [self.example(int(number))[0] for number in index]
        for number, x in zip(index, found, strict=True):
            if x.shape != self.shape[1:]:
                raise DataError(
                    f"examples of a stream must have one shape, {self.shape[1:]} as the first, got {x.shape} as number "
                    f"{number} of {self.name!r}; bring them to it."
                )
        if not found:
            return np.zeros((0, *self.shape[1:]), self.dtype)
        x = np.stack(found)
        if not np.can_cast(x.dtype, self.dtype, "same_kind"):
            raise DataError(
                f"examples of a stream must be of one kind of numbers, {self.dtype} as the first, got {x.dtype} among "
                f"{int(index.min())} to {int(index.max())} of {self.name!r}; give all of them as float32."
            )
        return x.astype(self.dtype, copy=False)

    def labels(self) -> np.ndarray:
        """Returns the targets of all examples: what the source says they are, else from one pass over them."""
        given = getattr(self.source, "labels", None)
        if given is None:
            return np.stack([self.example(number)[1] for number in range(self.shape[0])])
        found = np.asarray(given)
        if len(found) != self.shape[0]:
            raise DataError(
                f"labels of a stream must have one entry per example, got {len(found)} for {self.shape[0]} of "
                f"{self.name!r}."
            )
        return found


def count_of(source: Any, name: str) -> int:
    """Returns the number of examples of a source.

    Raises:
        DataError: it does not say, or there are none.
    """
    if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
        raise DataError(
            f"a stream must say how many examples it has, len(source), and give each by its number, source[k], got a "
            f"{type(source).__name__} for {name!r}; the objective weighs a batch by N / B. Write an endless one into "
            f"shards first (data=shards), or wrap it as a grain.sources.RandomAccessDataSource."
        )
    if not len(source):
        raise DataError(f"a stream must hold examples, got none in {name!r}; give at least one.")
    return len(source)


class FileReader:
    """Reads files that hold one example each; the last of them stay in memory.

    Args:
        files: of the examples; the first one is read for its shape.
        decode: gives the array of a file, all of one shape.
        dtype: of what is read.
    """

    shard, together = None, 1

    def __init__(self, files: Sequence[Path], decode: Callable[[Path], np.ndarray], dtype: np.dtype):
        self.files, self.decode, self.dtype = tuple(files), decode, dtype
        self._kept = Kept(decode)
        self.shape = (len(files), *self._kept(self.files[0]).shape)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns examples by their numbers."""
        out = np.zeros((len(index), *self.shape[1:]), self.dtype)
        for row, number in zip(out, index, strict=True):
            row[...] = self._kept(self.files[int(number)])
        return out
