"""Two interleaved half circles in the plane: small enough to draw what a posterior believes."""

import math
from pathlib import Path

import numpy as np

from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, seeded_mask

TEST_EXAMPLES = 1000
DEFAULT_VALIDATION = 0.2


def load(root: Path, seed: int, val_fraction: float | None, *, noise: float = 0.1, examples: int = 1000) -> Split:
    """Returns ``[n, 2]`` points: half a unit circle about (0, 0) above, and one about (1, 0.5) below it.

    Args:
        root: not used.
        seed: makes all examples, the test part too.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        noise: standard deviation added to both coordinates, at least 0.
        examples: to train and validate on; the test part has 1000 more.
    """
    if not noise >= 0 or not math.isfinite(noise):
        raise DataError(f"noise must be at least 0, got {noise!r}.")
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise DataError(f"examples must be an integer of at least 1, got {examples!r}.")
    rng, n = np.random.default_rng(seed), examples + TEST_EXAMPLES
    y = rng.integers(2, size=n, dtype=np.int32)
    angle = math.pi * rng.random(n)
    upper = np.stack([np.cos(angle), np.sin(angle)], -1)
    x = np.where(y[:, None] == 0, upper, [1, 0.5] - upper) + noise * rng.standard_normal((n, 2))
    x = x.astype(np.float32)
    mask = seeded_mask(y[:examples], seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    train, val = divide(Arrays(x[:examples], y[:examples]), mask)
    return Split(train, val, Arrays(x[examples:], y[examples:]), 2, "two-moons", class_names=("upper", "lower"))
