"""Networks that are no stacks, written against `dsnn.protocols` and `dsnn.networks` alone."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells import LI, LIF
from dsnn.networks import Chain, Conv, Dense, Layer, Residual, cut
from dsnn.protocols import Axis, NeuronGroup, Output, Wire, Wiring


def keys(key, count):
    return [None if key is None else jax.random.fold_in(key, number) for number in range(count)]


def sites(group, axis, count, start=0):
    return Axis(group, axis, np.arange(start, start + count))


class Unwired(nnx.Module):
    """A fast and a slow population beside each other, under one readout."""

    def __init__(self, in_shape, classes, *, key, width=8):
        a, b, c = jax.random.split(key, 3)
        self.in_shape, self.out_shape = tuple(in_shape), (classes,)
        self.fast = Layer(Dense(in_shape, width, key=a), LIF(0.5))
        self.slow = Layer(Dense(in_shape, width, key=b), LIF(0.95))
        self.readout = Layer(Dense(2 * width, classes, key=c), LI(0.9))

    def init(self, batch):
        return {name: getattr(self, name).init(batch) for name in ("fast", "slow", "readout")}

    def step(self, state, x, key=None):
        fast, slow, last = keys(key, 3)
        x = x.reshape(len(x), -1)
        state = dict(state)
        state["fast"], quick = self.fast.step(state["fast"], x, fast)
        state["slow"], steady = self.slow.step(state["slow"], x, slow)
        both = jnp.concatenate([quick, steady], -1)
        state["readout"], out = self.readout.step(state["readout"], both, last)
        sent = {"into fast": x, "into slow": x, "out": both, "fast": quick, "slow": steady}
        return state, Output(out, sent)


class Masked(Unwired):
    """The same, which says what of it could be spared, and cannot be made smaller."""

    def wiring(self):
        inputs, fast = self.fast.synapse.kernel.shape
        slow, classes = self.slow.synapse.kernel.shape[1], self.readout.synapse.kernel.shape[1]
        index = np.concatenate([np.arange(fast), np.full(slow, -1)])
        other = np.concatenate([np.full(fast, -1), np.arange(slow)])
        read = sites("input", -2, inputs)
        return Wiring(
            {"input": inputs, "fast": fast, "slow": slow},
            (
                Wire("into fast", "fast.synapse.kernel", (read,), (sites("fast", -1, fast),), once=True),
                Wire("into slow", "slow.synapse.kernel", (read,), (sites("slow", -1, slow),), once=True),
                Wire("out", "readout.synapse.kernel", (Axis("fast", -2, index), Axis("slow", -2, other))),
            ),
            (
                NeuronGroup("fast", sites("fast", 0, fast), fast, self.fast.cell, {"fast.synapse.bias": 0}),
                NeuronGroup("slow", sites("slow", 0, slow), slow, self.slow.cell, {"slow.synapse.bias": 0}),
                NeuronGroup("readout", None, classes, self.readout.cell, {"readout.synapse.bias": 0}),
            ),
        )


class Branchy(Masked):
    """The same, which can be made smaller."""

    def shrink(self, keep):
        return cut(self, keep)


def widening(in_shape, classes, *, key, channels=3):
    """Two convolutions beside a shortcut that doubles the channels, between a stem and a readout."""
    a, b, c, d, e = jax.random.split(key, 5)
    stem, wide = (*in_shape[:2], channels), (*in_shape[:2], 2 * channels)
    body = Chain(
        first=Layer(Conv(stem, 2 * channels, key=b), LIF(0.9)), second=Layer(Conv(wide, 2 * channels, key=c), LIF(0.9))
    )
    return Chain(
        stem=Layer(Conv(in_shape, channels, key=a), LIF(0.9)),
        block=Residual(body, Layer(Conv(stem, 2 * channels, key=d, window=(1, 1)), LIF(0.9))),
        readout=Layer(Dense(wide, classes, key=e), LI(0.9)),
    )


class Attention(nnx.Module):
    """Spiking self-attention over the rows of an input, without softmax, whose heads are gated: Q K^T V (Zhou 2023)."""

    def __init__(self, in_shape, classes, *, key, heads=2, width=2):
        q, k, v, o = jax.random.split(key, 4)
        tokens, features = in_shape
        self.in_shape, self.out_shape = tuple(in_shape), (classes,)
        self.width = width
        size = heads * width
        self.query, self.key, self.value = (
            nnx.Param(3 * jax.random.normal(one, (features, size)) / features**0.5) for one in (q, k, v)
        )
        self.out = Layer(Dense(tokens * size, classes, key=o), LI(0.9))
        self.cell = LIF(0.9)

    def init(self, batch):
        shape = (batch, self.in_shape[0], self.query.shape[1])
        return {name: self.cell.init(shape) for name in ("query", "key", "value")} | {"out": self.out.init(batch)}

    def step(self, state, x, key=None):
        state, fired = dict(state), {}
        for number, name in enumerate(("query", "key", "value")):
            own = None if key is None else jax.random.fold_in(key, number)
            state[name], fired[name] = self.cell.step(state[name], x @ getattr(self, name)[...], own)
        q, k, v = (fired[name].reshape(*fired[name].shape[:2], -1, self.width) for name in ("query", "key", "value"))
        scores = jnp.einsum("bihd,bjhd->bhij", q, k)
        mixed = jnp.einsum("bhij,bjhd->bihd", scores, v)
        mixed = mixed.reshape(len(x), -1)
        state["out"], out = self.out.step(state["out"], mixed, None)
        sent = dict.fromkeys(("into query", "into key", "into value"), x)
        sent |= {f"{name} spikes": fired[name] for name in fired}
        # a key meets every query of its head, and a score every value
        for head in range(q.shape[2]):
            sent |= {f"scores {head}": k[:, :, head], f"values {head}": scores[:, head].swapaxes(1, 2)}
        return state, Output(out, sent | {"out": mixed})

    def wiring(self):
        tokens = self.in_shape[0]
        size, classes = self.out.synapse.kernel.shape
        heads = size // tokens // self.width
        of_channel = np.repeat(np.arange(heads), self.width)
        wires, neurons = [], []
        for name in ("query", "key", "value"):
            axis = Axis("heads", -1, of_channel)
            wires.append(Wire(f"into {name}", name, (), (axis,), fan=np.ones(tokens), values="analog", once=True))
            neurons.append(NeuronGroup(f"{name} spikes", axis, tokens * len(of_channel), self.cell))
        for head in range(heads):
            inside = (f"heads:{head}",)
            wires.append(
                Wire(f"scores {head}", None, (), (), inside, np.ones(tokens), senders=self.width, receivers=tokens)
            )
            wires.append(
                Wire(
                    f"values {head}",
                    None,
                    (),
                    (),
                    inside,
                    np.ones(tokens),
                    "analog",
                    senders=tokens,
                    receivers=self.width,
                )
            )
        wires.append(
            Wire("out", "out.synapse.kernel", (Axis("heads", -2, np.tile(of_channel, tokens)),), values="analog")
        )
        neurons.append(NeuronGroup("readout", None, classes, self.out.cell, {"out.synapse.bias": 0}))
        return Wiring({"heads": heads}, tuple(wires), tuple(neurons))

    def shrink(self, keep):
        return cut(self, keep)
