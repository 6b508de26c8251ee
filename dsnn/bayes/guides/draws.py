"""Draws of a posterior, made elsewhere (by NUTS), as a family: an equal mixture of points that is not learned."""

import jax.numpy as jnp

from dsnn.bayes.guides.contract import Guide, Weights, point_value
from dsnn.bayes.guides.ensemble import ensemble
from dsnn.parameters import Params

ENERGY = "draws.energy"
"""Name of -log p(w, y | x) of each draw, in nats, among the guide's parameters."""


def draws(initial: Params, count: int) -> Guide:
    """Returns the family whose members are draws of a posterior; prediction takes them in turn.

    Its centre is the likeliest of them: the mean of draws is none, where they come from several modes.

    Args:
        initial: the network's own parameters.
        count: how many draws there are, two or more.
    """
    mixture = ensemble({name: jnp.broadcast_to(value, (count, *value.shape)) for name, value in initial.items()})

    def centre(weights: Weights, params: Params) -> Params:
        best = jnp.argmin(params[ENERGY])
        return {name: point_value(params, name)[best] for name in weights.template.names}

    return mixture._replace(centre=centre)
