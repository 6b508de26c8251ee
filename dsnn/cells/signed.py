"""Integrate-and-fire neurons that can take a spike back."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import fire, set_spike
from dsnn.escape.parameters import parameter, value
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float, Key


class SignedIFState(NamedTuple):
    """Membrane, and the spikes sent so far less those taken back."""

    membrane: Float[Array, "*batch neuron"]
    sent: Float[Array, "*batch neuron"]


class SignedIF(nnx.Module):
    """Perfect integrator whose spikes are -1, 0 or 1: a membrane below zero takes an earlier spike back.

        u' = u + I,   s = fire(u' - threshold) - [u' < 0 and sent > 0],   u = u' - threshold s,   sent = sent + s

    Converted from a deep network, a neuron with late or uneven currents ends near the number of spikes that their sum
    stands for (exactly, given steps enough to send and take back the last), and not near those of its busiest moment;
    without negative currents it is an `IF`. It is the signed neuron of Li, Ma & Furber 2022 and of Wang et al. 2022.

    Args:
        threshold: positive.
        rest: membrane before the first step.
        compare: ">" or ">=", whether a membrane at the threshold spikes.
        surrogate: name or `dsnn.surrogate.Surrogate`, at both thresholds; None is "atan".

    Raises:
        ValueError: a value out of range, or an unknown option.
    """

    surrogate: Any

    def __init__(
        self,
        threshold: Any = 1.0,
        *,
        rest: Any = 0.0,
        compare: str = ">=",
        surrogate: str | Surrogate | None = None,
    ):
        self.dt = 1.0
        self.threshold = parameter("threshold", threshold, "positive", hint="1 is usual")
        self.rest = parameter("rest", rest, "real")
        set_spike(self, compare, surrogate, None)

    def init(self, batch_shape: tuple[int, ...]) -> SignedIFState:
        """Returns the first state for currents of shape ``batch_shape``."""
        zeros = jnp.zeros(batch_shape)
        return SignedIFState(jnp.broadcast_to(value(self.rest), batch_shape) + zeros, zeros)

    def step(
        self, state: SignedIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[SignedIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; the neuron is deterministic, and a key is not used."""
        membrane, threshold = state.membrane + current, value(self.threshold)
        _, forth = fire(self, None, membrane - threshold, key)
        back = heaviside(-membrane, self.surrogate, ">") * (state.sent > 0)
        spikes = forth - back
        return SignedIFState(membrane - threshold * spikes, state.sent + spikes), spikes
