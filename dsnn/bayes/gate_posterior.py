"""The posterior over gates: which compute sites run, inferred together with the weights.

In plain NumPyro ``gates.prior()`` stands in a model and ``gates.posterior()`` in its guide; both give a value in [0, 1]
for every site, and `GatePosterior.fold` puts them into the weights. Discrete gates have no pathwise gradient:
`GatePosterior.averaged` sums over all settings of few of them, and adds the ARM estimate for more.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers

from dsnn.bayes.gates import ENUMERATED, HARD_CONCRETE, Family, Gates, antithetic, every_setting
from dsnn.bayes.gates.contract import weighed
from dsnn.bayes.sites import BLOCKS, TIME, Sites, gate
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Bool, Float, Key

GATES = "gates"


Observed = TypeVar("Observed", bound=tuple[Any, ...])


class Terms(NamedTuple):
    """What is found at some gates.

    Attributes:
        log_likelihood: of each example, in nats.
        spent_nj: energy of an inference.
        spikes: of hidden neurons in an inference, where these have a price.
    """

    log_likelihood: Float[Array, " batch"]
    spent_nj: Float[Array, ""]
    spikes: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class GatePosterior:
    """A family of distributions over the gates of a network's sites.

    Attributes:
        sites: of the network, see `dsnn.bayes.sites`.
        family: of the distribution, see `dsnn.bayes.gates`.
        open_probability: initial probability that a site runs.
    """

    sites: Sites
    family: Family = HARD_CONCRETE
    open_probability: float = 0.9

    def prior(self, weight: Float[Array, ""] | None = None) -> Float[Array, " site"]:
        """Samples the gates from their base measure, inside a NumPyro model.

        Args:
            weight: factor on their divergence, the guide's too; None is 1.
        """
        with weighed(weight):
            return numpyro.sample(GATES, self.family.base(self.sites.total))

    def posterior(
        self,
        key: Key[Array, ""] | None = None,
        weight: Float[Array, ""] | None = None,
        ungated: Bool[Array, ""] | None = None,
    ) -> Float[Array, " site"]:
        """Samples the gates from their posterior, inside a NumPyro guide.

        Args:
            key: consumed; None takes the guide's own.
            weight: that of `prior`.
            ungated: see `learned`.
        """
        with weighed(weight):
            return numpyro.sample(GATES, self.learned(ungated), rng_key=key)

    def learned(self, ungated: Bool[Array, ""] | None = None) -> Gates:
        """Returns the distribution of all gates with its learned parameters, inside a model or a guide.

        Args:
            ungated: whether every site runs for now, whatever its gate's distribution, which then stands still; None is
                no.
        """
        initial = self.family.initial(self.sites.total, self.open_probability)
        own = {name: numpyro.param(f"gates.{name}", value) for name, value in initial.items()}
        if ungated is not None:
            open_ = self.family.decided(jnp.ones(self.sites.total, bool))
            own = {name: jnp.where(ungated, open_[name], value) for name, value in own.items()}
        return self.family.posterior(own)

    def of(self, params: Params) -> Gates:
        """Returns the distribution of all gates among the guide's parameters."""
        names = self.family.initial(1, self.open_probability)
        return self.family.posterior({name: params[f"gates.{name}"] for name in names})

    def fold(self, weights: Params, z: dict[str, Array]) -> Params:
        """Returns the weights of the network under gates by group, which scale the kernels that read their sites."""
        return gate(self.sites, weights, z)

    def draw(self, params: Params, key: Key[Array, ""]) -> dict[str, Array]:
        """Returns one draw of the gates by group; the key is consumed."""
        drawn = handlers.seed(lambda: self.posterior(stream(numpyro.prng_key(), "gates")), key)
        with handlers.block():
            return self.sites.unflatten(handlers.substitute(drawn, data=params)())

    def probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site's gate is open, by group."""
        return self.sites.unflatten(self.of(params).open_probability)

    def running(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site runs, by group; a feature runs where its channel does."""
        return self.sites.running(self.probabilities(params))

    def decision(self, params: Params) -> dict[str, Array]:
        """Returns the gates of the deterministic network by group: zero unless a site more likely runs than not."""
        decided = self.sites.reachable(self.sites.unflatten(self.of(params).decision()))
        # a step or a block runs or does not; scaling has no meaning for it
        whole = (TIME, BLOCKS, *self.sites.switches)
        return {name: (z > 0).astype(z.dtype) if name in whole else z for name, z in decided.items()}

    def decide(self, params: Params, opened: Bool[Array, " site"]) -> Params:
        """Returns the guide's parameters with these sites surely open and all others surely closed."""
        decided = {f"gates.{name}": value for name, value in self.family.decided(opened).items()}
        return params | {name: jnp.asarray(value, params[name].dtype) for name, value in decided.items()}

    def runs(self, q: Gates, z: Float[Array, " site"]) -> Float[Array, " site"]:
        """Returns which sites run at these gates; a relaxed gate answers to the slope of its open probability.

        What is a product of energy and of something else that gates change has an expectation that is no product of
        expectations: both are taken at one draw. The value is exact in expectation; of relaxed gates the slope is that
        of a straight-through estimate.
        """
        if self.family.discrete:
            return z
        probability = q.open_probability
        return probability + jax.lax.stop_gradient((z > self.family.shut) - probability)

    def averaged(
        self,
        q: Gates,
        z: Float[Array, " site"],
        terms: Callable[[Float[Array, " site"]], Observed],
        worth: Callable[..., Float[Array, ""]],
        key: Key[Array, ""],
    ) -> Observed:
        """Returns the terms at a draw of the gates, or their exact expectation over few discrete ones.

        Inside a NumPyro model; for many discrete gates it adds the factor whose gradient is the ARM estimate.

        Args:
            q: from `learned`.
            z: the draw.
            terms: at gates, a tuple such as `Terms`.
            worth: what the objective makes of them, each an argument, for the estimate.
            key: consumed.
        """
        if self.family.discrete and self.sites.total <= ENUMERATED:
            return self._enumerated(q, terms)
        found = terms(z)
        if self.family.discrete:
            self._score(q, z, worth(*found), lambda other: worth(*terms(other)), key)
        return found

    def _enumerated(self, q: Any, terms: Callable[[Array], Observed]) -> Observed:
        """Returns the expectation of the terms, summed over all settings."""
        settings = every_setting(self.sites.total)
        share = jnp.exp(q.log_prob(settings))
        summed: Observed = jax.tree.map(lambda a: jnp.tensordot(share, a, 1), jax.lax.map(terms, settings))
        return summed

    def _score(self, q: Any, z: Array, here: Array, objective: Callable[[Array], Array], key: Key[Array, ""]) -> None:
        """Adds a factor of value zero whose gradient is the ARM estimate; the key is consumed."""
        other, weights = antithetic(q.logit, z, key)
        slope = jax.lax.stop_gradient((here - objective(other)) * weights)
        numpyro.factor("gates_score", (slope * (q.logit - jax.lax.stop_gradient(q.logit))).sum())
