"""Where each layer should run: on a core that works for every event, or on an engine that works for every weight.

An event-driven core fetches a weight and adds it for every spike that arrives. A dense engine multiplies at every
weight at every step, whatever arrives, but fetches each weight once per inference and keeps it for all steps. Which of
the two is cheaper turns on the layer's spike rate, and that is known only as far as the posterior knows it: so a
placement has a probability.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dsnn.energy.count import count
from dsnn.energy.price import Interval, interval, price
from dsnn.energy.profiles import Accounting, Profile
from dsnn.energy.records import NeuronRecord, Record, SynapseRecord

__all__ = ["Placement", "place"]


class Placement(NamedTuple):
    """Where one layer should run.

    Attributes:
        name: the layer's.
        rate: events per input and execution, over posterior draws.
        event_nj: energy per inference on the event-driven core.
        dense_nj: energy per inference on the dense engine.
        probability: posterior probability that the event-driven core is cheaper.
        break_even_rate: events per input and execution at which both cost the same; infinite if the core always wins.
    """

    name: str
    rate: Interval
    event_nj: Interval
    dense_nj: Interval
    probability: float
    break_even_rate: float

    @property
    def on_events(self) -> bool:
        """Whether the event-driven core is the likelier one to be cheaper."""
        return self.probability >= 0.5

    @property
    def best_nj(self) -> float:
        """Mean energy per inference where the layer should run, in nJ."""
        return self.event_nj.mean if self.on_events else self.dense_nj.mean


def place(
    draws: Sequence[Sequence[Record]],
    core: Profile,
    engine: Profile,
    accounting: Accounting = "memory",
    level: float = 0.9,
) -> list[Placement]:
    """Returns the placement of every layer, in order.

    Args:
        draws: records of the network, one set per posterior draw.
        core: prices of the event-driven core.
        engine: prices of the dense engine; the same as ``core`` compares two designs in one technology.
        accounting: "memory" shows the trade; in the other two a fetched weight is free.
        level: nominal level of the intervals over draws.

    Raises:
        ValueError: no draws, or draws of different networks.
    """
    layers = [_layers(records) for records in draws]
    if not layers or any(one.keys() != layers[0].keys() for one in layers):
        raise ValueError(f"placement needs draws of one network, got {len(layers)} of different layers or none.")
    out = []
    for name in layers[0]:
        parts = [one[name] for one in layers]
        rate = np.array([_rate(records) for records in parts])
        event = np.array([price(count(records), core, accounting).total_nj for records in parts])
        dense = np.array([_dense_nj(records, engine, accounting) for records in parts])
        # neurons cost the same for every spike rate, and the event-driven products grow in proportion to it
        neurons = np.array([_neurons_nj(records, core, accounting) for records in parts])
        sending = float((event - neurons).mean())
        even = float(rate.mean() * (dense - neurons).mean() / sending) if sending > 0 else float("inf")
        rates, events, denses = (interval(values.tolist(), level) for values in (rate, event, dense))
        out.append(Placement(name, rates, events, denses, float((event < dense).mean()), max(even, 0.0)))
    return out


def _layers(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by layer; a recurrent product belongs to its layer."""
    out: dict[str, list[Record]] = {}
    for record in records:
        out.setdefault(record.name.split(".")[0], []).append(record)
    return out


def _rate(records: Sequence[Record]) -> float:
    synapses = [r for r in records if isinstance(r, SynapseRecord) and not r.internal]
    possible = sum(r.events.size * r.executions for r in synapses)
    return float(sum(r.events.sum() for r in synapses) / possible) if possible else 0.0


def _neurons_nj(records: Sequence[Record], profile: Profile, accounting: Accounting) -> float:
    neurons = [r for r in records if isinstance(r, NeuronRecord) or (isinstance(r, SynapseRecord) and r.internal)]
    return price(count(neurons), profile, accounting).total_nj if neurons else 0.0


def _dense_nj(records: Sequence[Record], profile: Profile, accounting: Accounting) -> float:
    """Energy of the layer where every weight meets every input at every execution, and is fetched once."""
    # nothing is sent as an event, so a spike has no price of its own
    silent = [replace(r, spikes=0.0) if isinstance(r, NeuronRecord) else r for r in records]
    total = _neurons_nj(silent, profile, accounting)
    for record in records:
        if not isinstance(record, SynapseRecord) or not record.executions or record.internal:
            continue
        counts = count([record]).total
        picojoules = counts.dense_macs * profile.mac_pj
        if accounting == "memory":
            bits = profile.bits if record.source == "analog" else 1
            picojoules += counts.weights * profile.bits * (profile.weight_pj_per_bit or 0.0)
            arriving = record.events.size * float(record.executions)
            picojoules += arriving * bits * (profile.activation_pj_per_bit or 0.0)
        total += 1e-3 * picojoules
    return total
