"""The delta network (Neil et al. 2017): a gated recurrent unit whose inputs and units are sent when they change."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.energy import NeuronCost
from dsnn.networks.rivals.recurrent import HIDDEN, Sums, check_answers, flat, groups_of, unit, weights, wires_of
from dsnn.networks.shrink import cut
from dsnn.networks.wiring import INPUT
from dsnn.protocols import Axis, NeuronGroup, Output, Wiring
from dsnn.types import Array, Float, Key

__all__ = ["DeltaGRU", "DeltaGRUState", "delta_gru"]

UNIT = NeuronCost(macs=3, acs=1, compares=1, states=6, fires=False)
"""A GRU's update, its difference to what was sent last and that one's comparison; its value, what was sent, and four
sums are read and written at every step."""

SENSOR = NeuronCost(macs=0, acs=1, compares=1, states=1, fires=False)
"""An input's difference to what was sent last and its comparison."""


class DeltaGRUState(NamedTuple):
    """Values as they are and as they were sent last, and the sums of all that was sent.

    Attributes:
        hidden: the units' values.
        seen: inputs as they were sent last.
        told: units as they were sent last.
        news: changes of units that the next step reads.
        sums: of the products of all changes so far, biases included.
    """

    hidden: Float[Array, "batch unit"]
    seen: Float[Array, "batch input"]
    told: Float[Array, "batch unit"]
    news: Float[Array, "batch unit"]
    sums: Sums


def changed(
    value: Float[Array, "batch unit"], last: Float[Array, "batch unit"], threshold: float
) -> tuple[Float[Array, "batch unit"], Float[Array, "batch unit"]]:
    """Returns the changes that are sent, zero where none is, and the values as they have been sent by then.

    Args:
        value: as it is.
        last: as it was sent last.
        threshold: a change that is not larger is not sent, and what was sent stands.
    """
    difference = value - last
    sends = jnp.abs(difference) > threshold
    return jnp.where(sends, difference, 0.0), jnp.where(sends, value, last)


class DeltaGRU(nnx.Module):
    """A `dsnn.networks.rivals.gru.GRU` that adds W Δx and U Δh to sums it keeps, Δ being the changes above a threshold.

    Neil, Lee, Delbruck & Liu 2017, arXiv 1612.05571, eqs. 5 to 13. At a threshold of zero it is the GRU, to rounding.
    An event is a change that is sent.

    Args:
        in_shape: shape of one input.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        width: units.
        threshold: of a change, 0 or more, in units of the inputs and of the units' values, which lie in (-1, 1).
        answers: see `dsnn.networks.rivals.gru.GRU`.

    Raises:
        ValueError: no units, a negative threshold, or other answers.
    """

    readout_kind = "last"

    def __init__(
        self,
        in_shape: tuple[int, ...],
        classes: int,
        *,
        key: Key[Array, ""],
        width: int = 32,
        threshold: float = 0.1,
        answers: str = "last",
    ):
        check_answers(answers)
        if not 0 <= threshold < float("inf"):
            raise ValueError(f"threshold must be 0 or more and finite, got {threshold}; 0 sends every change.")
        self.in_shape, self.out_shape, self.answers, self.threshold = tuple(in_shape), (classes,), answers, threshold
        self.into, self.back, self.inner, self.out = weights(in_shape, classes, width, key)

    def init(self, batch: int) -> DeltaGRUState:
        """Returns units at zero that have sent nothing, and sums of the biases alone."""
        assert self.into.bias is not None
        biases = (*jnp.split(self.into.bias[...], 3), self.inner[...])
        zero = jnp.zeros((batch, self.back.kernel.shape[0]))
        seen = jnp.zeros((batch, self.into.kernel.shape[0]))
        return DeltaGRUState(zero, seen, zero, zero, Sums(*(zero + bias for bias in biases)))

    def step(
        self, state: DeltaGRUState, x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[DeltaGRUState, Output]:
        """Returns the next state, and the outputs with the changes that were sent; a key is accepted and not used."""
        del key
        news, seen = changed(flat(x), state.seen, self.threshold)
        given, back = (jnp.split(part, 3, -1) for part in (news @ self.into.kernel[...], self.back(state.news)))
        new = (given[0] + back[0], given[1] + back[1], given[2], back[2])
        sums = Sums(*(old + part for old, part in zip(state.sums, new, strict=True)))
        hidden = unit(sums, state.hidden)
        told_news, told = changed(hidden, state.told, self.threshold)
        sent = {HIDDEN: news, f"{HIDDEN}.recurrent": told_news, "readout": hidden}
        return DeltaGRUState(hidden, seen, told, told_news, sums), Output(self.out(hidden), sent)

    def wiring(self) -> Wiring:
        """Returns inputs and units as sites, the three products, and what an update of either costs."""
        inputs, units = self.into.kernel.shape[0], self.back.kernel.shape[0]
        sensors = NeuronGroup(f"{INPUT}.neurons", Axis(INPUT, 0, np.arange(inputs)), inputs, SENSOR)
        neurons = (sensors, *groups_of(self.back, self.out, UNIT))
        wires = wires_of(self.into, self.back, self.out, self.answers, held=False)
        return Wiring({INPUT: inputs, HIDDEN: units}, wires, neurons)

    def shrink(self, keep: dict[str, np.ndarray]) -> "DeltaGRU":
        """Returns the network of the inputs and units that are kept."""
        small: DeltaGRU = cut(self, keep)
        return small


delta_gru = DeltaGRU
"""Its name among architectures."""
