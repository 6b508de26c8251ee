"""What energy and sites cost while variational inference runs: a given price, a share of the labels, or a budget."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.objective import Context
from dsnn.learn.duals import Duals, ascend, beyond, falling
from dsnn.learn.reference import held
from dsnn.learn.svi_config import SviConfig
from dsnn.learn.svi_state import SviState, svi_params
from dsnn.protocols import Batch
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

TRAVEL, SLOWEST, FASTEST = 25.0, 0.1, 0.5
"""How far a log price moves until gates are decided while e times the budget is spent, and a measurement's least and
largest share of that."""


@dataclasses.dataclass(frozen=True)
class Pricing:
    """The prices of a run, as functions of its state.

    Attributes:
        bayesian: the network.
        config: temperatures, prices and budgets.
        total_steps: updates of the whole run, for the warm-ups.
        lam: takes the place of the configuration's λ; may be traced.
        whole: the prices of the network that this one was before sites left it, which budgets are of; None is itself.
        left_nj: energy that the whole network spends on an inference beside this one, as it was measured then.
    """

    bayesian: Bayesian
    config: SviConfig
    total_steps: int
    lam: Float[Array, ""] | None = None
    whole: "Pricing | None" = None
    left_nj: float = 0.0

    def __post_init__(self) -> None:
        if self.budgeted and not self.priced:
            raise ValueError(
                "a budget of energy needs something to spare and its price, got no energy; set gates.enabled=true, "
                "bits.enabled=true, halting.enabled=true or energy.events=differentiated."
            )
        spares = self.bayesian.gates is not None or self.bayesian.joint or self.bayesian.chooses_bits
        if self.budgeted and not (spares or self.differentiated):
            raise ValueError(
                "a budget of energy needs gates to close, bits to drop, steps to leave out while learning, or spikes, "
                "got none; set gates.enabled=true, bits.enabled=true, halting.fit=training or "
                "energy.events=differentiated."
            )

    @property
    def priced(self) -> bool:
        """Whether energy is counted."""
        return self.bayesian.energy is not None

    @property
    def differentiated(self) -> bool:
        """Whether the price of energy reaches the spikes."""
        return self.bayesian.energy is not None and self.bayesian.energy.differentiated

    @property
    def budgeted(self) -> bool:
        """Whether the price of energy follows a budget by dual ascent."""
        return self.config.budgeted

    @property
    def measures_ungated(self) -> bool:
        """Whether events are also counted with every gate open: what a share of the whole network's energy is of.

        Counted under gates, it would fall with every site that closes, and a network could only silence itself. Where
        the price reaches the spikes it is held once energy has one (`dsnn.learn.reference`).
        """
        spares = self.bayesian.gates is not None or self.bayesian.chooses_bits or self.differentiated
        return bool(self.config.budget_fraction) and spares

    @property
    def shared(self) -> bool:
        """Whether the price is a share of what the labels carry, over the energy of the whole network."""
        return self.config.lam_nats > 0 and not self.budgeted

    @property
    def gated_from(self) -> int:
        """The update from which gates close, and energy has a price."""
        return round(self.config.ungated_fraction * self.total_steps)

    @property
    def rate(self) -> float:
        """Step size of the dual ascent."""
        config = self.config
        if config.budget_rate >= 0:
            return config.budget_rate
        undecided = (1 - config.ungated_fraction - config.decide_fraction) * self.total_steps
        return min(max(TRAVEL * config.measure_every / max(undecided, 1.0), SLOWEST), FASTEST)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of sites by group, of the whole network."""
        sites = (self.whole or self).bayesian.sites
        return {} if sites is None else sites.groups

    def begun(self) -> Duals:
        """Returns the prices before the first update."""
        sites = {group: jnp.zeros(()) for group in self.config.budget_sites}
        return Duals(jnp.log(self.first()), sites, jnp.zeros(()))

    def first(self) -> Float[Array, ""]:
        """Returns the first price of energy: what is given, or under a budget one nat per site, at every event."""
        if self.whole is not None:
            return self.whole.first()
        start = self._start()
        given = jnp.maximum(start, 1e-12)
        sites = self.bayesian.sites
        if not self.budgeted or sites is None:
            return given
        assert self.bayesian.energy is not None
        ceaseless = self.spent_whole(self.bayesian.energy.ceaseless())
        return jnp.where(start > 0, given, sites.total / (self.bayesian.data_size * ceaseless))

    def price(self, state: SviState) -> Float[Array, ""]:
        """Returns the price of energy at this update, in nats per nJ."""
        free = self.lam is None and not (self.config.lam or self.budgeted or self.shared)
        if free or not self.priced:
            return jnp.zeros(())
        if self.budgeted:
            return jnp.exp(state.duals.log_lam + self.config.budget_gain * state.duals.over)
        ramp = self._warm(state.step - self.gated_from, self.config.lam_warmup_fraction)
        if self.shared:
            return jnp.where(state.step >= self.gated_from, jnp.exp(state.duals.log_lam) * ramp, 0.0)
        return jnp.where(self._start() > 0, jnp.exp(state.duals.log_lam), 0.0) * ramp

    def budget(self, state: SviState, *, final: bool = False) -> Float[Array, ""]:
        """Returns what the energy is held to at this update, or at the end of its fall; 0 without a budget."""
        if not self.budgeted:
            return jnp.zeros(())
        full = self.spent_whole(state.whole_events)
        last = self.config.budget_nj or self.config.budget_fraction * full
        return jnp.asarray(last) if final else falling(full, last, self._fallen(state))

    def spent(self, opened: dict[str, Array], state: SviState) -> Float[Array, ""]:
        """Returns the energy in nJ of an inference of the mean steps, for probabilities of open gates by group."""
        assert self.bayesian.energy is not None
        return self.bayesian.energy.expected(opened, state.events).total(state.mean_steps)

    def context(self, state: SviState, lam: Float[Array, ""]) -> Context:
        """Returns what the objective of this update needs besides data."""
        kl_weight = self.config.kl_weight * self._warm(state.step, self.config.kl_warmup_fraction)
        context = Context(state.events, lam, kl_weight, jax.tree.map(jnp.exp, state.duals.log_sites))
        if self.config.gates_weight != 1:
            context = context._replace(gates_weight=jnp.asarray(self.config.gates_weight))
        if self.config.rate_penalty:
            ramp = self._warm(state.step - self.gated_from, self.config.lam_warmup_fraction)
            context = context._replace(spike_price=self.config.rate_penalty * ramp)
        if self.gated_from:
            context = context._replace(ungated=state.step < self.gated_from)
        return self._free_spikes(context)

    def _free_spikes(self, context: Context) -> Context:
        """Returns a context in which spikes are free as long as every site runs."""
        if context.ungated is None:
            return context
        lam = jnp.where(context.ungated, 0.0, context.lam) if self.differentiated else context.lam
        price = None if context.spike_price is None else jnp.where(context.ungated, 0.0, context.spike_price)
        return context._replace(lam=lam, spike_price=price)

    def measured(self, state: SviState, batch: Batch, root: Key[Array, ""]) -> SviState:
        """Returns the state after events and steps of a batch are measured, and prices have moved towards budgets."""
        params, config, key = svi_params(self.bayesian, state), self.config, stream(root, "noise", state.step)
        events, steps = self.bayesian.measure(params, batch.x, key)
        keep = jnp.where(state.step == 0, 0.0, config.memory)

        def averaged(old: Any, new: Any) -> Any:
            return jax.tree.map(lambda a, b: keep * a + (1 - keep) * b, old, new)

        state = state._replace(events=averaged(state.events, events), mean_steps=averaged(state.mean_steps, steps))
        if self.measures_ungated:
            ungated, _ = self.bayesian.measure(params, batch.x, key, gated=False)
            now = averaged(state.ungated_events, ungated)
            if self.differentiated:
                now = held(state.ungated_events, now, state.step, self.gated_from)
            state = state._replace(ungated_events=now)
        opened, duals = self.bayesian.gate_probabilities(params), state.duals
        gated = state.step >= self.gated_from  # before, no price can close a gate that stands open
        rate = jnp.where(gated, self.rate, 0.0)
        if self.budgeted:
            spent, budget = self.spent(self.bayesian.chances(params), state), self.budget(state)
            over = jnp.where(gated, beyond(spent, budget), 0.0)
            duals = duals._replace(log_lam=ascend(duals.log_lam, spent, budget, rate), over=over)
        fallen, gates = self._fallen(state), self.bayesian.gates
        # nor can one close a control's, which is decided otherwise: its price would rise for ever
        of_sites = rate if gates is None or gates.family.inferred else 0.0
        log_sites = {  # by name: a loop sorts the groups
            group: ascend(
                duals.log_sites[group],
                opened[group].sum(),
                falling(self.sizes[group], max(most, 0.5), fallen),
                of_sites,
            )
            for group, most in config.budget_sites.items()
        }
        return state._replace(duals=duals._replace(log_sites=log_sites))

    def shared_out(self, state: SviState) -> SviState:
        """Returns the state in which the whole network, as it is measured now, is worth ``lam_nats``."""
        log_lam = jnp.log(self.config.lam_nats) - jnp.log(jnp.maximum(self.spent_whole(state.events), 1e-30))
        return state._replace(duals=state.duals._replace(log_lam=log_lam))

    def _start(self) -> Float[Array, ""]:
        return jnp.asarray(self.config.lam) if self.lam is None else self.lam

    def spent_whole(self, events: dict[str, Array]) -> Float[Array, ""]:
        """Returns the energy in nJ of an inference of the whole network and all steps."""
        assert self.bayesian.energy is not None
        here = self.bayesian.energy.expected({}, events).total(float(self.bayesian.simulator.steps))
        return here + self.left_nj if self.left_nj else here

    def _fallen(self, state: SviState) -> Float[Array, ""]:
        """Returns the share of its fall that a budget has done since gates may close."""
        gated = 1 - self.config.ungated_fraction
        return self._warm(jnp.maximum(state.step - self.gated_from, 0), self.config.budget_fall_fraction * gated)

    def _warm(self, step: Array, fraction: float) -> Float[Array, ""]:
        """Returns the share of a warm-up that is done."""
        return jnp.clip(step / (fraction * self.total_steps), 0.0, 1.0) if fraction else jnp.ones(())
