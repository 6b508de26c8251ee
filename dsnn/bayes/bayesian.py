"""A Bayesian network: weights, gates and stopping times under one objective, as a NumPyro model and its guide.

objective = E_q[log p(y | x, w, z, b, n)] - β KL(w) + γ H(q(z, b)) + H(q(n | x)) - λ E_q[E(z, b, n)]

With β = γ = 1 and gates that are drawn open or closed this is the ELBO. Other weights make a tempered posterior.
Relaxed gates enter the likelihood with values in [0, 1] and H(q(z)) as open or closed, so with them it is no bound on
the evidence. Unless q(n | x) learns with the weights (`HaltingPosterior.joint`), n is T and H(q(n | x)) is left out.

Weights and gates are sample sites. The stopping time is summed exactly. The energy enters by its expectation, in closed
form where steps do not depend on gates, else at the gates that are drawn. Both are factors of the model that share the
guide's parameters. With `EnergyPrior.differentiated` the energy is that of the events of the very pass that gives the
likelihood, and has the gradient of its spikes: it is then a penalty on behaviour too (`dsnn.bayes.behaviour`). Every
random number comes from `numpyro.prng_key()`, so particles, updates and predictive samples differ. Each part also works
alone in a NumPyro program of one's own (experiments/cookbook.md).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from dsnn.bayes.bit_posterior import BitPosterior, input_range
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.guides.contract import Adapt
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.likelihood import Categorical, Likelihood
from dsnn.bayes.norm_statistics import DECIDED, WHOLE, decided, measured_anew
from dsnn.bayes.objective import Context, Draw, Objective, all_bits
from dsnn.bayes.priors import SUPPORTS
from dsnn.bayes.sites import Sites
from dsnn.bayes.weight_posterior import ANSWERS, WeightPosterior
from dsnn.data.limit import looked_at
from dsnn.data.split import Arrays, Features
from dsnn.parameters import Params
from dsnn.resolve import is_foreign
from dsnn.rng import stream
from dsnn.simulate.simulator import Simulator, keep_spikes
from dsnn.types import Array, Float, Key, Shaped

POSITIVE = SUPPORTS["positive"]
CATEGORICAL = Categorical()
RANGED = 512
"""Examples whose encoded values are looked at for the range of inputs, where the encoding is one's own."""


@dataclasses.dataclass(frozen=True)
class Bayesian:
    """A simulated network with its posteriors, as NumPyro ``model(x, y, context)`` and ``guide(x, y, context)``.

    Attributes:
        simulator: how examples run through the network.
        weights: posterior over its weights.
        gates: posterior over which of its sites run; None: all of them.
        halting: posterior over how many steps run; None: all of them.
        bits: posterior over how precisely its kernels are stored; None: as single-precision numbers.
        energy: what sites and steps cost; None: nothing has a price.
        likelihood: what is observed given the outputs.
        data_size: number of training examples, for minibatch scaling.
    """

    simulator: Simulator
    weights: WeightPosterior
    gates: GatePosterior | None = None
    halting: HaltingPosterior | None = None
    energy: EnergyPrior | None = None
    likelihood: Likelihood = CATEGORICAL
    bits: BitPosterior | None = None
    data_size: int = dataclasses.field(kw_only=True)

    def __post_init__(self) -> None:
        if self.simulator.template.names != self.weights.template.names:
            odd = sorted({*self.simulator.template.names} ^ {*self.weights.template.names})
            raise ValueError(f"weights must be those of the simulator's network, these differ: {', '.join(odd)}.")
        if self.halting is not None and self.halting.steps != self.simulator.steps:
            raise ValueError(
                f"halting must have the simulator's {self.simulator.steps} steps, got {self.halting.steps}; give both "
                "the same."
            )
        if self.weights.members > 1 and self.simulator.template.statistics:
            raise ValueError(
                "the members of an ensemble need normalisation statistics of their own, got "
                f"{self.weights.members} in one guide of a network with norms; train them apart (population.size)."
            )
        if self.gates is not None and self.energy is not None and self.gates.sites.groups != self.energy.sites.groups:
            raise ValueError(
                f"gates and energy must have the same sites, got groups {self.gates.sites.groups} and "
                f"{self.energy.sites.groups}; give both one Sites."
            )

    @property
    def joint(self) -> bool:
        """Whether q(n | x) learns with the weights; without, learning runs all steps."""
        return self.halting is not None and self.halting.joint

    @property
    def chooses_bits(self) -> bool:
        """Whether widths are inferred, and not fixed or read off the posterior afterwards."""
        return self.bits is not None and self.bits.total > 0

    @property
    def sites(self) -> Sites | None:
        """The compute sites; None where they have neither gates nor a price."""
        part = self.energy or self.gates
        return None if part is None else part.sites

    def model(self, x: Array, y: Shaped[Array, "batch *target"], context: Context) -> None:
        """The generative model with its collapsed terms (`dsnn.bayes.objective`).

        Normalisation statistics have no site: NumPyro's mutable state does not pass through samples that are mapped
        over. They leave as a gradient: the model adds zero, whose slope along ``context.statistics`` are those after
        the batch. So they are averaged as the objective is, over particles, members and settings of gates.
        """
        key, gates, bits, halting = numpyro.prng_key(), self.gates, self.bits, self.halting if self.joint else None
        drawn = self.weights.prior(context.kl_weight)
        z = None if gates is None else gates.prior(context.gates_weight)
        noise = {name: numpyro.param(name, v, constraint=POSITIVE) for name, v in self.likelihood.parameters().items()}
        head = {} if halting is None else halting.learned()
        means = self.weights.means()
        q = None if gates is None else gates.learned(context.ungated)
        b = None if bits is None else bits.prior(context.gates_weight)
        widths = None if bits is None or not bits.total else bits.learned(all_bits(context))
        steps = {} if bits is None else bits.steps()
        objective = Objective(self, x, y, context, drawn, means, noise, head, q, widths, b, steps, key)
        if gates is None or q is None or z is None:
            found = objective.terms(None)
        else:
            found = gates.averaged(q, z, objective.terms, objective.worth, stream(key, "gates"))
        with handlers.scale(scale=objective.scale):
            numpyro.factor("likelihood", found.log_likelihood)
        if self.energy is not None:
            self.energy.factor(objective.price, found.spent_nj)
        if objective.counts:
            numpyro.factor("spikes", -objective.spike_price * found.spikes)
        if context.site_prices:
            paid = [each * objective.opened[group].sum() for group, each in context.site_prices.items()]
            numpyro.factor("sites", -jnp.stack(paid).sum())

    def guide(
        self, x: Array | None = None, y: Shaped[Array, "batch *target"] | None = None, context: Context | None = None
    ) -> tuple[Params, dict[str, Array] | None]:
        """Posterior over weights begun at the network's own initialisation, and gates."""
        key, z = numpyro.prng_key(), None
        context = self.no_context() if context is None else context
        drawn = self.weights.posterior(context.kl_weight, key)
        if self.gates is not None:
            flat = self.gates.posterior(stream(key, "gates"), context.gates_weight, context.ungated)
            z = self.gates.sites.unflatten(flat)
        if self.bits is not None:
            self.bits.posterior(stream(key, "bits"), context.gates_weight, all_bits(context))
            self.bits.steps()
        if self.halting is not None and self.joint:
            self.halting.learned()
        return drawn, z

    def constrain(self, params: Params) -> Params:
        """Returns the guide's parameters in their natural spaces from the optimiser's unconstrained ones."""
        supports = self.weights.constraints() | dict.fromkeys(self.likelihood.parameters(), POSITIVE)
        return {name: dist.biject_to(supports.get(name, constraints.real))(value) for name, value in params.items()}

    def draw(self, params: Params, key: Key[Array, ""], member: Array | int | None = None) -> Draw:
        """Returns one draw of weights and gates from the guide with parameters ``params``; the key is consumed.

        Args:
            params: the guide's parameters.
            key: drives the draw.
            member: which member of an ensemble, counted around; None draws it.
        """
        weights = self.weights.draw(params, key, member)
        z = None if self.gates is None else self.gates.draw(params, key)
        return Draw(weights, z, None if self.bits is None else self.bits.draw(params, key))

    def prior_draw(self, params: Params, key: Key[Array, ""]) -> Draw:
        """Returns one draw of the weights from their prior, with every site running; the key is consumed.

        Raises:
            ValueError: no weight has a prior.
        """
        return Draw(self.weights.prior_draw(params, key), None)

    def centre(self, params: Params) -> Draw:
        """Returns the deterministic network: posterior means (an ensemble's first member) and decided gates.

        Its norms go by its own statistics, once these have been measured (`finish`).
        """
        weights = self.weights.centre(params) | decided(params)
        z = None if self.gates is None else self.gates.decision(params)
        return Draw(weights, z, None if self.bits is None else self.bits.decision(params, weights))

    def network(self, draw: Draw) -> Params:
        """Returns the parameters of the network that a draw describes, its kernels gated, then rounded."""
        gated = draw.weights
        if draw.gates is not None and self.gates is not None:
            gated = self.gates.fold(gated, draw.gates)
        return gated if draw.bits is None or self.bits is None else self.bits.fold(gated, draw.bits)

    def adapt(self, key: Key[Array, ""], batch: int) -> Adapt | None:
        """Returns the guide's randomness within the forward pass of a batch, None without; the key is consumed."""
        return self.weights.adapt(key, batch)

    def finish(self, params: Params, x: Features, y: Array | np.ndarray, key: Key[Array, ""]) -> Params:
        """Returns the guide's parameters after what its family does once training is over; a key is consumed.

        With norms the statistics of the decided and of the whole network are measured anew
        (`dsnn.bayes.norm_statistics`), and where kernels have widths, the range of the inputs.
        """
        finish = self.weights.guide.finish
        params = params if finish is None else finish(self, params, x, y, key)
        x = looked_at(Arrays(x, y)).x
        if self.bits is not None:
            params = params | input_range(self._values(x, key))
        if not self.simulator.template.statistics:
            return params
        draw = self.centre(params)
        networks = {DECIDED: self.network(draw)}
        if draw.gates is not None:
            open_ = {group: jnp.ones_like(z) for group, z in draw.gates.items()}
            networks[WHOLE] = self.network(draw._replace(gates=open_))
        return params | measured_anew(self.simulator, networks, x, stream(key, "data"))

    def _values(self, x: Features, key: Key[Array, ""]) -> Features:
        """Returns the values that the network reads of examples; of an encoding of one's own those of some."""
        if not is_foreign(self.simulator.encoding):
            return x
        return self.simulator.encode(jnp.asarray(x[:RANGED]), stream(key, "data"))

    def likelihood_parameters(self, params: Params) -> dict[str, Array]:
        """Returns the likelihood's own parameters among the guide's."""
        return {name: params[name] for name in self.likelihood.parameters()}

    def temperature(self, params: Params) -> Float[Array, " time"]:
        """Returns what the logits of an answer are divided by, after each step; ones where nothing was fitted."""
        return jnp.ones(self.simulator.steps) if self.halting is None else self.halting.temperature(params)

    def unfitted(self) -> dict[str, Array]:
        """Returns the parameters that are fitted once learning is over, as they are before: they change no answer."""
        starts = (DECIDED,) if self.gates is None else (DECIDED, WHOLE)
        own = self.simulator.template.statistics
        measured = {start + name: value for start in starts for name, value in own.items()}
        measured |= {} if self.bits is None else input_range(np.asarray((0.0, 1.0)))
        return {ANSWERS: jnp.ones(())} | measured | ({} if self.halting is None else self.halting.unfitted())

    def chances(self, params: Params) -> dict[str, Array]:
        """Returns what expected energy depends on: probabilities of open gates by group, and of widths by kernel."""
        return self.gate_probabilities(params) | ({} if self.bits is None else self.bits.chances(params))

    def gate_probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site's gate is open, by group; empty without gates."""
        return {} if self.gates is None else self.gates.probabilities(params)

    def running_probabilities(self, params: Params) -> dict[str, Array]:
        """Returns the probability that each site runs, by group; empty without gates."""
        return {} if self.gates is None else self.gates.running(params)

    def measure(
        self, params: Params, x: Array, key: Key[Array, ""], *, gated: bool = True
    ) -> tuple[dict[str, Array], Float[Array, ""]]:
        """Returns the events that each wire carries in one posterior draw, and the mean stopping time.

        Args:
            params: the guide's parameters.
            x: a batch of examples.
            key: drives the draw and the noise; consumed.
            gated: whether gates and widths are drawn; otherwise every site runs, on weights as they are, and norms go
                by the batch: the statistics that are kept are those of networks under gates.

        Raises:
            ValueError: nothing has a price.
        """
        if self.energy is None:
            raise ValueError("events are measured where energy has a price, got energy=None; give an EnergyPrior.")
        draw = self.draw(params, stream(key, "weights"))
        network = self.network(draw if gated else draw._replace(gates=None, bits=None))
        adapt = self.adapt(key, x.shape[0])
        if gated or not self.simulator.template.statistics:
            logits, inputs, spikes = self.simulator.run(network, x, key, keep_spikes, adapt)
            model, running = self.simulator.built(network)
        else:
            logits, _, model, inputs, spikes, running = self.simulator.observed(network, x, key, adapt)
        seen = x.shape[0] * logits.shape[0]
        events = self.energy.measured(model, inputs, spikes, held=self.simulator.held, seen=seen, running=running)
        return events, self.mean_steps(params, logits)

    def mean_steps(self, params: Params, logits: Float[Array, "time batch class"]) -> Float[Array, ""]:
        """Returns E_q[n] over a batch of running logits; all steps where q(n | x) does not learn with the weights."""
        if self.halting is None or not self.joint:
            return jnp.asarray(float(logits.shape[0]))
        return self.halting.mean_steps(params, logits)

    def no_context(self) -> Context:
        """Returns a context in which energy is free, with silent wires."""
        wires = () if self.sites is None else self.sites.wires
        return Context({w.name: jnp.zeros(w.pre_sites) for w in wires}, jnp.zeros(()), jnp.ones(()))


def __getattr__(name: str) -> object:
    if name == "Lifted":
        raise ImportError(
            "Lifted, a network with 15 fields, is Bayesian(simulator, weights, gates, halting, energy, likelihood) "
            "since dsnn 0.2.0; each part is an object of dsnn.bayes, see experiments/migration.md."
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
