"""sinabs 3.1.3: LIF, whose neurons may spike several times in a step."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.presets.unsupported import refuse
from dsnn.cells.rounding import rounded
from dsnn.escape.draw import with_gradient_of
from dsnn.escape.parameters import check_choice, parameter, value
from dsnn.surrogate import Surrogate, get, heaviside
from dsnn.types import Array, Float, Key

SPIKES = ("MultiSpike", "SingleSpike", "MaxSpike")


def lif(
    tau_mem: Any,
    tau_syn: Any = None,
    spike_threshold: float | int = 1.0,
    spike_fn: str = "MultiSpike",
    reset_fn: str = "MembraneSubtract",
    surrogate_grad_fn: str | Surrogate = "exponential",
    min_v_mem: float | None = None,
    train_alphas: bool = False,
    shape: Any = None,
    norm_input: bool = True,
    record_states: bool = False,
    max_num_spikes_per_bin: int | None = None,
) -> "MultiSpikeLIF":
    """Returns LIF: i = x, or alpha_syn (i + x) with tau_syn; v = a v + (1 - a) i, or a v + i without norm_input.

    Then n = max(0, trunc(v / theta)), v = v - n theta, v = max(v, min_v_mem); a = exp(-1 / tau_mem), time in steps.
    ``spike_fn`` is "MultiSpike", "SingleSpike" (H(v - theta)) or "MaxSpike" (n at most max_num_spikes_per_bin).
    """
    del shape, record_states
    refuse("sinabs.LIF", reset_fn=(reset_fn, "MembraneSubtract"), train_alphas=(train_alphas, False))
    check_choice("spike_fn", spike_fn, SPIKES)
    most = {"MultiSpike": math.inf, "SingleSpike": 1, "MaxSpike": max_num_spikes_per_bin or math.inf}[spike_fn]
    return MultiSpikeLIF(tau_mem, tau_syn, spike_threshold, float(most), get(surrogate_grad_fn), min_v_mem, norm_input)


class MultiSpikeState(NamedTuple):
    """Membrane, and the synaptic current with tau_syn (else None)."""

    membrane: Float[Array, "*batch neuron"]
    current: Float[Array, "*batch neuron"] | None = None


class MultiSpikeLIF(nnx.Module):
    """Leaky integrate-and-fire neuron that emits as many spikes as thresholds fit into its membrane."""

    def __init__(
        self,
        tau_mem: Any,
        tau_syn: Any,
        threshold: float | int,
        most: float,
        surrogate: Surrogate,
        lowest: float | None,
        norm_input: bool,
    ):
        self.tau_mem = parameter("tau_mem", tau_mem, "positive")
        self.tau_syn = None if tau_syn is None else parameter("tau_syn", tau_syn, "positive")
        self.threshold = parameter("spike_threshold", threshold, "positive")
        self.surrogate, self.noise = surrogate, None
        self.most, self.lowest, self.norm_input = most, lowest, norm_input

    def init(self, batch_shape: tuple[int, ...]) -> MultiSpikeState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return MultiSpikeState(jnp.zeros(batch_shape), None if self.tau_syn is None else jnp.zeros(batch_shape))

    def step(
        self, state: MultiSpikeState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[MultiSpikeState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the number of spikes; a key is accepted and not used."""
        del key
        decay, threshold = jnp.exp(-1 / jnp.float32(value(self.tau_mem))), value(self.threshold)
        synaptic, drive = None, current
        if state.current is not None:
            drive = synaptic = rounded(jnp.exp(-1 / jnp.float32(value(self.tau_syn))) * (state.current + current))
        membrane = rounded(decay * state.membrane) + (rounded((1 - decay) * drive) if self.norm_input else drive)
        soft = heaviside(membrane - threshold, self.surrogate, ">=")
        count = jnp.clip(jnp.trunc(membrane / threshold), 0, self.most)
        spikes = with_gradient_of(count, soft)
        membrane = membrane - rounded(spikes * threshold)
        if self.lowest is not None:
            membrane = jnp.maximum(membrane - self.lowest, 0) + self.lowest
        return MultiSpikeState(membrane, synaptic), spikes
