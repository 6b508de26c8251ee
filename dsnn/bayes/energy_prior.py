"""The Gibbs energy prior of a network: what its sites cost on a named hardware, as a factor of a NumPyro model.

In plain NumPyro ``energy.factor(lam, energy.spent(opened, reached, events))`` stands in a model. The closed form is
that of `dsnn.bayes.energy`. Events are measured now and then, and constants of the objective (frozen); or they are
those of the pass that gives the likelihood, differentiated through its spikes, and energy a penalty on behaviour too.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import lax

from dsnn.bayes.energy import Energy, Prices, expected_energy
from dsnn.bayes.sites import TIME, Sites, measure
from dsnn.bayes.widths import Widths
from dsnn.networks.whole import Runnable
from dsnn.simulate.simulator import Pass
from dsnn.types import Array, Float


@dataclasses.dataclass(frozen=True)
class EnergyPrior:
    """Sites and what they cost.

    Attributes:
        sites: of the network, see `dsnn.bayes.sites`.
        prices: energy profile.
        accounting: which energies count, "arithmetic", "updates" or "memory".
        widths: prices by the widths of kernels; None prices everything at the profile's.
        differentiated: whether the objective's events are those of its own pass, see `Bayesian`.
    """

    sites: Sites
    prices: Prices
    accounting: str = "updates"
    widths: Widths | None = dataclasses.field(default=None, kw_only=True)
    differentiated: bool = dataclasses.field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.differentiated and not self.sites.wires:
            raise ValueError(
                "energy.events=differentiated needs a network that says what goes over its wires, got one without "
                "wiring(); add it (dsnn.protocols.Gateable), or set energy.events=frozen."
            )

    def expected(self, opened: dict[str, Array], events: dict[str, Array]) -> Energy:
        """Returns the expected energy of an inference.

        Args:
            opened: by group, probabilities of independent open gates, or gates that are 0 or 1; a group that is not
                named runs, so that nothing is the whole network, and a kernel that is not named has its widest.
            events: by wire, from `measured`.
        """
        everything = {name: jnp.ones(size) for name, size in self.sites.groups.items()}
        return expected_energy(self.sites, {**everything, **opened}, events, self.prices, self.accounting, self.widths)

    def spent(
        self, opened: dict[str, Array], reached: Float[Array, " time"], events: dict[str, Array]
    ) -> Float[Array, ""]:
        """Returns the energy in nJ where each time step is reached with this probability: skipped ones cost nothing."""
        steps = (reached * opened.get(TIME, 1.0)).sum()
        return self.expected({name: p for name, p in opened.items() if name != TIME}, events).total(steps)

    def factor(self, price: Float[Array, ""] | float, spent_nj: Float[Array, ""]) -> None:
        """Adds -price energy to the log joint density, inside a NumPyro model.

        Args:
            price: λ in nats per nJ, times the number of examples of the objective.
            spent_nj: energy of one inference.
        """
        numpyro.factor("energy", -price * spent_nj)

    def ceaseless(self) -> dict[str, Array]:
        """Returns the events by wire if everything were sent from everywhere at every step."""
        return {wire.name: wire.ceaseless() for wire in self.sites.wires}

    def silent(self) -> dict[str, Array]:
        """Returns no events, by wire."""
        return {wire.name: jnp.zeros(wire.pre_sites) for wire in self.sites.wires}

    def measured(
        self,
        model: Runnable,
        inputs: Array,
        spikes: dict[str, Array],
        *,
        held: bool,
        seen: int,
        running: Float[Array, " time"] | None = None,
    ) -> dict[str, Array]:
        """Returns the events that each wire carried, see `dsnn.bayes.sites.measure`.

        A site that was silent all along is counted as one half event in all, so that its price is not zero (Jeffreys'
        rule).

        Args:
            model: the network that ran.
            inputs: what it was given.
            spikes: output of each layer.
            held: whether the input was held.
            seen: examples times time steps.
            running: how far each step ran, None: every step.
        """
        events = measure(self.sites, model, inputs, spikes, held=held, running=running)
        return {name: jnp.maximum(e, 0.5 / seen) for name, e in events.items()}

    def events_of(self, ran: Pass, reached: Float[Array, "time batch"] | None, *, held: bool) -> dict[str, Array]:
        """Returns the events of a pass as `measured` does, with the gradient of the spikes or values that they are.

        Args:
            ran: the pass.
            reached: probability that each example reaches each step, None: it does.
            held: whether the input was held.
        """
        steps, batch = ran.logits.shape[:2]
        given: dict[str, Any] = {"held": held, "running": ran.running, "reached": reached, "differentiated": True}
        events = measure(self.sites, ran.model, ran.inputs, ran.sent, **given)
        # the least count moves the value alone: a neuron that happened to be silent still has the slope of its chance
        return {name: e + lax.stop_gradient(jnp.maximum(0.5 / (steps * batch) - e, 0)) for name, e in events.items()}
