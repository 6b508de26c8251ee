"""A user's own arrays, from one ``.npz`` file without pickled objects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn.data import foreign, own
from dsnn.data.split import DataError, Split
from dsnn.store import untrusted

PARTS = ("train", "val", "test")
CSR = ("data", "indices", "indptr", "shape")
MAX_BYTES = 1 << 34
"""What the arrays of a file may take once they are unpacked."""

LARGEST = 1 << 31
SHOWN = 20


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    temporal: bool = False,
    task: str = "classification",
    classes: int | None = None,
    scale: float = 1.0,
    test_fraction: float | None = None,
) -> Split:
    """Returns the split in an ``.npz`` file.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the validation examples where the file has none of its own, and a test part that is asked for.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most; not used when
            ``x_val`` is there.
        path: the file, with ``x_train y_train x_test y_test`` and optionally ``x_val y_val``; ``x`` and ``y`` will do
            for the training part. Sparse rows are given as ``x_train_data``, ``x_train_indices``, ``x_train_indptr``
            and ``x_train_shape``, the fields of a scipy CSR array, in place of ``x_train``; so for the other parts.
            NaN in ``x`` is a gap, see `dsnn.data.missing`; with ``temporal``, NaN to the end is the end of a series.
        temporal: True when ``x`` is ``[n, time, ...]``.
        task: ``classification`` (``y`` whole numbers or text of shape ``[n]`` or ``[n, time]``), ``multilabel`` (0/1
            ``[n, labels]``) or ``regression`` (``[n]`` or ``[n, outputs]``).
        classes: number of classes, for labels that are class numbers from 0; by default the sorted training labels
            are the classes, whatever they are called.
        scale: ``x`` is multiplied by it; 1/255 brings bytes to [0, 1].
        test_fraction: of the examples, in (0, 1), to draw as the test part of a file that has none.

    Raises:
        DataError: the file or an array in it breaks a rule.
    """
    if path is None:
        raise DataError("data set 'npz' needs the option path, got none; set it to the .npz file.")
    parts = own.checked(_read(Path(path).expanduser()), temporal, path)
    whole = own.divided(
        parts, "npz", path, seed=seed, val_fraction=val_fraction, test_fraction=test_fraction, task=task
    )
    return own.split_of(
        whole.parts, "npz", temporal=temporal, task=task, classes=classes, scale=scale, notes=whole.notes
    )


def _read(place: Path) -> dict[str, Any]:
    with foreign.sentences(place, "an .npz file written by numpy.savez"):
        chosen: dict[str, tuple[str, str]] = {}

        def wanted(names: list[str]) -> list[str]:
            chosen.update(_keys(names, place))
            every = [key for pair in chosen.values() for key in pair]
            return [name for key in every for name in ([key] if key in names else [f"{key}_{part}" for part in CSR])]

        arrays = untrusted.arrays(place, wanted, MAX_BYTES)
    return {part: own.Raw(*(_values(arrays, key, place) for key in pair)) for part, pair in chosen.items()}


def _keys(names: list[str], place: Path) -> dict[str, tuple[str, str]]:
    """Returns the names of inputs and targets by part."""
    present = set(names)
    inputs = [f"x_{part}" for part in PARTS]
    has = present | {key for key in inputs if {f"{key}_{field}" for field in CSR} <= present}
    keys = {part: (f"x_{part}", f"y_{part}") for part in PARTS}
    if not has & set(keys["train"]) and {"x", "y"} <= has:
        keys["train"] = ("x", "y")
    found = {part: pair for part, pair in keys.items() if part == "train" or has & set(pair)}
    for part, pair in found.items():
        if missing := [key for key in pair if key not in has]:
            what = f"both of {' and '.join(pair)} or neither" if part == "val" else "x_train, y_train, x_test, y_test"
            given = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise DataError(f"{place} must hold {what}, got {given or 'nothing'}; add {', '.join(missing)}.")
    return found


def _values(arrays: Mapping[str, np.ndarray], key: str, place: Path) -> Any:
    if key in arrays:
        return arrays[key]
    data, indices, pointers, shape = (arrays[f"{key}_{part}"] for part in CSR)
    return _rows(data, indices, pointers, shape, key, place)


def _rows(
    data: np.ndarray, indices: np.ndarray, pointers: np.ndarray, shape: np.ndarray, key: str, place: Path
) -> sparse.csr_array:
    """Returns sparse rows, every index checked before scipy's compiled code sees it."""
    integers = all(np.issubdtype(a.dtype, np.integer) for a in (indices, pointers, shape))
    size = [int(n) for n in shape.ravel()] if integers else []
    if len(size) != 2 or pointers.shape != (size[0] + 1,) or data.ndim != 1 or not 0 <= size[1] < LARGEST:
        raise DataError(f"{key}_shape in {place} must be (rows, columns) with rows + 1 pointers, got {_short(shape)}.")
    if data.dtype.kind not in "biuf" or data.dtype.itemsize > 8 or data.dtype == np.float16:
        raise DataError(f"{key}_data in {place} must be real numbers, got dtype {data.dtype}; convert it.")
    low, high = (int(pointers.min()), int(pointers.max()))
    good = indices.ndim == 1 and len(data) == len(indices) == pointers[-1] and pointers[0] == 0 <= low <= high
    if not good or high >= LARGEST or (pointers[1:] < pointers[:-1]).any():
        raise DataError(f"{key}_indptr in {place} must rise from 0 to the number of values, {len(data)}.")
    if len(indices) and not 0 <= indices.min() <= indices.max() < size[1]:
        raise DataError(f"{key}_indices in {place} must be columns below {size[1]}, one per value.")
    native = data.astype(data.dtype.newbyteorder("="), copy=False)
    whole = np.int32 if max(high, *size) < LARGEST - 1 else np.int64
    return sparse.csr_array((native, indices.astype(whole), pointers.astype(whole)), shape=(size[0], size[1]))


def _short(array: np.ndarray) -> str:
    return str(array.ravel()[:4].tolist())
