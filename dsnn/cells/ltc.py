"""Liquid time constants: a spiking neuron whose decays depend on what it receives."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import fire, noise_state, set_spike
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate, get
from dsnn.types import Array, Float, Key


class LTCState(NamedTuple):
    """Membrane, adaptation and last spikes; the shift of the threshold is None without jitter."""

    membrane: Float[Array, "*batch neuron"]
    adaptation: Float[Array, "*batch neuron"]
    spikes: Float[Array, "*batch neuron"]
    shift: Float[Array, "*batch neuron"] | None = None


class LTC(nnx.Module):
    """Liquid time-constant spiking neuron (Yin, Corradi & Bohte 2023, in the order of their program).

        rho = sigmoid([I, a] R + r),   a = rho a + (1 - rho) s
        k = sigmoid([I, u] K + c),     u' = u + k (I - u)
        theta = threshold + strength a,   s = fire(u' - theta),   u = 0 where s else u'

    where s on the first line is the spike of the step before, and each membrane sees the currents and membranes of
    its whole layer through K. Their program also normalises I over the batch at each time step; that belongs to the
    synapse. The first membrane is 0 (theirs is drawn from the unit interval).

    Args:
        neurons: size of the last axis of the current.
        key: draws the kernels K and R; consumed.
        threshold: at rest, positive; 0.1.
        strength: by how much the threshold rises per unit of adaptation; 1.8.
        gain: standard deviation of the kernels times the square root of the mean of fan in and fan out; 1 (Glorot).
        compare: ">" or ">=".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "multi_gaussian" with sigma = 0.3, or the density of the
            noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among strength, threshold; the kernels and biases are always learnable.
        shape: shape of those, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    def __init__(
        self,
        neurons: int,
        *,
        key: Key[Array, ""],
        threshold: Any = 0.1,
        strength: Any = 1.8,
        gain: float | int = 1.0,
        compare: str = ">",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        if neurons < 1:
            raise ValueError(f"neurons must be a positive integer, got {neurons}; give the size of the layer.")
        check_learnable(learnable, ("strength", "threshold"))
        self.neurons = neurons
        scale = parameter("gain", gain, "positive") / math.sqrt(1.5 * neurons)
        membrane_key, adaptation_key = jax.random.split(key)
        self.membrane_kernel = nnx.Param(scale * jax.random.normal(membrane_key, (2 * neurons, neurons)))
        self.membrane_bias = nnx.Param(jnp.zeros(neurons))
        self.adaptation_kernel = nnx.Param(scale * jax.random.normal(adaptation_key, (2 * neurons, neurons)))
        self.adaptation_bias = nnx.Param(jnp.zeros(neurons))
        self.threshold = parameter("threshold", threshold, "positive", learnable="threshold" in learnable, shape=shape)
        self.strength = parameter("strength", strength, "real", learnable="strength" in learnable, shape=shape)
        set_spike(self, compare, surrogate, noise, default=get("multi_gaussian", sigma=0.3))

    def init(self, batch_shape: tuple[int, ...]) -> LTCState:
        """Returns the resting state for currents of shape ``batch_shape``.

        Raises:
            ValueError: the last axis is not ``neurons`` long.
        """
        if batch_shape[-1] != self.neurons:
            raise ValueError(f"the current must have {self.neurons} neurons on its last axis, got shape {batch_shape}.")
        zeros = jnp.zeros(batch_shape)
        return LTCState(zeros, zeros, zeros, **noise_state(self, batch_shape))

    def step(
        self, state: LTCState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[LTCState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        rho = _gate(current, state.adaptation, self.adaptation_kernel[...], self.adaptation_bias[...])
        adaptation = rho * state.adaptation + (1 - rho) * state.spikes
        rate = _gate(current, state.membrane, self.membrane_kernel[...], self.membrane_bias[...])
        membrane = state.membrane + rate * (current - state.membrane)
        threshold = value(self.threshold) + value(self.strength) * adaptation
        shift, spikes = fire(self, state.shift, membrane - threshold, key)
        return LTCState(membrane * (1 - spikes), adaptation, spikes, shift), spikes


def _gate(current: Array, trace: Array, kernel: Array, bias: Array) -> Array:
    return jax.nn.sigmoid(jnp.concatenate([current, trace], -1) @ kernel + bias)
