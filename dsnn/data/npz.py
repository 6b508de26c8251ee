"""A user's own arrays, from one ``.npz`` file without pickled objects."""

import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn.data.split import TASKS, Arrays, DataError, Split, divide, own_fraction, seeded_mask, size
from dsnn.types import Array

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_val", "y_val")
CSR = ("data", "indices", "indptr", "shape")


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
) -> Split:
    """Returns the split in an ``.npz`` file.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the validation examples where the file has none of its own.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most; not used when
            ``x_val`` is there.
        path: the file, with ``x_train y_train x_test y_test`` and optionally ``x_val y_val``. Sparse rows are given as
            ``x_train_data``, ``x_train_indices``, ``x_train_indptr`` and ``x_train_shape``, the fields of a scipy CSR
            array, in place of ``x_train``; so for the other parts.
        temporal: True when ``x`` is ``[n, time, ...]``.
        task: ``classification`` (integer ``y`` of shape ``[n]`` or ``[n, time]``), ``multilabel`` (0/1 ``[n, labels]``)
            or ``regression`` (``[n]`` or ``[n, outputs]``).
        classes: number of classes; by default one more than the largest training label. A test label beyond it is an
            error.
        scale: ``x`` is multiplied by it; 1/255 brings bytes to [0, 1].

    Raises:
        DataError: the file or an array in it breaks a rule.
    """
    if path is None:
        raise DataError("data set 'npz' needs the option path, got none; set it to the .npz file.")
    if task not in TASKS:
        raise DataError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    arrays = _read(Path(path).expanduser())
    parts = {part: _part(arrays, part, task, scale, path) for part in ("train", "test", "val") if f"x_{part}" in arrays}
    train, test = parts["train"], parts["test"]
    for part, held in parts.items():
        _check_rank(held, temporal, part)
    if size(train) == 0:
        raise DataError(f"x_train must not be empty, got 0 examples in {path}; give at least one.")
    if size(train) != len(train.y):
        raise DataError(f"x_train and y_train must be equally long, got {size(train)} and {len(train.y)} in {path}.")
    if "val" in parts:
        val = parts["val"]
    else:
        fraction = own_fraction(val_fraction, size(train))
        train, val = divide(train, seeded_mask(np.asarray(train.y), seed, fraction))
    return Split(train, val, test, _classes(parts["train"].y, task, classes), "npz", bool(temporal), task)


def _read(place: Path) -> dict[str, Any]:
    with ExitStack() as open_files:
        try:
            stream = open_files.enter_context(open(place, "rb"))  # numpy leaves a file that is no archive open
            archive = np.load(stream, allow_pickle=False)
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            said = getattr(error, "strerror", None) or "not a .npz archive of plain arrays"
            raise DataError(f"{place} must be an .npz file written by numpy.savez, got: {said}.") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{place} must be an .npz file, got a single .npy array; write it with numpy.savez.")
        open_files.enter_context(archive)
        present = set(archive.files)
        rows = {key for key in ("x_train", "x_val", "x_test") if {f"{key}_{part}" for part in CSR} <= present}
        has = present | rows
        if missing := [key for key in REQUIRED if key not in has]:
            raise DataError(
                f"{place} must hold {', '.join(REQUIRED)}, got {', '.join(archive.files) or 'nothing'}; "
                f"add {', '.join(missing)}."
            )
        if (OPTIONAL[0] in has) != (OPTIONAL[1] in has):
            raise DataError(f"{place} must hold both of {' and '.join(OPTIONAL)} or neither, got one; add the other.")
        return {
            key: _rows(archive, key, place) if key in rows else _array(archive, key, place)
            for key in (*REQUIRED, *OPTIONAL)
            if key in has
        }


def _rows(archive: np.lib.npyio.NpzFile, key: str, place: Path) -> sparse.csr_array:
    """Returns sparse rows, every index checked before scipy's compiled code sees it."""
    data, indices, pointers, shape = (_array(archive, f"{key}_{part}", place) for part in CSR)
    integers = all(np.issubdtype(a.dtype, np.integer) for a in (indices, pointers, shape))
    if not integers or shape.shape != (2,) or pointers.shape != (int(shape[0]) + 1,) or data.ndim != 1:
        raise DataError(f"{key}_shape in {place} must be (rows, columns) with rows + 1 pointers, got {shape.tolist()}.")
    good = len(data) == len(indices) == pointers[-1] and pointers[0] == 0 and (np.diff(pointers) >= 0).all()
    if not good or (len(indices) and not 0 <= indices.min() <= indices.max() < shape[1]):
        raise DataError(f"{key}_indices in {place} must be columns below {shape[1]}, one per value.")
    return sparse.csr_array((data, indices, pointers), shape=tuple(int(n) for n in shape))


def _array(archive: np.lib.npyio.NpzFile, key: str, place: Path) -> np.ndarray:
    try:
        return archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"arrays must be plain numbers, got pickled objects in {key} of {place}, which are refused because "
                f"loading them runs code; save {key} with a numeric dtype."
            ) from error
        raise DataError(f"{key} in {place} cannot be read ({error}); write the file again.") from error


def _part(arrays: dict[str, Any], part: str, task: str, scale: float, path: str | Path) -> Arrays:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    for key, values in ((f"x_{part}", x), (f"y_{part}", y)):
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
            raise DataError(f"{key} must hold real numbers, got dtype {values.dtype} in {path}; convert it.")
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is reported as that
        x = (x * np.float32(scale) if scale != 1 else x).astype(np.float32)
    if task == "regression":
        return Arrays(x, (y[:, None] if y.ndim == 1 else y).astype(np.float32))
    if np.issubdtype(y.dtype, np.floating) and not np.array_equal(y, np.round(y)):
        odd = y[~(y == np.round(y))].flat[0]
        raise DataError(f"labels must be integers, got {odd} in y_{part} of {path}; set task=regression or fix it.")
    if y.size and (y.min() < np.iinfo(np.int32).min or y.max() > np.iinfo(np.int32).max):
        raise DataError(f"labels must be class numbers from 0, got {y.max()} in y_{part} of {path}; renumber them.")
    return Arrays(x, y.astype(np.int32))


def _check_rank(arrays: Arrays, temporal: bool, part: str) -> None:
    least = 3 if temporal else 2
    if arrays.x.ndim < least:
        axes = "[n, time, features]" if temporal else "[n, features]"
        raise DataError(
            f"x_{part} must be {axes} with temporal={str(bool(temporal)).lower()}, got shape {arrays.x.shape}; "
            f"reshape it{' or set temporal=false' if temporal else ''}."
        )


def _classes(y: np.ndarray | Array, task: str, classes: int | None) -> int:
    if task != "classification":
        return y.shape[1] if y.ndim == 2 else 1
    if classes is None:
        return max(int(y.max()) + 1, 2) if y.size else 2
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise DataError(f"classes must be an integer of at least 2, got {classes!r}.")
    return classes
