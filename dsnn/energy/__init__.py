"""Energy and carbon, honestly counted: records of what ran -> counts -> joules on named hardware, beside a fair rival.

`count` turns records of measured activity into operations, `price` turns operations into joules with a `profile`,
`compare` sets them beside the network's rivals in three accountings, and `meter` says what the run itself
used, measured where the machine allows and labelled an estimate elsewhere.
"""

from dsnn.energy.boundary import Boundary, boundary, spikes_a_neuron
from dsnn.energy.carbon import INTENSITY_G_PER_KWH, PUE, Meter, co2e_g, meter, training_kwh
from dsnn.energy.count import Counts, LayerCounts, count, fan_out
from dsnn.energy.ledger import (
    REFERENCES_G,
    Entry,
    Ledger,
    as_references,
    entry,
    ledger,
    petaflops_days,
    training_operations,
)
from dsnn.energy.machines import MACHINES, on_machine
from dsnn.energy.neurons import NEURONS, NeuronCost, has_cost, neuron_cost, priced_as
from dsnn.energy.placement import Placement, place
from dsnn.energy.price import Interval, Price, PriceInterval, SitePrices, price, price_interval, site_prices
from dsnn.energy.profiles import ACCOUNTINGS, Accounting, Profile, profile, profile_file, profile_names
from dsnn.energy.records import NeuronRecord, Record, SamplingRecord, SynapseRecord, merge
from dsnn.energy.rivals import NONZERO_RELU, RIVALS, SAME_SHAPE, Comparison, compare, skip_zeros
from dsnn.energy.twin import BreakEven, ann_twin, break_even, gated_twin, quantised_bits, spike_rate

__all__ = [
    "ACCOUNTINGS",
    "INTENSITY_G_PER_KWH",
    "MACHINES",
    "NEURONS",
    "NONZERO_RELU",
    "PUE",
    "REFERENCES_G",
    "RIVALS",
    "SAME_SHAPE",
    "Accounting",
    "Boundary",
    "BreakEven",
    "Comparison",
    "Counts",
    "Entry",
    "Interval",
    "LayerCounts",
    "Ledger",
    "Meter",
    "NeuronCost",
    "NeuronRecord",
    "Placement",
    "Price",
    "PriceInterval",
    "Profile",
    "Record",
    "SamplingRecord",
    "SitePrices",
    "SynapseRecord",
    "ann_twin",
    "as_references",
    "boundary",
    "break_even",
    "co2e_g",
    "compare",
    "count",
    "entry",
    "fan_out",
    "gated_twin",
    "has_cost",
    "ledger",
    "merge",
    "meter",
    "neuron_cost",
    "on_machine",
    "petaflops_days",
    "place",
    "price",
    "price_interval",
    "priced_as",
    "profile",
    "profile_file",
    "profile_names",
    "quantised_bits",
    "site_prices",
    "skip_zeros",
    "spike_rate",
    "spikes_a_neuron",
    "training_kwh",
    "training_operations",
]
