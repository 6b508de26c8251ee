"""What the decided network does with the examples that are measured: what is sent, and the records that are priced."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsnn import data, energy, rng
from dsnn.assembly.bayesian import reads_values
from dsnn.bayes.sites import Sites
from dsnn.deploy import activity
from dsnn.deploy.decided import Deployed, Ran, ran
from dsnn.networks.compact import kept as kept_sites
from dsnn.networks.plan import NEURONS
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import described_by
from dsnn.simulate.early_exit import Decision

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

MEASURED_EXAMPLES, FEWEST_EXAMPLES, MEASURED_BYTES = 512, 16, 1 << 29
"""Examples on which activity is measured: at most, at least, and the bytes that their spikes may take."""


class Measured(NamedTuple):
    """What the decided network did with the test examples that are measured.

    Attributes:
        deployed: the network.
        inputs: the examples, encoded.
        decision: where each of them stopped, and with which logits.
    """

    deployed: Deployed
    inputs: Any
    decision: Decision


def _most_examples(setup: "Setup") -> int:
    """Returns how many examples are measured: fewer of a network whose spikes of all steps would fill the memory."""
    model, _ = setup.bayesian.simulator.built(setup.bayesian.weights.initial)
    each = 4 * setup.bayesian.simulator.steps * sum(group.count for group in described_by(model).neurons)
    return max(min(MEASURED_EXAMPLES, MEASURED_BYTES // max(each, 1)), FEWEST_EXAMPLES)


def measured_on(setup: "Setup", arrays: data.Arrays | None = None) -> data.Arrays:
    """Returns the examples on which activity and costs are measured, of the test part or of those given."""
    return data.sample(setup.split.test if arrays is None else arrays, _most_examples(setup))


def inputs_of(setup: "Setup") -> Any:
    """Returns the test examples that are measured, encoded."""
    examples = jnp.asarray(measured_on(setup).x)
    return setup.bayesian.simulator.encode(examples, rng.stream(setup.root, "data"))


def reads_analog(setup: "Setup") -> bool:
    """Returns whether inputs carry values and not spikes."""
    return reads_values(setup.bayesian.simulator, setup.split)


def sent_by(setup: "Setup", deployed: Deployed, inputs: Any, masked: Ran) -> Any:
    """Returns what the compacted network sends at each of its steps.

    Args:
        setup: of the run.
        deployed: the decided network.
        inputs: encoded, those of the steps that it keeps.
        masked: what its masked form did with them, whose spikes are the same for a stack.
    """
    if isinstance(deployed.small, Whole):
        return ran(setup.bayesian.simulator, deployed.small, inputs).kept
    return of_kept(setup.sites, deployed.small, masked.kept, deployed)


def records(
    setup: "Setup",
    deployed: Deployed,
    model: Runnable,
    inputs: Any,
    spikes: dict[str, Any],
    stop: np.ndarray | None = None,
) -> list[energy.Record]:
    """Returns what a network of a run did, with the widths of its weights and membranes where these are decided.

    Args:
        setup: of the run.
        deployed: the decided network, whose sites and widths these are.
        model: the network that ran: the decided one compacted, or it with all sites.
        inputs: that it was given, encoded.
        spikes: that it sent, see `sent_by`.
        stop: step after which an example ran no more; None is all steps.
    """
    counted = activity.records(
        model, inputs, spikes, stop, held=setup.bayesian.simulator.held, analog=reads_analog(setup)
    )
    bits = setup.bayesian.bits
    if bits is None:
        return counted
    wires = tuple(wire.said for wire in setup.sites.wires)
    return activity.with_widths(counted, wires, deployed, bits)


def of_kept(whole: Sites, small: Runnable, fired: Any, deployed: Deployed) -> dict[str, Any]:
    """Returns the spikes of the compacted network: those of the sites and steps of the whole that are kept."""
    spikes = {name: np.asarray(fired[name]) for name in small.names}
    if deployed.kept_steps is not None:
        spikes = {name: values[np.asarray(deployed.kept_steps)] for name, values in spikes.items()}
    for group in whole.neurons:
        name = group.name.removesuffix(NEURONS)
        if name in spikes and group.sites is not None and group.sites.group in deployed.gates:
            stay = np.isin(group.sites.index, kept_sites(deployed.gates[group.sites.group]))
            spikes[name] = spikes[name][..., stay]
    return {name: jnp.asarray(values) for name, values in spikes.items()}
