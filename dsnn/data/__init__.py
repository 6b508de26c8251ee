"""Data sets as plain arrays: ``load("digits")`` returns a ``Split`` whose every value, label and file was checked.

Files lie at ``<root>/<set>/<published name>``, where the root is an argument, the folder that ``DSNN_DATA`` names, or
the user's cache; they are verified by sha256 before use and downloaded from their official address when missing.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dsnn.data import (
    cifar10,
    cifar10_dvs,
    cifar10_jpeg_small,
    cifar100,
    diabetes,
    digits,
    dvs_gesture,
    fashion_mnist,
    fsdd,
    images,
    imdb,
    kmnist,
    mnist,
    newsgroups,
    nmnist_small,
    npy,
    npz,
    own_audio,
    own_events,
    planted,
    qtdb,
    shards,
    shd,
    table,
    two_moons,
)
from dsnn.data.augment import TRANSFORMS
from dsnn.data.batches import EvalBatches, epoch_order, epoch_permutation, eval_batches, take
from dsnn.data.files import File, default_root, locate
from dsnn.data.folds import folded
from dsnn.data.limit import limited, looked_at, sample
from dsnn.data.roles import assign_roles
from dsnn.data.scaling import Scaling, scaling_of, standardised, target_scaling
from dsnn.data.split import (
    Arrays,
    DataError,
    Split,
    check,
    check_fraction,
    check_seed,
    check_targets,
    input_shape,
    per_step,
    require_finite,
    require_training,
    require_unit_range,
    size,
    steps,
)
from dsnn.data.stream import Stream
from dsnn.data.streamed import Streamed
from dsnn.data.streams import STREAMS
from dsnn.data.views import VIEWS, viewed
from dsnn.data.worries import worries
from dsnn.suggest import did_you_mean

__all__ = [
    "STREAMS",
    "TRANSFORMS",
    "VIEWS",
    "Arrays",
    "DataError",
    "EvalBatches",
    "File",
    "Scaling",
    "Split",
    "Stream",
    "Streamed",
    "assign_roles",
    "check",
    "check_targets",
    "default_root",
    "epoch_order",
    "epoch_permutation",
    "eval_batches",
    "fetch",
    "folded",
    "input_shape",
    "limited",
    "load",
    "looked_at",
    "names",
    "per_step",
    "require_finite",
    "require_training",
    "require_unit_range",
    "sample",
    "scaling_of",
    "size",
    "standardised",
    "steps",
    "take",
    "target_scaling",
    "viewed",
    "worries",
]


class Source(NamedTuple):
    """Where a data set comes from: the function ``(root, seed, val_fraction, **options)`` and its published files."""

    load: Callable[..., Split]
    files: tuple[File, ...] = ()


_SOURCES = {
    "20newsgroups": Source(newsgroups.load, newsgroups.FILES),
    "audio": Source(own_audio.load),
    "cifar10": Source(cifar10.load, cifar10.FILES),
    "cifar10-dvs": Source(cifar10_dvs.load, cifar10_dvs.FILES),
    "cifar10-jpeg-small": Source(cifar10_jpeg_small.load, cifar10_jpeg_small.FILES),
    "cifar100": Source(cifar100.load, cifar100.FILES),
    "diabetes": Source(diabetes.load),
    "digits": Source(digits.load),
    "dvs-gesture": Source(dvs_gesture.load, dvs_gesture.FILES),
    "events": Source(own_events.load),
    "fashion-mnist": Source(fashion_mnist.load, fashion_mnist.FILES),
    "fsdd": Source(fsdd.load, fsdd.FILES),
    "images": Source(images.load),
    "imdb": Source(imdb.load, imdb.FILES),
    "kmnist": Source(kmnist.load, kmnist.FILES),
    "mnist": Source(mnist.load, mnist.FILES),
    "nmnist-small": Source(nmnist_small.load, nmnist_small.FILES),
    "npy": Source(npy.load),
    "npz": Source(npz.load),
    "planted-blocks": Source(planted.blocks),
    "planted-channels": Source(planted.channels),
    "planted-difficulty": Source(planted.difficulty),
    "planted-timing": Source(planted.timing),
    "planted-window": Source(planted.window),
    "qtdb": Source(qtdb.load, qtdb.FILES),
    "shards": Source(shards.load),
    "shd": Source(shd.load, shd.FILES),
    "table": Source(table.load),
    "two-moons": Source(two_moons.load),
}


def names() -> tuple[str, ...]:
    """Returns the names that ``load`` knows, sorted."""
    return tuple(sorted(_SOURCES))


def load(
    name: str, *, root: str | Path | None = None, seed: int = 0, val_fraction: float | None = None, **options: Any
) -> Split:
    """Returns a checked data set.

    Args:
        name: one of ``names()``.
        root: the data folder; by default the one ``DSNN_DATA`` names, else ``~/.cache/dsnn``.
        seed: chooses the validation part where it is drawn, and generates the generated sets; never the test part of a
            published set.
        val_fraction: of the training part, in [0, 1); None keeps each set's published or default choice.
        **options: the set's own, as its module's ``load`` lists them.

    Raises:
        DataError: one sentence with the rule, the value received and the fix.
    """
    source = _source(name)
    known = [p.name for p in inspect.signature(source.load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise DataError(
                f"data set {name!r} takes {'the options ' + ', '.join(known) if known else 'no options'}, "
                f"got {option!r}; {did_you_mean(option, known, most=1)}"
            )
    check_fraction(val_fraction, 0.0)
    return check(source.load(_root(root), check_seed(seed), val_fraction, **options))


def fetch(name: str, root: str | Path | None = None) -> tuple[Path, ...]:
    """Returns the paths of a set's published files, verified and, where missing, downloaded.

    Raises:
        DataError: a file is corrupted, or missing and cannot be had.
    """
    return tuple(locate(_root(root), name, file) for file in _source(name).files)


def _root(root: str | Path | None) -> Path:
    return default_root() if root is None else Path(root).expanduser()


def _source(name: str) -> Source:
    if name not in _SOURCES:
        hint = did_you_mean(name, names(), "choose one of them.")
        raise DataError(f"a data set must be one of {', '.join(names())}, got {name!r}; {hint}")
    return _SOURCES[name]
