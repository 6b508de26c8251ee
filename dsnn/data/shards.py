"""A user's own data in many files, of which a few at a time are in memory: npz, Parquet or ArrayRecord shards.

A shard is decoded as a whole. So an epoch takes the shards in a drawn order, some at a time, and mixes the examples of
these; the order depends on the run's seed and the epoch alone.
"""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsnn.data import folder, own, readers, shard_files
from dsnn.data.error import DataError
from dsnn.data.labels import by_appearance
from dsnn.data.shard_files import SUFFIXES, Shard
from dsnn.data.split import Split, by_class
from dsnn.data.streamed import Streamed

PARTS = ("train", "val", "test")
MIXED_BYTES = 1 << 27
"""Decoded shards that are mixed with each other, 128 MiB; where one is larger, it is mixed within itself."""

MOST_FILES = 1_000_000
UNLIKE = 0.25
"""Distance of the classes that are mixed from all classes that is worth a word."""


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
    target: str = "y",
    shape: list[int] | tuple[int, ...] = (),
) -> Split:
    """Returns the split of a folder of shards, whose inputs are read when they are used.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most.
        path: folder with ``{train,val,test}*.{npz,parquet,array_record}`` or with such files in folders of these names;
            where nothing is so called, all are training examples. An npz shard holds ``x`` and ``y``; a Parquet one the
            column ``y`` and a column ``x`` of lists, or a column for each input; a record of an ArrayRecord is what
            ``numpy.savez`` writes of ``x`` and ``y`` of one example.
        temporal: True when ``x`` is ``[n, time, ...]``.
        task: as of ``npz``.
        classes: as of ``npz``.
        scale: ``x`` is multiplied by it.
        test_fraction: of the examples, in (0, 1), to draw as the test part of a folder that has none.
        target: name of the targets.
        shape: of an example, where Parquet holds it flat.

    Raises:
        DataError: no shards, shards that do not fit each other, or one that is cut.
    """
    if path is None:
        raise DataError("data set 'shards' needs the option path, got none; set it to a folder of shards.")
    place = Path(path).expanduser()
    found = _found(place)
    columns: tuple[str, ...] = ()
    parts: dict[str, own.Raw] = {}
    for part, files in found.items():
        parts[part], columns = _part(files, target, tuple(shape), columns)
    shapes = {raw.x.shape[1:] for raw in parts.values()}
    if len(shapes) > 1:
        raise DataError(f"all shards must hold examples of one shape, got {sorted(shapes)} in {place}; mend them.")
    whole = own.divided(
        own.checked(parts, temporal, place),
        "shards",
        place,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        task=task,
    )
    notes = (*whole.notes, *_unmixed(whole.parts["train"]))
    return own.split_of(whole.parts, "shards", temporal=temporal, task=task, classes=classes, scale=scale, notes=notes)


def _unmixed(train: own.Raw) -> tuple[str, ...]:
    """Says so where the shards that are mixed with each other hold other classes than the whole does."""
    x, labels = train.x, by_appearance(train.y) if train.y.dtype.kind in "US" else by_class(train.y)
    numbers, classes = np.unique(x.shard), np.unique(labels)
    together = x.reader.together
    if len(numbers) <= together or len(classes) < 2 or len(classes) > len(labels) / 4:
        return ()
    counts = np.zeros((len(numbers), len(classes)))
    np.add.at(counts, (np.searchsorted(numbers, x.shard), np.searchsorted(classes, labels)), 1)
    share = counts / counts.sum(1, keepdims=True)
    apart = np.abs(share - counts.sum(0) / counts.sum()).sum(1).mean() / 2  # total variation distance
    if apart / math.sqrt(together) < UNLIKE:
        return ()
    return (
        f"shards differ in their classes (by {apart:.0%} on average), and {together} of {len(numbers)} are mixed at a "
        f"time, so that batches are of few classes: write the examples into shards in a drawn order.",
    )


class ShardReader:
    """Reads the inputs of shards, whole shards at a time, of which the last few stay in memory.

    Args:
        shards: of one shape and dtype of inputs.
        target: name of the targets.
        flat: shape of an example that Parquet holds flat.
    """

    def __init__(self, shards: Sequence[Shard], target: str = "y", flat: tuple[int, ...] = ()):
        sizes = np.array([len(shard.y) for shard in shards])
        self.paths = tuple(shard.path for shard in shards)
        self.shape, self.dtype = (int(sizes.sum()), *shards[0].shape), shards[0].dtype
        self.shard = np.repeat(np.arange(len(shards), dtype=np.int32), sizes)
        self.first = np.cumsum([0, *sizes])
        largest = int(sizes.max()) * max(math.prod(shards[0].shape), 1) * self.dtype.itemsize
        self.together = max(MIXED_BYTES // max(largest, 1), 1)
        # the shards that are mixed next are decoded while the last of these are read
        self._kept = readers.Kept(
            functools.partial(shard_files.inputs, target=target, flat=flat, columns=shards[0].columns),
            2 * self.together * largest,
        )

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Returns examples by their numbers.

        Raises:
            DataError: a shard can no longer be read, or has become another.
        """
        out = np.zeros((len(index), *self.shape[1:]), self.dtype)
        which = self.shard[index]
        for one in np.unique(which):
            x = self._kept(self.paths[one])
            wanted = (int(self.first[one + 1] - self.first[one]), *self.shape[1:])
            if x.shape != wanted or not np.can_cast(x.dtype, self.dtype, "same_kind"):
                raise DataError(
                    f"a shard must hold {self.dtype} of shape {wanted}, as it did or as the first one does, got "
                    f"{x.dtype} of shape {x.shape} in {self.paths[one].name}; restore it, or write numbers of one kind."
                )
            mine = which == one
            out[mine] = x[index[mine] - self.first[one]]
        return out


def _found(place: Path) -> dict[str, list[Path]]:
    """Returns the shards of each part, sorted by name."""
    if not place.is_dir():
        raise DataError(f"data.path must be a folder of shards, got {place}, which is none.")
    every = [file for file in sorted(place.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    every = [file for file in every if folder.inside(file, place)]
    if not every or len(every) > MOST_FILES:
        raise DataError(
            f"{place} must hold 1 to {MOST_FILES} shards, {', '.join(SUFFIXES)} files, got {len(every) or 'none'}."
        )
    named = {part: [file for file in every if _part_of(file, place) == part] for part in PARTS}
    parts = {part: files for part, files in named.items() if files}
    if not parts:
        return {"train": every}
    if "train" not in parts:
        raise DataError(
            f"shards must hold a training part, files called train*, got only {', '.join(parts)} in {place}."
        )
    if sum(map(len, parts.values())) < len(every):
        odd = next((file for file in every if not _part_of(file, place)), every[0])
        raise DataError(
            f"shards must be called train*, val* or test*, or lie in folders of these names, got "
            f"{odd.relative_to(place)} in {place}; rename it."
        )
    return parts


def _part_of(file: Path, place: Path) -> str:
    first = file.relative_to(place).parts[0].lower()
    return next((part for part in PARTS if re.match(f"{part}([^a-z]|$)", first)), "")


def _part(
    files: list[Path], target: str, flat: tuple[int, ...], columns: tuple[str, ...]
) -> tuple[own.Raw, tuple[str, ...]]:
    """Returns a part, and the order of its columns, which is that of the part before where there is one."""
    shards = [shard_files.head(file, target, flat) for file in files]
    shards = [shard for shard in shards if len(shard.y)]
    if not shards:
        raise DataError(f"shards must hold examples, got none in {files[0].parent}; give at least one.")
    first = shards[0] if not columns else shards[0]._replace(columns=columns)
    for shard in shards:
        if shard.shape != first.shape or shard.y.shape[1:] != first.y.shape[1:]:
            raise DataError(
                f"all shards must hold examples of one shape, got x {shard.shape} and y {shard.y.shape[1:]} "
                f"in {shard.path.name} and x {first.shape} and y {first.y.shape[1:]} in {first.path.name}; mend one."
            )
        if sorted(shard.columns) != sorted(first.columns) or (shard.y.dtype.kind in "US") != (
            first.y.dtype.kind in "US"
        ):
            raise DataError(
                f"all shards must hold the same columns and targets of one kind, got {', '.join(shard.columns)} and "
                f"{shard.y.dtype} in {shard.path.name} and {', '.join(first.columns)} and {first.y.dtype} in "
                f"{first.path.name}; mend one."
            )
        if shard.dtype.kind != first.dtype.kind:
            raise DataError(
                f"all shards must hold inputs of one dtype, got {shard.dtype} in {shard.path.name} and {first.dtype} "
                f"in {first.path.name}; convert one of them."
            )
    same = np.result_type(*(shard.dtype for shard in shards))
    alike = [shard._replace(dtype=same, columns=columns or first.columns) for shard in shards]
    raw = own.Raw(Streamed(ShardReader(alike, target, flat)), np.concatenate([shard.y for shard in shards]))
    return raw, alike[0].columns
