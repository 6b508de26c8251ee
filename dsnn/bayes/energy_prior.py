"""The Gibbs energy prior of a network: what its sites cost on a named hardware, as a factor of a NumPyro model.

In plain NumPyro ``energy.factor(lam, energy.spent(opened, reached, events))`` stands in a model. The closed form is
that of `dsnn.bayes.energy`; events are measured, and have no gradient here.
"""

import dataclasses

import jax.numpy as jnp
import numpyro

from dsnn.bayes.energy import Energy, Prices, expected_energy
from dsnn.bayes.sites import TIME, Sites, measure
from dsnn.networks.whole import Runnable
from dsnn.types import Array, Float


@dataclasses.dataclass(frozen=True)
class EnergyPrior:
    """Sites and what they cost.

    Attributes:
        sites: of the network, see `dsnn.bayes.sites`.
        prices: energy profile.
        accounting: which energies count, "arithmetic", "updates" or "memory".
    """

    sites: Sites
    prices: Prices
    accounting: str = "updates"

    def expected(self, opened: dict[str, Array], events: dict[str, Array]) -> Energy:
        """Returns the expected energy of an inference.

        Args:
            opened: by group, probabilities of independent open gates, or gates that are 0 or 1; a group that is not
                named runs, so that nothing is the whole network.
            events: by wire, from `measured`.
        """
        everything = {name: jnp.ones(size) for name, size in self.sites.groups.items()}
        return expected_energy(self.sites, {**everything, **opened}, events, self.prices, self.accounting)

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
