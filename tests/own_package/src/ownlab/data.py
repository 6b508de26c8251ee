"""Two clouds of points, an encoder of them, and noise that is laid over a batch."""

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.data import Arrays, Split


def clouds(root, seed, val_fraction, *, n=120, features=4):
    draw = np.random.default_rng(seed)

    def part(count):
        y = np.arange(count) % 2
        x = draw.normal(size=(count, features)) + 1.5 * y[:, None]
        return Arrays(x.astype(np.float32), y.astype(np.int32))

    return Split(part(n), part(n // 2), part(n // 2), 2, "clouds")


def repeated(x, steps, key=None):
    return jnp.broadcast_to(x, (steps, *x.shape)) * jnp.linspace(0.5, 1.5, steps)[:, None, None]


def noisy(x, key):
    return x + 0.1 * jax.random.normal(key, x.shape)


def counts(root, seed, val_fraction, *, n=120):
    draw = np.random.default_rng(seed)

    def part(count):
        x = draw.normal(size=(count, 3)).astype(np.float32)
        rate = np.exp(1 + x @ np.array([[0.6], [-0.4], [0.0]]))
        return Arrays(x, draw.poisson(rate).astype(np.int32))

    return Split(part(n), part(n // 2), part(n // 2), 1, "counts", task="own")
