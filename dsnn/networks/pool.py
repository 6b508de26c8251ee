"""Pooling, without neurons: maxima of spikes are their logical or and stay binary, means carry values.

None of it has weights; each gives as many channels as it takes. What an average gives are values, so that every product
that reads it multiplies.
"""

import jax.numpy as jnp
from flax import nnx

from dsnn.networks.windows import around, padded, pair, places
from dsnn.types import Array, Float

__all__ = ["AdaptivePool", "Pool"]

KINDS = ("max", "mean")


class Pool(nnx.Module):
    """Pooling: "max" of spikes is their logical or and stays binary, "mean" does not.

    Args:
        in_shape: (height, width, channel) of one input.
        window: height and width of what is pooled; a remainder at the far border is left out.
        kind: "max" or "mean".
        strides: steps of the window; None are those of its size, so that cells do not overlap.
        padding: as of `dsnn.networks.Conv`, such as 1 in the stem of an ImageNet ResNet (window 3, strides 2). Maxima
            do not see it; means count it as zeros, as PyTorch's do.

    Raises:
        ValueError: an unknown kind, a window that does not fit, strides that are not positive, or padding of more than
            half a window.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        window: int | tuple[int, ...] = (2, 2),
        kind: str = "max",
        strides: int | tuple[int, ...] | None = None,
        padding: object = "VALID",
    ):
        _check_kind(kind)
        _check_image(in_shape)
        window = pair("window", window)
        self.in_shape, self.window, self.kind = tuple(in_shape), window, kind
        self.strides = window if strides is None else pair("strides", strides)
        self.padding = padded(padding)
        explicit = () if isinstance(self.padding, str) else self.padding
        if any(2 * max(pair) > w for pair, w in zip(explicit, window, strict=False)):
            raise ValueError(f"padding must be at most half the window, {tuple(window)}, got {padding}.")
        height, width = places(in_shape[:2], self.window, self.strides, self.padding)
        if min(height, width) < 1:
            raise ValueError(f"window must fit into height and width, got {window} for {in_shape}.")
        self.out_shape: tuple[int, int, int] = (height, width, in_shape[2])

    def __call__(self, x: Float[Array, "batch height width channel"]) -> Float[Array, "batch rows columns channel"]:
        """Returns the pooled input."""
        height, width, _ = self.out_shape
        rows, columns = self.window
        if self.strides == self.window and self.padding == "VALID":
            whole = x[:, : height * rows, : width * columns]
            cells = whole.reshape(x.shape[0], height, rows, width, columns, x.shape[3])
            return cells.max((2, 4)) if self.kind == "max" else cells.mean((2, 4))
        stacked = jnp.stack(self._shifted(x))
        return stacked.max(0) if self.kind == "max" else stacked.mean(0)

    def _shifted(self, x: Array) -> list[Array]:
        """Returns for each place of the window what stands there, of padded images."""
        ends = around(self.in_shape[:2], self.window, self.strides, self.padding)
        nothing = -jnp.inf if self.kind == "max" else 0.0
        x = jnp.pad(x, ((0, 0), *ends, (0, 0)), constant_values=nothing)
        (height, width, _), (down, across) = self.out_shape, self.strides
        return [
            x[:, i : i + (height - 1) * down + 1 : down, j : j + (width - 1) * across + 1 : across]
            for i in range(self.window[0])
            for j in range(self.window[1])
        ]


class AdaptivePool(nnx.Module):
    """Pooling to a size: cell i of n reads places floor(i N / n) to ceil((i + 1) N / n) - 1 of N, as in PyTorch.

    Args:
        in_shape: (height, width, channel) of one input.
        size: height and width of what it gives; (1, 1) is global pooling.
        kind: "mean" or "max".

    Raises:
        ValueError: an unknown kind, or a size that is not between one and that of the input.
    """

    def __init__(self, in_shape: tuple[int, ...], size: int | tuple[int, ...] = (1, 1), kind: str = "mean"):
        _check_kind(kind)
        _check_image(in_shape)
        size = pair("size", size)
        if any(not 1 <= one <= n for one, n in zip(size, in_shape, strict=False)):
            raise ValueError(f"size must be from 1 to height and width, {tuple(in_shape[:2])}, got {tuple(size)}.")
        self.in_shape, self.size, self.kind = tuple(in_shape), tuple(size), kind
        self.out_shape: tuple[int, int, int] = (size[0], size[1], in_shape[2])

    def __call__(self, x: Float[Array, "batch height width channel"]) -> Float[Array, "batch rows columns channel"]:
        """Returns the pooled input."""
        for axis in (1, 2):
            cells = [self._cell(x, axis, i) for i in range(self.size[axis - 1])]
            x = jnp.stack(cells, axis)
        return x

    def _cell(self, x: Array, axis: int, number: int) -> Array:
        n, size = self.in_shape[axis - 1], self.size[axis - 1]
        start, end = number * n // size, -(-(number + 1) * n // size)
        cell = x[:, start:end] if axis == 1 else x[:, :, start:end]
        return cell.max(axis) if self.kind == "max" else cell.mean(axis)


def _check_image(in_shape: tuple[int, ...]) -> None:
    if len(in_shape) != 3:
        raise ValueError(f"in_shape must be (height, width, channel), got {tuple(in_shape)}; add a channel axis.")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f'kind must be "max" or "mean", got {kind!r}.')
