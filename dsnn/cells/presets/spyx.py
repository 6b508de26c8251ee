"""Spyx 1.0.0: IF, LIF, ALIF, CuBaLIF and LI. A neuron puts out the spike of its previous membrane."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.li import LI
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import parameter, value
from dsnn.surrogate import Surrogate, get, heaviside
from dsnn.types import Array, Float, Key

SUPERSPIKE = get("superspike", alpha=25.0)


def if_(
    hidden_shape: Any = None, threshold: Any = 1.0, activation: str | Surrogate = SUPERSPIKE, rngs: Any = None
) -> "Spyx":
    """Returns IF: s = H(v - theta), v = v + x - s theta."""
    del hidden_shape, rngs
    return Spyx(1.0, None, None, threshold, activation)


def lif(
    beta: Any,
    hidden_shape: Any = None,
    threshold: Any = 1.0,
    activation: str | Surrogate = SUPERSPIKE,
    rngs: Any = None,
) -> "Spyx":
    """Returns LIF: s = H(v - theta), v = beta v + x - s theta. beta is learnable, as in Spyx."""
    del hidden_shape, rngs
    return Spyx(beta, None, None, threshold, activation, ("beta",))


def alif(
    beta: Any,
    gamma: Any,
    hidden_shape: Any = None,
    threshold: Any = 1.0,
    activation: str | Surrogate = SUPERSPIKE,
    rngs: Any = None,
) -> "Spyx":
    """Returns ALIF: s = H(v - (theta + b)), v = beta v + x - s (theta + b), b = gamma b + (1 - gamma) s."""
    del hidden_shape, rngs
    return Spyx(beta, None, gamma, threshold, activation, ("beta", "gamma"))


def cubalif(
    alpha: Any,
    beta: Any,
    hidden_shape: Any = None,
    threshold: Any = 1.0,
    activation: str | Surrogate = SUPERSPIKE,
    rngs: Any = None,
) -> "Spyx":
    """Returns CuBaLIF: s = H(v - theta), v = v - s theta, i = alpha i + x, v = beta v + i: the reset decays too."""
    del hidden_shape, rngs
    return Spyx(beta, alpha, None, threshold, activation, ("alpha", "beta"))


def li(beta: Any = 0.8, layer_shape: Any = None, rngs: Any = None) -> LI:
    """Returns LI: v = beta v + x, put out as it is."""
    del layer_shape, rngs
    return LI(beta, learnable=("beta",)) if 0 < float(beta) < 1 else LI(beta)


class SpyxState(NamedTuple):
    """Membrane; synaptic current of CuBaLIF and adaptation of ALIF (else None)."""

    membrane: Float[Array, "*batch neuron"]
    current: Float[Array, "*batch neuron"] | None = None
    adaptation: Float[Array, "*batch neuron"] | None = None


class Spyx(nnx.Module):
    """A neuron in Spyx's order: compare, reset, integrate, and put out what the comparison said.

        s = H(v - theta - b),   v = beta v + x - s (theta + b),   b = gamma b + (1 - gamma) s

    and with alpha, which excludes gamma, v = beta (v - s theta) + i, i = alpha i + x.
    """

    beta: Any
    alpha: Any
    gamma: Any

    def __init__(
        self,
        beta: Any,
        alpha: Any,
        gamma: Any,
        threshold: Any,
        surrogate: str | Surrogate,
        learnable: Sequence[str] = (),
    ):
        for name, given in (("beta", beta), ("alpha", alpha), ("gamma", gamma)):
            constant = None if given is None else parameter(name, given, "unit_interval", learnable=name in learnable)
            setattr(self, name, constant)
        self.threshold = parameter("threshold", threshold, "positive")
        self.surrogate, self.noise = get(surrogate), None

    def init(self, batch_shape: tuple[int, ...]) -> SpyxState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        zeros = jnp.zeros(batch_shape)
        return SpyxState(zeros, None if self.alpha is None else zeros, None if self.gamma is None else zeros)

    def step(
        self, state: SpyxState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[SpyxState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes of the previous membrane; a key is accepted and not used."""
        del key
        threshold, beta = value(self.threshold), value(self.beta)
        if self.gamma is not None:
            threshold = threshold + state.adaptation
        spikes = heaviside(state.membrane - threshold, self.surrogate)
        if self.alpha is not None:
            synaptic = rounded(value(self.alpha) * state.current) + current
            membrane = rounded(beta * (state.membrane - spikes * threshold)) + synaptic
            return SpyxState(membrane, synaptic), spikes
        membrane = rounded(beta * state.membrane) + current - spikes * threshold
        if self.gamma is None:
            return SpyxState(membrane), spikes
        gamma = value(self.gamma)
        return SpyxState(membrane, None, rounded(gamma * state.adaptation) + (1 - gamma) * spikes), spikes
