"""A network lifted to a NumPyro model and its guide: weights, gates and stopping times with one objective.

ELBO = E_q[log p(y | x, w, z, n)] - KL(w) + H(q(z)) + H(q(n | x)) - λ E_q[E(z, n)]   (design, equation 5)

Weights and gates are sample sites. The stopping time is summed exactly, and the energy enters by its closed-form
expectation, so both are factors of the model that share the guide's parameters. Every random number comes from
`numpyro.prng_key()`, so particles, updates and predictive samples differ.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.bayes import halting
from dsnn.bayes.energy import Energy, Prices, expected_energy
from dsnn.bayes.gates import HardConcrete, OpenOrClosed, log_alpha_for
from dsnn.bayes.priors import SUPPORTS, Prior
from dsnn.bayes.sites import Sites, gate, measure
from dsnn.forward import Forward, keep_spikes, log_likelihood
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Float, Int, Key

GATES = "gates"


class Context(NamedTuple):
    """What the objective needs besides data: measured events, the price of energy, and the weight of KL(w).

    Attributes:
        events: by wire, mean events per step and sending site, from `measure`.
        lam: λ in nats per nJ and example.
        kl_weight: factor on KL(w); 1 is the ELBO, below 1 a tempered ("cold") posterior.
    """

    events: dict[str, Array]
    lam: Float[Array, ""]
    kl_weight: Float[Array, ""]


class Draw(NamedTuple):
    """One posterior draw: ungated weights by name, and gates by group (None when the network has no gates)."""

    weights: Params
    gates: dict[str, Array] | None


@dataclasses.dataclass(frozen=True)
class Lifted:
    """A network with priors, gates and halting as NumPyro ``model(x, y, context)`` and ``guide(x, y, context)``.

    Attributes:
        forward: how examples run through the network.
        initial: the network's own initial parameters, where the guide starts.
        prior: by parameter name; None for a parameter makes it a point estimate.
        data_size: number of training examples, for minibatch scaling.
        sites: compute sites, or None for a network without gates.
        prices: energy profile.
        accounting: which energies count, "arithmetic", "updates" or "memory".
        feature: halting feature, or None to run all steps.
        guide_scale: initial posterior standard deviation of every weight.
        open_probability: initial probability that a site runs.
    """

    forward: Forward
    initial: Params
    prior: Prior
    data_size: int
    sites: Sites | None = None
    prices: Prices | None = None
    accounting: str = "updates"
    feature: str | None = None
    guide_scale: float = 0.01
    open_probability: float = 0.9

    def model(self, x: Array, y: Int[Array, " batch"], context: Context) -> None:
        """The generative model with its collapsed terms."""
        key = numpyro.prng_key()
        weights = self._weights(context.kl_weight, self._prior_site)
        scale = self.data_size / x.shape[0]
        if self.sites is not None:
            z = numpyro.sample(GATES, OpenOrClosed(self.sites.total))
            params = gate(self.sites, weights, self.sites.unflatten(z))
        else:
            params = weights
        logits = self.forward.logits(params, x, key)
        steps: Any = jnp.full(x.shape[0], float(logits.shape[0]))
        if self.feature is None:
            terms = log_likelihood(logits[-1], y)
        else:
            log_q = halting.log_stop(halting.hazard_logits(self._head(), logits, self.feature))
            expected, entropy, steps = halting.mixture_elbo(log_q, log_likelihood(logits, y))
            terms = expected + entropy
        with handlers.scale(scale=scale):
            numpyro.factor("likelihood", terms)
        if self.prices is not None and (self.sites is not None or self.feature is not None):
            energy = self.energy(self._gate_probabilities(), context.events)
            numpyro.factor("energy", -context.lam * self.data_size * energy.total(steps.mean()))

    def guide(
        self, x: Array | None = None, y: Int[Array, " batch"] | None = None, context: Context | None = None
    ) -> None:
        """Mean-field posterior over weights begun at the network's own initialisation, and hard-concrete gates."""
        key = numpyro.prng_key()
        kl_weight = jnp.ones(()) if context is None else context.kl_weight
        self._weights(kl_weight, lambda index, name, fn: self._guide_site(index, name, fn, key))
        if self.sites is not None:
            numpyro.sample(GATES, HardConcrete(self._log_alpha()), rng_key=stream(key, "gates"))
        if self.feature is not None:
            self._head()

    def constrain(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns the guide's parameters in their natural spaces from the optimiser's unconstrained ones."""
        supports = {name: SUPPORTS[kind] for name, kind in self.forward.template.supports.items()}
        supports |= {f"{name}.scale": constraints.positive for name in supports}
        return {name: dist.biject_to(supports.get(name, constraints.real))(value) for name, value in params.items()}

    def draw(self, params: Params, key: Key[Array, ""]) -> Draw:
        """Returns one draw of weights and gates from the guide with parameters ``params``; the key is consumed."""
        substituted = handlers.substitute(handlers.seed(self.guide, key), data=params)
        with handlers.block():
            sites_ = handlers.trace(substituted).get_trace()
        weights = {name: sites_[name]["value"] for name in self.forward.template.names}
        return Draw(weights, None if self.sites is None else self.sites.unflatten(sites_[GATES]["value"]))

    def centre(self, params: Params) -> Draw:
        """Returns the deterministic network: posterior means and decided gates."""
        weights = {
            name: params[f"{name}.loc"] if f"{name}.loc" in params else params[name]
            for name in self.forward.template.names
        }
        weights = {name: self._natural(name, value, params) for name, value in weights.items()}
        if self.sites is None:
            return Draw(weights, None)
        return Draw(weights, self.sites.unflatten(HardConcrete(params["gates.log_alpha"]).decision()))

    def network(self, draw: Draw) -> Params:
        """Returns the parameters of the network that a draw describes, gates folded into the kernels."""
        return draw.weights if draw.gates is None else gate(self.sites, draw.weights, draw.gates)  # type: ignore[arg-type]

    def head(self, params: Params) -> dict[str, Array]:
        """Returns the halting head among the guide's parameters."""
        return {name: params[f"halting.{name}"] for name in halting.initial_head(1)}

    def gate_probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site runs, by group; empty without gates."""
        if self.sites is None:
            return {}
        return self.sites.unflatten(HardConcrete(params["gates.log_alpha"]).open_probability)

    def energy(self, probabilities: dict[str, Array], events: dict[str, Array]) -> Energy:
        """Returns the expected energy per inference for these open probabilities (empty: everything runs)."""
        assert self.sites is not None
        assert self.prices is not None
        everything = {name: jnp.ones(size) for name, size in self.sites.groups.items()}
        return expected_energy(self.sites, {**everything, **probabilities}, events, self.prices, self.accounting)

    def measure(self, params: Params, x: Array, key: Key[Array, ""]) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Returns the events that each wire carries in one posterior draw, and the mean stopping time.

        A site that was silent on all of ``x`` is counted as one half event in all of them, so that its price is not
        zero (Jeffreys' rule).
        """
        draw = self.draw(params, stream(key, "weights"))
        network = self.network(draw)
        logits, inputs, spikes = self.forward.run(network, x, key, keep_spikes)
        assert self.sites is not None
        model = self.forward.template.build(network)
        events = measure(self.sites, model, inputs, spikes, held=self.forward.held)
        floor = 0.5 / (x.shape[0] * logits.shape[0])
        return {name: jnp.maximum(e, floor) for name, e in events.items()}, self.mean_steps(params, logits)

    def mean_steps(self, params: Params, logits: Float[Array, "time batch class"]) -> Float[Array, ""]:
        """Returns E_q[n] over a batch of running logits; all steps without halting."""
        if self.feature is None:
            return jnp.asarray(float(logits.shape[0]))
        q = jnp.exp(halting.log_stop(halting.hazard_logits(self.head(params), logits, self.feature)))
        return (q * jnp.arange(1, logits.shape[0] + 1)[:, None]).sum(0).mean()

    def no_context(self) -> Context:
        """Returns a context in which energy is free, with silent wires."""
        wires = () if self.sites is None else self.sites.wires
        return Context({w.name: jnp.zeros(w.pre_sites) for w in wires}, jnp.zeros(()), jnp.ones(()))

    def _weights(self, kl_weight: Array, site: Callable[[int, str, Any], Array]) -> Params:
        weights = {}
        for index, name in enumerate(self.forward.template.names):
            value = self.initial[name]
            fn = self.prior(name, value.shape)
            if fn is None:
                weights[name] = numpyro.param(name, value, constraint=SUPPORTS[self.forward.template.supports[name]])
            else:
                with handlers.scale(scale=kl_weight):
                    weights[name] = site(index, name, fn)
        return weights

    def _prior_site(self, index: int, name: str, fn: dist.Distribution) -> Array:
        return numpyro.sample(name, fn)

    def _guide_site(self, index: int, name: str, fn: dist.Distribution, key: Key[Array, ""]) -> Array:
        value = self.initial[name]
        transform = dist.biject_to(SUPPORTS[self.forward.template.supports[name]])
        loc = numpyro.param(f"{name}.loc", transform.inv(value))
        scale = numpyro.param(f"{name}.scale", jnp.full(value.shape, self.guide_scale), constraint=constraints.positive)
        q: Any = dist.Normal(loc, scale)
        if self.forward.template.supports[name] != "real":
            q = dist.TransformedDistribution(q, transform)
        return numpyro.sample(name, q.to_event(value.ndim), rng_key=stream(key, "weights", index))

    def _natural(self, name: str, value: Array, params: Params) -> Array:
        if f"{name}.loc" not in params:
            return value
        return dist.biject_to(SUPPORTS[self.forward.template.supports[name]])(value)

    def _log_alpha(self) -> Array:
        assert self.sites is not None
        return numpyro.param("gates.log_alpha", jnp.full(self.sites.total, log_alpha_for(self.open_probability)))

    def _gate_probabilities(self) -> dict[str, Array]:
        if self.sites is None:
            return {}
        return self.sites.unflatten(HardConcrete(self._log_alpha()).open_probability)

    def _head(self) -> dict[str, Array]:
        initial = halting.initial_head(self.forward.steps)
        return {name: numpyro.param(f"halting.{name}", value) for name, value in initial.items()}
