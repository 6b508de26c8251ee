"""The objective of a Bayesian network at draws of its weights, gates and bits, with what is summed out of it.

The stopping time is summed exactly. Where steps or events depend on gates, the energy is that of the very gates that
are drawn; else it enters by its closed form (`dsnn.bayes.energy`).
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from dsnn.bayes.behaviour import Behaviour, behaviour
from dsnn.bayes.bit_posterior import Precision
from dsnn.bayes.flipout import flipout
from dsnn.bayes.gate_posterior import Terms
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.simulate.simulator import Pass
from dsnn.types import Array, Bool, Float, Key, Shaped

if TYPE_CHECKING:
    from dsnn.bayes.bayesian import Bayesian

__all__ = ["Context", "Draw", "Objective", "all_bits"]


class Context(NamedTuple):
    """What the objective needs besides data: measured events, the price of energy, and the weight of KL(w).

    Attributes:
        events: by wire, mean events per step and sending site, from `Bayesian.measure`.
        lam: λ in nats per nJ and example.
        kl_weight: factor on KL(w), β; with any but 1 the posterior is tempered, "cold" below 1.
        site_prices: by group, what each site costs besides its energy, in nats of the whole training part.
        gates_weight: factor on the gates' divergence; None is 1.
        ungated: whether every site runs for now, whatever its gate's distribution, which then stands still; None is no.
        spike_price: nats per spike of a hidden neuron and example, whatever it costs and whichever gates are open; None
            is none.
        statistics: normalisation statistics before this batch; norms go by the batch then, and the gradient of the
            objective along them are those after it (`Bayesian.model`). None: norms go by what they begin with.
    """

    events: dict[str, Array]
    lam: Float[Array, ""]
    kl_weight: Float[Array, ""]
    site_prices: dict[str, Float[Array, ""]] = {}  # noqa: RUF012 - never changed
    gates_weight: Float[Array, ""] | None = None
    ungated: Bool[Array, ""] | None = None
    spike_price: Float[Array, ""] | None = None
    statistics: Params | None = None


class Draw(NamedTuple):
    """One posterior draw: ungated weights by name, gates by group and bit widths (None when the network has none)."""

    weights: Params
    gates: dict[str, Array] | None
    bits: Precision | None = None


def all_bits(context: Context) -> Bool[Array, ""]:
    """Returns whether all bits are there: while sites are ungated, and without a price."""
    free = context.lam <= 0
    return free if context.ungated is None else free | context.ungated


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """What the objective makes of a batch under one draw of the weights.

    Attributes:
        bayesian: the network.
        x: examples.
        y: their targets.
        context: prices.
        drawn: the weights.
        means: of flipout, None without.
        noise: the likelihood's own parameters.
        head: parameters of the stopping time that learns with the weights.
        gates: distribution of the gates, None without.
        widths: distribution of the bit gates, None without or where nothing is inferred.
        bits: draw of the bit gates, None without.
        steps: of the quantisers.
        key: drives noise; consumed.
    """

    bayesian: "Bayesian"
    x: Array
    y: Shaped[Array, "batch *target"]
    context: Context
    drawn: Params
    means: Params | None
    noise: dict[str, Array]
    head: Any
    gates: Any
    widths: Any
    bits: Float[Array, " gate"] | None
    steps: Params
    key: Key[Array, ""]

    @property
    def halting(self) -> HaltingPosterior | None:
        """The stopping time that learns with the weights."""
        return self.bayesian.halting if self.bayesian.joint else None

    @property
    def differentiated(self) -> bool:
        """Whether energy is that of the events of this pass."""
        return self.bayesian.energy is not None and self.bayesian.energy.differentiated

    @property
    def together(self) -> bool:
        """Whether steps or events go by the very gates that sites do."""
        return self.halting is not None or self.differentiated

    @property
    def counts(self) -> bool:
        """Whether spikes have a price of their own."""
        return self.context.spike_price is not None

    @property
    def scale(self) -> float:
        """Training examples for each of the batch."""
        return self.bayesian.data_size / self.x.shape[0]

    @property
    def price(self) -> Float[Array, ""]:
        """λ for all training examples, in nats per nJ."""
        return self.context.lam * self.bayesian.data_size

    @property
    def spike_price(self) -> Float[Array, ""]:
        """Nats per spike for all training examples."""
        each = self.context.spike_price
        return jnp.zeros(()) if each is None else each * self.bayesian.data_size

    @property
    def opened(self) -> dict[str, Array]:
        """Probabilities of open gates by group, those of bits among them."""
        gates, bits, found = self.bayesian.gates, self.bayesian.bits, {}
        if gates is not None and self.gates is not None:
            found = gates.sites.unflatten(self.gates.open_probability)
        if bits is not None and self.widths is not None:
            found = found | bits.of_gates(self.widths.open_probability)
        return found

    def terms(self, flat: Float[Array, " site"] | None) -> Terms:
        """Returns the terms at gates, with bits at their draw or summed out."""
        bits = self.bayesian.bits
        if bits is None or self.widths is None or self.bits is None:
            return self._at(flat, self.bits)
        averaged: Terms = bits.averaged(self.widths, self.bits, lambda setting: self._at(flat, setting))
        return averaged

    def worth(self, found: Float[Array, " batch"], spent_nj: Float[Array, ""], spikes: Float[Array, ""]) -> Array:
        """Returns what terms are worth, but for an energy whose gradient is that of its closed form."""
        return self.scale * found.sum() - (self.price * spent_nj if self.together else 0.0) - self.spike_price * spikes

    def _at(self, flat: Float[Array, " site"] | None, b: Float[Array, " gate"] | None) -> Terms:
        gates, bits, energy, runs = self.bayesian.gates, self.bayesian.bits, self.bayesian.energy, self.opened
        gated = None if gates is None or flat is None else gates.sites.unflatten(flat)
        precise: Precision | None = None if bits is None or b is None else bits.at(b, self.steps)
        if self.together and gates is not None and self.gates is not None and flat is not None:
            runs = runs | gates.sites.unflatten(gates.runs(self.gates, flat))
        if self.together and bits is not None and self.widths is not None and b is not None:
            runs = runs | bits.of_gates(bits.runs(self.widths, b))
        found, reached, acted = self.bayesian.weights.averaged(
            lambda w, key: self._evidence(Draw(w, gated, precise), runs, key), self.drawn, self.key
        )
        if energy is None or self.differentiated:
            return Terms(found, *acted)
        return Terms(found, energy.spent(runs, reached, self.context.events), acted.spikes)

    def _evidence(self, draw: Draw, runs: dict[str, Array], key: Key[Array, ""]) -> tuple[Array, Array, Behaviour]:
        """Returns the likelihood per example, n summed out, the share that reaches each step, and what was done."""
        likelihood, halting = self.bayesian.likelihood, self.halting
        logits, nothing, ran = self._logits(draw, key)
        if halting is None:
            found, reached, each = likelihood.of_sequence(self.noise, logits, self.y), jnp.ones(logits.shape[0]), None
        else:
            found, reached = halting.expectation(self.head, logits, likelihood.log_prob(self.noise, logits, self.y))
            each = halting.reached(self.head, logits)
        held = self.bayesian.simulator.held
        acted = behaviour(self.bayesian.energy, runs, ran, each, held=held, counts=self.counts)
        return (found if nothing is None else found + nothing / self.bayesian.data_size), reached, acted

    def _logits(
        self, draw: Draw, key: Key[Array, ""]
    ) -> tuple[Float[Array, "time batch class"], Float[Array, ""] | None, Pass | None]:
        """Returns running logits under a draw; with the means of flipout every example has signs of its own.

        With statistics in training, and with a zero whose slope along them are those after the batch; and the pass,
        with what was sent in it, where that has a price.
        """
        bayesian, simulator, x, statistics = self.bayesian, self.bayesian.simulator, self.x, self.context.statistics
        params, adapt = bayesian.network(draw), bayesian.adapt(key, x.shape[0])
        if self.means is not None:
            centre = bayesian.network(draw._replace(weights=draw.weights | self.means))
            flipped = {name: centre[name] for name in self.means}
            params, adapt = flipout(simulator.template, params, flipped, stream(key, "weights"), x.shape[0])
        params = params | (statistics or {})
        ran = simulator.observed(params, x, key, adapt) if self.counts or self.differentiated else None
        if not statistics:
            return (simulator.logits(params, x, key, adapt) if ran is None else ran.logits), None, ran
        logits, after = simulator.trained(params, x, key, adapt) if ran is None else ran[:2]
        nothing = [
            (lax.stop_gradient(after[n]) * (old - lax.stop_gradient(old))).sum() for n, old in statistics.items()
        ]
        return logits, sum(nothing, start=jnp.zeros(())), ran
