"""Layers: a stateless synapse, optional recurrent wiring, and a cell.

A synapse has no memory of its own, so it can be applied to all time steps in one product while only the neuron is
scanned; `dsnn.unroll` relies on this. Synapses take ``[batch, ...]`` with time folded into the batch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from dsnn.native import products
from dsnn.native.derivatives import both_ways
from dsnn.networks import initializers
from dsnn.networks.convolve import convolve
from dsnn.networks.pool import AdaptivePool, Pool
from dsnn.networks.windows import padded, pair, places
from dsnn.protocols import Norm
from dsnn.types import Array, Float, Int, Key

__all__ = ["AdaptivePool", "Conv", "Dense", "Layer", "LayerState", "Pool", "multiply"]

PRODUCTS = ("auto", "dense", "events")
READS = ("spikes", "membrane")


def multiply(
    x: Float[Array, "row input"],
    kernel: Float[Array, "input neuron"],
    product: str = "auto",
    dtype: str | None = None,
) -> Float[Array, "row neuron"]:
    """Returns x W, in float32 or wider, as a `Dense` synapse with these options computes it."""
    if product == "events" and kernel.dtype == jnp.float32:
        return products.drive(x.astype(jnp.float32), kernel)
    if product == "auto" and dtype in (None, "float32") and products.worthwhile(kernel):
        return products.product(x.astype(jnp.float32), kernel)
    if dtype in (None, "float32"):
        return jnp.dot(x, kernel, preferred_element_type=jnp.promote_types(jnp.result_type(x, kernel), jnp.float32))
    return _narrow(str(dtype))(x, kernel)


@functools.cache
def _narrow(dtype: str) -> Callable[[Array, Array], Array]:
    """Returns x W of operands rounded to ``dtype``, summed in float32; so are the products of its gradient."""

    def run(x: Array, kernel: Array) -> Array:
        return jnp.dot(x.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return run(x, kernel), (x.astype(dtype), kernel)

    def backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
        x, kernel = kept
        # left to itself, JAX would multiply the gradient in float32, which takes twice the time on accelerators
        grad = grad.astype(dtype)
        to_x = jnp.dot(grad, kernel.astype(dtype).T, preferred_element_type=jnp.float32)
        return to_x, jnp.dot(x.T, grad, preferred_element_type=jnp.float32)

    return both_ways(forward, backward, run)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size}; give the number of units.")


class Dense(nnx.Module):
    """Fully connected synapse, current = x W + b; inputs of any rank are flattened per example.

    Args:
        in_shape: shape of one input without the batch axis, or its size.
        features: number of neurons it drives.
        key: initialises the kernel; consumed.
        gain: kernel standard deviation times sqrt(fan in).
        bias: whether to add a current at every step.
        start: how the kernel begins, a name of `dsnn.networks.initializers.KERNELS`.
        beside: inputs that reach the same neurons through another kernel, see `dsnn.networks.initializers.kernel`.
        dtype: dtype of the product ("bfloat16" halves its traffic); None keeps the input's.
        product: "dense", "events" (work only where the input is not zero, see `dsnn.native.products`) or "auto": events
            where this machine has them and, at run time, few enough inputs are nonzero for them to be faster.

    Raises:
        ValueError: a size that is not positive, an unknown product, or events in another dtype than float32.
    """

    def __init__(
        self,
        in_shape: int | tuple[int, ...],
        features: int,
        *,
        key: Key[Array, ""],
        gain: float = 1.0,
        bias: bool = True,
        start: str = "normal",
        beside: int = 0,
        dtype: str | None = None,
        product: str = "auto",
    ):
        if product not in PRODUCTS:
            raise ValueError(f"product must be one of {', '.join(PRODUCTS)}, got {product!r}.")
        if product == "events" and dtype not in (None, "float32"):
            raise ValueError(f'product="events" computes in float32, got dtype={dtype!r}; leave dtype out.')
        self.product = product
        self.in_shape = (in_shape,) if isinstance(in_shape, int) else tuple(in_shape)
        _positive(in_shape=math.prod(self.in_shape), features=features)
        self.out_shape = (features,)
        self.dtype = dtype
        self.kernel = nnx.Param(initializers.kernel(start, key, (math.prod(self.in_shape), features), gain, beside))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None

    def __call__(self, x: Float[Array, "batch *features"]) -> Float[Array, "batch neuron"]:
        """Returns the currents that ``x`` drives."""
        current = multiply(x.reshape(x.shape[0], math.prod(x.shape[1:])), self.kernel[...], self.product, self.dtype)
        return current if self.bias is None else current + jnp.broadcast_to(self.bias[...], current.shape)


class Conv(nnx.Module):
    """Two-dimensional convolution, channels last (height, width, channel).

    Args:
        in_shape: (height, width, channel) of one input.
        features: number of output channels.
        key: initialises the kernel; consumed.
        window: kernel height and width; one number is both, here and below.
        strides: steps of the window.
        padding: "SAME" (as many places as strides leave; at an odd rest one zero more behind), "VALID" (none), or zeros
            around: one number, one for each axis, or (before, behind) for each axis. PyTorch's ``padding=1`` is 1: with
            strides it is not "SAME".
        gain: kernel standard deviation times sqrt(fan in).
        bias: whether to add a current at every step.
        dtype: dtype of the product; None keeps the input's.
        groups: channels and features are split into so many, in order, and features see the channels of their own
            group; as many as channels is a depthwise convolution, with features / channels of them for each.
        dilation: places from one row or column of the window to the next.

    Raises:
        ValueError: a size that is not positive, padding of another form, or groups that do not divide.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        features: int,
        *,
        key: Key[Array, ""],
        window: int | tuple[int, ...] = (3, 3),
        strides: int | tuple[int, ...] = (1, 1),
        padding: Any = "SAME",
        gain: float = 1.0,
        bias: bool = True,
        dtype: str | None = None,
        groups: int = 1,
        dilation: int | tuple[int, ...] = (1, 1),
    ):
        if len(in_shape) != 3:
            raise ValueError(f"in_shape must be (height, width, channel), got {in_shape}; add a channel axis.")
        window, strides, dilation = pair("window", window), pair("strides", strides), pair("dilation", dilation)
        _positive(features=features, groups=groups)
        if not isinstance(groups, int) or in_shape[2] % groups or features % groups:
            raise ValueError(
                f"groups must divide channels and features, {in_shape[2]} and {features}, got groups={groups}."
            )
        self.in_shape, self.window, self.strides, self.padding = tuple(in_shape), window, strides, padded(padding)
        self.groups, self.dilation = groups, dilation
        wide = tuple((w - 1) * d + 1 for w, d in zip(window, dilation, strict=True))
        height, width = places(in_shape[:2], wide, strides, self.padding)
        _positive(out_height=height, out_width=width)
        self.out_shape: tuple[int, int, int] = (height, width, features)
        self.dtype = dtype
        shape = (*window, in_shape[2] // groups, features)
        self.kernel = nnx.Param(initializers.kernel("normal", key, shape, gain))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch out_height out_width neuron"]:
        """Returns the currents that ``x`` drives."""
        kernel = self.kernel[...]
        if self.dtype is not None:
            x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        current = convolve(x, kernel, self.strides, self.padding, groups=self.groups, dilation=self.dilation)
        current = current.astype(jnp.float32)
        return current if self.bias is None else current + jnp.broadcast_to(self.bias[...], current.shape)


class LayerState(NamedTuple):
    """State of a layer.

    Attributes:
        cell: of its cell.
        spikes: the last ones when the layer is recurrent, else None.
        step: how many steps have run, where the layer's norm treats each by itself, else None.
    """

    cell: Any
    spikes: Float[Array, "*batch neuron"] | None
    step: Int[Array, ""] | None = None


class Layer(nnx.Module):
    """A synapse and the cell it drives, with an optional recurrent kernel: I_t = f(x_t) + s_{t-1} R.

    Programs that give the recurrent product a bias of its own add two biases with one gradient: that is one bias which
    learns at twice the rate.

    With ``skip`` the layer is a residual block: what it sends is its input and its spikes, x + s (spike-element-wise
    addition, Fang et al. 2021, eq. 8), so that without the block its input goes on unchanged.

    Args:
        synapse: `Dense`, `Conv` or any module with ``in_shape``, ``out_shape`` and a call on ``[batch, ...]``.
        cell: any cell of `dsnn.cells`.
        recurrent_key: makes the layer recurrent and initialises the kernel; consumed. None is feed-forward.
        recurrent_gain: recurrent kernel standard deviation times sqrt(number of neurons).
        recurrent_start: how the recurrent kernel begins, a name of `dsnn.networks.initializers.KERNELS`.
        reads: what the layer gives, "spikes" or the "membrane" of its cell (an adaptive readout whose membrane is read,
            Yin et al. 2021); what a recurrent kernel reads are spikes in any case.
        before: stateless modules (pooling) applied to the input first.
        skip: makes the layer a residual block; input and output have the same shape then.
        norm: what normalises the feed-forward current on its way to the cell, a `dsnn.protocols.Norm` such as
            `dsnn.networks.TdBN`; None is no norm.
    """

    def __init__(
        self,
        synapse: Any,
        cell: Any,
        *,
        recurrent_key: Key[Array, ""] | None = None,
        recurrent_gain: float = 1.0,
        recurrent_start: str = "normal",
        reads: str = "spikes",
        before: tuple[Any, ...] = (),
        skip: bool = False,
        norm: Norm | None = None,
    ):
        if reads not in READS:
            raise ValueError(f"a layer gives its {' or its '.join(READS)}, got reads={reads!r}.")
        self.synapse, self.cell, self.before, self.reads = synapse, cell, nnx.List(before), reads
        self.skip, self.norm = skip, norm
        if norm is not None:
            _check_norm(norm, synapse.out_shape[-1])
        if skip and (before or tuple(synapse.in_shape) != tuple(synapse.out_shape)):
            raise ValueError(
                f"a residual block must give the shape it takes, {tuple(synapse.in_shape)}, and have no pooling "
                f"before, got {tuple(synapse.out_shape)} and {len(before)} modules."
            )
        if recurrent_key is not None and len(synapse.out_shape) != 1:
            raise ValueError(f"a recurrent layer needs a flat output, got {synapse.out_shape}; use a Dense synapse.")
        sources = math.prod(synapse.in_shape)
        self.recurrent = (
            None
            if recurrent_key is None
            else nnx.Param(
                initializers.kernel(recurrent_start, recurrent_key, synapse.out_shape * 2, recurrent_gain, sources)
            )
        )

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        first = self.before[0] if len(self.before) else self.synapse
        return first.in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return self.synapse.out_shape

    @property
    def folds(self) -> bool:
        """Whether `fold` gives another layer."""
        return any(callable(way) for way in (getattr(self.norm, "folded", None), getattr(self.synapse, "fold", None)))

    @property
    def at_once(self) -> bool:
        """Whether its cell runs all time steps at once, and no single one."""
        return bool(getattr(self.cell, "at_once", False))

    @property
    def norm_steps(self) -> int | None:
        """Number of time steps that its norm has parameters for; None where all steps are alike."""
        return getattr(self.norm, "steps", None)

    def fold(self) -> "Layer":
        """Returns the layer as a plain product, which compaction cuts: that of ``synapse.fold()``, where there is one.

        A synapse with normalisation of fixed statistics gives a `Dense` or `Conv` that does the same. So does the
        layer's norm, by the statistics that it has; what of it a kernel cannot hold is left as the new layer's norm.
        """
        if not self.folds:
            return self
        plain, into = getattr(self.synapse, "fold", None), getattr(self.norm, "folded", None)
        new = nnx.clone(self)
        new.synapse = plain() if callable(plain) else new.synapse
        if callable(into):
            new.synapse, left = into(new.synapse)
            new.norm = left
        return new

    def init(self, batch_shape: int | tuple[int, ...]) -> LayerState:
        """Returns the state before the first step for a batch of this size, or of shape (batch,)."""
        batch_shape = (batch_shape,) if isinstance(batch_shape, int) else batch_shape
        shape = (*batch_shape, *self.out_shape)
        step = None if self.norm_steps is None else jnp.zeros((), jnp.int32)
        return LayerState(self.cell.init(shape), None if self.recurrent is None else jnp.zeros(shape), step)

    def drive(self, x: Float[Array, "batch ..."], done: int = 0) -> Float[Array, "batch ..."]:
        """Returns the feed-forward current; it needs no state, so all time steps can be folded into the batch.

        A norm goes by the statistics that it has. One that treats each step by itself comes later, in `advance`.

        Args:
            x: input.
            done: number of modules ``before`` that the input has been through.
        """
        current = self.product(x, done)
        return current if self.norm is None or self.norm_steps is not None else self.norm(current)

    def product(self, x: Float[Array, "batch ..."], done: int = 0) -> Float[Array, "batch ..."]:
        """Returns the feed-forward current before the norm; see `drive`."""
        for module in list(self.before)[done:]:
            x = module(x)
        return self.synapse(x)

    def feed_back(
        self, spikes: Float[Array, "row neuron"], kernel: Float[Array, "neuron neuron"]
    ) -> Float[Array, "row neuron"]:
        """Returns the current that a layer's own last spikes drive over ``kernel``, as its synapse multiplies."""
        options = (self.synapse.product, self.synapse.dtype) if isinstance(self.synapse, Dense) else ()
        return multiply(spikes, kernel, *options)

    def advance(
        self, state: LayerState, current: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[LayerState, Array]:
        """Returns the next state and what the layer gives for a current of `drive`; a key is consumed."""
        if self.norm is not None and self.norm_steps is not None:
            current = self.norm(current, state.step)
        return self.integrate(state, current, key)

    def integrate(
        self, state: LayerState, current: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[LayerState, Array]:
        """Returns the next state and what the layer gives for a normalised current; a key is consumed."""
        if self.recurrent is not None and state.spikes is not None:
            current = current + self.feed_back(state.spikes, self.recurrent[...])
        current = checkpoint_name(current, "current")
        cell, spikes = self.cell.step(state.cell, current, key)
        out = spikes if self.reads == "spikes" else cell.membrane
        step = None if state.step is None else state.step + 1
        return LayerState(cell, None if self.recurrent is None else spikes, step), out

    def sent(self, x: Array, spikes: Array, share: Array | float = 1.0) -> Array:
        """Returns what the next layer reads: the spikes, and in a residual block the input with a share of them."""
        return x + share * spikes if self.skip else spikes

    def step(
        self, state: LayerState, x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[LayerState, Array]:
        """Returns the next state and the output for one input; a key is consumed."""
        state, spikes = self.advance(state, self.drive(x), key)
        return state, self.sent(x, spikes)


def _check_norm(norm: Any, channels: int) -> None:
    """Raises a ValueError for what is no norm of so many channels."""
    if not isinstance(norm, nnx.Module) or not isinstance(norm, Norm):
        raise ValueError(
            f"a norm must be a flax.nnx.Module with scale and a call on currents, got a {type(norm).__name__}; see "
            "dsnn.protocols.Norm."
        )
    if (features := norm.scale.shape[-1]) != channels:
        raise ValueError(f"a norm must have the channels of its layer, {channels}, got features={features}.")
    if callable(getattr(norm, "trained", None)) and not hasattr(norm, "momentum"):
        raise ValueError(
            f"a norm with statistics must have a momentum, the share of old ones, got a {type(norm).__name__} without; "
            "see dsnn.protocols.Norm."
        )
