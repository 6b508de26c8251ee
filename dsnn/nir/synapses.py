"""NIR's nodes without memory: products, convolutions, pooling, reshaping, scaling. Images are channels-first here."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.nir.fields import NIRError, Source, whole
from dsnn.types import Array

Shape = tuple[int, ...]
SPATIAL = {1: ("NCH", "OIH", "NCH"), 2: ("NCHW", "OIHW", "NCHW")}


class Product(nnx.Module):
    """Linear, y = x W^T, or Affine, y = x W^T + b.

    Args:
        source: the node.
        in_shape: shape of one input.
    """

    def __init__(self, source: Source, in_shape: Shape):
        self.source = source
        out, size = source["weight"].shape
        if in_shape != (size,):
            raise NIRError(f"node {source.name!r} must get {size} values, got shape {in_shape}; flatten it before.")
        self.out_shape = (out,)
        self.weight = nnx.Param(jnp.asarray(source["weight"], jnp.float32))
        affine = source.kind == "Affine"
        if affine and source["bias"].shape != (out,):
            raise NIRError(f"bias of node {source.name!r} must have shape ({out},), got {source['bias'].shape}.")
        self.bias = nnx.Param(jnp.asarray(source["bias"], jnp.float32)) if affine else None

    def __call__(self, x: Array) -> Array:
        """Returns the currents that ``x`` ``[batch, features]`` drives."""
        y = jnp.dot(x, self.weight[...].T)
        return y if self.bias is None else y + self.bias[...]

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return _weights(self)


class Convolution(nnx.Module):
    """Conv1d or Conv2d, as PyTorch defines them: padding on both sides, groups of channels, dilation of the kernel.

    Args:
        source: the node.
        in_shape: (channel, length) or (channel, height, width).
    """

    def __init__(self, source: Source, in_shape: Shape):
        self.source, self.axes = source, 1 if source.kind == "Conv1d" else 2
        weight = source["weight"]
        self.strides = _per_axis(source, "stride", self.axes, 1)
        self.dilation = _per_axis(source, "dilation", self.axes, 1)
        self.groups = _per_axis(source, "groups", 1, 1)[0]
        if len(in_shape) != 1 + self.axes or in_shape[0] != weight.shape[1] * self.groups:
            raise NIRError(
                f"node {source.name!r} must get {weight.shape[1] * self.groups} channels of {self.axes} axes, got "
                f"shape {in_shape}."
            )
        if weight.shape[0] % self.groups or source["bias"].size not in (weight.shape[0], 1):
            raise NIRError(f"node {source.name!r} must have a bias for each of its {weight.shape[0]} channels.")
        self.padding = self._padding(weight.shape[2:])
        self.out_shape = (weight.shape[0], *self._sizes(in_shape[1:], weight.shape[2:]))
        self.weight = nnx.Param(jnp.asarray(weight, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(source["bias"], jnp.float32))

    def __call__(self, x: Array) -> Array:
        """Returns the currents that ``x`` ``[batch, channel, ...]`` drives."""
        y = jax.lax.conv_general_dilated(
            x,
            self.weight[...],
            self.strides,
            self.padding,
            rhs_dilation=self.dilation,
            dimension_numbers=SPATIAL[self.axes],
            feature_group_count=self.groups,
        )
        return y + self.bias[...].reshape(-1, *(1,) * self.axes)

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return _weights(self)

    def _padding(self, window: Shape) -> tuple[tuple[int, int], ...]:
        padding = self.source.fields["padding"]
        if isinstance(padding, str):
            if padding == "same" and any(s != 1 for s in self.strides):
                raise NIRError(f"padding 'same' of node {self.source.name!r} needs stride 1, got {self.strides}.")
            spare = [d * (w - 1) if padding == "same" else 0 for d, w in zip(self.dilation, window, strict=True)]
            return tuple((n // 2, n - n // 2) for n in spare)
        return tuple((n, n) for n in _per_axis(self.source, "padding", self.axes, 0))

    def _sizes(self, sizes: Shape, window: Shape) -> Shape:
        reach = [d * (w - 1) + 1 for d, w in zip(self.dilation, window, strict=True)]
        out = tuple(
            (n + sum(p) - r) // s + 1 for n, p, r, s in zip(sizes, self.padding, reach, self.strides, strict=True)
        )
        if min(out) < 1:
            raise NIRError(f"the kernel of node {self.source.name!r} must fit into its input, got {window} on {sizes}.")
        return out


class Pooling(nnx.Module):
    """SumPool2d or AvgPool2d; padded zeros count in the average, as in PyTorch.

    Args:
        source: the node.
        in_shape: (channel, height, width).
    """

    def __init__(self, source: Source, in_shape: Shape):
        if len(in_shape) != 3:
            raise NIRError(f"node {source.name!r} must get (channel, height, width), got shape {in_shape}.")
        self.source, self.mean = source, source.kind == "AvgPool2d"
        self.window = _per_axis(source, "kernel_size", 2, 1)
        self.strides = _per_axis(source, "stride", 2, 1)
        self.padding = tuple((n, n) for n in _per_axis(source, "padding", 2, 0))
        sizes = [
            (n + sum(p) - w) // s + 1
            for n, p, w, s in zip(in_shape[1:], self.padding, self.window, self.strides, strict=True)
        ]
        if min(sizes) < 1:
            raise NIRError(f"the window of node {source.name!r} must fit into {in_shape}, got {self.window}.")
        self.out_shape = (in_shape[0], *sizes)

    def __call__(self, x: Array) -> Array:
        """Returns the pooled ``x`` ``[batch, channel, height, width]``."""
        padding = ((0, 0), (0, 0), *self.padding)
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 1, *self.window), (1, 1, *self.strides), padding)
        return total / (self.window[0] * self.window[1]) if self.mean else total

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


class Flat(nnx.Module):
    """Flatten; its axes do not count the batch.

    Args:
        source: the node.
        in_shape: shape of one input.
    """

    def __init__(self, source: Source, in_shape: Shape):
        self.source = source
        rank = len(in_shape)
        first, last = (_per_axis(source, key, 1, -rank)[0] for key in ("start_dim", "end_dim"))
        first, last = first + rank * (first < 0), last + rank * (last < 0)
        given = source.fields.get("input_type")
        if given is not None and whole(source, "input_type", given) != in_shape:
            raise NIRError(f"node {source.name!r} must get the shape {given} that it names, got {in_shape}.")
        if not 0 <= first <= last < rank:
            raise NIRError(f"node {source.name!r} must flatten axes of {in_shape}, got {first} to {last}.")
        middle = int(np.prod(in_shape[first : last + 1]))
        self.out_shape = (*in_shape[:first], middle, *in_shape[last + 1 :])

    def __call__(self, x: Array) -> Array:
        """Returns ``x`` reshaped."""
        return x.reshape(x.shape[0], *self.out_shape)

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


class Scaling(nnx.Module):
    """Scale, y = s x.

    Args:
        source: the node.
        in_shape: shape of one input.
    """

    def __init__(self, source: Source, in_shape: Shape):
        self.source, self.out_shape = source, fitting(source, "scale", in_shape)
        self.scale = nnx.Param(jnp.asarray(source["scale"], jnp.float32))

    def __call__(self, x: Array) -> Array:
        """Returns ``x`` scaled."""
        return x * self.scale[...]

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return self.source.current(scale=self.scale[...])


SYNAPSES = {
    "Linear": Product,
    "Affine": Product,
    "Conv1d": Convolution,
    "Conv2d": Convolution,
    "SumPool2d": Pooling,
    "AvgPool2d": Pooling,
    "Flatten": Flat,
    "Scale": Scaling,
}


def fitting(source: Source, field: str, in_shape: Shape) -> Shape:
    """Returns the input shape, once the field has been found to have it or to broadcast to it."""
    shape = source[field].shape
    try:
        fits = np.broadcast_shapes(shape, in_shape) == in_shape
    except ValueError:
        fits = False
    if not fits:
        raise NIRError(f"{field} of node {source.name!r} has shape {shape}, which must fit its input of {in_shape}.")
    return in_shape


def _weights(module: Any) -> dict[str, Any]:
    changed = {"weight": module.weight[...]} | ({} if module.bias is None else {"bias": module.bias[...]})
    return module.source.current(**changed)


def _per_axis(source: Source, field: str, axes: int, least: int) -> Shape:
    value = source.fields[field]
    if isinstance(value, str):
        raise NIRError(f"{field} of node {source.name!r} must be integers of at least {least}, got {value!r}.")
    numbers = whole(source, field, np.ravel(value))
    if len(numbers) not in (1, axes):
        raise NIRError(f"{field} of node {source.name!r} must be one number or {axes}, got {list(numbers[:8])}.")
    if min(numbers) < least:
        raise NIRError(f"{field} of node {source.name!r} must be integers of at least {least}, got {list(numbers)}.")
    return numbers if len(numbers) == axes else numbers * axes
