"""The 1797 handwritten 8x8 digits that come with scikit-learn (Alpaydin & Kaynak 1998): no file, no download."""

from pathlib import Path

import numpy as np

from dsnn.data.split import Arrays, Split, check_fraction, divide, hold_out, seeded_mask

TEST_EXAMPLES = 450
TEST_SEED = 0
DEFAULT_VALIDATION = 0.1


def load(root: Path, seed: int, val_fraction: float | None) -> Split:
    """Returns the split: 450 fixed test images, each class in proportion; the other 1347 train and validate.

    Args:
        root: not used.
        seed: chooses which of the 1347 validate; the test part never changes.
        val_fraction: of the 1347, in [0, 1); a tenth by default.
    """
    from sklearn.datasets import load_digits  # here, so that importing dsnn does not import scikit-learn

    bunch = load_digits()
    x = (bunch.images[..., None] / 16).astype(np.float32)
    y = bunch.target.astype(np.int32)
    tested = hold_out(y, TEST_EXAMPLES, np.random.default_rng(TEST_SEED))
    fraction = check_fraction(val_fraction, DEFAULT_VALIDATION)
    rest, test = divide(Arrays(x, y), tested)
    train, val = divide(rest, seeded_mask(y[~tested], seed, fraction))
    return Split(train, val, test, 10, "digits", class_names=tuple("0123456789"))
