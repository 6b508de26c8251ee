"""A data set of one's own whose examples are read when they are used."""

from typing import Any, NamedTuple

import numpy as np

from dsnn.data import own
from dsnn.data.readers import ArrayReader, ExampleReader, Examples
from dsnn.data.split import Arrays, Split
from dsnn.data.streamed import Streamed


class Stream(NamedTuple):
    """A data set whose examples are read one by one, when they are used; what ``data.source`` may give for a `Split`.

    Attributes:
        train: examples by their numbers, ``len(train)`` and ``train[k] -> (x, y)``, as ``grain.sources`` have them; or
            `Arrays`. With an attribute ``labels``, the targets of all, they need not be read once for their targets.
        test: the examples that are reported.
        classes: number of classes, labels or outputs.
        name: of the data set.
        val: the examples that choices are made on; None draws them from the training examples by the seed.
        temporal: True when the first axis of an example's ``x`` is time.
        task: ``classification``, ``multilabel``, ``regression`` or ``own``.
        class_names: one name per class, or empty.
    """

    train: "Examples | Arrays"
    test: "Examples | Arrays"
    classes: int
    name: str
    val: "Examples | Arrays | None" = None
    temporal: bool = False
    task: str = "classification"
    class_names: tuple[str, ...] = ()


def split_of(stream: Stream, seed: int, val_fraction: float | None) -> Split:
    """Returns the split of a stream; its targets are in memory, its inputs are not.

    Args:
        stream: what a source gave.
        seed: draws the part that selects and certifies, where the stream has none.
        val_fraction: of the training examples, in [0, 1); by default a fifth, and 5 000 at most.

    Raises:
        DataError: a part does not say how many examples it has, or has none, or its examples are no pairs, or targets
            that cannot be learned.
    """
    given = {"train": stream.train, "val": stream.val, "test": stream.test}
    parts = {name: _part(part, stream.name) for name, part in given.items() if part is not None}
    name, temporal, task = stream.name, stream.temporal, stream.task
    whole = own.divided(
        own.checked(parts, temporal, name),
        name,
        name,
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=None,
        task=task,
    )
    numbered = all(raw.y.dtype.kind in "biu" for raw in whole.parts.values())
    classes = stream.classes if task == "classification" and numbered else None
    split = own.split_of(
        whole.parts, name, temporal=temporal, task=task, classes=classes, compact=True, notes=whole.notes
    )
    return split._replace(class_names=stream.class_names or split.class_names)


def _part(given: Any, name: str) -> own.Raw:
    if isinstance(given, Arrays):
        return own.Raw(Streamed(ArrayReader(np.asarray(given.x))), np.asarray(given.y))
    reader = ExampleReader(given, name)
    return own.Raw(Streamed(reader), reader.labels())
