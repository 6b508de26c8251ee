"""Records of one trained network as two machines run it: one that skips zeros, and one that multiplies every value."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dsnn.energy.records import NeuronRecord, Record, SynapseRecord

__all__ = ["MACHINES", "on_machine"]

MACHINES = ("events", "dense")

AT_ONCE = {"LI": "Linear"}
"""Neurons of networks of one step, which keep nothing for a next one; others become one comparison, as a ReLU is."""


def on_machine(records: Sequence[Record], machine: str, steps: int) -> list[Record]:
    """Returns what a machine does of what was recorded.

    Spikes are events on both; data of zeros and ones are values that are added and not multiplied. In a network of a
    single step neurons keep no state, so none is read or written.

    Args:
        records: of the network that ran.
        machine: "events" computes and fetches for values that are not zero alone, each with its address; "dense" for
            every value, in order, and for weights that are zero.
        steps: that the network was built for.

    Raises:
        ValueError: no such machine.
    """
    if machine not in MACHINES:
        raise ValueError(f"machine must be one of {', '.join(MACHINES)}, got {machine!r}.")
    ran: list[Record] = []
    for record in records:
        if isinstance(record, SynapseRecord) and _values(record) and record.kind != "pool":
            ran.append(replace(record, addressed=True) if machine == "events" else _every(record))
        elif isinstance(record, NeuronRecord) and steps == 1 and not record.norm:
            ran.append(replace(record, kind=_at_once(record.kind)))
        else:
            ran.append(record)
    return ran


def _values(record: SynapseRecord) -> bool:
    """Returns whether a layer reads values, and no spikes."""
    return record.source == "analog" or record.binary


def _every(record: SynapseRecord) -> SynapseRecord:
    events = np.full(record.in_shape, record.executions, np.float64)
    return replace(record, events=events, connected=None, addressed=False)


def _at_once(kind: str) -> str:
    return kind if kind in ("Linear", "ReLU") else AT_ONCE.get(kind, "ReLU")
