"""What a gate family is: distributions over z per compute site with four closed forms, and how to learn them.

A family's distribution has ``open_probability``, ``entropy_of_opening()`` and ``decision()`` besides the sampling of
any NumPyro distribution; its divergence from the family's base measure is registered, so that `TraceMeanField_ELBO`
uses it. Other objectives score draws, and the base measure refuses them (`unscored`). The energy of the Gibbs prior is
a factor of the model and not part of the base measure.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.types import Array, Bool, Float, Key

SURE = 20.0
"""Log odds of a gate that is decided."""


@runtime_checkable
class Gates(Protocol):
    """The distribution of a family, over ``[site]`` values in [0, 1]."""

    @property
    def open_probability(self) -> Float[Array, " site"]:
        """Probability that the site runs."""
        ...

    def entropy_of_opening(self) -> Float[Array, " site"]:
        """Returns the entropy of "does the site run?" in nats."""
        ...

    def decision(self) -> Float[Array, " site"]:
        """Returns the gates of the deterministic network: zero unless the site more likely runs than not."""
        ...

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns gates; the key is consumed."""
        ...


class Family(NamedTuple):
    """A gate family.

    Attributes:
        name: as `gates.family` says it.
        initial: ``(sites, open_probability) -> parameters`` by name, each ``[site]`` on the real line.
        posterior: ``(parameters) -> distribution``.
        base: ``(sites) -> distribution``, the base measure.
        decided: ``(opened) -> parameters`` at which these sites surely run and all others surely do not.
        discrete: gates are exactly 0 or 1 and have no pathwise gradient.
        shut: a site runs where its gate is larger than this.
        by_magnitude: nothing is inferred, and sites are decided by the size of the weights that read them.
        at_random: nothing is inferred, and sites are decided by chance.
    """

    name: str
    initial: Callable[[int, float], dict[str, Array]]
    posterior: Callable[[Mapping[str, Array]], dist.Distribution]
    base: Callable[[int], dist.Distribution]
    decided: Callable[[Bool[Array, " site"]], dict[str, Array]]
    discrete: bool = False
    shut: float = 0.0
    by_magnitude: bool = False
    at_random: bool = False

    @property
    def inferred(self) -> bool:
        """Whether learning infers which sites run; controls are told how many, and choose without it."""
        return not (self.by_magnitude or self.at_random)


class OpenOrClosed(dist.Distribution):
    """The uniform base measure over {closed, open} at every site, to which the Gibbs factor exp(-λ E(z)) is added."""

    support = constraints.unit_interval

    def __init__(self, sites: int, *, validate_args: bool | None = None):
        super().__init__(event_shape=(sites,), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns fair coin flips; the key is consumed."""
        return jax.random.bernoulli(key, 0.5, sample_shape + self.event_shape).astype(jnp.float32)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Raises ValueError: only the divergence from it is used, see `unscored`."""
        return unscored(value)


def unscored(value: Float[Array, "*sample site"]) -> NoReturn:
    """Refuses to score drawn gates under a base measure.

    An estimator that scores draws (`Trace_ELBO`, `TraceGraph_ELBO`, `RenyiELBO`) would leave the gates' divergence
    without a gradient: what is scored is which sites are open, which does not move with a relaxed gate, and the scores
    of discrete gates have the mean slope zero. A log-normal gate near one has lost its digits in float32.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "the divergence of gates is taken in closed form, got an objective that scores drawn gates of shape "
        f"{jnp.shape(value)}; give SVI numpyro.infer.TraceMeanField_ELBO."
    )


def bernoulli_entropy(logit: Float[Array, "*site"]) -> Float[Array, "*site"]:
    """Returns the entropy in nats of Bernoulli(sigmoid(logit)), stable at both ends."""
    p = jax.nn.sigmoid(logit)
    return p * jax.nn.softplus(-logit) + (1 - p) * jax.nn.softplus(logit)


def log_odds(probability: float) -> float:
    """Returns the log odds of an initial open probability.

    Raises:
        ValueError: it is not strictly between 0 and 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"an initial open probability must be in (0, 1), got {probability}.")
    return math.log(probability / (1 - probability))


def divergence(q: Gates, p: OpenOrClosed) -> Array:
    """Returns KL(q || uniform over {closed, open}) = sites log 2 - H(q)."""
    return p.event_shape[0] * math.log(2.0) - q.entropy_of_opening().sum(-1)


def weighed(weight: Float[Array, ""] | None) -> AbstractContextManager[Any]:
    """Returns what scales the gates' divergence; nothing where the weight is None."""
    return contextlib.nullcontext() if weight is None else handlers.scale(scale=weight)
