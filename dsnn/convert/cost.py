"""What a run on address events costs: records of the rows fetched, of the neurons, and of drawing itself."""

from collections.abc import Mapping

import numpy as np

from dsnn.convert.stochastic import Stochastic
from dsnn.energy import NeuronRecord, Record, SamplingRecord, SynapseRecord
from dsnn.networks.stack import Stack


def address_records(
    stack: Stack, ran: Stochastic, draws: Mapping[str, int], steps: int, sampling: str = "spread"
) -> list[Record]:
    """Returns the records of a run of `stochastic`, for `dsnn.energy.count`.

    An event is one spike: one row of weights, an accumulate at each neuron. The common weight Z / K is one
    multiplication and addition (of the bias) per neuron and layer. Neurons that fire are updated at every step.

    Args:
        stack: that ran.
        ran: what it gave, means per example.
        draws: K by layer name.
        steps: T.
        sampling: "independent" takes a random number per draw, "spread" one per example and layer.
    """
    records: list[Record] = []
    for name, layer in stack.layers():
        events = np.asarray(ran.events[name], np.float64)
        kernel = np.asarray(layer.synapse.kernel[...])
        trains = max(1.0, float(np.ceil(events.sum() / draws[name] - 1e-6)))  # signed inputs have two
        number = draws[name] * trains
        randoms = number if sampling == "independent" else trains
        records.append(SamplingRecord(name, float(ran.inputs[name]), float(events.sum()), randoms))
        records.append(
            SynapseRecord(
                name,
                "dense",
                (kernel.shape[0],),
                layer.out_shape,
                events,
                max(number, float(events.max(initial=0.0))),
                bias=layer.synapse.bias is not None,
                connected=kernel != 0,
            )
        )
        records.append(NeuronRecord(f"{name}.scale", "LI", layer.out_shape, 1.0))
        if name in ran.rates:
            spikes = steps * float(np.asarray(ran.rates[name]).sum(-1).mean())
            records.append(NeuronRecord(name, "IF", layer.out_shape, float(steps), spikes))
    return records


def gathered_rows(records: list[Record]) -> float:
    """Returns how many rows of weights an inference fetches."""
    return float(sum(r.events.sum() for r in records if isinstance(r, SynapseRecord)))
