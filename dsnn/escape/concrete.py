"""The concrete relaxation of a noisy spike: a gradient through the noise that was drawn."""

from typing import Any

import jax
from flax import nnx

from dsnn.escape.draw import uniform16, with_gradient_of
from dsnn.escape.parameters import parameter, value
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float, Key


class Concrete(nnx.Module):
    """Another escape noise with a pathwise gradient: s = sigmoid((u - xi) / temperature), xi from that noise.

    With logistic noise this is the binary concrete distribution (Maddison, Mnih and Teh 2017, eq. 25; Jang, Gu and
    Poole 2017 as Gumbel-softmax with two classes). With ``hard`` the forward pass gives the spike H(u - xi) itself and
    only the gradient is the relaxed one (straight-through concrete): biased, but spikes stay binary. Without ``hard``
    values lie in (0, 1) and the gradient is that of the relaxed network, which nears the spiking one's as the
    temperature goes to zero while its variance grows.

    Args:
        noise: `Logistic`, `Gaussian` or another noise with a quantile.
        temperature: width of the relaxed step in units of the membrane, positive.
        hard: whether the forward pass gives spikes.

    Raises:
        ValueError: the temperature is not positive, or the noise has no quantile.
    """

    def __init__(self, noise: Any, temperature: Any = 0.1, *, hard: bool = True):
        if not callable(getattr(noise, "quantile", None)):
            raise ValueError(f"noise must have a quantile, got {type(noise).__name__}; use Logistic or Gaussian.")
        self.noise, self.hard = noise, hard
        self.temperature = parameter("temperature", temperature, "positive", hint="0.1 is usual")

    def spike(
        self,
        u: Float[Array, "..."],
        key: Key[Array, ""] | None = None,
        surrogate: str | Surrogate | None = None,
        compare: str = ">",
    ) -> Float[Array, "..."]:
        """Returns (relaxed) spikes; a key is consumed, None is the neuron of the other noise without a key."""
        if key is None:
            return self.noise.spike(u, None, surrogate, compare)
        above = u - self.noise.quantile(uniform16(key, u.shape))
        soft = jax.nn.sigmoid(above / value(self.temperature))
        if not self.hard:
            return soft
        return with_gradient_of(heaviside(jax.lax.stop_gradient(above), "straight_through", compare), soft)

    def probability(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the probability of a spike."""
        return self.noise.probability(u)

    def log_prob(self, u: Float[Array, "..."], s: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns log P(s | u) for s in {0, 1}."""
        return self.noise.log_prob(u, s)
