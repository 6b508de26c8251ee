"""A network lifted to a NumPyro model and its guide: weights, gates and stopping times with one objective.

objective = E_q[log p(y | x, w, z, n)] - β KL(w) + γ H(q(z)) + H(q(n | x)) - λ E_q[E(z, n)]   (design, equation 5)

With β = γ = 1 and gates that are drawn open or closed this is the ELBO. Other weights make a tempered posterior.
Relaxed gates enter the likelihood with values in [0, 1] and H(q(z)) as open or closed, so with them it is no bound on
the evidence. Without `Lifted.joint`, n is T and H(q(n | x)) is left out.

Weights and gates are sample sites. The stopping time is summed exactly. The energy enters by its expectation, in closed
form where steps do not depend on gates, else at the gates that are drawn. Both are factors of the model that share the
guide's parameters. Every random number comes from
`numpyro.prng_key()`, so particles, updates and predictive samples differ.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.bayes import halting
from dsnn.bayes.energy import Energy, Prices, expected_energy
from dsnn.bayes.flipout import flipout
from dsnn.bayes.gates import ENUMERATED, HARD_CONCRETE, Family, Gates, antithetic, every_setting
from dsnn.bayes.guides import Guide, Weights, mean_field, point
from dsnn.bayes.likelihood import Categorical, Likelihood
from dsnn.bayes.priors import SUPPORTS, Prior
from dsnn.bayes.sites import BLOCKS, TIME, Sites, gate, measure
from dsnn.forward import Forward, keep_spikes
from dsnn.networks.whole import is_own
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Bool, Float, Key, Shaped

GATES = "gates"
TEMPERATURE, SHARPNESS = "halting.temperature", "halting.sharpness"
ANSWERS = "likelihood.temperature"
"""Name of what the readout's weights are divided by once learning is over (`dsnn.answer_calibration`)."""

POSITIVE = SUPPORTS["positive"]
MEAN_FIELD, CATEGORICAL = mean_field(), Categorical()


class Context(NamedTuple):
    """What the objective needs besides data: measured events, the price of energy, and the weight of KL(w).

    Attributes:
        events: by wire, mean events per step and sending site, from `measure`.
        lam: λ in nats per nJ and example.
        kl_weight: factor on KL(w), β; with any but 1 the posterior is tempered, "cold" below 1.
        site_prices: by group, what each site costs besides its energy, in nats of the whole training part.
        gates_weight: factor on the gates' divergence; None is 1.
        ungated: whether every site runs for now, whatever its gate's distribution, which then stands still; None is no.
    """

    events: dict[str, Array]
    lam: Float[Array, ""]
    kl_weight: Float[Array, ""]
    site_prices: dict[str, Float[Array, ""]] = {}  # noqa: RUF012 - never changed
    gates_weight: Float[Array, ""] | None = None
    ungated: Bool[Array, ""] | None = None


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
        sites: compute sites, or None for neither gates nor a price of steps.
        prices: energy profile.
        accounting: which energies count, "arithmetic", "updates" or "memory".
        feature: halting feature, or None to run all steps.
        joint: whether q(n | x) learns with the weights, its likelihood and its steps mixed into the objective. Without,
            learning runs all steps, and q(n | x) is fitted afterwards (`dsnn.exit_calibration`), so that stopping early
            cannot harm what is learned: evidence that comes late would else never be waited for.
        family: posterior family of the weights, see `dsnn.bayes.guides`.
        likelihood: what is observed given the outputs.
        flipout: whether every example of a minibatch has its own draw, where the family allows (`dsnn.bayes.flipout`).
        open_probability: initial probability that a site runs.
        gate_family: distribution of the gates, see `dsnn.bayes.gates`.
        gated: whether the sites have gates; without, all of them run and only the steps have a price.
    """

    forward: Forward
    initial: Params
    prior: Prior
    data_size: int
    sites: Sites | None = None
    prices: Prices | None = None
    accounting: str = "updates"
    feature: str | None = None
    joint: bool = False
    family: Guide = MEAN_FIELD
    likelihood: Likelihood = CATEGORICAL
    flipout: bool = False
    open_probability: float = 0.9
    gate_family: Family = HARD_CONCRETE
    gated: bool = True

    @property
    def gated_sites(self) -> Sites | None:
        """The sites that have gates; None without."""
        return self.sites if self.gated else None

    @property
    def weights(self) -> Weights:
        """What the posterior family is over."""
        return Weights(self.forward.template, self.initial, self.prior)

    def model(self, x: Array, y: Shaped[Array, "batch *target"], context: Context) -> None:
        """The generative model with its collapsed terms."""
        key = numpyro.prng_key()
        drawn = self.family.prior(self.weights, context.kl_weight)
        scale = self.data_size / x.shape[0]
        sites = self.gated_sites
        z: Any = None
        if sites is not None:
            with _weighing(context):
                z = numpyro.sample(GATES, self.gate_family.base(sites.total))
        noise = {name: numpyro.param(name, v, constraint=POSITIVE) for name, v in self.likelihood.parameters().items()}
        head = self._head() if self.joint else None
        # signs are put into the layers of a stack; another network's examples share a draw
        flips = self.flipout and self.family.means and not is_own(self.forward.template.names)
        means = self.family.means(self.weights) if flips and self.family.means else None

        opened = {} if sites is None else sites.unflatten(self._gates(context).open_probability)
        priced = self.prices is not None and self.sites is not None

        def terms(flat: Any) -> tuple[Array, Array]:
            """Returns the evidence ``[batch]`` and the energy in nJ at these gates."""
            evidence, reached = evidence_and_reach(flat)
            if not priced:
                return evidence, jnp.zeros(())
            here = (
                opened if flat is None or sites is None or not self.joint else sites.unflatten(self._at(flat, context))
            )
            return evidence, self._spent(here, reached, context.events)

        def evidence_and_reach(flat: Any) -> tuple[Array, Array]:
            z = None if flat is None or sites is None else sites.unflatten(flat)

            def one(drawn: Params, key: Key[Array, ""]) -> tuple[Array, Array]:
                return self._terms(drawn, means, z, head, noise, x, y, key)

            if self.family.members == 1:
                return one(drawn, key)
            every = jax.vmap(one)(drawn, jax.random.split(key, self.family.members))
            return jax.tree.map(lambda a: a.mean(0), every)

        discrete = z is not None and self.gate_family.discrete
        summed = discrete and len(z) <= ENUMERATED
        evidence, spent_nj = self._enumerated(terms, context) if summed else terms(z)
        price = context.lam * self.data_size
        if discrete and not summed:

            def objective(evidence: Array, spent_nj: Array) -> Array:
                # where steps do not depend on gates, the energy's gradient is that of its closed form
                return scale * evidence.sum() - (price * spent_nj if self.joint else 0.0)

            here = objective(evidence, spent_nj)
            self._score(z, here, lambda other: objective(*terms(other)), stream(key, "gates"), context)
        with handlers.scale(scale=scale):
            numpyro.factor("likelihood", evidence)
        if priced:
            numpyro.factor("energy", -price * spent_nj)
        if context.site_prices:
            paid = [price * opened[group].sum() for group, price in context.site_prices.items()]
            numpyro.factor("sites", -jnp.stack(paid).sum())

    def guide(
        self, x: Array | None = None, y: Shaped[Array, "batch *target"] | None = None, context: Context | None = None
    ) -> tuple[Params, dict[str, Array] | None]:
        """Posterior over weights begun at the network's own initialisation, and gates."""
        key = numpyro.prng_key()
        kl_weight = jnp.ones(()) if context is None else context.kl_weight
        drawn, z = self.family.posterior(self.weights, kl_weight, key), None
        if self.gated_sites is not None:
            with _weighing(context):
                z = numpyro.sample(GATES, self._gates(context), rng_key=stream(key, "gates"))
            z = self.gated_sites.unflatten(z)
        if self.joint:
            self._head()
        return drawn, z

    def constrain(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns the guide's parameters in their natural spaces from the optimiser's unconstrained ones."""
        supports = self.family.constraints(self.weights) | dict.fromkeys(self.likelihood.parameters(), POSITIVE)
        return {name: dist.biject_to(supports.get(name, constraints.real))(value) for name, value in params.items()}

    def draw(self, params: Params, key: Key[Array, ""], member: Array | int | None = None) -> Draw:
        """Returns one draw of weights and gates from the guide with parameters ``params``; the key is consumed.

        Args:
            params: the guide's parameters.
            key: drives the draw.
            member: which member of an ensemble, counted around; None draws it.
        """
        with handlers.block():
            values, z = handlers.substitute(handlers.seed(self.guide, key), data=params)()
        extra = stream(key, "init")
        if self.family.redraw is not None:
            values = self.family.redraw(self.weights, params, values, extra)
        if self.family.members > 1:
            count = self.family.members
            chosen = jax.random.randint(extra, (), 0, count) if member is None else member % count
            values = {name: value[chosen] for name, value in values.items()}
        return Draw(self._tempered(values, params), z)

    def prior_draw(self, params: Params, key: Key[Array, ""]) -> Draw:
        """Returns one draw of the weights from their prior, with every site running; the key is consumed.

        What has no prior stays as it was learned.

        Args:
            params: the guide's parameters.
            key: drives the draw.

        Raises:
            ValueError: no weight has a prior.
        """
        names = self.forward.template.names
        free = {name for name in names if self.weights.of(name) is None}
        if len(free) == len(names):
            raise ValueError("a prior is drawn from where weights have one, got points alone; fit with bayesian=True.")
        family, learned = self.family, params
        if family.members > 1:  # their prior is that of one network, many times
            family, learned = point(), {name: params[name][0] for name in free}
        with handlers.block():
            prior = handlers.seed(lambda: family.prior(self.weights, jnp.ones(())), key)
            return Draw(handlers.substitute(prior, data=learned)(), None)

    def adapt(self, key: Key[Array, ""], batch: int) -> Callable[[Any], Any] | None:
        """Returns the family's randomness within the forward pass of a batch, None without; the key is consumed."""
        return None if self.family.noise is None else self.family.noise(stream(key, "dropout"), batch)

    def finish(self, params: Params, x: Any, y: Any, key: Key[Array, ""]) -> Params:
        """Returns the guide's parameters after what the family does once training is over; a key is consumed."""
        return params if self.family.finish is None else self.family.finish(self, params, x, y, key)

    def centre(self, params: Params) -> Draw:
        """Returns the deterministic network: posterior means (an ensemble's first member) and decided gates."""
        weights = self._tempered(self.family.centre(self.weights, params), params)
        sites = self.gated_sites
        if sites is None:
            return Draw(weights, None)
        decided = sites.reachable(sites.unflatten(self.gates(params).decision()))
        # a step or a block runs or does not; scaling has no meaning for it
        whole = (TIME, BLOCKS, *sites.switches)
        return Draw(weights, {name: (z > 0).astype(z.dtype) if name in whole else z for name, z in decided.items()})

    def _tempered(self, weights: Params, params: Params) -> Params:
        """Returns weights whose readout gives the logits of the answers' temperature, if one was fitted."""
        if ANSWERS not in params:
            return weights
        last = f"{self.forward.template.build(self.initial).names[-1]}.synapse."
        scaled = {name: value / params[ANSWERS] for name, value in weights.items() if name.startswith(last)}
        return weights | scaled

    def decide(self, params: Params, opened: Array) -> Params:
        """Returns the guide's parameters with these sites surely open and all others surely closed."""
        decided = {f"gates.{name}": value for name, value in self.gate_family.decided(opened).items()}
        return params | {name: jnp.asarray(value, params[name].dtype) for name, value in decided.items()}

    def gates(self, params: Params) -> Gates:
        """Returns the distribution of all gates among the guide's parameters."""
        names = self.gate_family.initial(1, self.open_probability)
        return self.gate_family.posterior({name: params[f"gates.{name}"] for name in names})

    def likelihood_parameters(self, params: Params) -> dict[str, Array]:
        """Returns the likelihood's own parameters among the guide's."""
        return {name: params[name] for name in self.likelihood.parameters()}

    def network(self, draw: Draw) -> Params:
        """Returns the parameters of the network that a draw describes, gates folded into the kernels."""
        return draw.weights if draw.gates is None else gate(self.sites, draw.weights, draw.gates)  # type: ignore[arg-type]

    def head(self, params: Params) -> dict[str, Array]:
        """Returns the halting head among the guide's parameters, the initial one where none was fitted yet."""
        first = halting.initial_head(self.forward.steps, self.feature or "margin")
        return {name: params.get(f"halting.{name}", value) for name, value in first.items()}

    def temperature(self, params: Params) -> Float[Array, " time"]:
        """Returns what the logits of an answer are divided by, after each step; ones where nothing was fitted."""
        return params.get(TEMPERATURE, jnp.ones(self.forward.steps))

    def sharpness(self, params: Params) -> Float[Array, ""]:
        """Returns what early logits of the predictive's draws are multiplied by; 1 where nothing was fitted."""
        return params.get(SHARPNESS, jnp.ones(()))

    def unfitted(self) -> dict[str, Array]:
        """Returns the parameters that are fitted once learning is over, as they are before: they change no answer."""
        found = {ANSWERS: jnp.ones(())}
        if self.feature is not None:
            found |= {f"halting.{name}": value for name, value in self.head({}).items()}
            found |= {TEMPERATURE: self.temperature({}), SHARPNESS: self.sharpness({})}
        return found

    def gate_probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site's gate is open, by group; empty without gates."""
        sites = self.gated_sites
        return {} if sites is None else sites.unflatten(self.gates(params).open_probability)

    def running_probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site runs, by group; a feature runs where its channel does."""
        sites = self.gated_sites
        return {} if sites is None else sites.running(self.gate_probabilities(params))

    def energy(self, probabilities: dict[str, Array], events: dict[str, Array]) -> Energy:
        """Returns the expected energy per inference for these probabilities of open gates (empty: everything runs)."""
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
        logits, inputs, spikes = self.forward.run(network, x, key, keep_spikes, self.adapt(key, x.shape[0]))
        assert self.sites is not None
        model, running = self.forward.built(network)
        events = measure(self.sites, model, inputs, spikes, held=self.forward.held, running=running)
        floor = 0.5 / (x.shape[0] * logits.shape[0])
        return {name: jnp.maximum(e, floor) for name, e in events.items()}, self.mean_steps(params, logits)

    def mean_steps(self, params: Params, logits: Float[Array, "time batch class"]) -> Float[Array, ""]:
        """Returns E_q[n] over a batch of running logits; all steps where q(n | x) does not learn with the weights."""
        if not self.joint:
            return jnp.asarray(float(logits.shape[0]))
        q = jnp.exp(halting.log_stop(halting.hazard_logits(self.head(params), logits, self.feature or "margin")))
        return (q * jnp.arange(1, logits.shape[0] + 1)[:, None]).sum(0).mean()

    def no_context(self) -> Context:
        """Returns a context in which energy is free, with silent wires."""
        wires = () if self.sites is None else self.sites.wires
        return Context({w.name: jnp.zeros(w.pre_sites) for w in wires}, jnp.zeros(()), jnp.ones(()))

    def _terms(
        self,
        drawn: Params,
        means: Params | None,
        z: dict[str, Array] | None,
        head: dict[str, Array] | None,
        noise: dict[str, Array],
        x: Array,
        y: Array,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, " batch"], Float[Array, " time"]]:
        """Likelihood with the stopping time summed out, per example, and the share of them that reaches each step."""
        params, adapt = self.network(Draw(drawn, z)), self.adapt(key, x.shape[0])
        if means is not None:
            centre = self.network(Draw(drawn | means, z))
            flipped = {name: centre[name] for name in means}
            params, adapt = flipout(self.forward.template, params, flipped, stream(key, "weights"), x.shape[0])
        logits = self.forward.logits(params, x, key, adapt)
        if head is None:
            return self.likelihood.of_sequence(noise, logits, y), jnp.ones(logits.shape[0])
        log_q = halting.log_stop(halting.hazard_logits(head, logits, self.feature or "margin"))
        expected, entropy, _ = halting.mixture_elbo(log_q, self.likelihood.log_prob(noise, logits, y))
        reached = jnp.cumsum(jnp.exp(log_q)[::-1], 0)[::-1].mean(1)
        return expected + entropy, reached

    def _gates(self, context: Context | None) -> Any:
        """Returns the distribution of all gates, inside the model or the guide."""
        assert self.sites is not None
        initial = self.gate_family.initial(self.sites.total, self.open_probability)
        own = {n: numpyro.param(f"gates.{n}", value) for n, value in initial.items()}
        if context is not None and context.ungated is not None:
            open_ = self.gate_family.decided(jnp.ones(self.sites.total, bool))
            own = {n: jnp.where(context.ungated, open_[n], value) for n, value in own.items()}
        return self.gate_family.posterior(own)

    def _spent(
        self, opened: dict[str, Array], reached: Float[Array, " time"], events: dict[str, Array]
    ) -> Float[Array, ""]:
        """Returns the energy in nJ where each time step is reached with this probability: skipped ones cost nothing."""
        steps = (reached * opened.get(TIME, 1.0)).sum()
        return self.energy({name: p for name, p in opened.items() if name != TIME}, events).total(steps)

    def _at(self, z: Float[Array, " site"], context: Context) -> Float[Array, " site"]:
        """Returns which sites run at these gates; a relaxed gate answers to the slope of its open probability.

        The steps that an example takes depend on the gates, so E[n E_step] is not E[n] E[E_step]: both are taken at
        one draw. Its value is exact in expectation; of relaxed gates the slope is that of a straight-through estimate.
        """
        if self.gate_family.discrete:
            return z
        probability = self._gates(context).open_probability
        return probability + jax.lax.stop_gradient((z > self.gate_family.shut) - probability)

    def _enumerated(self, terms: Callable[[Array], tuple[Array, Array]], context: Context) -> tuple[Array, Array]:
        """Returns the expectation of the terms over discrete gates, summed over all their settings."""
        assert self.sites is not None
        settings = every_setting(self.sites.total)
        share = jnp.exp(self._gates(context).log_prob(settings))
        return jax.tree.map(lambda a: jnp.tensordot(share, a, 1), jax.lax.map(terms, settings))

    def _score(
        self, z: Array, here: Array, objective: Callable[[Array], Array], key: Key[Array, ""], context: Context
    ) -> None:
        """Adds a factor of value zero whose gradient is the ARM estimate for discrete gates; the key is consumed."""
        logit = self._gates(context).logit
        other, weights = antithetic(logit, z, key)
        slope = jax.lax.stop_gradient((here - objective(other)) * weights)
        numpyro.factor("gates_score", (slope * (logit - jax.lax.stop_gradient(logit))).sum())

    def _head(self) -> dict[str, Array]:
        if self.feature is None:
            raise ValueError(
                "joint learning of q(n | x) needs a halting feature, got none; set feature, or joint=False."
            )
        initial = halting.initial_head(self.forward.steps, self.feature)
        return {name: numpyro.param(f"halting.{name}", value) for name, value in initial.items()}


def _weighing(context: Context | None) -> Any:
    """Returns what scales the gates' divergence as the context says."""
    weight = None if context is None else context.gates_weight
    return contextlib.nullcontext() if weight is None else handlers.scale(scale=weight)
