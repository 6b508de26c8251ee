"""Firing by chance, the same for every escape noise: s = H(u - xi)."""

from collections.abc import Callable

from jax.ad_checkpoint import checkpoint_name

from dsnn.escape.draw import uniform16, with_gradient_of
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float, Key

Law = Callable[[Array], Array]


def fire(
    u: Float[Array, "..."],
    key: Key[Array, ""] | None,
    surrogate: str | Surrogate | None,
    compare: str,
    *,
    probability: Law,
    quantile: Law,
    median: float | Array,
    coarse: Law | None = None,
) -> Float[Array, "..."]:
    """Returns the spikes of a neuron with escape noise; a key is consumed.

    Args:
        u: membrane minus threshold.
        key: None is the neuron with its noise at the median.
        surrogate: derivative at u - xi; None is the density of xi at u.
        compare: ">" or ">=" for the neuron without a key; with one, ties have probability zero.
        probability: P(s = 1) as a function of u, differentiable.
        quantile: xi as a function of its rank in (0, 1).
        median: of xi.
        coarse: the probability to about 2^-17, where that is cheaper.
    """
    if key is None:
        spikes = heaviside(u - median, surrogate or "straight_through", compare)
        return spikes if surrogate is not None else with_gradient_of(spikes, probability(u))
    rank = uniform16(key, u.shape)
    if surrogate is not None:
        return heaviside(u - checkpoint_name(quantile(rank), "noise"), surrogate, compare)
    soft = probability(u)
    chance = soft if coarse is None else coarse(u)
    # random bits are too dear to be drawn again by the backward pass, which a spike's byte spares it
    spikes = checkpoint_name(chance > rank, "noise")
    return with_gradient_of(spikes.astype(u.dtype), soft)
