"""Norms over the channels of one place at one step: of tokens, which need no statistics and so no batch.

They are computed anew for each place and step (once an inference for an input that is held), also in the network that
is deployed: no kernel holds them, since what they divide by depends on the example. Every channel depends on all others
of its place, so that channels behind such a norm are no sites: the current of a closed one would still be needed.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.energy import NeuronCost
from dsnn.networks.moments import check, last
from dsnn.types import Array, Float

__all__ = ["LayerNorm", "RMSNorm"]


class RMSNorm(nnx.Module):
    """Root mean square normalisation of each token (Zhang & Sennrich 2019, eq. 4).

        y = scale I / sqrt(mean of I^2 over the channels + epsilon)

    Priced as three multiply-accumulates for each current: its square into the sum, the product with the reciprocal
    root, and that with the scale. The root, one for each token, is not counted.

    Args:
        features: number of channels.
        epsilon: added to the mean square.

    Raises:
        ValueError: an argument out of its range.
    """

    mixes = True

    def __init__(self, features: int, epsilon: float = 1e-6):
        check(features, 0.0, epsilon=epsilon)
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(features))

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns normalised currents; steps are all alike."""
        power = jnp.square(currents).mean(-1, keepdims=True)
        return currents * jax.lax.rsqrt(power + self.epsilon) * last(self.scale[...], currents.ndim)

    def cost(self) -> NeuronCost:
        """Returns the operations for each current."""
        return NeuronCost(macs=3, acs=0, compares=0, states=0, fires=False)


class LayerNorm(nnx.Module):
    """Layer normalisation of each token (Ba, Kiros & Hinton 2016, eq. 4).

        y = scale (I - mean of I) / sqrt(mean of (I - mean of I)^2 + epsilon) + shift,   means over the channels

    Priced as two additions (into the mean, and the deviation from it) and three multiply-accumulates (its square into
    the sum, the product with the reciprocal root, scale and shift) for each current. The root, one for each token, is
    not counted.

    Args:
        features: number of channels.
        epsilon: added to the variance.

    Raises:
        ValueError: an argument out of its range.
    """

    mixes = True

    def __init__(self, features: int, epsilon: float = 1e-5):
        check(features, 0.0, epsilon=epsilon)
        self.epsilon = epsilon
        self.scale, self.shift = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns normalised currents; steps are all alike."""
        deviation = currents - currents.mean(-1, keepdims=True)
        unit = deviation * jax.lax.rsqrt(jnp.square(deviation).mean(-1, keepdims=True) + self.epsilon)
        scale, shift = (last(values[...], currents.ndim) for values in (self.scale, self.shift))
        return unit * scale + shift

    def cost(self) -> NeuronCost:
        """Returns the operations for each current."""
        return NeuronCost(macs=3, acs=2, compares=0, states=0, fires=False)
