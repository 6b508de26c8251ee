"""Convolutions of float32 images in C, on CPUs: forward, the gradient of the images and that of the kernel.

Programs that are lowered for other devices, or exported, hold the same in JAX. No patches are made and results do not
depend on the number of threads, see `convolutions.c`.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.native.library import call, problem
from dsnn.types import Array

__all__ = ["InJAX", "backward", "forward", "worthwhile"]


@runtime_checkable
class InJAX(Protocol):
    """A convolution in JAX; equal ones are compiled once."""

    def __call__(self, x: Array, kernel: Array) -> Array:
        """Returns the convolution of images with a kernel."""

    def gradients(self, x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        """Returns the gradients of images and kernel from that of the output."""


Around = tuple[tuple[int, int], ...]
"""Zeros before and behind the axes of an image, ``((top, bottom), (left, right))``."""

LARGEST = 2**28
"""Numbers of one image or kernel, at most: the C programs count them in 32 bits."""


def worthwhile(x: Array, kernel: Array, around: Around) -> bool:
    """Returns whether the C programs take images and a kernel of these dtypes and sizes, here and now.

    They know no window that sees padding alone.
    """
    if any(max(ends) >= k for ends, k in zip(around, kernel.shape[:2], strict=False)):
        return False
    small = max(math.prod(x.shape[1:]), kernel.size) <= LARGEST
    return x.dtype == jnp.float32 and kernel.dtype == jnp.float32 and small and problem() is None


def forward(in_jax: InJAX, x: Array, kernel: Array, strides: tuple[int, ...], around: Around) -> Array:
    """Returns the convolution of images with a kernel.

    Args:
        in_jax: the same in JAX.
        x: images ``[batch, height, width, channel]``.
        kernel: ``[rows, columns, channel, feature]``.
        strides: steps of the window.
        around: zeros about the images.
    """
    (top, _), (left, _) = around
    settings = _settings(strides, top, left)
    return call("dsnn_convolve", jax.eval_shape(in_jax, x, kernel), _Given(in_jax), x, kernel, settings)


def backward(
    in_jax: InJAX, x: Array, kernel: Array, grad: Array, strides: tuple[int, ...], around: Around
) -> tuple[Array, Array]:
    """Returns the gradients of images and kernel from that of the output; see `forward`."""
    (top, _), (left, _) = around
    rows, columns = kernel.shape[:2]
    turned = _settings((1, 1), rows - 1 - top, columns - 1 - left, strides, turned=True)
    to_x = call("dsnn_convolve", _like(x), _ByImages(in_jax, x.shape), grad, kernel, turned)
    settings = _settings(strides, top, left)
    to_kernel = call("dsnn_convolve_kernel", _like(kernel), _ByKernel(in_jax, kernel.shape), x, grad, settings)
    return to_x, to_kernel


def _settings(
    strides: tuple[int, ...], top: int, left: int, spread: tuple[int, ...] = (1, 1), *, turned: bool = False
) -> Array:
    """Returns the settings in the order in which the C programs read them."""
    return jnp.asarray(np.asarray([*strides, top, left, *spread, turned], np.int32))


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


@dataclass(frozen=True)
class _Given:
    """The convolution in JAX; equal where the functions are, and so are the classes below."""

    in_jax: InJAX

    def __call__(self, x: Array, kernel: Array, _: Array) -> Array:
        """Returns what the C program gives."""
        return self.in_jax(x, kernel)


@dataclass(frozen=True)
class _ByImages:
    """The gradient of the images in JAX."""

    in_jax: InJAX
    shape: tuple[int, ...]

    def __call__(self, grad: Array, kernel: Array, _: Array) -> Array:
        """Returns what the C program gives."""
        return self.in_jax.gradients(jnp.zeros(self.shape, grad.dtype), kernel, grad)[0]


@dataclass(frozen=True)
class _ByKernel:
    """The gradient of the kernel in JAX."""

    in_jax: InJAX
    shape: tuple[int, ...]

    def __call__(self, x: Array, grad: Array, _: Array) -> Array:
        """Returns what the C program gives."""
        return self.in_jax.gradients(x, jnp.zeros(self.shape, grad.dtype), grad)[1]
