"""The 1797 handwritten 8x8 digits that come with scikit-learn (Alpaydin & Kaynak 1998): no file, no download."""

from pathlib import Path

import numpy as np

from dsnn.data.split import Arrays, Split, check_fraction, divide, seeded_mask

TEST_EXAMPLES = 450
TEST_SEED = 0
DEFAULT_VALIDATION = 0.1


def load(root: Path, seed: int, val_fraction: float | None) -> Split:
    """Returns the split: 450 fixed test images, each class in proportion; the other 1347 train and validate.

    The test part is scikit-learn's ``train_test_split(x, y, test_size=450, stratify=y, random_state=0)``.

    Args:
        root: not used.
        seed: chooses which of the 1347 validate; the test part never changes.
        val_fraction: of the 1347, in [0, 1); a tenth by default.
    """
    # here, so that importing dsnn does not import scikit-learn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    x = (bunch.images[..., None] / 16).astype(np.float32)
    y = bunch.target.astype(np.int32)
    _, chosen = train_test_split(np.arange(len(y)), test_size=TEST_EXAMPLES, stratify=y, random_state=TEST_SEED)
    tested = np.isin(np.arange(len(y)), chosen)
    fraction = check_fraction(val_fraction, DEFAULT_VALIDATION)
    rest, test = divide(Arrays(x, y), tested)
    train, val = divide(rest, seeded_mask(y[~tested], seed, fraction))
    return Split(train, val, test, 10, "digits", class_names=tuple("0123456789"))
