"""Threshold jitter: a threshold that is drawn anew after each spike."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.escape.draw import normal16
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float, Key


class ThresholdJitter(nnx.Module):
    """Threshold jitter: s = H(u - d), where the shift d ~ Normal(0, sigma) holds from one spike to the next.

    Slow noise in a parameter (Gerstner & Kistler 2002, section 5.4). The shift is part of the cell's state and enters
    the comparison alone, not the amount that a reset subtracts. Each neuron starts at the nominal threshold. A shift
    drawn anew at every step would be `Gaussian` escape noise; this one has no ``probability`` or ``log_prob``, because
    given the shift the neuron is deterministic.

    Args:
        sigma: standard deviation of the shift in units of the membrane, positive.
        learnable: ("sigma",) trains it.
        shape: shape of a learnable sigma, () shared or (neurons,).

    Raises:
        ValueError: sigma is not positive.
    """

    def __init__(self, sigma: Any = 0.1, *, learnable: Sequence[str] = (), shape: Sequence[int] = ()):
        check_learnable(learnable, ("sigma",))
        hint = "noise=None is the neuron without noise"
        self.sigma = parameter("sigma", sigma, "positive", learnable="sigma" in learnable, shape=shape, hint=hint)

    def step(
        self,
        shift: Float[Array, "..."],
        u: Float[Array, "..."],
        key: Key[Array, ""] | None = None,
        surrogate: str | Surrogate = "atan",
        compare: str = ">",
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Returns the next shift and the spikes; a key is consumed, None leaves the threshold where it is."""
        spikes = heaviside(u - shift, surrogate, compare)
        if key is None:
            return shift, spikes
        return jnp.where(spikes > 0, value(self.sigma) * normal16(key, u.shape), shift), spikes
