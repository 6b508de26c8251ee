"""Joules: counts times a profile, with the parts of every total, and an interval over posterior samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dsnn.energy.count import Counts, LayerCounts
from dsnn.energy.profiles import Accounting, Profile
from dsnn.energy.records import Source

__all__ = ["Interval", "Price", "PriceInterval", "SitePrices", "interval", "price", "price_interval", "site_prices"]


@dataclass(frozen=True)
class Price:
    """The energy of one inference, in nJ.

    Args:
        total_nj: The sum of the parts.
        parts: By what was done: macs, acs, pooling, updates, spikes, weights, states, activations, and addresses where
            the profile prices them.
        layers: By layer, summed over parts; a synapse and a neuron layer of one name are added up.
        profile: Name of the profile.
        accounting: Which parts were charged.
    """

    total_nj: float
    parts: dict[str, float]
    layers: dict[str, float]
    profile: str
    accounting: Accounting


def price(counts: Counts, profile: Profile, accounting: Accounting = "updates") -> Price:
    """What the counted operations cost on this hardware.

    Weights, states and activations are charged at the profile's width, since a profile models a deployment at that
    width, whatever the width of the simulation; but those of layers that say their own (`SynapseRecord.bits`) at that,
    with accumulators as wide as their sums (`Profile.event_at_nj`). Biases are part of the neuron update.

    Args:
        counts: From `count`.
        profile: From `profile`.
        accounting: "arithmetic", "updates" or "memory"; each contains the one before.
    """
    profile.check(accounting)
    per_layer = [_parts(layer, profile, accounting) for layer in counts.layers]
    parts = {name: sum(layer[name] for layer in per_layer) for name in per_layer[0]}
    layers: dict[str, float] = {}
    for layer, priced in zip(counts.layers, per_layer, strict=True):
        layers[layer.name] = layers.get(layer.name, 0.0) + sum(priced.values())
    return Price(sum(parts.values()), parts, layers, profile.name, accounting)


def _parts(layer: LayerCounts, profile: Profile, accounting: Accounting) -> dict[str, float]:
    """The layer's energy in nJ by part; only the parts that the accounting charges."""
    picojoules = {
        "macs": layer.effective_macs * profile.mac_pj,
        "acs": layer.effective_acs * profile.ac_pj,
        "pooling": layer.pool_adds * profile.ac_pj,
    }
    read = layer.weight_reads * profile.bits
    if layer.by_width:
        source: Source = "analog" if layer.effective_macs else "spikes"
        picojoules["macs" if layer.effective_macs else "acs"] = 1e3 * sum(
            number * profile.event_at_nj(source, "arithmetic", bits, layer.fan_in, layer.input_bits)
            for bits, number in layer.by_width.items()
        )
        read = sum(number * bits for bits, number in layer.by_width.items())
    states = profile.at_bits(layer.state_bits) if layer.state_bits else profile
    if accounting != "arithmetic":
        updates = sum(number * states.neuron_pj(kind) for kind, number in layer.neuron_updates.items())
        picojoules |= {"updates": updates, "spikes": layer.spikes * profile.spike_pj}
    if accounting != "arithmetic" and (profile.address_pj or profile.address_pj_per_bit):
        queued = layer.address_bits * profile.address_pj_per_bit if accounting == "memory" else 0.0
        picojoules["addresses"] = layer.addresses * profile.address_pj + queued
    if accounting == "memory":
        activation_bits = layer.spike_reads + layer.analog_reads * (layer.input_bits or profile.bits)
        picojoules |= {
            "weights": read * (profile.weight_pj_per_bit or 0.0),
            "states": 2 * layer.state_accesses * states.bits * (profile.state_pj_per_bit or 0.0),
            "activations": activation_bits * (profile.activation_pj_per_bit or 0.0),
        }
    return {name: 1e-3 * value for name, value in picojoules.items()}


class SitePrices(NamedTuple):
    """The prices that a Gibbs energy prior over compute sites needs, in nJ."""

    spike_event_nj: float
    analog_event_nj: float
    update_nj: float


def site_prices(profile: Profile, kind: str = "LIF", accounting: Accounting = "updates") -> SitePrices:
    """The prices of one spike and one analog value at one weight, and of one update of a neuron of this kind."""
    return SitePrices(
        profile.event_nj("spikes", accounting),
        profile.event_nj("analog", accounting),
        profile.update_nj(kind, accounting),
    )


class Interval(NamedTuple):
    """A mean with the ends of a central interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], level: float = 0.9) -> Interval:
    """Mean and central interval of values.

    Raises:
        ValueError: A level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}; 0.9 leaves five percent on each side.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


class PriceInterval(NamedTuple):
    """The energy over posterior samples, in nJ: the total and each part, with the interval's nominal level."""

    total_nj: Interval
    parts: dict[str, Interval]
    level: float


def price_interval(prices: Sequence[Price], level: float = 0.9) -> PriceInterval:
    """Mean and central interval of the energy over posterior samples.

    Args:
        prices: One price per sample, of one profile and one accounting.
        level: Share of samples inside, in (0, 1).

    Raises:
        ValueError: No prices, mixed ones, or a level outside (0, 1).
    """
    if not prices or len({(p.profile, p.accounting) for p in prices}) != 1:
        raise ValueError(
            f"Prices must be of one profile and one accounting, got {len(prices)} of "
            f"{sorted({(p.profile, p.accounting) for p in prices})}; price every sample alike."
        )
    parts = {name: interval([p.parts[name] for p in prices], level) for name in prices[0].parts}
    return PriceInterval(interval([p.total_nj for p in prices], level), parts, level)
