"""Convolutions whose gradients are fast inside a loop: on CPUs they run in C, or are matrix products of patches.

XLA's CPU compiler has fast convolutions, but the gradients of one inside `jax.lax.scan`, where training, time and
posterior draws live, it computes number by number (jax-ml/jax issue 12868). What is written in C
(`dsnn.native.convolutions`) is fast in both places; so are matrix products, which serve other dtypes than float32 and
processes without a compiler.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.native import convolutions
from dsnn.native.derivatives import both_ways
from dsnn.networks.windows import Padding, around, places
from dsnn.types import Array, Float

__all__ = ["convolve"]

PATCH_BYTES = 2**24
"""Size of the patches that are made at once, of as many examples as fit: they are read from the cache."""


def convolve(
    x: Float[Array, "batch height width channel"],
    kernel: Float[Array, "rows columns group_channel feature"],
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "SAME",
    *,
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
) -> Float[Array, "batch out_height out_width feature"]:
    """Returns the convolution (cross-correlation) of images with a kernel.

    An input that is not finite reaches the outputs whose windows see it. A weight that is not finite gives NaN wherever
    it meets a zero, those of the border among them.

    Args:
        x: images.
        kernel: one row and column for each offset, in the images' dtype; its channels are those of one group.
        strides: steps of the window.
        padding: "SAME", "VALID", or zeros before and behind, ``((top, bottom), (left, right))``.
        groups: channels and features are split into so many, in order, and features see their own group's channels.
        dilation: places from one row or column of the window to the next.
    """
    return _with_gradient(_Form(tuple(strides), padding, groups, tuple(dilation)))(x, kernel)


class _Form(NamedTuple):
    """How a kernel meets an image."""

    strides: tuple[int, ...]
    padding: Padding
    groups: int
    dilation: tuple[int, ...]

    def wide(self, kernel: Array) -> tuple[int, ...]:
        """Returns places from the first to the last of a window, along both axes."""
        return tuple((k - 1) * d + 1 for k, d in zip(kernel.shape[:2], self.dilation, strict=True))

    def around(self, x: Array, kernel: Array) -> tuple[tuple[int, int], ...]:
        """Returns the zeros before and behind both axes of an image."""
        return around(x.shape[1:3], self.wide(kernel), self.strides, self.padding)


@functools.cache
def _with_gradient(form: _Form) -> Callable[..., Array]:
    in_jax, plain = _InJAX(form), form.groups == 1 and set(form.dilation) == {1}

    def run(x: Array, kernel: Array) -> Array:
        if plain and convolutions.worthwhile(x, kernel, ends := form.around(x, kernel)):
            return convolutions.forward(in_jax, x, kernel, form.strides, ends)
        return in_jax(x, kernel)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return run(x, kernel), (x, kernel)

    def backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
        if plain and convolutions.worthwhile(*kept, ends := form.around(*kept)):
            return convolutions.backward(in_jax, *kept, grad, form.strides, ends)
        return in_jax.gradients(*kept, grad)

    return both_ways(forward, backward, in_jax, run)


@dataclass(frozen=True)
class _InJAX:
    """The convolution of a form where nothing in C does it (`dsnn.native.convolutions.InJAX`)."""

    form: _Form

    def __call__(self, x: Array, kernel: Array) -> Array:
        """Returns the convolution."""
        return _plain(x, kernel, self.form)

    def gradients(self, x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
        """Returns the gradients of images and kernel from that of the output."""

        def of(way: Callable[..., Array]) -> Callable[..., Any]:
            def run(x: Array, kernel: Array, grad: Array) -> Any:
                return jax.vjp(lambda *given: way(*given, self.form), x, kernel)[1](grad)

            return run

        return jax.lax.platform_dependent(x, kernel, grad, cpu=of(_by_patches), default=of(_plain))


def _plain(x: Array, kernel: Array, form: _Form) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        form.strides,
        form.padding,
        rhs_dilation=form.dilation,
        feature_group_count=form.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _by_patches(x: Array, kernel: Array, form: _Form) -> Array:
    """`convolve` as one matrix product for every few examples."""
    ends = form.around(x, kernel)
    sizes = places(x.shape[1:3], form.wide(kernel), form.strides, ends)
    bytes_each = sizes[0] * sizes[1] * kernel.shape[0] * kernel.shape[1] * x.shape[3] * x.dtype.itemsize
    at_once = max(1, PATCH_BYTES // bytes_each)

    def some(x: Array) -> Array:
        shifted = _shifted(jnp.pad(x, ((0, 0), *ends, (0, 0))), kernel.shape[:2], form, sizes)
        out = _product(shifted, kernel) if form.groups == 1 else _grouped(shifted, kernel, form.groups)
        return out.reshape(-1, *sizes, kernel.shape[-1])

    if x.shape[0] <= at_once:
        return some(x)
    # patches are made again for the gradient, being many times as large as the images
    return jax.lax.map(jax.checkpoint(lambda image: some(image[None])[0]), x, batch_size=at_once)


def _product(shifted: list[Array], kernel: Array) -> Array:
    """Returns what each output sees times the kernel, ``[batch * height * width, feature]``."""
    rows = jnp.concatenate(shifted, -1).reshape(-1, len(shifted) * shifted[0].shape[-1])
    return rows @ kernel.reshape(rows.shape[-1], -1)


def _grouped(shifted: list[Array], kernel: Array, groups: int) -> Array:
    """Returns the same of groups: a sum of scaled images where each has one channel, else a product for each."""
    taps = kernel.reshape(len(shifted), -1, groups, kernel.shape[-1] // groups)
    if taps.shape[1] == 1:
        total = sum(image[..., None] * tap[0] for image, tap in zip(shifted, taps, strict=True))
        return jnp.asarray(total)
    rows = jnp.stack(shifted, -2).reshape(-1, len(shifted), groups, taps.shape[1])
    return jnp.einsum("rtgc,tcgf->rgf", rows, taps)


def _shifted(x: Array, window: tuple[int, ...], form: _Form, sizes: tuple[int, ...]) -> list[Array]:
    """Returns for each place of the window what each output sees there, of padded images."""
    down, across = form.strides
    return [
        x[:, i : i + (sizes[0] - 1) * down + 1 : down, j : j + (sizes[1] - 1) * across + 1 : across]
        for i in range(0, window[0] * form.dilation[0], form.dilation[0])
        for j in range(0, window[1] * form.dilation[1], form.dilation[1])
    ]
