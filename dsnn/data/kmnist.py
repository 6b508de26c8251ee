"""Kuzushiji-MNIST (Clanuwat et al. 2018), test part only: images that a digit classifier should be unsure of."""

from pathlib import Path

import numpy as np

from dsnn.data import idx
from dsnn.data.files import File
from dsnn.data.split import Arrays, DataError, Split

ADDRESS = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/{}"
DIGESTS = {
    "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
}
FILES = tuple(File(name, (sha,), (ADDRESS.format(name),)) for name, sha in DIGESTS.items())
CLASS_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def load(root: Path, seed: int, val_fraction: float | None) -> Split:
    """Returns a split of 10000 test images whose training and validation parts are empty.

    Args:
        root: the data folder.
        seed: not used.
        val_fraction: must be None, there is nothing to hold out.

    Raises:
        DataError: a validation part was asked for.
    """
    if val_fraction:
        raise DataError(f"val_fraction must be left out for 'kmnist', got {val_fraction!r}; it has only a test part.")
    test = idx.images(root, "kmnist", FILES)
    none = Arrays(np.empty((0, *test.x.shape[1:]), np.float32), np.empty(0, np.int32))
    return Split(none, none, test, idx.IMAGE_CLASSES, "kmnist", class_names=CLASS_NAMES)
