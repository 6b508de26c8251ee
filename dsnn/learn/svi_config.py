"""How variational inference runs: temperatures, prices and budgets."""

import dataclasses
import math


@dataclasses.dataclass
class SviConfig:
    """How variational inference runs.

    Attributes:
        particles: Monte Carlo samples of the objective per update.
        kl_weight: final factor on KL(w); with any but 1 the posterior is tempered; -1 is automatic, so that the
            divergence weighs a fifth of what the labels carry where learning begins (`dsnn.assembly.automatic`).
        gates_weight: factor on the divergence of the gates; -1 is the kl_weight.
        kl_warmup_fraction: share of the updates over which the factor rises from zero.
        lam: price of energy in nats per nJ; the start when a budget is given. Nothing has a price without gates,
            halting and energy.events=differentiated. -1 is automatic: a share of what the labels carry, see lam_nats.
        lam_nats: what the energy of the whole ungated network is worth, nats per example; takes the place of lam, which
            is this over that energy as it is measured when the ungated phase ends. 0 is not used.
        rate_penalty: nats per spike of a hidden neuron and example, whatever it costs and whichever gates are open: the
            plain control to energy.events=differentiated. Of a hidden ReLU nats per unit of its values, their L1 norm.
            It rises as lam does.
        ungated_fraction: share of the updates, at the start, in which every site runs and energy is free.
        lam_warmup_fraction: share of the updates over which the price rises from zero (without a budget).
        budget_nj: modelled energy per inference to reach by dual ascent; 0 is none.
        budget_fraction: the same as a fraction of what the network spends with every gate open and at all steps; 0 is
            none.
        budget_sites: most sites to keep by group, for example ``{input: 266, hidden0: 88}``, 0 for none of its blocks;
            each group has a price of its own, by dual ascent as well.
        budget_rate: step size of the dual ascent on log prices per measurement; -1 is automatic, 25 over measurements
            until gates are decided, within 0.1 and 0.5: in a short run prices have as far to go as in a long one.
        budget_gain: factor on the log of spent over budget that the log price of energy has on top at once, while it
            is so; it damps the dual ascent, see `dsnn.learn.duals`. 0 is none.
        budget_fall_fraction: share of the updates after the ungated ones over which a budget falls from everything to
            its value.
        decide_fraction: share of the updates, at the end, in which gates are decided and only the rest learns. Under a
            budget the sites that likeliest run are kept, as many as it pays for; halting then keeps to the budget.
            Without gates there is nothing to decide.
        shrink_epochs: epochs after which sites that are surely closed leave the network that learns, for good; none is
            the whole network until the end. Results are those of the whole network under closed gates but for the
            draws of noise, in less time. A good last one is the first epoch after the gates are decided.
        shrink_below: a site that runs with a smaller probability is surely closed.
        measure_every: updates between measurements of activity.
        memory: how much of the running average a measurement keeps.
    """

    particles: int = 1
    kl_weight: float = 1.0
    gates_weight: float = 1.0
    kl_warmup_fraction: float = 0.0
    lam: float = 0.0
    lam_nats: float = 0.0
    rate_penalty: float = 0.0
    ungated_fraction: float = 0.0
    lam_warmup_fraction: float = 0.0
    budget_nj: float = 0.0
    budget_fraction: float = 0.0
    budget_sites: dict[str, int] = dataclasses.field(default_factory=dict)
    budget_rate: float = -1.0
    budget_gain: float = 5.0
    budget_fall_fraction: float = 0.5
    decide_fraction: float = 0.0
    shrink_epochs: list[int] = dataclasses.field(default_factory=list)
    shrink_below: float = 0.01
    measure_every: int = 10
    memory: float = 0.8

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"svi.{name} must be a finite number, got {value}.")
        if self.particles < 1:
            raise ValueError(f"svi.particles must be at least 1, got {self.particles}.")
        for name in ("kl_weight", "gates_weight", "lam", "budget_rate"):
            if getattr(self, name) < 0 and getattr(self, name) != -1:
                raise ValueError(f"svi.{name} must not be negative, or -1 for automatic, got {getattr(self, name)}.")
        for name in ("lam_nats", "rate_penalty", "budget_nj", "budget_gain"):
            if getattr(self, name) < 0:
                raise ValueError(f"svi.{name} must not be negative, got {getattr(self, name)}.")
        if self.lam > 0 and self.lam_nats:
            raise ValueError("give svi.lam or svi.lam_nats, got both; set one of them to 0.")
        if not 0 <= self.budget_fraction < 1:
            raise ValueError(f"svi.budget_fraction must be in [0, 1), got {self.budget_fraction}; 0 is no budget.")
        if self.budget_nj and self.budget_fraction:
            raise ValueError("give svi.budget_nj or svi.budget_fraction, got both; set one of them to 0.")
        for group, most in self.budget_sites.items():
            if most < 0:
                raise ValueError(f"svi.budget_sites must keep no less than no site of a group, got {group}: {most}.")
        for name in ("budget_fall_fraction", "decide_fraction", "ungated_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"svi.{name} must be in [0, 1), got {getattr(self, name)}.")
        if any(epoch < 1 for epoch in self.shrink_epochs):
            raise ValueError(f"svi.shrink_epochs must be epochs that are done, from 1 on, got {self.shrink_epochs}.")
        if not 0 < self.shrink_below <= 0.5:
            raise ValueError(f"svi.shrink_below must be in (0, 0.5], got {self.shrink_below}; it is a probability.")
        if self.measure_every < 1:
            raise ValueError(f"svi.measure_every must be at least 1, got {self.measure_every}.")
        if not 0 <= self.memory < 1:
            raise ValueError(f"svi.memory must be in [0, 1), got {self.memory}.")

    @property
    def budgeted(self) -> bool:
        """Whether the price of energy follows from a budget."""
        return bool(self.budget_nj or self.budget_fraction)


def decided_from(config: SviConfig, total_steps: int) -> int | None:
    """Returns the update from which gates are decided, or None when they never are."""
    return round((1 - config.decide_fraction) * total_steps) if config.decide_fraction else None
