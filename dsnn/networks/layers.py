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
from dsnn.networks.norms import TdBN
from dsnn.types import Array, Float, Key

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
        window: kernel height and width.
        strides: steps of the window.
        padding: "SAME" or "VALID".
        gain: kernel standard deviation times sqrt(fan in).
        bias: whether to add a current at every step.
        dtype: dtype of the product; None keeps the input's.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        features: int,
        *,
        key: Key[Array, ""],
        window: tuple[int, int] = (3, 3),
        strides: tuple[int, int] = (1, 1),
        padding: str = "SAME",
        gain: float = 1.0,
        bias: bool = True,
        dtype: str | None = None,
    ):
        if len(in_shape) != 3:
            raise ValueError(f"in_shape must be (height, width, channel), got {in_shape}; add a channel axis.")
        if padding not in ("SAME", "VALID"):
            raise ValueError(f'padding must be "SAME" or "VALID", got {padding!r}.')
        _positive(features=features, window=min(window), strides=min(strides))
        self.in_shape, self.window, self.strides, self.padding = tuple(in_shape), window, strides, padding
        height, width = (
            -(-n // s) if padding == "SAME" else -(-(n - w + 1) // s)
            for n, w, s in zip(in_shape[:2], window, strides, strict=True)
        )
        _positive(out_height=height, out_width=width)
        self.out_shape: tuple[int, int, int] = (height, width, features)
        self.dtype = dtype
        self.kernel = nnx.Param(initializers.kernel("normal", key, (*window, in_shape[2], features), gain))
        self.bias = nnx.Param(jnp.zeros(features)) if bias else None

    def __call__(
        self, x: Float[Array, "batch height width channel"]
    ) -> Float[Array, "batch out_height out_width neuron"]:
        """Returns the currents that ``x`` drives."""
        kernel = self.kernel[...]
        if self.dtype is not None:
            x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        current = convolve(x, kernel, self.strides, self.padding).astype(jnp.float32)
        return current if self.bias is None else current + jnp.broadcast_to(self.bias[...], current.shape)


class Pool(nnx.Module):
    """Pooling without neurons: "max" of spikes is their logical or and stays binary, "mean" does not.

    Args:
        in_shape: (height, width, channel) of one input.
        window: height and width of the pooled cells, which do not overlap; a remainder at the far border is left out.
        kind: "max" or "mean".
    """

    def __init__(self, in_shape: tuple[int, int, int], window: tuple[int, int] = (2, 2), kind: str = "max"):
        if kind not in ("max", "mean"):
            raise ValueError(f'kind must be "max" or "mean", got {kind!r}.')
        if in_shape[0] < window[0] or in_shape[1] < window[1]:
            raise ValueError(f"window must fit into height and width, got {window} for {in_shape}.")
        self.in_shape, self.window, self.kind = tuple(in_shape), window, kind
        self.out_shape: tuple[int, int, int] = (in_shape[0] // window[0], in_shape[1] // window[1], in_shape[2])

    def __call__(self, x: Float[Array, "batch height width channel"]) -> Float[Array, "batch rows columns channel"]:
        """Returns the pooled input."""
        height, width, _ = self.out_shape
        rows, columns = self.window
        whole = x[:, : height * rows, : width * columns]
        cells = whole.reshape(x.shape[0], height, rows, width, columns, x.shape[3])
        return cells.max((2, 4)) if self.kind == "max" else cells.mean((2, 4))


class LayerState(NamedTuple):
    """State of a layer: that of its cell, and the last spikes when the layer is recurrent (else None)."""

    cell: Any
    spikes: Float[Array, "*batch neuron"] | None


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
        norm: what normalises the feed-forward current on its way to the cell (`dsnn.networks.norms.TdBN`); None is no
            norm.
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
        norm: TdBN | None = None,
    ):
        if reads not in READS:
            raise ValueError(f"a layer gives its {' or its '.join(READS)}, got reads={reads!r}.")
        self.synapse, self.cell, self.before, self.reads = synapse, cell, nnx.List(before), reads
        self.skip, self.norm = skip, norm
        if norm is not None and norm.features != synapse.out_shape[-1]:
            raise ValueError(
                f"a norm must have the channels of its layer, {synapse.out_shape[-1]}, got features={norm.features}."
            )
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
        return self.norm is not None or callable(getattr(self.synapse, "fold", None))

    def fold(self) -> "Layer":
        """Returns the layer as a plain product, which compaction cuts: that of ``synapse.fold()``, where there is one.

        A synapse with normalisation of fixed statistics gives a `Dense` or `Conv` that does the same. So does the
        layer's norm, by the statistics that it has.
        """
        if not self.folds:
            return self
        plain = getattr(self.synapse, "fold", None)
        new = nnx.clone(self)
        new.synapse = plain() if callable(plain) else new.synapse
        if self.norm is not None:
            new.synapse, new.norm = self.norm.folded(new.synapse), None
        return new

    def init(self, batch_shape: int | tuple[int, ...]) -> LayerState:
        """Returns the state before the first step for a batch of this size, or of shape (batch,)."""
        batch_shape = (batch_shape,) if isinstance(batch_shape, int) else batch_shape
        shape = (*batch_shape, *self.out_shape)
        return LayerState(self.cell.init(shape), None if self.recurrent is None else jnp.zeros(shape))

    def drive(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the feed-forward current; it needs no state, so all time steps can be folded into the batch.

        A norm is an affine map by the statistics that it has.
        """
        current = self.product(x)
        return current if self.norm is None else self.norm(current)

    def product(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the feed-forward current before the norm."""
        for module in self.before:
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
        """Returns the next state and what the layer gives for a feed-forward current; a key is consumed."""
        if self.recurrent is not None and state.spikes is not None:
            current = current + self.feed_back(state.spikes, self.recurrent[...])
        current = checkpoint_name(current, "current")
        cell, spikes = self.cell.step(state.cell, current, key)
        out = spikes if self.reads == "spikes" else cell.membrane
        return LayerState(cell, None if self.recurrent is None else spikes), out

    def sent(self, x: Array, spikes: Array, share: Array | float = 1.0) -> Array:
        """Returns what the next layer reads: the spikes, and in a residual block the input with a share of them."""
        return x + share * spikes if self.skip else spikes

    def step(
        self, state: LayerState, x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[LayerState, Array]:
        """Returns the next state and the output for one input; a key is consumed."""
        state, spikes = self.advance(state, self.drive(x), key)
        return state, self.sent(x, spikes)
