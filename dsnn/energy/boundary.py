"""Where spikes win: how often neurons may fire before a rival of values that skips its zeros costs less.

The energy of a spiking network is a constant (inputs, updates of neurons) and a part in proportion to its spikes; that
of a network of values of the same shape is a constant and a part in proportion to the share of its activations that are
not zero. So on a plane of both, the networks that cost alike lie on a line: below it spikes are cheaper, above it
values.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from dsnn.energy.count import count
from dsnn.energy.price import price
from dsnn.energy.profiles import Accounting, Profile
from dsnn.energy.records import NeuronRecord, Number, Record, SynapseRecord
from dsnn.energy.rivals import skip_zeros
from dsnn.energy.twin import ann_twin, at_width, scaled_spikes

__all__ = ["Boundary", "boundary", "spikes_a_neuron"]

READOUTS = ("LI", "Linear")


class Boundary(NamedTuple):
    """The line on which a spiking network and its rival cost alike, by its ends; negative where spikes cannot win.

    Attributes:
        at_none: spikes of a hidden neuron and inference where none of the rival's hidden activations is nonzero.
        at_all: the same where all of them are.
    """

    at_none: float
    at_all: float

    def at(self, share: Number) -> float:
        """Returns the spikes of a hidden neuron at which both cost alike, for this share of nonzero activations."""
        return float(self.at_none + share * (self.at_all - self.at_none))


def spikes_a_neuron(records: Sequence[Record]) -> float:
    """Returns the mean spikes of a hidden neuron and inference; 0 where there are no hidden neurons."""
    fire = [r for r in records if isinstance(r, NeuronRecord) and not r.norm and r.kind not in READOUTS]
    neurons = sum(r.neurons for r in fire)
    return sum(r.total_spikes for r in fire) / neurons if neurons else 0.0


def boundary(
    records: Sequence[Record],
    profile: Profile,
    accounting: Accounting,
    *,
    nonzero: Mapping[str, Shaped[np.ndarray, "..."]] | None = None,
    rival_profile: Profile | None = None,
    rival_bits: int = 0,
    sequence: bool = False,
) -> Boundary | None:
    """Returns the line beside a rival of the same shape; None where no hidden neuron fired, so that it has no slope.

    Args:
        records: of the spiking network, as it was run. All its spikes are scaled alike.
        profile: its hardware.
        accounting: one of the three.
        nonzero: share of nonzero inputs by the name of the layer that reads them, see `dsnn.energy.skip_zeros`; of
            layers that read hidden activations none is named.
        rival_profile: the rival's hardware, such as the same at fewer bits; None is the same.
        rival_bits: width of the rival's weights and values, where its accumulators are priced by their own, as those of
            a network that says its bits are; 0 leaves all to the profile.
        sequence: whether each step has an input of its own.
    """
    own = spikes_a_neuron(records)
    if not own:
        return None
    spent = [price(count(scaled_spikes(records, f)), profile, accounting).total_nj for f in (0.0, 1.0)]
    dense, known, other = ann_twin(records, sequence=sequence), nonzero or {}, rival_profile or profile
    dense = at_width(dense, rival_bits) if rival_bits else dense
    hidden = [r.name for r in dense if isinstance(r, SynapseRecord) and r.name not in known]

    def alike(share: float) -> float:
        shares = {**known, **dict.fromkeys(hidden, np.asarray(share))}
        rival = price(count(skip_zeros(dense, shares)), other, accounting).total_nj
        return own * (rival - spent[0]) / (spent[1] - spent[0])

    return Boundary(alike(0.0), alike(1.0)) if spent[1] > spent[0] else None
