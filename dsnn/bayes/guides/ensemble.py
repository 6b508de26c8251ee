"""A deep ensemble: members from different initialisations on a mapped axis of one compiled step."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from dsnn.bayes.guides.contract import Guide, Weights, point_constraints, point_parameter, point_value, prior_of
from dsnn.bayes.priors import Hierarchical
from dsnn.parameters import Params
from dsnn.types import Array, Key


def ensemble(members: Params) -> Guide:
    """Returns the equal mixture of points, one per member (Lakshminarayanan et al. 2017).

    The likelihood and the log prior are averaged over members, so every member follows its own MAP objective. Members
    see the same minibatches and differ by initialisation and firing noise.

    Args:
        members: initial parameters by name, each ``[member, ...]``, two members or more.

    Raises:
        ValueError: fewer than two members, or leading axes that differ.
    """
    sizes = {value.shape[0] for value in members.values()}
    if len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(f"an ensemble needs one leading axis of two members or more, got sizes {sorted(sizes)}.")
    (count,) = sizes

    def prior(weights: Weights, kl_weight: Array) -> Params:
        values = {}
        for name in weights.template.names:
            if isinstance(weights.of(name), Hierarchical):
                raise ValueError(f"an ensemble takes priors of one level, {name!r} has a hierarchical one; use normal.")
            fn = prior_of(weights, name, kl_weight)
            with handlers.scale(scale=kl_weight / count):
                if fn is None:
                    values[name] = point_parameter(weights, name, members[name])
                else:
                    values[name] = numpyro.sample(name, fn.expand((count,)).to_event(1))
        return values

    def posterior(weights: Weights, kl_weight: Array, key: Key[Array, ""]) -> Params:
        values = {}
        for name in weights.template.names:
            value = point_parameter(weights, name, members[name])
            values[name] = value
            if weights.of(name) is not None:
                with handlers.scale(scale=kl_weight / count):
                    numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))
        return values

    def centre(weights: Weights, params: Params) -> Params:
        # members have no mean: hidden neurons of one do not correspond to those of another
        return {name: point_value(params, name)[0] for name in weights.template.names}

    return Guide(prior, posterior, centre, point_constraints, members=count)


def stacked(members: list[Params]) -> Params:
    """Returns the parameters of several networks with a leading member axis."""
    return {name: jnp.stack([member[name] for member in members]) for name in members[0]}
