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
    """A file of shards: its targets, the shape and dtype of its inputs, and of Parquet the columns of these."""

    path: Path
    y: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype
    columns: tuple[str, ...] = ()


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


def inputs(path: Path, *, target: str, flat: tuple[int, ...], columns: tuple[str, ...] = ()) -> np.ndarray:
    """Returns all inputs of a shard, ``[n, ...]``, of Parquet those columns; see `head`."""
    suffix = path.suffix.lower()
    if suffix == NPZ:
        with foreign.sentences(path, "an .npz shard written by numpy.savez"):
            return untrusted.arrays(path, lambda names: ["x"], MOST_SHARD_BYTES)["x"]
    return _columns(path, columns, flat) if suffix == PARQUET else _records(path, target)[0]


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
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        raise _cut(path, "Parquet", error) from error
    groups = range(file.metadata.num_row_groups)
    unpacked = sum(file.metadata.row_group(number).total_byte_size for number in groups)
    if unpacked > MOST_SHARD_BYTES:
        raise DataError(
            f"a shard may unpack to {MOST_SHARD_BYTES >> 30} GiB, got {unpacked >> 30} GiB in {path}; split it up."
        )
    return file


def _parquet_head(path: Path, target: str, flat: tuple[int, ...]) -> Shard:
    file = _opened(path)
    names = file.schema_arrow.names
    columns = ("x",) if "x" in names else tuple(name for name in names if name != target)
    if target not in names or not columns:
        raise DataError(f"{path} must hold a column {target} and columns of inputs, got {', '.join(names)}.")
    if columns == ("x",) and len(names) > 2:
        raise DataError(f"{path} must hold x and {target} alone, got {', '.join(names)}; leave the others out.")
    y = _targets(_read(file, path, (target,)).column(target), path, target)
    if not len(y):
        return Shard(path, y, flat or (len(columns),), np.dtype(np.float32), columns)
    try:
        first = next(file.iter_batches(batch_size=1, columns=list(columns)))
    except (OSError, ValueError) as error:
        raise _cut(path, "Parquet", error) from error
    return Shard(path, y, _stacked(first, path, columns, flat).shape[1:], _dtype(file, columns, path), columns)


def _dtype(file: Any, columns: tuple[str, ...], path: Path) -> np.dtype:
    """Returns the dtype that all inputs fit in; integers of which some are missing are fractions."""
    found = np.dtype(np.uint8)
    for name in columns:
        kind = file.schema_arrow.field(name).type
        while hasattr(kind, "value_type"):
            kind = kind.value_type
        one = np.dtype(kind.to_pandas_dtype())
        if one.kind not in "biuf":
            raise DataError(f"inputs must be numbers, got {kind} in the column {name} of {path}; convert it.")
        found = np.promote_types(found, one)
    nulls = [
        file.metadata.row_group(group).column(column).statistics
        for group in range(file.metadata.num_row_groups)
        for column in range(file.metadata.num_columns)
    ]
    known = all(one is not None and one.has_null_count and not one.null_count for one in nulls)
    return found if known or found.kind == "f" else np.promote_types(found, np.float32)


def _targets(column: Any, path: Path, target: str) -> np.ndarray:
    """Returns targets as numbers or text; numbers that are missing are NaN."""
    y = np.asarray(column.to_numpy())
    if y.dtype != object:
        return y
    values = column.to_pylist()
    if all(isinstance(value, str) for value in values):
        return np.array(values)
    if all(value is None or isinstance(value, bool | int | float) for value in values):
        return np.array([np.nan if value is None else float(value) for value in values])
    if all(isinstance(value, list) for value in values):
        return np.array(values)
    raise DataError(
        f"targets must be numbers or text, all of one kind, got some that are missing or of another kind in the column "
        f"{target} of {path}; leave these rows out."
    )


def _columns(path: Path, columns: tuple[str, ...], flat: tuple[int, ...]) -> np.ndarray:
    file = _opened(path)
    if lacking := [name for name in columns if name not in file.schema_arrow.names]:
        raise DataError(f"{path} must hold the columns of the other shards, got none called {lacking[0]}; add it.")
    table = _read(file, path, columns)
    return np.concatenate([_stacked(batch, path, columns, flat) for batch in table.to_batches()])


def _read(file: Any, path: Path, columns: tuple[str, ...]) -> Any:
    try:
        return file.read(columns=list(columns))
    except (OSError, ValueError) as error:
        raise _cut(path, "Parquet", error) from error


def _stacked(table: Any, path: Path, columns: tuple[str, ...], flat: tuple[int, ...]) -> np.ndarray:
    """Returns columns of numbers side by side, or the one column of lists, as an array."""
    found = [table.column(name).to_numpy(zero_copy_only=False) for name in columns]
    try:
        x = np.array(table.column("x").to_pylist()) if found[0].dtype == object else np.stack(found, -1)
        if x.dtype == object:
            raise ValueError("lists of unequal length, or values that are missing")
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
