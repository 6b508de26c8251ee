"""Networks that are no stacks, written against `dsnn.protocols` and `dsnn.networks` alone."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells import LI, LIF
from dsnn.networks import Conv, Dense, Layer, cut
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
                NeuronGroup("fast", self.fast.cell, fast, sites("fast", 0, fast), {"fast.synapse.bias": 0}),
                NeuronGroup("slow", self.slow.cell, slow, sites("slow", 0, slow), {"slow.synapse.bias": 0}),
                NeuronGroup("readout", self.readout.cell, classes, None, {"readout.synapse.bias": 0}),
            ),
        )


class Branchy(Masked):
    """The same, which can be made smaller."""

    def shrink(self, keep):
        return cut(self, keep)


class Widening(nnx.Module):
    """Two convolutions beside a shortcut of one that doubles the channels, whose sum is read; the block is a site."""

    def __init__(self, in_shape, classes, *, key, channels=3):
        a, b, c, d, e = jax.random.split(key, 5)
        self.in_shape, self.out_shape = tuple(in_shape), (classes,)
        height, width, colours = in_shape
        stem, wide = (height, width, channels), (height, width, 2 * channels)
        self.stem = Layer(Conv(in_shape, channels, key=a), LIF(0.9))
        self.first = Layer(Conv(stem, 2 * channels, key=b), LIF(0.9))
        self.second = Layer(Conv(wide, 2 * channels, key=c), LIF(0.9))
        self.shortcut = Layer(Conv(stem, 2 * channels, key=d, window=(1, 1)), LIF(0.9))
        self.share = nnx.Variable(jnp.ones(1))
        self.readout = Layer(Dense(wide, classes, key=e), LI(0.9))

    parts = ("stem", "first", "second", "shortcut", "readout")

    def init(self, batch):
        return {name: getattr(self, name).init(batch) for name in self.parts}

    def step(self, state, x, key=None):
        state, own = dict(state), dict(zip(self.parts, keys(key, 5), strict=True))

        def run(name, x):
            state[name], out = getattr(self, name).step(state[name], x, own[name])
            return out

        stem = run("stem", x)
        first = run("first", stem)
        second = run("second", first)
        beside = run("shortcut", stem)
        total = beside + second * self.share[...][0]
        out = run("readout", total)
        sent = {"to stem": x, "to first": stem, "to second": first, "to shortcut": stem, "out": total}
        return state, Output(out, sent | {"block": second})
