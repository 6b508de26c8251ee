"""A user's own arrays as pairs of ``.npy`` files in a folder, which are mapped rather than read at once."""

from pathlib import Path

import numpy as np

from dsnn.data import folder, foreign, own, streams
from dsnn.data.readers import MappedReader
from dsnn.data.split import DataError, Split
from dsnn.data.streamed import Streamed
from dsnn.store import untrusted

PARTS = ("train", "val", "test")


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
    stream: str = streams.AUTO,
) -> Split:
    """Returns the split of a folder with ``x_train.npy y_train.npy x_test.npy y_test.npy``, and ``*_val.npy`` or none.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that have no files.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most.
        path: the folder.
        temporal: True when ``x`` is ``[n, time, ...]``.
        task: as of ``npz``.
        classes: as of ``npz``.
        scale: ``x`` is multiplied by it.
        test_fraction: of the examples, in (0, 1), to draw as the test part of a folder that has none.
        stream: whether inputs are read as they are used: "always", "never", or "auto", where all of them would take
            more than 2 GiB in memory.

    Raises:
        DataError: a file is missing, lies elsewhere by a link, or is no plain array.
    """
    if path is None:
        raise DataError("data set 'npy' needs the option path, got none; set it to a folder of .npy files.")
    place = Path(path).expanduser()
    if not place.is_dir():
        raise DataError(f"data.path must be a folder with x_train.npy and y_train.npy, got {place}, which is none.")
    parts = {part: own.Raw(mapped(place, f"x_{part}"), mapped(place, f"y_{part}")) for part in _parts(place)}
    if stream != streams.NEVER:
        readers = {part: MappedReader(place / f"x_{part}.npy") for part in parts}
        if stream == streams.ALWAYS or streams.too_large(*readers.values()):
            parts = {part: own.Raw(Streamed(readers[part]), np.asarray(raw.y)) for part, raw in parts.items()}
    whole = own.divided(
        own.checked(parts, temporal, place),
        "npy",
        place,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        task=task,
    )
    return own.split_of(
        whole.parts, "npy", temporal=temporal, task=task, classes=classes, scale=scale, notes=whole.notes
    )


def _parts(place: Path) -> list[str]:
    has = {name for part in PARTS for name in (f"x_{part}", f"y_{part}") if (place / f"{name}.npy").exists()}
    parts = [part for part in PARTS if part == "train" or has & {f"x_{part}", f"y_{part}"}]
    for part in parts:
        if missing := [f"{name}.npy" for name in (f"x_{part}", f"y_{part}") if name not in has]:
            found = ", ".join(sorted(f"{name}.npy" for name in has)) or "neither"
            raise DataError(
                f"{place} must hold x_{part}.npy and y_{part}.npy, got {found}; add {' and '.join(missing)}."
            )
    return parts


def mapped(place: Path, name: str) -> np.ndarray:
    """Returns the array in ``<name>.npy``, its values read where they are used.

    Raises:
        DataError: the file is a link out of the folder, or holds no plain array.
    """
    file = place / f"{name}.npy"
    if not folder.inside(file, place):
        raise DataError(f"files must lie in {place} itself, got {file.name}, a link to elsewhere; copy it there.")
    with foreign.sentences(file, "an .npy file written by numpy.save"):
        return untrusted.mapped(file)
