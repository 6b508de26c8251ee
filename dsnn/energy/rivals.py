"""The rivals: what a user would deploy instead of the spiking network, priced beside it in three accountings.

A spiking network that was pruned, skips zeros and adds instead of multiplying is not to be held against a dense network
that has none of these freedoms. So beside the dense network stand the same one with zeros skipped, the one of the
pruned shape, and both at the width that carries as much as a spike count (`quantised_bits`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Shaped

from dsnn.energy.count import Counts, count
from dsnn.energy.price import Price, price
from dsnn.energy.profiles import ACCOUNTINGS, Accounting, Profile
from dsnn.energy.records import NeuronRecord, Number, Record, SynapseRecord
from dsnn.energy.twin import BreakEven, ann_twin, at_width, break_even, gated_twin, quantised_bits

__all__ = ["NONZERO_RELU", "RIVALS", "SAME_SHAPE", "Comparison", "compare", "skip_zeros"]

NONZERO_RELU = 0.5
"""Share of hidden ReLU activations that are taken as nonzero where nobody trained the network and counted them.

A ReLU of a preactivation that is as often above zero as below is zero half of the time, as under any symmetric
initialisation. Trained networks are near it: of the inputs of convolutions in ImageNet networks 44 % are zero on
average (Albericio et al. 2016, "Cnvlutin"), so that the assumption rather flatters the rival.
"""

RIVALS = ("dense", "dense_skipping", "pruned", "quantised", "pruned_quantised", "lstm", "gru")
"""Every rival by name; the last two are those of recurrent networks alone."""

SAME_SHAPE = ("pruned", "pruned_quantised")
"""Rivals of the shape of the spiking network itself, for which a spike rate that breaks even means something."""


@dataclass(frozen=True)
class Comparison:
    """One accounting of a spiking network against its rivals, all in nJ per inference.

    Args:
        accounting: Which parts were charged.
        snn: The spiking network, as it is deployed.
        ungated: The spiking network with all sites and steps.
        rivals: By a name of `RIVALS`.
        break_even: Measured spike rate, and the one at which it would cost what a rival of `SAME_SHAPE` costs.
    """

    accounting: Accounting
    snn: Price
    ungated: Price
    rivals: dict[str, Price]
    break_even: dict[str, BreakEven]

    @property
    def ratios(self) -> dict[str, float]:
        """Each rival's energy over the spiking network's, above 1 where that is cheaper; none where it spends none."""
        ours = self.snn.total_nj
        return {name: rival.total_nj / ours for name, rival in self.rivals.items()} if ours else {}


def compare(
    records: Sequence[Record],
    profile: Profile,
    steps: Number,
    *,
    whole: Sequence[Record] | None = None,
    nonzero: Mapping[str, Float[np.ndarray, "..."]] | None = None,
    rival_profile: Profile | None = None,
    sequence: bool = False,
) -> list[Comparison]:
    """The accountings that the profiles know, side by side: arithmetic only, with neuron updates, with memory.

    Args:
        records: Of the spiking network, pruned as it is deployed.
        profile: Its hardware.
        steps: Steps that the network was built for; sets the quantised rivals' bits.
        whole: Of the spiking network before it was pruned; the same by default.
        nonzero: Share of nonzero inputs by the name of the layer of `whole` that reads them, see `skip_zeros`.
        rival_profile: The rivals' hardware; the same by default.
        sequence: Whether each step has an input of its own, so that a dense network too runs at every step.
    """
    whole, other = records if whole is None else whole, rival_profile or profile
    bits = quantised_bits(steps)
    dense, pruned = ann_twin(whole, sequence=sequence), ann_twin(records, sequence=sequence)
    full, small = count(dense), count(pruned)
    # where the network says its own widths, accumulators are priced by theirs, and so are the rivals'
    says = any(isinstance(r, SynapseRecord) and r.bits is not None for r in records)
    narrow = other if says else other.at_bits(bits)
    few, few_small = (count(at_width(r, bits)) for r in (dense, pruned)) if says else (full, small)
    priced: dict[str, tuple[Counts, Profile]] = {
        "dense": (full, other),
        "dense_skipping": (count(skip_zeros(dense, nonzero or {})), other),
        "pruned": (small, other),
        "quantised": (few, narrow),
        "pruned_quantised": (few_small, narrow),
    }
    if any(isinstance(r, SynapseRecord) and r.kind == "recurrent" for r in whole):
        priced |= {kind.lower(): (count(gated_twin(whole, kind)), other) for kind in ("LSTM", "GRU")}
    ours, every, table = count(records), count(whole), []
    for accounting in ACCOUNTINGS:
        if accounting == "memory" and not (profile.prices_memory and other.prices_memory):
            continue
        rivals = {name: price(counts, hardware, accounting) for name, (counts, hardware) in priced.items()}
        even = {name: break_even(records, rivals[name].total_nj, profile, accounting) for name in SAME_SHAPE}
        snn, ungated = price(ours, profile, accounting), price(every, profile, accounting)
        table.append(Comparison(accounting, snn, ungated, rivals, even))
    return table


def skip_zeros(dense: Sequence[Record], nonzero: Mapping[str, Shaped[np.ndarray, "..."]]) -> list[Record]:
    """Records of a dense network that leaves out every product with a zero.

    Args:
        dense: Of the network that multiplies everything, see `ann_twin`.
        nonzero: Share of nonzero values at each input of a layer, by its name. Layers without an entry read hidden
            activations: of ReLU units the share `NONZERO_RELU`, of tanh units all.

    Raises:
        ValueError: Another number of shares than the layer has inputs.
    """
    units = {r.kind for r in dense if isinstance(r, NeuronRecord)}
    hidden = 1.0 if "tanh" in units else NONZERO_RELU
    return [_skipping(r, nonzero.get(r.name, hidden)) if isinstance(r, SynapseRecord) else r for r in dense]


def _skipping(record: SynapseRecord, share: Shaped[np.ndarray, "..."] | float) -> SynapseRecord:
    shares = np.asarray(share, dtype=np.float64)
    if shares.ndim and shares.size != record.events.size:
        raise ValueError(
            f"The shares of nonzero inputs of {record.name} must be one for each of its {record.events.size} inputs, "
            f"got shape {shares.shape}; count them on what the layer reads."
        )
    return replace(record, events=record.events * (shares.reshape(record.in_shape) if shares.ndim else shares))
