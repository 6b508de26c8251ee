"""HDF5 files of others: named data sets whose kind, size and place are checked before a value is read.

HDF5 can point out of a file (external links, external storage, virtual data sets), load code by the number of a filter,
and say more than it holds (packed chunks, lists that are all one). None of it is followed further than the caps.
"""

import functools
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dsnn.store.untrusted.files import UntrustedError, one_line, opened, size_of

MAX_HDF5 = 1 << 34
"""Bytes that the values which are read may take: 16 GiB."""

MAX_CHILDREN = 20_000
"""Names in a group."""

MAX_WIDTH = 1 << 16
"""Bytes of one text."""

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 6: "scale-offset", 32000: "lzf"}
"""What h5py itself packs data sets with, by the number in the file; others would be looked up as plug-ins."""

PACKERS = {1, 4, 6, 32000}
INFLATED = 1 << 26
"""Bytes that a packed chunk may become without being looked at; gzip makes 1 032 of one."""

AT_ONCE = 1 << 30

_T = TypeVar("_T")


@contextmanager
def hdf5(path: str | Path, most: int = MAX_HDF5) -> Iterator["Hdf5"]:
    """Opens an HDF5 file for reading.

    Args:
        path: of the file.
        most: bytes that all values which are read may take.

    Raises:
        UntrustedError: no HDF5 file, or no package h5py to read it.
        FileNotFoundError: there is nothing at the path.
    """
    try:
        import h5py  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise UntrustedError(f"{path} needs the package h5py, which is not installed; pip install h5py.") from error
    with opened(path) as stream:
        held = stream.seek(0, 2)
    try:
        file = h5py.File(path, "r", locking=False)
    except Exception as error:  # whatever HDF5 says of bytes that make no sense
        raise UntrustedError(f"{path} must be HDF5, got: {one_line(error)}.") from error
    with file:
        yield Hdf5(h5py, file, Path(path), held, most)


class Hdf5:
    """An open file; places are names within groups, such as ``spikes/times``, and "" is the file itself.

    Args:
        h5py: the package.
        file: opened by it.
        path: of the file, for sentences.
        held: bytes of the file.
        most: bytes that all values which are read may take.
    """

    def __init__(self, h5py: Any, file: Any, path: Path, held: int, most: int):
        self._h5py, self._path, self._held, self.left = h5py, path, max(held, 1), most
        self._groups: dict[str, Any] = {"": file}
        self._looked: tuple[str, Any, np.dtype] | None = None

    def children(self, place: str = "") -> tuple[str, ...]:
        """Returns the names in a group.

        Raises:
            UntrustedError: no group, or one with too many names.
        """
        group = self._item(place)
        if not isinstance(group, self._h5py.Group):
            raise self._error(place, "must be a group, got a data set")
        if (count := self._asked(place, lambda: len(group))) > MAX_CHILDREN:
            raise self._error(place, f"may hold {MAX_CHILDREN} names, got {count}")
        return tuple(map(str, self._asked(place, lambda: list(group))))

    def is_group(self, place: str) -> bool:
        """Returns whether a place in the file is a group rather than a data set.

        Raises:
            UntrustedError: it is neither.
        """
        return isinstance(self._item(place), self._h5py.Group)

    def size(self, place: str) -> int:
        """Returns how many values a data set has.

        Raises:
            UntrustedError: no data set whose values lie in the file itself.
        """
        return math.prod(self._dataset(place)[0].shape)

    def values(self, place: str) -> np.ndarray:
        """Returns the numbers of a data set.

        Raises:
            UntrustedError: no data set of numbers that lie in the file itself, or too many of them.
        """
        dataset, dtype = self._dataset(place)
        if dtype.kind not in "biuf":
            raise self._error(place, f"must hold numbers, got {self._kind(dtype)}")
        self._take(place, dataset.size * dtype.itemsize, dataset.shape)
        return np.asarray(self._asked(place, lambda: dataset[()]))

    def text(self, place: str) -> np.ndarray:
        """Returns the texts of a data set, of dtype str.

        Raises:
            UntrustedError: no data set of texts that lie in the file itself, too many or too long ones.
        """
        dataset, dtype = self._dataset(place)
        said = self._h5py.check_string_dtype(dtype)
        if said is None:
            raise self._error(place, f"must hold text, got {self._kind(dtype)}")
        if said.length is not None and said.length > MAX_WIDTH:
            raise self._error(place, f"may hold texts of {MAX_WIDTH} bytes, got a width of {said.length}")
        self._take(place, dataset.size * dtype.itemsize, dataset.shape)
        found = [
            np.asarray(rows, object) for rows in self._blocks(place, dataset, lambda text: self._long(place, text))
        ]
        words = [self._word(place, one) for rows in found for one in rows.ravel()]
        return np.array(words, dtype=str).reshape(dataset.shape)

    def is_text(self, place: str) -> bool:
        """Returns whether a data set holds text.

        Raises:
            UntrustedError: no data set.
        """
        return self._h5py.check_string_dtype(self._dataset(place)[1]) is not None

    def lists(self, place: str) -> list[np.ndarray]:
        """Returns lists of numbers, each of its own length; the rows of a matrix are lists too.

        Raises:
            UntrustedError: no data set of lists that lie in the file itself, or too many numbers.
        """
        dataset, dtype = self._dataset(place)
        inner = self._h5py.check_vlen_dtype(dtype)
        if inner is None and dtype.kind in "biuf" and len(dataset.shape) == 2:
            return list(self.values(place))
        if inner is None or np.dtype(inner).kind not in "biuf" or len(dataset.shape) != 1:
            raise self._error(place, f"must hold lists of numbers, got {self._kind(dtype)} of shape {dataset.shape}")
        self._take(place, dataset.size * dtype.itemsize, dataset.shape)
        blocks = self._blocks(place, dataset, lambda row: row.nbytes)
        return [np.asarray(row, inner) for rows in blocks for row in rows]

    def _dataset(self, place: str) -> tuple[Any, np.dtype]:
        if self._looked is not None and self._looked[0] == place:
            return self._looked[1:]
        dataset = self._item(place)
        if not isinstance(dataset, self._h5py.Dataset):
            raise self._error(place, "must be a data set, got a group")
        if self._asked(place, lambda: dataset.is_virtual or dataset.external):
            raise self._error(place, "must hold its values itself, got a reference to another file")
        dtype = self._asked(place, lambda: dataset.dtype)
        if self._asked(place, lambda: dataset.shape) is None:
            raise self._error(place, "must hold a value, got an empty data set")
        self._check_packing(place, dataset)
        self._looked = place, dataset, dtype
        return dataset, dtype

    def _item(self, place: str) -> Any:
        if place in self._groups:
            return self._groups[place]
        above, _, name = place.rpartition("/")
        group = self._item(above)
        if not isinstance(group, self._h5py.Group):
            raise self._error(place, f"must lie in groups, got a data set above {name!r}")
        link = self._asked(place, lambda: group.get(name, getlink=True))
        if link is None:
            raise self._error(place, "is missing")
        if not isinstance(link, self._h5py.HardLink):
            raise self._error(place, "must lie in the file itself, got a link")
        item = self._asked(place, lambda: group[name])
        if not isinstance(item, self._h5py.Group | self._h5py.Dataset):
            raise self._error(place, f"must be a group or a data set, got a {type(item).__name__}")
        if isinstance(item, self._h5py.Group):
            self._groups[place] = item
        return item

    def _check_packing(self, place: str, dataset: Any) -> None:
        plist = dataset.id.get_create_plist()
        numbers = self._asked(place, lambda: [plist.get_filter(n)[0] for n in range(plist.get_nfilters())])
        if unknown := [number for number in numbers if number not in FILTERS]:
            raise self._error(
                place, f"must be packed with one of {', '.join(FILTERS.values())}, got the filter {unknown[0]}"
            )
        if len(PACKERS.intersection(numbers)) > 1 or len(set(numbers)) < len(numbers):
            raise self._error(place, f"must be packed once, got {', '.join(FILTERS[n] for n in numbers)}")
        if dataset.chunks is None:
            return
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize
        most = max(INFLATED, 2 * math.prod(dataset.shape) * dataset.dtype.itemsize)
        if size > min(most, self.left):
            raise self._error(place, f"may have chunks of {size_of(min(most, self.left))}, got {size_of(size)}")
        if 1 in numbers:
            self._check_inflation(place, dataset, size)

    def _check_inflation(self, place: str, dataset: Any, size: int) -> None:
        """Checks that no chunk holds more than its shape says: HDF5 unpacks all of it before it looks."""
        large: list[Any] = []

        def look(chunk: Any) -> None:
            if 1032 * chunk.size > max(2 * size, INFLATED):
                large.append(chunk)

        self._asked(place, lambda: dataset.id.chunk_iter(look))
        for chunk in large:
            read = functools.partial(dataset.id.read_direct_chunk, chunk.chunk_offset)
            mask, raw = self._asked(place, read)
            if mask:
                raise self._error(place, "must be packed alike throughout, got a chunk that is not")
            inflate = zlib.decompressobj()
            try:
                unpacked = len(inflate.decompress(raw, size + 1))
            except zlib.error as error:
                raise self._error(place, f"cannot be unpacked ({one_line(error)})") from error
            if unpacked > size:
                raise self._error(place, f"must hold {size} bytes in a chunk, got one that unpacks to more")

    def _blocks(self, place: str, dataset: Any, size: Callable[[Any], int]) -> Iterator[Any]:
        """Yields values of unknown length, so many at once as cannot take much more than the cap."""
        if not dataset.shape:
            value = self._asked(place, lambda: dataset[()])
            self._take(place, size(value), ())
            yield value
            return
        row = max(math.prod(dataset.shape[1:]), 1)
        step = max(AT_ONCE // (self._held * row), 1)
        for start in range(0, dataset.shape[0], min(step, 1024)):
            rows = self._asked(place, functools.partial(dataset.__getitem__, slice(start, start + min(step, 1024))))
            self._take(place, sum(map(size, np.ravel(rows) if rows.ndim > 1 else rows)), dataset.shape)
            yield rows

    def _take(self, place: str, size: int, shape: tuple[int, ...]) -> None:
        if size > self.left:
            raise self._error(place, f"may take {size_of(self.left)}, got more, of shape {shape}")
        self.left -= size

    def _long(self, place: str, text: Any) -> int:
        if len(text) > MAX_WIDTH:
            raise self._error(place, f"may hold texts of {MAX_WIDTH} bytes, got one of {len(text)}")
        return len(text)

    def _word(self, place: str, text: Any) -> str:
        if not isinstance(text, bytes | str):
            raise self._error(place, f"must hold text, got a {type(text).__name__}")
        return text.decode("utf8", "replace") if isinstance(text, bytes) else text

    def _kind(self, dtype: np.dtype) -> str:
        if self._h5py.check_ref_dtype(dtype) is not None:
            return "references"
        if self._h5py.check_string_dtype(dtype) is not None:
            return "text"
        return "lists" if self._h5py.check_vlen_dtype(dtype) is not None else f"dtype {dtype}"

    def _asked(self, place: str, question: Callable[[], _T]) -> _T:
        """Returns what HDF5 answers, which may be any error where a file is damaged."""
        try:
            return question()
        except UntrustedError:
            raise
        except Exception as error:
            raise self._error(place, f"cannot be read ({one_line(error)})") from error

    def _error(self, place: str, said: str) -> UntrustedError:
        return UntrustedError(f"{place or 'the root group'!r} of {self._path} {said}.")
