"""Diabetes progression of 442 patients (Efron et al. 2004), from scikit-learn: ten measurements, one number."""

from pathlib import Path

import numpy as np

from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, hold_out, seeded_mask

TEST_EXAMPLES = 88
DEFAULT_VALIDATION = 0.1


def load(root: Path, seed: int, val_fraction: float | None, *, test_seed: int = 0) -> Split:
    """Returns the split; inputs and target have mean 0 and standard deviation 1 over the training part.

    ``extra["target_mean"]`` and ``extra["target_std"]`` bring predictions back to the published scale.

    Args:
        root: not used.
        seed: chooses the validation patients.
        val_fraction: of the 354 that do not test, in [0, 1); a tenth by default.
        test_seed: chooses the 88 test patients, at least 0; -1 takes ``seed``, so that a population has a split each.
    """
    if isinstance(test_seed, bool) or not isinstance(test_seed, int) or test_seed < -1:
        raise DataError(f"test_seed must be an integer of at least -1, got {test_seed!r}; -1 takes the run's seed.")
    from sklearn.datasets import load_diabetes  # here, so that importing dsnn does not import scikit-learn

    bunch = load_diabetes(scaled=False)
    x, y = bunch.data.astype(np.float64), bunch.target.astype(np.float64)[:, None]
    tested = hold_out(
        np.zeros(len(y), int), TEST_EXAMPLES, np.random.default_rng(seed if test_seed == -1 else test_seed)
    )
    rest, test = divide(Arrays(x, y), tested)
    train, val = divide(rest, seeded_mask(np.asarray(rest.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION)))
    (x_mean, x_std), (y_mean, y_std) = ((np.mean(a, axis=0), np.std(a, axis=0)) for a in train)

    def standardised(part: Arrays) -> Arrays:
        return Arrays(((part.x - x_mean) / x_std).astype(np.float32), ((part.y - y_mean) / y_std).astype(np.float32))

    extra = {"target_mean": y_mean.astype(np.float32), "target_std": y_std.astype(np.float32)}
    train, val, test = (standardised(part) for part in (train, val, test))
    return Split(train, val, test, 1, "diabetes", task="regression", extra=extra)
