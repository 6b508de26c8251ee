"""Posteriors that treat every parameter by itself: a point (MAP), or independent Normals (mean field)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.bayes.guides.contract import (
    Guide,
    Weights,
    guide_scales,
    point_constraints,
    point_parameter,
    point_value,
    prior_of,
)
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Key


def factorised(spread: Callable[[Weights], frozenset[str]], scale: float) -> Guide:
    """Returns the guide in which the named parameters are Normal and the others points at their posterior mode.

    Args:
        spread: ``weights -> names`` of the parameters that get a Normal; a parameter without a prior stays a point.
        scale: initial standard deviation, in the unconstrained space.

    Raises:
        ValueError: the scale is not positive.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"a guide's initial scale must be positive and finite, got {scale}; 0.01 is usual.")

    def names(weights: Weights) -> list[str]:
        chosen = spread(weights)
        return [name for name in weights.template.names if name in chosen and weights.of(name) is not None]

    def prior(weights: Weights, kl_weight: Array) -> Params:
        values = {}
        for name in weights.template.names:
            fn = prior_of(weights, name, kl_weight)
            if fn is None:
                values[name] = point_parameter(weights, name)
                continue
            with handlers.scale(scale=kl_weight):
                values[name] = numpyro.sample(name, fn)
        return values

    def posterior(weights: Weights, kl_weight: Array, key: Key[Array, ""]) -> Params:
        values, chosen = {}, names(weights)
        for index, name in enumerate(weights.template.names):
            own = stream(key, "weights", index)
            if weights.of(name) is None:
                values[name] = point_parameter(weights, name)
                continue
            guide_scales(weights, name, kl_weight, stream(own, "init"))
            q = _normal(weights, name, scale) if name in chosen else _delta(weights, name)
            with handlers.scale(scale=kl_weight):
                values[name] = numpyro.sample(name, q, rng_key=own)
        return values

    def centre(weights: Weights, params: Params) -> Params:
        return {
            name: weights.transform(name)(params[f"{name}.loc"])
            if f"{name}.loc" in params
            else point_value(params, name)
            for name in weights.template.names
        }

    def supports(weights: Weights) -> dict[str, Any]:
        return point_constraints(weights) | {f"{name}.scale": constraints.positive for name in names(weights)}

    def means(weights: Weights) -> Params:
        real = [name for name in names(weights) if weights.template.supports[name] == "real"]
        return {name: numpyro.param(f"{name}.loc", weights.initial[name]) for name in real}

    return Guide(prior, posterior, centre, supports, means=means)


def point() -> Guide:
    """Returns the guide of maximum a posteriori estimation: every parameter a point, under its prior."""
    return factorised(lambda weights: frozenset(), 1.0)._replace(means=None)


def mean_field(scale: float = 0.01) -> Guide:
    """Returns independent Normals begun at the network's own initialisation (Graves 2011; Blundell et al. 2015).

    Args:
        scale: initial standard deviation, in the unconstrained space.
    """
    return factorised(lambda weights: frozenset(weights.template.names), scale)


def last_layer(scale: float = 0.01) -> Guide:
    """Returns independent Normals on the last layer and points below it.

    Args:
        scale: initial standard deviation.
    """
    return factorised(lambda weights: frozenset(weights.last), scale)


def _normal(weights: Weights, name: str, initial: float) -> Any:
    value, transform = weights.initial[name], weights.transform(name)
    loc = numpyro.param(f"{name}.loc", transform.inv(value))
    scale = numpyro.param(f"{name}.scale", jnp.full(value.shape, initial), constraint=constraints.positive)
    q: Any = dist.Normal(loc, scale)
    if weights.template.supports[name] != "real":
        q = dist.TransformedDistribution(q, transform)
    return q.to_event(value.ndim)


def _delta(weights: Weights, name: str) -> dist.Distribution:
    return dist.Delta(point_parameter(weights, name), event_dim=weights.initial[name].ndim)
