"""Exits in depth: a network of rectified linear units with an answer after each hidden layer (Teerapittayanon 2016).

A step is a layer: the house's early exit, which stops an example once its running answer is sure, then leaves out the
layers behind. Its rule is fitted and certified as for any other network (`dsnn.deploy.exit_calibration`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.energy import NEURONS
from dsnn.networks.layers import Dense
from dsnn.networks.rivals.recurrent import FREE, flat
from dsnn.networks.shrink import cut
from dsnn.networks.wiring import INPUT
from dsnn.protocols import Axis, NeuronGroup, Output, Wire, Wiring
from dsnn.types import Array, Float, Key

__all__ = ["Exits", "ExitsState", "exits"]


class ExitsState(NamedTuple):
    """How many layers each example has been through, and the values of each layer."""

    done: Float[Array, " batch"]
    values: tuple[Float[Array, "batch unit"], ...]


class Exits(nnx.Module):
    """a_k = max(W_k a_{k-1} + b_k, 0), answer k is V_k a_k; at step k layer k and its exit run, and nothing else does.

    It wants as many steps as it has hidden layers, and one input held for all of them. After the last layer nothing
    more runs, and the last answer stands.

    Args:
        in_shape: shape of one input.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        hidden: units of each hidden layer.

    Raises:
        ValueError: no hidden layer.
    """

    readout_kind = "last"

    def __init__(
        self, in_shape: tuple[int, ...], classes: int, *, key: Key[Array, ""], hidden: Sequence[int] = (64, 64)
    ):
        if not hidden:
            raise ValueError("hidden must name the units of at least one layer, got none; [64, 64] has two exits.")
        self.in_shape, self.out_shape, self.depth = tuple(in_shape), (classes,), len(hidden)
        keys, before = jax.random.split(key, 2 * len(hidden)), math.prod(in_shape)
        for number, width in enumerate(hidden):
            setattr(self, f"hidden{number}", Dense(before, width, key=keys[2 * number], gain=math.sqrt(2.0)))
            setattr(self, f"exit{number}", Dense(width, classes, key=keys[2 * number + 1]))
            before = width

    def _layers(self) -> list[tuple[Dense, Dense]]:
        """Returns each hidden layer with its exit."""
        return [(getattr(self, f"hidden{k}"), getattr(self, f"exit{k}")) for k in range(self.depth)]

    def init(self, batch: int) -> ExitsState:
        """Returns layers that have not run."""
        widths = [out.kernel.shape[0] for _, out in self._layers()]
        return ExitsState(jnp.zeros(batch), tuple(jnp.zeros((batch, width)) for width in widths))

    def step(
        self, state: ExitsState, x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[ExitsState, Output]:
        """Returns the state after the next layer, its answer, and what was sent; a key is accepted and not used."""
        del key
        sent: dict[str, Array] = {}
        values, read = list(state.values), flat(x)
        answer = jnp.zeros((len(read), self.out_shape[0]))
        for number, (layer, out) in enumerate(self._layers()):
            now = (state.done == number)[:, None]
            values[number] = jnp.where(now, jax.nn.relu(layer(read)), values[number])
            last = now if number + 1 < self.depth else (state.done >= number)[:, None]
            answer = jnp.where(last, out(values[number]), answer)
            sent |= {f"hidden{number}": jnp.where(now, read, 0.0), f"exit{number}": jnp.where(now, values[number], 0.0)}
            read = state.values[number]
        return ExitsState(state.done + 1, tuple(values)), Output(answer, sent)

    def wiring(self) -> Wiring:
        """Returns inputs and units as sites, and each layer's products, computed at its own step."""
        groups: dict[str, int] = {}
        wires, neurons, before = [], [], INPUT
        for number, (layer, out) in enumerate(self._layers()):
            own, size = f"hidden{number}", layer.kernel.shape
            groups |= {before: size[0], own: size[1]}
            reads, sends = Axis(before, -2, np.arange(size[0])), Axis(own, -2, np.arange(size[1]))
            values = "spikes" if number == 0 else "analog"  # of inputs it is for the data to say
            ends = Axis(own, -1, np.arange(size[1]))
            wires.append(Wire(own, f"{own}.kernel", (reads,), (ends,), values=values, at=number))
            wires.append(Wire(f"exit{number}", f"exit{number}.kernel", (sends,), values="analog", at=number))
            site, classes = Axis(own, 0, np.arange(size[1])), out.kernel.shape[1]
            relu, answers = NEURONS["ReLU"], {f"exit{number}.bias": 0}
            neurons.append(NeuronGroup(f"{own}.neurons", site, size[1], relu, {f"{own}.bias": 0}, at=number))
            neurons.append(NeuronGroup(f"exit{number}.neurons", None, classes, FREE, answers, at=number))
            before = own
        return Wiring(groups, tuple(wires), tuple(neurons))

    def shrink(self, keep: dict[str, np.ndarray]) -> "Exits":
        """Returns the network of the inputs and units that are kept."""
        small: Exits = cut(self, keep)
        return small


exits = Exits
"""Its name among architectures."""
