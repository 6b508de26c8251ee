"""The Gibbs energy prior p(z, n) ∝ exp(-λ E(z, n)): the expected energy of a gate posterior, in closed form.

E(z, n) = E_once(z) + n E_step(z). Every term is bilinear in z: a synapse costs when both its ends run and its source
sends, so for independent gates E_q[E] needs their open probabilities only (a neuron wired to itself counts once).
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from dsnn.bayes.sites import Sites
from dsnn.types import Array, Float


@runtime_checkable
class Prices(Protocol):
    """What the prior needs of an energy profile (`dsnn.energy.Profile` has it)."""

    def event_nj(self, source: Any, accounting: Any) -> float:
        """Returns the price in nJ of one event at one target; the source is "spikes" or "analog"."""
        ...

    def update_nj(self, kind: str, accounting: Any) -> float:
        """Returns the price in nJ of one update of a neuron."""
        ...


class Energy(NamedTuple):
    """Modelled energy of one inference in nJ: a part paid once, and a part paid at every step."""

    once_nj: Float[Array, ""]
    step_nj: Float[Array, ""]

    def total(self, steps: Float[Array, "..."] | float) -> Float[Array, "..."]:
        """Returns the energy in nJ of an inference of this many steps."""
        return self.once_nj + steps * self.step_nj


def expected_energy(
    sites: Sites,
    open_probability: dict[str, Float[Array, " site"]],
    events: dict[str, Float[Array, " site"]],
    prices: Prices,
    accounting: str = "updates",
) -> Energy:
    """Returns E_q[E(z)] per inference.

    Args:
        sites: from `dsnn.bayes.sites`.
        open_probability: by group, in [0, 1]; hard gates give the energy of that network exactly.
        events: by wire, the mean number of events per step (per inference for a held input) and sending site.
        prices: the energy profile.
        accounting: "arithmetic", "updates" or "memory".
    """
    once, step = jnp.zeros(()), jnp.zeros(())
    for wire in sites.wires:
        rate = events[wire.name]
        sending = open_probability[wire.pre] if wire.pre else jnp.ones(wire.pre_sites)
        receiving = open_probability[wire.post] if wire.post else jnp.ones(wire.post_sites)
        pairs = (sending * rate).sum() * receiving.sum()
        if wire.recurrent:
            pairs = pairs + (sending * (1 - sending) * rate).sum()
        cost = prices.event_nj("analog" if wire.analog else "spikes", accounting) * wire.fan * pairs
        once, step = (once + cost, step) if wire.once else (once, step + cost)
    if accounting != "arithmetic":
        for population in sites.populations:
            running = open_probability[population.group].sum() if population.group else float(population.sites)
            step = step + running * population.neurons_per_site * prices.update_nj(population.kind, accounting)
    return Energy(once, step)
