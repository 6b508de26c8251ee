"""What the gated recurrent unit and its delta form share: parameters, the unit itself, and how they are wired."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.energy import NEURONS, NeuronCost
from dsnn.networks.layers import Dense
from dsnn.networks.wiring import INPUT
from dsnn.protocols import Axis, NeuronGroup, Wire
from dsnn.types import Array, Float, Key

__all__ = ["ANSWERS", "FREE", "HIDDEN", "Sums", "Weights", "groups_of", "unit", "weights", "wires_of"]

HIDDEN = "hidden"
ANSWERS = ("last", "every")
FREE = NeuronCost(macs=0, acs=0, compares=0, states=0, fires=False)
"""Of a bias, or of an output that nothing happens to: both are in the product."""


class Weights(NamedTuple):
    """Synapses of a gated recurrent network: from inputs and from units to reset | update | candidate, and the readout.

    Attributes:
        into: ``[input, 3 unit]``, with the biases of all three.
        back: ``[unit, 3 unit]``.
        inner: bias of what the units send to the candidate, inside the reset gate, ``[unit]``.
        out: ``[unit, class]``.
    """

    into: Dense
    back: Dense
    inner: nnx.Param
    out: Dense


def weights(in_shape: tuple[int, ...], classes: int, width: int, key: Key[Array, ""]) -> Weights:
    """Returns the synapses of a network of so many units; the key is consumed.

    Raises:
        ValueError: no units.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1 unit, got {width}; 32 is usual.")
    first, second, third = jax.random.split(key, 3)
    into = Dense(math.prod(in_shape), 3 * width, key=first)
    back = Dense(width, 3 * width, key=second, bias=False)
    return Weights(into, back, nnx.Param(jnp.zeros(width)), Dense(width, classes, key=third))


def check_answers(answers: str) -> None:
    """Checks when a network answers.

    Raises:
        ValueError: it is none of `ANSWERS`.
    """
    if answers not in ANSWERS:
        raise ValueError(f'answers must be "last" (after the last step) or "every" (after each), got {answers!r}.')


class Sums(NamedTuple):
    """What drives a unit: of its reset and update gates, and of its candidate from inputs and from units."""

    reset: Float[Array, "batch unit"]
    update: Float[Array, "batch unit"]
    given: Float[Array, "batch unit"]
    inner: Float[Array, "batch unit"]


def unit(sums: Sums, hidden: Float[Array, "batch unit"]) -> Float[Array, "batch unit"]:
    """Returns h' = (1 - z) tanh(a + r b) + z h, with r and z the sigmoids of their sums.

    Cho et al. 2014, with the reset gate behind the product, as in cuDNN and PyTorch.
    """
    update = jax.nn.sigmoid(sums.update)
    candidate = jnp.tanh(sums.given + jax.nn.sigmoid(sums.reset) * sums.inner)
    return (1 - update) * candidate + update * hidden


def wires_of(into: Dense, back: Dense, out: Dense, answers: str, *, held: bool) -> tuple[Wire, ...]:
    """Returns the products: inputs and units into the three sums of each unit, and units into the readout.

    Args:
        into: of `Weights`, like the others.
        back: the same.
        out: the same.
        answers: one of `ANSWERS`; the readout of "last" is computed after the last step alone.
        held: the input's product is computed once where the input is held.
    """
    inputs, units = into.kernel.shape[0], back.kernel.shape[0]
    thrice = (Axis(HIDDEN, -1, np.tile(np.arange(units), 3)),)
    sends = (Axis(HIDDEN, -2, np.arange(units)),)
    at = -1 if answers == "last" else None
    return (
        Wire(HIDDEN, "into.kernel", (Axis(INPUT, -2, np.arange(inputs)),), thrice, once=held),
        Wire(f"{HIDDEN}.recurrent", "back.kernel", sends, thrice, values="analog", recurrent=True),
        Wire("readout", "out.kernel", sends, values="analog", at=at),
    )


def groups_of(back: Dense, out: Dense, cost: NeuronCost = NEURONS["GRU"]) -> tuple[NeuronGroup, ...]:
    """Returns the units, the biases of their sums, and the outputs.

    Args:
        back: of `Weights`.
        out: the same.
        cost: of a unit's update.
    """
    units, classes = back.kernel.shape[0], out.kernel.shape[1]
    own, thrice = (Axis(HIDDEN, 0, index) for index in (np.arange(units), np.tile(np.arange(units), 3)))
    return (
        NeuronGroup(f"{HIDDEN}.neurons", own, units, cost, {"inner": 0}),
        NeuronGroup(f"{HIDDEN}.sums", thrice, 3 * units, FREE, {"into.bias": 0}),
        NeuronGroup("readout.neurons", None, classes, FREE, {"out.bias": 0}),
    )


def flat(x: Any) -> Any:
    """Returns inputs ``[batch, input]``."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
