"""CIFAR-100 (Krizhevsky 2009): 32 x 32 colour images of 100 classes in 20 groups, 45000/5000/10000.

The publisher gives md5; the sha256 of the same file is the one that TensorFlow Datasets, MLDatasets.jl and GoMLX check.
"""

from pathlib import Path

from dsnn.data import cifar_records
from dsnn.data.files import File
from dsnn.data.split import DataError, Split, last_held_out

FILES = (
    File(
        "cifar-100-binary.tar.gz",
        ("58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",),
        ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    ),
)
CLASSES = {"coarse": 20, "fine": 100}
"""Labels of a record, in its order."""


def load(root: Path, seed: int, val_fraction: float | None, *, labels: str = "fine") -> Split:
    """Returns the split, ``[n, 32, 32, 3]`` in [0, 1]; validation is the end of the training file.

    Args:
        root: the data folder.
        seed: not used, every part is fixed.
        val_fraction: of the 50000 training images, in [0, 1), or None for 5000.
        labels: ``fine``, 100 classes, or ``coarse``, the 20 groups of five of them.

    Raises:
        DataError: an option is out of range, only the python version is there, or a file is damaged.
    """
    if labels not in CLASSES:
        raise DataError(f"labels must be one of {', '.join(CLASSES)}, got {labels!r}.")
    names = f"{labels}_label_names.txt"
    found = cifar_records.contents(root, "cifar100", FILES[0], ("train.bin", "test.bin", names))
    train, test = (
        cifar_records.part([cifar_records.read(found[name], CLASSES, f"{name} of cifar100")], labels)
        for name in ("train.bin", "test.bin")
    )
    named = tuple(found[names].decode("latin-1").split())
    if len(named) != CLASSES[labels]:
        raise DataError(
            f"{names} of cifar100 must name {CLASSES[labels]} classes, got {len(named)}; get the published archive."
        )
    return Split(*last_held_out(train, val_fraction), test, len(named), "cifar100", class_names=named)
