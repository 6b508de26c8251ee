"""Uncertain inputs and outputs of a certain kernel: W = W0 ∘ r s', with Normal r and s (Dusenberry et al. 2020)."""

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

SIDES = ("rows", "columns")


def rank1(scale: float = 0.05, prior_scale: float = 0.1) -> Guide:
    """Returns the rank-1 multiplicative guide: r, s ~ Normal around 1, W0 at its posterior mode (eq. 3 and 4 there).

    One component, drawn once per update for the whole minibatch; the paper's mixtures are an ensemble of these.

    Args:
        scale: initial standard deviation of r and s.
        prior_scale: standard deviation of their prior Normal(1, prior_scale), 0.1 in the paper.

    Raises:
        ValueError: a scale that is not positive.
    """
    for value in (scale, prior_scale):
        if not 0 < value < float("inf"):
            raise ValueError(f"scales of a rank-1 guide must be positive and finite, got {value}; 0.05 is usual.")

    def spread(weights: Weights) -> list[str]:
        return [n for n in weights.template.names if weights.initial[n].ndim > 1 and weights.of(n) is not None]

    def length(weights: Weights, name: str, side: str) -> int:
        return weights.initial[name].shape[-2 if side == "rows" else -1]

    def compose(weights: Weights, kernels: Params, sides: dict[tuple[str, str], Array]) -> Params:
        uncertain = spread(weights)
        return {
            name: value * sides[name, "rows"][:, None] * sides[name, "columns"] if name in uncertain else value
            for name, value in kernels.items()
        }

    def prior(weights: Weights, kl_weight: Array) -> Params:
        kernels, sides = {}, {}
        for name in weights.template.names:
            fn = prior_of(weights, name, kl_weight)
            with handlers.scale(scale=kl_weight):
                kernels[name] = point_parameter(weights, name) if fn is None else numpyro.sample(name, fn)
                for side in SIDES if name in spread(weights) else ():
                    shape = (length(weights, name, side),)
                    around = dist.Normal(1.0, prior_scale).expand(shape).to_event(1)
                    sides[name, side] = numpyro.sample(f"{name}.{side}", around)
        return compose(weights, kernels, sides)

    def posterior(weights: Weights, kl_weight: Array, key: Key[Array, ""]) -> Params:
        kernels, sides = {}, {}
        for index, name in enumerate(weights.template.names):
            own = stream(key, "weights", index)
            guide_scales(weights, name, kl_weight, stream(own, "init"))
            value = point_parameter(weights, name)
            kernels[name] = value
            if weights.of(name) is None:
                continue
            with handlers.scale(scale=kl_weight):
                numpyro.sample(name, dist.Delta(value, event_dim=value.ndim))
                for number, side in enumerate(SIDES if name in spread(weights) else ()):
                    size = length(weights, name, side)
                    loc = numpyro.param(f"{name}.{side}.loc", jnp.ones(size))
                    width = numpyro.param(
                        f"{name}.{side}.scale", jnp.full(size, scale), constraint=constraints.positive
                    )
                    q = dist.Normal(loc, width).to_event(1)
                    drawn = numpyro.sample(f"{name}.{side}", q, rng_key=stream(own, "weights", number))
                    sides[name, side] = drawn
        return compose(weights, kernels, sides)

    def centre(weights: Weights, params: Params) -> Params:
        kernels = {name: point_value(params, name) for name in weights.template.names}
        sides = {(name, side): params[f"{name}.{side}.loc"] for name in spread(weights) for side in SIDES}
        return compose(weights, kernels, sides)

    def supports(weights: Weights) -> dict[str, Any]:
        widths = {f"{name}.{side}.scale": constraints.positive for name in spread(weights) for side in SIDES}
        return point_constraints(weights) | widths

    return Guide(prior, posterior, centre, supports)
