"""What a guide is: a small tuple of functions that `dsnn.bayes.weight_posterior` calls in NumPyro's model and guide.

A guide decides which latent variables the weights have. It therefore writes both sides: the prior of its latents
(``prior``, run inside the model) and their posterior (``posterior``, run inside the guide); both return the weights of
the network, whatever the latents are.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.bayes.priors import POINT_CONSTRAINTS, SUPPORTS, Hierarchical, Prior
from dsnn.networks.whole import INSIDE, Whole
from dsnn.networks.wiring import described_by
from dsnn.parameters import Params, Template
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

Adapt = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a guide is over.

    Attributes:
        template: the network without its parameters.
        initial: the network's own parameters, where every guide starts.
        prior: by parameter name; None for a parameter makes it a point estimate without a prior.
    """

    template: Template
    initial: Params
    prior: Prior

    def of(self, name: str) -> dist.Distribution | Hierarchical | None:
        """Returns the prior of one parameter."""
        return self.prior(name, self.initial[name].shape)

    def transform(self, name: str) -> Any:
        """Returns the bijection from the reals to a parameter's support."""
        return dist.biject_to(SUPPORTS[self.template.supports[name]])

    @property
    def last(self) -> tuple[str, ...]:
        """Names of the last layer's parameters."""
        model = self.template.build(self.initial)
        if isinstance(model, Whole):
            return self._last_of(model)
        layer = model.names[-1]
        return tuple(name for name in self.template.names if name.startswith(f"{layer}."))

    def _last_of(self, model: Whole) -> tuple[str, ...]:
        """Returns the parameters beside the kernel of the last wire of a network that describes itself."""
        kernels = [wire.kernel for wire in described_by(model).wires if wire.kernel is not None]
        if not kernels:
            raise ValueError("a guide of the last layer needs a network whose wiring() names it, got one without.")
        inside = kernels[-1].rpartition(".")[0] + "."
        return tuple(n for n in self.template.names if n == kernels[-1] or (n.startswith(inside) and inside != INSIDE))


class Guide(NamedTuple):
    """A family of posteriors over the weights of a network.

    Attributes:
        prior: ``(weights, kl_weight) -> Params``, samples the latents from their prior and returns the weights.
        posterior: ``(weights, kl_weight, key) -> Params``, the same from the posterior; the key is consumed.
        centre: ``(weights, params) -> Params``, the deterministic network of the guide's parameters.
        constraints: ``(weights) -> dict``, the supports of the guide's own parameters (the real line if not named).
        means: ``(weights) -> Params`` inside the model, the centres of those kernels whose deviations are independent
            and symmetric, so that flipout is exact; None where no kernel has them.
        noise: ``(key, batch) -> Adapt``, randomness within the forward pass (dropout), in training and prediction.
        members: size of a leading axis that every weight has; 1 is no such axis.
        finish: ``(bayesian, params, x, y, key) -> params``, run once after training (Laplace).
        redraw: ``(weights, params, values, key) -> Params``, what a finished guide makes of a draw of ``posterior``.
    """

    prior: Callable[[Weights, Array], Params]
    posterior: Callable[[Weights, Array, Key[Array, ""]], Params]
    centre: Callable[[Weights, Params], Params]
    constraints: Callable[[Weights], dict[str, Any]]
    means: Callable[[Weights], Params] | None = None
    noise: Callable[[Key[Array, ""], int], Adapt] | None = None
    members: int = 1
    finish: Callable[..., Params] | None = None
    redraw: Callable[[Weights, Params, Params, Key[Array, ""]], Params] | None = None


def prior_of(weights: Weights, name: str, kl_weight: Array) -> dist.Distribution | None:
    """Returns the prior of a parameter inside the model, its own scales sampled from theirs."""
    prior = weights.of(name)
    if not isinstance(prior, Hierarchical):
        return prior
    with handlers.scale(scale=kl_weight):
        scales = {scale: numpyro.sample(f"{name}.{scale}", fn) for scale, fn in prior.scales.items()}
    return prior.given(scales)


def guide_scales(weights: Weights, name: str, kl_weight: Array, key: Key[Array, ""]) -> None:
    """Samples the scales of a hierarchical prior inside the guide, each entry LogNormal; the key is consumed."""
    prior = weights.of(name)
    if not isinstance(prior, Hierarchical):
        return
    for index, (scale, fn) in enumerate(prior.scales.items()):
        shape = fn.event_shape
        loc = numpyro.param(f"{name}.{scale}.loc", jnp.zeros(shape))
        width = numpyro.param(f"{name}.{scale}.scale", jnp.full(shape, 0.1), constraint=constraints.positive)
        with handlers.scale(scale=kl_weight):
            q = dist.LogNormal(loc, width).to_event(len(shape))
            numpyro.sample(f"{name}.{scale}", q, rng_key=stream(key, "weights", index))


def _scale_constraints(weights: Weights) -> dict[str, Any]:
    """Returns the supports of what `guide_scales` learns."""
    priors = {name: weights.of(name) for name in weights.template.names}
    return {
        f"{name}.{scale}.scale": constraints.positive
        for name, prior in priors.items()
        if isinstance(prior, Hierarchical)
        for scale in prior.scales
    }


def point_parameter(weights: Weights, name: str, value: Float[Array, "..."] | None = None) -> Array:
    """Returns a parameter of the network as a learned point on its support, started at ``value`` (or the network's).

    It is called by its name, or ``<name>.point`` where a latent variable has the name.
    """
    own = name if weights.of(name) is None else f"{name}.point"
    initial = weights.initial[name] if value is None else value
    return numpyro.param(own, initial, constraint=POINT_CONSTRAINTS[weights.template.supports[name]])


def point_value(params: Params, name: str) -> Array:
    """Returns what `point_parameter` learned, among the guide's parameters."""
    return params[name] if name in params else params[f"{name}.point"]


def point_constraints(weights: Weights) -> dict[str, Any]:
    """Returns the supports of points, and of what `guide_scales` learns."""
    supports = {name: POINT_CONSTRAINTS[kind] for name, kind in weights.template.supports.items()}
    return supports | {f"{name}.point": support for name, support in supports.items()} | _scale_constraints(weights)
