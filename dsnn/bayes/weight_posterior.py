"""The posterior over the weights of a network, begun at its own initialisation.

In plain NumPyro ``weights.prior()`` stands in a model and ``weights.posterior(key=key)`` in its guide: both return the
weights by name, whatever the latent variables of the guide's family are. Where a guide draws inside of the forward pass
(dropout) or each example has its own draw (flipout), `WeightPosterior.adapt` and `WeightPosterior.means` say how.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from dsnn.bayes.guides import Guide, Weights, mean_field, point
from dsnn.bayes.guides.contract import Adapt
from dsnn.bayes.priors import Hierarchical, Prior
from dsnn.networks.whole import is_own
from dsnn.parameters import Params, Template, statistics_of
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

ANSWERS = "likelihood.temperature"
"""Name of what the readout's weights are divided by once learning is over (`dsnn.tasks.calibration`)."""

MEAN_FIELD = mean_field()
FULL_WEIGHT = 1.0
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class WeightPosterior:
    """A guide over the weights of a network, with what it begins at and its priors.

    Attributes:
        template: the network without its parameters, see `dsnn.parameters.split`.
        initial: the network's own parameters, where the guide starts.
        priors: by parameter name; None for a parameter makes it a point estimate.
        guide: the family of posteriors, see `dsnn.bayes.guides`.
        flipout: whether every example of a minibatch has its own draw, where the guide allows (`dsnn.bayes.flipout`).
    """

    template: Template
    initial: Params
    priors: Prior
    guide: Guide = MEAN_FIELD
    flipout: bool = False

    @property
    def over(self) -> Weights:
        """What the guide is over, as its functions take it."""
        return Weights(self.template, self.initial, self.priors)

    @property
    def members(self) -> int:
        """Size of the leading axis of every drawn weight in an ensemble; 1 is no such axis."""
        return self.guide.members

    def of(self, name: str) -> dist.Distribution | Hierarchical | None:
        """Returns the prior of one parameter; None of a point."""
        return self.over.of(name)

    def prior(self, kl_weight: Float[Array, ""] | float = FULL_WEIGHT) -> Params:
        """Samples the latent variables from their prior, inside a NumPyro model, and returns the weights by name.

        Args:
            kl_weight: factor on the divergence, the guide's too; with any but 1 the posterior is tempered.
        """
        return self.guide.prior(self.over, jnp.asarray(kl_weight))

    def posterior(self, kl_weight: Float[Array, ""] | float = FULL_WEIGHT, key: Key[Array, ""] | None = None) -> Params:
        """Samples the same from the posterior, inside a NumPyro guide.

        Args:
            kl_weight: that of `prior`.
            key: consumed; None takes the guide's own (`numpyro.prng_key`).
        """
        return self.guide.posterior(self.over, jnp.asarray(kl_weight), numpyro.prng_key() if key is None else key)

    def means(self) -> Params | None:
        """Returns, inside a model, the centres of the kernels that flipout turns around; None without flipout."""
        # signs are put into the layers of a stack; another network's examples share a draw
        if not self.flipout or self.guide.means is None or is_own(self.template.names):
            return None
        return self.guide.means(self.over)

    def averaged(self, one: Callable[[Params, Key[Array, ""]], T], drawn: Params, key: Key[Array, ""]) -> T:
        """Returns the mean of ``one(weights, key)`` over the members of an ensemble; the key is consumed."""
        if self.members == 1:
            return one(drawn, key)
        every = jax.vmap(one)(drawn, jax.random.split(key, self.members))
        mean: T = jax.tree.map(lambda a: a.mean(0), every)
        return mean

    def adapt(self, key: Key[Array, ""], batch: int) -> Adapt | None:
        """Returns the guide's randomness within the forward pass of a batch, None without; the key is consumed."""
        return None if self.guide.noise is None else self.guide.noise(stream(key, "dropout"), batch)

    def constraints(self) -> dict[str, Any]:
        """Returns the supports of the guide's parameters, where they are not the real line."""
        return self.guide.constraints(self.over)

    def draw(self, params: Params, key: Key[Array, ""], member: Array | int | None = None) -> Params:
        """Returns one draw of the weights; the key is consumed.

        Args:
            params: the guide's parameters.
            key: drives the draw.
            member: which member of an ensemble, counted around; None draws it.
        """
        with handlers.block():
            values = handlers.substitute(handlers.seed(self.posterior, key), data=params)()
        extra = stream(key, "init")
        if self.guide.redraw is not None:
            values = self.guide.redraw(self.over, params, values, extra)
        if self.members > 1:
            chosen = jax.random.randint(extra, (), 0, self.members) if member is None else member % self.members
            values = {name: value[chosen] for name, value in values.items()}
        return self._tempered(values, params)

    def prior_draw(self, params: Params, key: Key[Array, ""]) -> Params:
        """Returns one draw of the weights from their prior; what has none stays as it was learned. A key is consumed.

        Raises:
            ValueError: no weight has a prior.
        """
        names = self.template.names
        free = {name for name in names if self.of(name) is None}
        if len(free) == len(names):
            raise ValueError("a prior is drawn from where weights have one, got points alone; fit with bayesian=True.")
        guide, learned = self.guide, params
        if self.members > 1:  # their prior is that of one network, many times
            guide, learned = point(), {name: params[name][0] for name in free}
        with handlers.block():
            prior = handlers.seed(lambda: guide.prior(self.over, jnp.ones(())), key)
            drawn: Params = handlers.substitute(prior, data=learned)()
            return drawn | statistics_of(params)

    def centre(self, params: Params) -> Params:
        """Returns the posterior means (an ensemble's first member)."""
        return self._tempered(self.guide.centre(self.over, params), params)

    def _tempered(self, weights: Params, params: Params) -> Params:
        """Returns weights whose readout gives the logits of the answers' temperature, if one was fitted.

        Normalisation statistics stand beside them.
        """
        weights = weights | statistics_of(params)
        if ANSWERS not in params:
            return weights
        last = f"{self.template.build(self.initial).names[-1]}."
        own = (f"{last}norm.scale", f"{last}norm.shift") if f"{last}norm.scale" in weights else (f"{last}synapse.",)
        scaled = {name: value / params[ANSWERS] for name, value in weights.items() if name.startswith(own)}
        return weights | scaled
