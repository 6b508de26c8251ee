"""Networks: a stack of named layers, its readout over time, and the model zoo."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells import LI, LIF
from dsnn.networks.describe import described
from dsnn.networks.layers import Conv, Dense, Layer, LayerState, Pool
from dsnn.networks.leaves import integrates, multiplies
from dsnn.protocols import Wiring
from dsnn.types import Array, Float, Key

BLOCKS = "blocks"
"""Group of the residual blocks among the sites of a stack."""

READOUTS = ("mean", "last", "max", "sum", "vote")
MAX_LAYERS, MAX_NEURONS, MAX_WEIGHTS = 1 << 10, 1 << 24, 1 << 32
"""What a network may have: layers, neurons or channels in one of them, and weights between two (16 GiB)."""


def running_logits(
    outputs: Float[Array, "time batch class"], readout: str, running: Float[Array, " time"] | None = None
) -> Float[Array, "time batch class"]:
    """Returns the logits that a decision after each step would use, from the outputs up to that step.

    Args:
        outputs: what the last layer gave at every step (membranes of `LI`, or spikes).
        readout: "mean" (rate coding), "sum" (spike count), "max" (largest membrane), "last", or "vote" (the log of
            the class probabilities averaged over steps; Sun, Yin & Bohté 2023).
        running: how far each step ran, for "mean" and "sum"; see `dsnn.unroll`.

    Raises:
        ValueError: an unknown readout, or one that cannot leave steps out.
    """
    steps = jnp.arange(1, outputs.shape[0] + 1, dtype=outputs.dtype)[:, None, None]
    if running is not None:
        if readout not in ("mean", "sum"):
            raise ValueError(f'only the readouts "mean" and "sum" can leave steps out, got {readout!r}.')
        # half a step at least, so that a gate that is just opening has a finite slope
        steps = jnp.maximum(jnp.cumsum(running), 0.5)[:, None, None]
    match readout:
        case "mean":
            return jnp.cumsum(outputs, 0) / steps
        case "sum":
            return jnp.cumsum(outputs, 0)
        case "max":
            return jax.lax.cummax(outputs)
        case "last":
            return outputs
        case "vote":
            return jax.lax.cumlogsumexp(jax.nn.log_softmax(outputs)) - jnp.log(steps)
    raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}.")


class Stack(nnx.Module):
    """Layers applied one after another within each time step; the names given are the names everywhere.

    ``Stack(hidden0=Layer(Dense(64, 128, key=k0), LIF(beta=0.9)), readout=Layer(Dense(128, 10, key=k1), LI(beta=0.9)))``

    Args:
        readout_kind: how the outputs become logits, see `running_logits`.
        layers: name = `Layer`, first to last.

    Raises:
        ValueError: no layer, or a layer whose input shape is not its predecessor's output shape.
    """

    def __init__(self, readout_kind: str = "mean", /, **layers: Layer):
        if not layers:
            raise ValueError("a stack needs at least one layer, got none; give name=Layer(...).")
        if readout_kind not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout_kind!r}.")
        self.readout_kind = readout_kind
        self.names = tuple(layers)
        self.share: Any = None  # of each residual block's spikes that go on, by `with_gates`
        for name in (self.names[0], self.names[-1]):
            if layers[name].skip:
                raise ValueError(f"the first and the last layer cannot be residual blocks, got {name!r}.")
        given: tuple[int, ...] | None = None
        for name, layer in layers.items():
            if name in dir(Stack) or name in ("readout_kind", "names", "share") or "." in name:
                raise ValueError(
                    f"a layer must not be called as something that stacks have, or with a dot, got {name!r}; rename it."
                )
            if not (multiplies(layer) and integrates(layer)):
                raise ValueError(
                    f"a layer of a stack must have a product and neurons, got {name!r} without; put it into a Chain."
                )
            # a dense synapse flattens what it is given, so sizes and not shapes have to agree
            if given is not None and math.prod(layer.in_shape) != math.prod(given):
                raise ValueError(
                    f"layer {name!r} must take what its predecessor gives, {given}, got in_shape {layer.in_shape}."
                )
            setattr(self, name, layer)
            given = layer.out_shape

    def __repr__(self) -> str:
        return described(self.layers(), self.readout_kind)

    __str__ = __repr__

    def layers(self) -> Iterator[tuple[str, Layer]]:
        """Yields (name, layer), first to last."""
        return ((name, getattr(self, name)) for name in self.names)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the residual blocks."""
        return tuple(name for name, layer in self.layers() if layer.skip)

    def wiring(self) -> Wiring:
        """Returns its sites, wires and neurons: those of the last layer answer, and cannot be spared."""
        from dsnn.networks import layered  # which knows this class

        return layered.wiring(self)

    def carried(self, inputs: Array, spikes: dict[str, Array], *, held: bool) -> dict[str, Array]:
        """Returns what went over each wire, and what each group of neurons fired, ``[time, batch, ...]``.

        Args:
            inputs: that it was given, ``[time, batch, ...]`` or held ``[batch, ...]``; what reads these has one step.
            spikes: what each layer gave, ``[time, batch, ...]``.
            held: whether the input was held.
        """
        from dsnn.networks import layered

        return layered.carried(self, inputs, spikes, held=held)

    def shrink(self, keep: dict[str, np.ndarray]) -> "Stack":
        """Returns the network of the sites that are kept, by group; closed residual blocks go as a whole."""
        from dsnn.networks import layered

        return layered.shrunk(self, keep)

    def with_gates(self, gates: dict[str, Array]) -> "Stack":
        """Returns this network with only a share in [0, 1] of each residual block's spikes going on."""
        new = nnx.clone(self)
        new.share = nnx.data(gates[BLOCKS])
        return new

    def sent(self, name: str, x: Array, spikes: Array) -> Array:
        """Returns what the layer after ``name`` reads, from that layer's input and spikes."""
        layer = getattr(self, name)
        if self.share is None or not layer.skip:
            return layer.sent(x, spikes)
        return layer.sent(x, spikes, self.share[self.blocks.index(name)])

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return getattr(self, self.names[0]).in_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return getattr(self, self.names[-1]).out_shape

    def init(self, batch_shape: int | tuple[int, ...]) -> dict[str, LayerState]:
        """Returns the states before the first step for a batch of this size, or of shape (batch,)."""
        return {name: layer.init(batch_shape) for name, layer in self.layers()}

    def drive(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the first layer's feed-forward current."""
        return getattr(self, self.names[0]).drive(x)

    def advance(
        self, state: dict[str, LayerState], current: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[dict[str, LayerState], dict[str, Array]]:
        """Returns the next states and every layer's spikes for the first layer's current; a key is consumed."""
        spikes: dict[str, Array] = {}
        new: dict[str, LayerState] = {}
        signal = current
        for index, (name, layer) in enumerate(self.layers()):
            current = signal if index == 0 else layer.drive(signal)
            new[name], spikes[name] = layer.advance(state[name], current, layer_key(key, index))
            signal = self.sent(name, signal, spikes[name])
        return new, spikes

    def step(
        self, state: dict[str, LayerState], x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[dict[str, LayerState], Array]:
        """Returns the next states and the last layer's output for one input; a key is consumed."""
        state, spikes = self.advance(state, self.drive(x), key)
        return state, spikes[self.names[-1]]

    def logits(
        self, outputs: Float[Array, "time batch class"], running: Float[Array, " time"] | None = None
    ) -> Float[Array, "time batch class"]:
        """Returns the running logits under this network's readout; see `running_logits`."""
        return running_logits(outputs, self.readout_kind, running)


def layer_key(key: Key[Array, ""] | None, index: int) -> Key[Array, ""] | None:
    """Returns layer ``index``'s key of one time step, the same in every schedule."""
    return None if key is None else jax.random.fold_in(key, index)


def check_widths(widths: Sequence[int], blocks: int = 0) -> None:
    """Checks, before anything is made of them, that layers are such that a machine could hold.

    Args:
        widths: values that each layer gives, from the input on where it is known.
        blocks: residual blocks, as wide as the last layer.

    Raises:
        ValueError: too many layers, neurons or weights.
    """
    if (depth := len(widths) + blocks) > MAX_LAYERS:
        raise ValueError(f"a network may have {MAX_LAYERS} layers, got {depth}; take some out of it.")
    if (widest := max(widths, default=0)) > MAX_NEURONS:
        raise ValueError(f"a layer may have {MAX_NEURONS} neurons, inputs or channels, got {widest}; make it narrower.")
    most, pair = max(((a * b, (a, b)) for a, b in itertools.pairwise(widths)), default=(0, (0, 0)))
    if most > MAX_WEIGHTS:
        raise ValueError(
            f"two layers may have {MAX_WEIGHTS} weights between them, got {pair[0]} and {pair[1]} neurons; make them "
            "narrower."
        )


def mlp(
    in_shape: tuple[int, ...],
    hidden: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Any = None,
    gain: float = 1.0,
    recurrent: bool | tuple[bool, ...] = False,
    blocks: int = 0,
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
    readout_cell: Any = None,
    reads: str = "spikes",
    start: str = "normal",
    recurrent_start: str = "normal",
    bias: bool = True,
) -> Stack:
    """Returns a dense (or recurrent) stack hidden0, hidden1, ..., readout with a leaky integrator at the end.

    Args:
        in_shape: shape of one input.
        hidden: neurons of each hidden layer.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell`` for the hidden layers; None is ``LIF(beta=0.9)``.
        gain: kernel standard deviation times sqrt(fan in).
        recurrent: wires every hidden layer to itself, or says so of each.
        blocks: residual blocks block0, block1, ... after the hidden layers, as wide as the last of these.
        readout: see `running_logits`.
        readout_beta: decay of the readout membrane per step; 1 is the pure integrator.
        dtype: of the products, see `dsnn.networks.layers.Dense`; membranes are float32 in any case.
        readout_cell: a function ``neurons -> cell`` for the readout; None is ``LI(readout_beta)``.
        reads: what the readout gives, "spikes" or "membrane" (`LI` gives its membrane in any case).
        start: how kernels begin, a name of `dsnn.networks.initializers.KERNELS`.
        recurrent_start: how recurrent kernels begin.
        bias: whether synapses have a bias.
    """
    cell = cell or (lambda neurons: LIF(beta=0.9))
    layers: dict[str, Layer] = {}
    shape: tuple[int, ...] = in_shape
    wired = (recurrent,) * len(hidden) if isinstance(recurrent, bool) else recurrent
    if len(wired) != len(hidden):
        raise ValueError(f"recurrent must say so of each of {len(hidden)} hidden layers, got {len(wired)} values.")
    for index, (neurons, loops) in enumerate(zip(hidden, wired, strict=True)):
        feed, back = jax.random.split(jax.random.fold_in(key, index))
        beside = neurons if loops else 0
        synapse = Dense(shape, neurons, key=feed, gain=gain, bias=bias, start=start, beside=beside, dtype=dtype)
        layers[f"hidden{index}"] = Layer(
            synapse, cell(neurons), recurrent_key=back if loops else None, recurrent_start=recurrent_start
        )
        shape = synapse.out_shape
    if blocks and not hidden:
        raise ValueError("residual blocks need a hidden layer before them, got hidden=(); give its width.")
    for index in range(blocks):
        block_key = jax.random.fold_in(key, len(hidden) + 1 + index)
        synapse = Dense(shape, shape[0], key=block_key, gain=gain, bias=bias, start=start, dtype=dtype)
        layers[f"block{index}"] = Layer(synapse, cell(shape[0]), skip=True)
    last_key = jax.random.fold_in(key, len(hidden))
    synapse = Dense(shape, classes, key=last_key, gain=1.0, bias=bias, start=start, dtype=dtype)
    last = LI(beta=readout_beta) if readout_cell is None else readout_cell(classes)
    layers["readout"] = Layer(synapse, last, reads="spikes" if isinstance(last, LI) else reads)
    return Stack(readout, **layers)


def convnet(
    in_shape: tuple[int, int, int],
    channels: tuple[int, ...],
    hidden: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Any = None,
    gain: float = 1.0,
    window: tuple[int, int] = (5, 5),
    padding: str = "VALID",
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Stack:
    """Returns a LeNet-like stack conv0, conv1, ..., hidden0, ..., readout with 2 x 2 max pooling between.

    Args:
        in_shape: (height, width, channel) of one input.
        channels: output channels of each convolution.
        hidden: neurons of each dense layer after them.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        gain: kernel standard deviation times sqrt(fan in).
        window: kernel height and width.
        padding: "SAME" or "VALID".
        readout: see `running_logits`.
        readout_beta: decay of the readout membrane per step.
        dtype: of the products; membranes are float32 in any case.
    """
    cell = cell or (lambda neurons: LIF(beta=0.9))
    layers: dict[str, Layer] = {}
    shape: tuple[int, ...] = in_shape
    pool: tuple[Pool, ...] = ()
    inner = in_shape
    for index, features in enumerate(channels):
        synapse_key = jax.random.fold_in(key, index)
        conv = Conv(inner, features, key=synapse_key, window=window, padding=padding, gain=gain, dtype=dtype)
        layers[f"conv{index}"] = Layer(conv, cell(features), before=pool)
        pool, shape = (Pool(conv.out_shape),), conv.out_shape
        inner = pool[0].out_shape
    for index, neurons in enumerate((*hidden, classes)):
        last = index == len(hidden)
        synapse_key = jax.random.fold_in(key, len(channels) + index)
        size = pool[0].out_shape if pool else shape
        dense = Dense(size, neurons, key=synapse_key, gain=1.0 if last else gain, dtype=dtype)
        name, neuron = ("readout", LI(beta=readout_beta)) if last else (f"hidden{index}", cell(neurons))
        layers[name] = Layer(dense, neuron, before=pool)
        pool, shape = (), dense.out_shape
    return Stack(readout, **layers)
