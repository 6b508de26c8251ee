"""The Gibbs energy prior p(z, n) ∝ exp(-λ E(z, n)): the expected energy of independent gates, in closed form.

E(z, n) = E_once(z) + n E_step(z) - E_unread(z). Every term is a product of different gates: a synapse costs when both
its ends run and its source sends, so for independent gates E_q[E] needs their open probabilities only (a neuron wired
to itself counts once), and those of widths, whose prices are averaged. Where time steps are sites, E_step is paid by
those that run. The last step that runs feeds nothing back: what E_step charges for its recurrent wires is E_unread.

Events are what is given: as measured numbers they are a price of sites and steps. As events of a pass with the gradient
of its spikes (`dsnn.bayes.events`) they make E a penalty on behaviour: the normaliser over what a network may do is not
computed, so of behaviour this is no prior.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp

from dsnn.bayes.sites import TIME, Sites, Wire, followed
from dsnn.bayes.widths import Widths
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
    """Modelled energy of one inference in nJ.

    Attributes:
        once_nj: paid once, by a held input.
        step_nj: paid at every step, the recurrent products of its spikes included.
        unread_nj: the recurrent products of the last step's spikes, which no step reads and nobody pays.
    """

    once_nj: Float[Array, ""]
    step_nj: Float[Array, ""]
    unread_nj: Float[Array, ""] | float = 0.0

    def total(self, steps: Float[Array, "..."] | float) -> Float[Array, "..."]:
        """Returns the energy in nJ of an inference of this many steps, at least one.

        It is linear in the steps, so a mean number of them gives the mean energy. Where time steps are sites it is
        exact for all of them; fewer are taken to run as often as the mean of all.
        """
        return self.once_nj + steps * self.step_nj - self.unread_nj


def expected_energy(
    sites: Sites,
    open_probability: dict[str, Float[Array, " _"]],
    events: dict[str, Float[Array, " _"]],
    prices: Prices,
    accounting: str = "updates",
    widths: Widths | None = None,
) -> Energy:
    """Returns E_q[E(z)] per inference.

    Args:
        sites: from `dsnn.bayes.sites`.
        open_probability: by group, in [0, 1]; hard gates give the energy of that network exactly.
        events: by wire, the mean number of events per step (per inference for a held input) and sending site, as
            `dsnn.bayes.sites.measure` counts them.
        prices: the energy profile.
        accounting: "arithmetic", "updates" or "memory".
        widths: prices by the widths of kernels, whose probabilities stand beside those of sites; None is the profile's.
    """
    updates: Prices = prices if widths is None else widths.updates

    def event_nj(wire: Wire, source: str) -> Any:
        by_width = None if widths is None else widths.event_nj(wire, source, accounting, open_probability)
        return prices.event_nj(source, accounting) if by_width is None else by_width

    def open_of(site: tuple[str, int]) -> Any:
        group, number = site
        return open_probability[group][number] if group in open_probability else 1.0

    once, step, fed_back = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for wire in sites.wires:
        price: Any = event_nj(wire, "analog" if wire.analog else "spikes")
        if wire.sums:
            alone = math.prod(1.0 - open_of(site) for site in wire.sums)
            price = price + (1.0 - alone) * (event_nj(wire, "analog") - price)
        paid = wire.pairs(open_probability, events[wire.name], price)
        cost = wire.fan * paid * math.prod(map(open_of, wire.inside), start=1.0)
        once, step = (once + cost, step) if wire.once else (once, step + cost)
        fed_back = fed_back + cost if wire.recurrent else fed_back
    if accounting != "arithmetic":
        for group in sites.neurons:
            neurons = group.running(open_probability) * math.prod(map(open_of, group.inside), start=1.0)
            cost = neurons * updates.update_nj(group.kind, accounting)
            once, step = (once + cost, step) if group.once else (once, step + cost)
    if TIME in open_probability:
        running = open_probability[TIME]
        return Energy(once, step * running.mean(), fed_back * (running.sum() - followed(running).sum()))
    return Energy(once, step, fed_back)
