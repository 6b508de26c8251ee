"""A user's own arrays, from one ``.npz`` file without pickled objects."""

import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn.data import own
from dsnn.data.split import DataError, Split

PARTS = ("train", "val", "test")
CSR = ("data", "indices", "indptr", "shape")
MAX_BYTES = 1 << 34
"""What the arrays of a file may take once they are unpacked."""


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
        _check_size(archive, place)
        keys = _keys(archive, place)
        return {part: own.Raw(*(_values(archive, key, place) for key in pair)) for part, pair in keys.items()}


def _check_size(archive: np.lib.npyio.NpzFile, place: Path) -> None:
    """Checks what the arrays say they take, before any is unpacked."""
    assert archive.zip is not None
    total = sum(member.file_size for member in archive.zip.infolist())
    if total > MAX_BYTES:
        raise DataError(
            f"{place} may unpack to {MAX_BYTES >> 30} GiB, got {total / 2**30:.1f} GiB; give fewer rows, or data=npy."
        )


def _keys(archive: np.lib.npyio.NpzFile, place: Path) -> dict[str, tuple[str, str]]:
    """Returns the names of inputs and targets by part."""
    present = set(archive.files)
    inputs = [f"x_{part}" for part in PARTS]
    has = present | {key for key in inputs if {f"{key}_{field}" for field in CSR} <= present}
    keys = {part: (f"x_{part}", f"y_{part}") for part in PARTS}
    if not has & set(keys["train"]) and {"x", "y"} <= has:
        keys["train"] = ("x", "y")
    found = {part: pair for part, pair in keys.items() if part == "train" or has & set(pair)}
    for part, pair in found.items():
        if missing := [key for key in pair if key not in has]:
            what = f"both of {' and '.join(pair)} or neither" if part == "val" else "x_train, y_train, x_test, y_test"
            raise DataError(
                f"{place} must hold {what}, got {', '.join(archive.files) or 'nothing'}; add {', '.join(missing)}."
            )
    return found


def _values(archive: np.lib.npyio.NpzFile, key: str, place: Path) -> Any:
    return _array(archive, key, place) if key in archive.files else _rows(archive, key, place)


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
                f"loading them runs code; save {key} with a numeric dtype, series of unequal length filled up to the "
                f"longest with NaN, and names as text (dtype=str)."
            ) from error
        raise DataError(f"{key} in {place} cannot be read ({error}); write the file again.") from error
