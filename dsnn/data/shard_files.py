"""Files of shards, each with the inputs and targets of some examples: npz, Parquet and ArrayRecord."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsnn.data import foreign
from dsnn.data.error import DataError
from dsnn.store import untrusted
from dsnn.store.untrusted import UntrustedError, one_line

NPZ, PARQUET, ARRAY_RECORD = ".npz", ".parquet", ".array_record"
SUFFIXES = (NPZ, PARQUET, ARRAY_RECORD)
MOST_SHARD_BYTES, MOST_RECORD_BYTES = 1 << 32, 1 << 28


class Shard(NamedTuple):
    """A file of shards: its targets, and the shape and dtype of its inputs."""

    path: Path
    y: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype


def head(path: Path, target: str, flat: tuple[int, ...]) -> Shard:
    """Returns what is known of a shard without its inputs; those of ArrayRecord have to be read for it.

    Args:
        path: of the shard.
        target: name of the targets.
        flat: shape of an example that Parquet holds flat; empty leaves it.

    Raises:
        DataError: the file is cut, or does not hold what a shard holds.
    """
    return {NPZ: _npz_head, PARQUET: _parquet_head, ARRAY_RECORD: _record_head}[path.suffix.lower()](path, target, flat)


def inputs(path: Path, *, target: str, flat: tuple[int, ...]) -> np.ndarray:
    """Returns all inputs of a shard, ``[n, ...]``; arguments and errors are those of `head`."""
    suffix = path.suffix.lower()
    if suffix == NPZ:
        with foreign.sentences(path, "an .npz shard written by numpy.savez"):
            return untrusted.arrays(path, lambda names: ["x"], MOST_SHARD_BYTES)["x"]
    return _columns(path, target, flat) if suffix == PARQUET else _records(path, target)[0]


def _npz_head(path: Path, target: str, flat: tuple[int, ...]) -> Shard:
    with foreign.sentences(path, "an .npz shard written by numpy.savez"):
        found = untrusted.headers(path)
        if missing := [name for name in ("x", target) if name not in found]:
            raise DataError(f"{path} must hold x and {target}, got {', '.join(found) or 'nothing'}; add {missing[0]}.")
        shape, dtype = found["x"]
        y = untrusted.arrays(path, lambda names: [target], MOST_SHARD_BYTES)[target]
    if not shape or y.ndim < 1 or shape[0] != len(y):
        raise DataError(f"x and {target} of {path} must have one entry per example, got {shape} and {y.shape}.")
    return Shard(path, y, tuple(shape[1:]), dtype)


# --- Parquet


def _opened(path: Path) -> Any:
    try:
        from pyarrow import parquet  # an extra, and slow to import
    except ImportError as error:
        raise DataError(f"{path.name} is read with pyarrow, which is missing: pip install 'dsnn[table]'.") from error
    return parquet.ParquetFile(path)


def _parquet_head(path: Path, target: str, flat: tuple[int, ...]) -> Shard:
    try:
        file = _opened(path)
        names = file.schema_arrow.names
        if target not in names or len(names) < 2:
            raise DataError(f"{path} must hold a column {target} and columns of inputs, got {', '.join(names)}.")
        y = file.read(columns=[target]).column(target).to_numpy()
        rows = next(file.iter_batches(batch_size=1, columns=_input_names(names, target)), None)
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        raise _cut(path, "Parquet", error) from error
    if rows is None:
        return Shard(path, y, flat or (len(names) - 1,), np.dtype(np.float32))
    first = _stacked(rows, path, flat)
    return Shard(path, y, first.shape[1:], first.dtype)


def _columns(path: Path, target: str, flat: tuple[int, ...]) -> np.ndarray:
    try:
        file = _opened(path)
        table = file.read(columns=_input_names(file.schema_arrow.names, target))
    except (OSError, ValueError) as error:
        raise _cut(path, "Parquet", error) from error
    return np.concatenate([_stacked(batch, path, flat) for batch in table.to_batches()])


def _input_names(names: list[str], target: str) -> list[str]:
    return ["x"] if "x" in names else [name for name in names if name != target]


def _stacked(table: Any, path: Path, flat: tuple[int, ...]) -> np.ndarray:
    """Returns columns of numbers side by side, or the one column of lists, as an array."""
    columns = [column.to_numpy(zero_copy_only=False) for column in table.columns]
    try:
        x = np.stack(list(columns[0])) if columns[0].dtype == object else np.stack(columns, -1)
        return x.reshape(len(x), *flat) if flat else x
    except ValueError as error:
        raise DataError(
            f"{path} must hold inputs of one shape in every row, got: {one_line(error)}; mend it, or set "
            f"data.options.shape to the shape of an example."
        ) from error


def _cut(path: Path, kind: str, error: Exception) -> DataError:
    return DataError(f"{path} must be a whole {kind} file, got: {one_line(error)}; write it again.")


# --- ArrayRecord


def _record_head(path: Path, target: str, flat: tuple[int, ...]) -> Shard:
    x, y = _records(path, target)
    return Shard(path, y, x.shape[1:], x.dtype)


def _records(path: Path, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets of all records of a file."""
    try:
        from array_record.python import array_record_module  # comes with grain
    except ImportError as error:
        raise DataError(
            f"{path.name} is read with array_record, which is missing: pip install 'dsnn[data]'."
        ) from error
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        if not reader.ok():
            raise ValueError("the end of it is missing")
        records = reader.read_all() if reader.num_records() else []
        reader.close()
    except (RuntimeError, ValueError, OSError) as error:
        raise _cut(path, "ArrayRecord", error) from error
    if not records:
        return np.zeros((0, 1), np.float32), np.zeros(0, np.int64)
    pairs = [_record(record, target, f"record {number} of {path}") for number, record in enumerate(records)]
    try:
        return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])
    except ValueError as error:
        raise DataError(f"records of {path} must have one shape, got: {one_line(error)}; mend them.") from error


def _record(record: bytes, target: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        arrays = untrusted.arrays_of(record, what, MOST_RECORD_BYTES)
    except UntrustedError as error:
        raise DataError(str(error)) from error
    if missing := [name for name in ("x", target) if name not in arrays]:
        raise DataError(f"{what} must hold x and {target}, got {', '.join(arrays) or 'nothing'}; add {missing[0]}.")
    return arrays["x"], arrays[target]
