"""Training images changed a little, anew in every step: cut out of a padded copy, and mirrored.

What `train.transform` names without a module. The functions work inside the compiled step; a key gives the same change
every time, so a run is reproduced, and resumed, by its seed and its step alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dsnn.data.split import DataError
from dsnn.types import Array, Int, Key, Shaped

PADDING = 4
"""Pixels of zeros around an image before it is cut out again (Lee et al. 2015; He et al. 2016, section 4.2)."""


def crop_flip(x: Shaped[Array, "batch ..."], key: Key[Array, ""]) -> Shaped[Array, "batch ..."]:
    """Returns every image moved by up to four pixels and, half of them, mirrored left to right.

    Args:
        x: ``[batch, height, width, channels]``, or with time after the batch: all steps of an example change alike.
        key: consumed.
    """
    moved, mirrored = jax.random.split(key)
    return flip(crop(x, moved), mirrored)


def crop(x: Shaped[Array, "batch ..."], key: Key[Array, ""], padding: int = PADDING) -> Shaped[Array, "batch ..."]:
    """Returns every image cut out of its copy with zeros around it, at a place of its own.

    Args:
        x: as of `crop_flip`.
        key: consumed.
        padding: pixels of zeros on every side; an image moves by as many at most.
    """
    _check(x)
    starts = jax.random.randint(key, (len(x), 2), 0, 2 * padding + 1)
    around = [(padding, padding) if axis in (x.ndim - 3, x.ndim - 2) else (0, 0) for axis in range(x.ndim)]
    return jax.vmap(lambda image, start: _cut(image, start, x.shape[1:]))(jnp.pad(x, around), starts)


def flip(x: Shaped[Array, "batch ..."], key: Key[Array, ""]) -> Shaped[Array, "batch ..."]:
    """Returns every image mirrored left to right or not, at even odds.

    Args:
        x: as of `crop_flip`.
        key: consumed.
    """
    _check(x)
    mirrored = jax.random.bernoulli(key, 0.5, (len(x), *[1] * (x.ndim - 1)))
    return jnp.where(mirrored, jnp.flip(x, -2), x)


TRANSFORMS: dict[str, Callable[..., Array]] = {"crop": crop, "crop_flip": crop_flip, "flip": flip}


def _cut(image: Array, start: Int[Array, "2"], shape: tuple[int, ...]) -> Array:
    first = [jnp.zeros((), start.dtype)] * (image.ndim - 3)
    return jax.lax.dynamic_slice(image, (*first, start[0], start[1], jnp.zeros((), start.dtype)), shape)


def _check(x: Array) -> None:
    if x.ndim not in (4, 5):
        raise DataError(
            "train.transform=crop_flip (crop, flip) needs images [batch, height, width, channels], or frames of them "
            f"with time after the batch, got shape {x.shape}; leave it out."
        )
