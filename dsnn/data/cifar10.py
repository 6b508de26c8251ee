"""CIFAR-10 (Krizhevsky 2009): 32 x 32 colour images of ten kinds of things, 45000/5000/10000.

The publisher gives md5; the sha256 of the same file is the one that TensorFlow Datasets, MLDatasets.jl and GoMLX check.
"""

from pathlib import Path

from dsnn.data import cifar_records
from dsnn.data.files import File
from dsnn.data.split import Split, last_held_out

FILES = (
    File(
        "cifar-10-binary.tar.gz",
        ("c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",),
        ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    ),
)
TRAIN, TEST = tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load(root: Path, seed: int, val_fraction: float | None) -> Split:
    """Returns the split, ``[n, 32, 32, 3]`` in [0, 1]; validation is the end of the last training file.

    Args:
        root: the data folder.
        seed: not used, every part is fixed.
        val_fraction: of the 50000 training images, in [0, 1), or None for 5000.

    Raises:
        DataError: only the python version is there, or a file is damaged.
    """
    found = cifar_records.contents(root, "cifar10", FILES[0], (*TRAIN, TEST))
    classes = {"class": len(CLASS_NAMES)}
    read = {name: cifar_records.read(found.pop(name), classes, f"{name} of cifar10") for name in (*TRAIN, TEST)}
    train = cifar_records.part([read[name] for name in TRAIN], "class")
    test = cifar_records.part([read[TEST]], "class")
    return Split(*last_held_out(train, val_fraction), test, len(CLASS_NAMES), "cifar10", class_names=CLASS_NAMES)
