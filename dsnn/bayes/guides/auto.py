"""NumPyro's own guides: any `numpyro.infer.autoguide.AutoGuide` class over the weights, begun where a network computes.

An AutoGuide begins at a place and a width of its own choice, which silences a spiking network. Here it begins at the
network's own values with a small standard deviation. Most of these families have no divergence in closed form:
log q(w) - log p(w) of the draw that the likelihood sees stands for it, and the KL weight multiplies both.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer import init_to_value
from numpyro.infer.autoguide import (
    AutoBNAFNormal,
    AutoContinuous,
    AutoGuide,
    AutoIAFNormal,
    AutoMultivariateNormal,
)

from dsnn.bayes.guides.contract import Guide, Weights, point_constraints, point_parameter, prior_of
from dsnn.bayes.priors import Hierarchical
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

LARGEST = 1 << 26
"""Numbers that a guide may have: with an optimiser's moments they take a gigabyte."""

DENSE = (AutoMultivariateNormal, AutoIAFNormal, AutoBNAFNormal)
"""Guides with a number for every pair of weights at least; even their shapes take long to find where there are many."""

FLOW = "flow"
"""The latent vector of a family that has no initial width: weights are their own values plus a width times it."""

NETWORK = "$params"
"""Ends the name under which NumPyro keeps the tree of parameters of a network within a guide."""


class _Begun(NamedTuple):
    """An AutoGuide that has seen the latent variables, and its parameters where they begin."""

    guide: AutoGuide
    params: dict[str, Any]
    constraints: dict[str, Any]


def auto(kind: type[AutoGuide], scale: float = 0.01, options: Mapping[str, Any] | None = None) -> Guide:
    """Returns a NumPyro guide over all weights that have a prior, and over the scales of hierarchical priors.

    Its parameters have NumPyro's names (``auto_loc``, ``auto_scale``); those of a flow's networks are numbered. A flow
    has no width to begin with: it is over a standardised vector, times ``scale``, around the network's own values. The
    centre is the guide's median, and for flows the image of their base's mean.

    Args:
        kind: the class.
        scale: initial standard deviation in the unconstrained space.
        options: further arguments of the class.

    Raises:
        ValueError: the scale is not positive, or, once the network is known, a guide of more than 2^26 numbers.
    """
    given = {"init_scale": scale, **(options or {})}
    scale = given["init_scale"]
    if not 0 < scale < float("inf"):
        raise ValueError(f"a guide's initial scale must be positive and finite, got {scale}; 0.01 is usual.")
    standard = issubclass(kind, AutoContinuous) and not takes_scale(kind)
    if not takes_scale(kind):
        del given["init_scale"]

    def begun(weights: Weights, seed: Key[Array, ""] | int = 0) -> _Begun:
        if standard:
            size = sum(value.size for value in _start(weights).values())
            made = kind(lambda: numpyro.sample(FLOW, dist.Normal(0.0, 1.0).expand((size,)).to_event(1)), **given)
        else:
            first = init_to_value(values=_natural(weights, _start(weights)))
            made = kind(lambda: _in_order(weights), init_loc_fn=first, **given)
        with handlers.block(), handlers.trace() as found, handlers.seed(rng_seed=seed):
            made()
        params = {name: site for name, site in found.items() if site["type"] == "param"}
        supports = {name: site["kwargs"].get("constraint", dist.constraints.real) for name, site in params.items()}
        return _Begun(made, {name: site["value"] for name, site in params.items()}, supports)

    layouts: dict[tuple[tuple[str, tuple[int, ...], str | None], ...], dict[str, Any]] = {}

    def layout(weights: Weights) -> dict[str, Any]:
        """Returns the guide's parameters' supports by name, computing none of its numbers; looked up once."""
        first = _start(weights)
        alike = tuple((name, value.shape, weights.template.supports.get(name)) for name, value in first.items())
        if alike in layouts:
            return layouts[alike]
        count = sum(value.size for value in first.values())
        _bounded(kind, count, count**2 if issubclass(kind, DENSE) else 0)
        seen: list[dict[str, Any]] = []

        def shapes() -> dict[str, Any]:
            made = begun(weights)
            seen.append(made.constraints)
            return made.params

        _bounded(kind, count, sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(shapes))))
        return layouts.setdefault(alike, seen[0])

    def prior(weights: Weights, kl_weight: Array) -> Params:
        return _whole(weights, _latents(weights, kl_weight))

    def posterior(weights: Weights, kl_weight: Array, key: Key[Array, ""]) -> Params:
        layout(weights)
        made = begun(weights, stream(key, "init"))
        networks = {name: value for name, value in made.params.items() if name.endswith(NETWORK)}
        learned = {name: _learned(name, value) for name, value in networks.items()}
        names = _names(weights)
        placed_later = {*networks, *names, FLOW}
        hidden = handlers.block(hide_fn=lambda site: site.get("name") in placed_later)
        # auxiliary variables stay where they are drawn: a flow's density is known by its way from the base alone
        drawn = handlers.seed(handlers.substitute(made.guide, data=learned), stream(key, "weights"))
        with handlers.scale(scale=kl_weight), hidden, handlers.trace() as found:
            drawn()
        if standard:
            factors = _around(weights, found[FLOW]["value"], scale)
        else:
            factors = {name: (found[name]["fn"], found[name]["value"]) for name in names}
        values = {}
        for name in names:  # in the model's order, as NumPyro's mean-field objective wants to see them
            with handlers.scale(scale=kl_weight):
                values[name] = _placed(name, *factors[name])
        return _whole(weights, values)

    def centre(weights: Weights, params: Params) -> Params:
        made = begun(weights)
        known: dict[str, Any] = {
            name: _rebuilt(name, value, params) if name.endswith(NETWORK) else params[name]
            for name, value in made.params.items()
        }
        if standard:
            middle = made.guide.get_transform(known)(made.guide.get_base_dist().mean)
            values = {name: value for name, (_, value) in _around(weights, middle, scale).items()}
        else:
            values = made.guide.median(known)
        free = {name: params[name] for name in weights.template.names if weights.of(name) is None}
        return {name: (values | free)[name] for name in weights.template.names}

    def supports(weights: Weights) -> dict[str, Any]:
        return point_constraints(weights) | layout(weights)

    return Guide(prior, posterior, centre, supports)


def _bounded(kind: type[AutoGuide], weights: int, numbers: int) -> None:
    if numbers > LARGEST:
        raise ValueError(
            f"a guide may have at most {LARGEST} numbers, {kind.__name__} of {weights} weights has {numbers} or more; "
            "take AutoNormal, or AutoLowRankMultivariateNormal of a small rank."
        )


def takes_scale(kind: type[AutoGuide]) -> bool:
    """Returns whether a class lets its user say how wide it begins."""
    return "init_scale" in inspect.signature(kind.__init__).parameters


def _names(weights: Weights) -> list[str]:
    """Returns the latent variables in the order in which the model samples them."""
    found: list[str] = []
    for name in weights.template.names:
        prior = weights.of(name)
        if isinstance(prior, Hierarchical):
            found += [f"{name}.{scale}" for scale in prior.scales]
        if prior is not None:
            found.append(name)
    return found


def _latents(weights: Weights, kl_weight: Array) -> Params:
    """Samples the latent variables from their prior; returns all of them, scales too."""
    with handlers.trace() as found:
        for name in weights.template.names:
            if (fn := prior_of(weights, name, kl_weight)) is not None:
                with handlers.scale(scale=kl_weight):
                    numpyro.sample(name, fn)
    return {name: site["value"] for name, site in found.items() if site["type"] == "sample"}


def _in_order(weights: Weights) -> None:
    """Samples variables of the shapes and supports of the latent ones, in the order of their names.

    It is all that an AutoGuide has to see of a model. NumPyro keeps the order of the model in eager code and sorts the
    names where it is traced, so that a vector learned in one would mean other weights in the other.
    """
    fns: dict[str, dist.Distribution] = {}
    for name in weights.template.names:
        prior = weights.of(name)
        if isinstance(prior, Hierarchical):
            fns |= {f"{name}.{scale}": fn for scale, fn in prior.scales.items()}
            prior = prior.given({scale: jnp.ones(fn.event_shape) for scale, fn in prior.scales.items()})
        if prior is not None:
            fns[name] = prior
    for name in sorted(fns):
        numpyro.sample(name, fns[name])


def _whole(weights: Weights, values: Params) -> Params:
    names = weights.template.names
    return {name: values[name] if name in values else point_parameter(weights, name) for name in names}


def _start(weights: Weights) -> Params:
    """Returns where the latent variables begin, unconstrained: the network's values, and scales of one."""
    found: Params = {}
    for name in _names(weights):
        if name in weights.initial:
            found[name] = weights.transform(name).inv(weights.initial[name])
        else:
            owner, _, scale = name.rpartition(".")
            found[name] = jnp.zeros(weights.of(owner).scales[scale].event_shape)  # type: ignore[union-attr]
    return found


def _transform(weights: Weights, name: str) -> Any:
    return weights.transform(name) if name in weights.initial else dist.biject_to(dist.constraints.positive)


def _natural(weights: Weights, raw: Params) -> Params:
    return {name: _transform(weights, name)(value) for name, value in raw.items()}


def _around(weights: Weights, vector: Float[Array, " weight"], scale: float) -> dict[str, tuple[dist.Delta, Array]]:
    """Returns the point mass and the value of each latent variable, ``scale`` times the vector around where it begins.

    A point mass carries the log density that the map from its part of the vector brings.
    """
    start, found = _start(weights), {}
    ends = np.cumsum([value.size for value in start.values()])
    for (name, first), part in zip(start.items(), jnp.split(vector, ends[:-1].tolist()), strict=True):
        raw, transform = first + scale * part.reshape(first.shape), _transform(weights, name)
        value = transform(raw)
        widened = jnp.sum(transform.log_abs_det_jacobian(raw, value)) + first.size * math.log(scale)
        found[name] = dist.Delta(value, log_density=-widened, event_dim=value.ndim), value
    return found


def _placed(name: str, fn: dist.Distribution, value: Array) -> Array:
    """Samples a variable that already has a value."""
    with handlers.substitute(data={name: value}):
        return numpyro.sample(name, fn)


def _numbered(name: str, index: int) -> str:
    return f"{name.removesuffix(NETWORK)}.{index}"


def _learned(name: str, tree: Any) -> Any:
    """Returns a tree of parameters, each of them learned under a name of its own."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [numpyro.param(_numbered(name, i), leaf) for i, leaf in enumerate(leaves)])


def _rebuilt(name: str, tree: Any, params: Params) -> Any:
    """Returns the tree that `_learned` gave names to, from what was learned."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [params[_numbered(name, i)] for i in range(len(leaves))])
