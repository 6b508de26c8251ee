"""Convolutions whose gradients are fast inside a loop: on CPUs they are matrix products of patches.

XLA's CPU compiler has fast convolutions, but the gradients of one inside `jax.lax.scan`, where training, time and
posterior draws live, it computes number by number (jax-ml/jax issue 12868). Matrix products are fast in both places.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.native.derivatives import both_ways
from dsnn.types import Array, Float

__all__ = ["convolve"]

PATCH_BYTES = 2**24
"""Size of the patches that are made at once, of as many examples as fit: they are read from the cache."""


def convolve(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "rows columns channel feature"],
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
) -> Float[Array, "batch out_height out_width feature"]:
    """Returns the convolution (cross-correlation) of images with a kernel.

    Args:
        x: images.
        kernel: one row and column for each offset, in the images' dtype.
        strides: steps of the window.
        padding: "SAME" or "VALID".
    """
    return _with_gradient(tuple(strides), padding)(x, kernel)


@functools.cache
def _with_gradient(strides: tuple[int, int], padding: str) -> Callable[..., Array]:
    def run(x: Array, kernel: Array) -> Array:
        return _plain(x, kernel, strides, padding)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return run(x, kernel), (x, kernel)

    return both_ways(forward, functools.partial(_backward, strides, padding), run)


def _plain(x: Array, kernel: Array, strides: tuple[int, int], padding: str) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _backward(strides: tuple[int, int], padding: str, kept: tuple[Array, Array], grad: Array) -> Any:
    def of(form: Callable[..., Array]) -> Callable[..., Any]:
        return lambda x, kernel, grad: jax.vjp(lambda *given: form(*given, strides, padding), x, kernel)[1](grad)

    return jax.lax.platform_dependent(*kept, grad, cpu=of(_by_patches), default=of(_plain))


def _by_patches(x: Array, kernel: Array, strides: tuple[int, int], padding: str) -> Array:
    """`convolve` as one matrix product for every few examples."""
    around = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    sizes = tuple(
        (n + sum(ends) - k) // s + 1
        for n, ends, k, s in zip(x.shape[1:3], around, kernel.shape[:2], strides, strict=True)
    )
    bytes_each = sizes[0] * sizes[1] * kernel.shape[0] * kernel.shape[1] * kernel.shape[2] * x.dtype.itemsize
    at_once = max(1, PATCH_BYTES // bytes_each)

    def some(x: Array) -> Array:
        rows = _patches(jnp.pad(x, ((0, 0), *around, (0, 0))), kernel.shape[:2], strides, sizes)
        return (rows @ kernel.reshape(rows.shape[-1], -1)).reshape(-1, *sizes, kernel.shape[-1])

    if x.shape[0] <= at_once:
        return some(x)
    # patches are made again for the gradient, being many times as large as the images
    return jax.lax.map(jax.checkpoint(lambda image: some(image[None])[0]), x, batch_size=at_once)


def _patches(x: Array, window: tuple[int, ...], strides: tuple[int, int], sizes: tuple[int, ...]) -> Array:
    """Returns what each output sees of padded images, ``[batch * height * width, rows * columns * channel]``."""
    shifted = [
        x[:, i : i + (sizes[0] - 1) * strides[0] + 1 : strides[0], j : j + (sizes[1] - 1) * strides[1] + 1 : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
    return jnp.concatenate(shifted, -1).reshape(-1, window[0] * window[1] * x.shape[-1])
