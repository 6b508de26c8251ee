"""What a network costs on each hardware profile, beside every rival; which of the rivals were trained."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from dsnn import data, energy
from dsnn.cells import kind
from dsnn.config import EnergyConfig
from dsnn.deploy.decided import at_kept_steps, compaction_error, ran
from dsnn.networks.shrink import compacts
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import described_by, priced
from dsnn.run.assess_activity import Measured, measured_on, records, sent_by

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup


def modelled(setup: "Setup", seen: Measured) -> tuple[dict[str, Any], float]:
    """Returns modelled energies of the gated network, the ungated one and rivals, and the error of compaction."""
    config, simulator, deployed = setup.config, setup.bayesian.simulator, seen.deployed
    model, running = deployed.simulator.built(deployed.masked)
    masked, kept = ran(simulator, model, seen.inputs, running=running), at_kept_steps(seen.inputs, deployed.kept_steps)
    error = compaction_error(masked, ran(simulator, deployed.padded, kept, None), deployed.kept_steps)
    if not setup.sites.wires:
        return {"energy/uncounted": "the network has no wiring()"}, error
    spikes = sent_by(setup, deployed, kept, masked)
    gated = records(setup, deployed, deployed.small, kept, spikes, deployed.executed(seen.decision.steps))
    full = deployed.simulator.template.build(deployed.full)
    ungated = records(setup, deployed, full, seen.inputs, ran(simulator, full, seen.inputs).kept)
    metrics: dict[str, Any] = {
        **({} if compacts(model) else {"compute/uncompacted": "it has no shrink()"}),
        "compute/spike_rate": energy.spike_rate(gated),
        "compute/events_per_inference": sum(r.total_spikes for r in gated if isinstance(r, energy.NeuronRecord)),
        "compute/dense_macs": energy.count(ungated).total.dense_macs,
    }
    if setup.bayesian.energy is not None:  # of the objective: whether its price reached the spikes
        metrics["energy/events"] = config.energy.events
    if config.svi.rate_penalty:
        metrics["svi/rate_penalty"] = config.svi.rate_penalty
    # what an encoder made of the data says nothing of their zeros
    drawn = simulator.encoding in ("rate", "latency")
    seen_x, axes = (measured_on(setup).x, 1) if drawn else (seen.inputs, 1 if simulator.held else 2)
    scaled = data.scaling_of(setup.split)
    seen_x = seen_x if scaled is None else scaled.undone(np.asarray(seen_x))  # a rival reads data as they come
    nonzero = nonzero_inputs(full, jnp.asarray(seen_x), axes)
    sequence = simulator.encoding in ("temporal", "scan")
    metrics |= costs(config.energy, gated, ungated, simulator.steps, nonzero, sequence=sequence)
    skipped = nonzero_inputs(deployed.small, jnp.asarray(seen_x), axes)
    metrics |= standing(config.energy, gated, simulator.steps, skipped, sequence=sequence)
    cells = [(cell, kind(cell)) for cell in _cells(full)]
    if unknown := sorted({name for cell, name in cells if not energy.has_cost(cell, name)}):
        metrics["energy/priced_as_lif"] = ", ".join(unknown)
    return metrics, error


def _cells(model: Any) -> list[Any]:
    """Returns the cells of a network."""
    return [priced(group) for group in described_by(model).neurons]


def costs(
    config: EnergyConfig,
    ours: Sequence[energy.Record],
    whole: Sequence[energy.Record],
    steps: int,
    nonzero: dict[str, np.ndarray],
    *,
    sequence: bool = False,
) -> dict[str, float]:
    """Returns energies by profile and accounting, ours and the rivals', and what is known of the rivals.

    None of the rivals is trained here. A break-even rate that no rate reaches has no entry.

    Args:
        config: names the profiles and the accounting of the headline.
        ours: records of the network as it is deployed.
        whole: records of it with all sites and steps.
        steps: that it was built for.
        nonzero: share of nonzero inputs by the name of the layer that reads them, the first layer first, see
            `nonzero_inputs`.
        sequence: whether each step has an input of its own.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys((config.profile, *config.also)):
        stem = Path(name).stem
        for row in energy.compare(ours, energy.profile(name), steps, whole=whole, nonzero=nonzero, sequence=sequence):
            own = _row(row)
            metrics |= {f"energy/{stem}/{row.accounting}/{key}": value for key, value in own.items()}
            if row.accounting == config.accounting:
                metrics |= {f"energy/{stem}/{key}": value for key, value in own.items()}
            metrics |= {f"rival/{rival}/trained": 0 for rival in row.rivals}
    bits = energy.quantised_bits(steps)
    metrics |= {"rival/quantised/bits": bits, "rival/pruned_quantised/bits": bits}
    for share in list(nonzero.values())[:1]:
        metrics["rival/dense_skipping/nonzero_inputs"] = float(np.mean(share))
    if any(r.name not in nonzero for r in whole if isinstance(r, energy.SynapseRecord)):
        metrics["rival/dense_skipping/nonzero_hidden_assumed"] = energy.NONZERO_RELU
    return metrics


def standing(
    config: EnergyConfig,
    ours: Sequence[energy.Record],
    steps: int,
    nonzero: dict[str, np.ndarray],
    *,
    sequence: bool = False,
) -> dict[str, float]:
    """Returns where a deployed network stands beside rivals of its shape that skip zeros, see `dsnn.energy.boundary`.

    Args:
        config: names the profile.
        ours: records of the network as it is deployed.
        steps: that it was built for.
        nonzero: share of nonzero inputs of the deployed network, by the name of the layer that reads them.
        sequence: whether each step has an input of its own.
    """
    profile, bits = energy.profile(config.profile), energy.quantised_bits(steps)
    metrics = {"map/spikes_a_neuron": energy.spikes_a_neuron(ours)}
    for accounting in energy.ACCOUNTINGS:
        if accounting == "memory" and not profile.prices_memory:
            continue
        says = any(isinstance(r, energy.SynapseRecord) and r.bits is not None for r in ours)
        narrow, few = (profile, bits) if says else (profile.at_bits(bits), 0)
        for name, rival, width in (("pruned", profile, 0), ("pruned_quantised", narrow, few)):
            line = energy.boundary(
                ours,
                profile,
                accounting,
                nonzero=nonzero,
                rival_profile=rival,
                rival_bits=width,
                sequence=sequence,
            )
            if line is not None:
                metrics |= {f"map/{accounting}/{name}_{end}": value for end, value in line._asdict().items()}
    return metrics


def _row(row: energy.Comparison) -> dict[str, float]:
    rivals = {f"rival/{name}_nj": rival.total_nj for name, rival in row.rivals.items()}
    even = {f"rival/{name}_break_even_rate": rate.break_even for name, rate in row.break_even.items()}
    even = {name: rate for name, rate in even.items() if np.isfinite(rate)}
    return {"snn_nj": row.snn.total_nj, "ungated_nj": row.ungated.total_nj} | rivals | even


def nonzero_inputs(model: Runnable, inputs: Any, axes: int = 1) -> dict[str, np.ndarray]:
    """Returns the share of examples in which each input of the first product is not zero, by that layer's name.

    Args:
        model: the network with all sites.
        inputs: the data as they are, before any spikes are drawn: ``[batch, ...]`` or ``[time, batch, ...]``.
        axes: leading axes of ``inputs``, which the share is taken over.
    """
    if isinstance(model, Whole):
        share = (np.asarray(inputs).reshape(-1, *inputs.shape[axes:]) != 0).mean(0)
        # wires that read all inputs; of others nothing is known before any spikes
        found = [wire for wire in described_by(model).wires if wire.once and not wire.joined]
        sizes = {wire.name: math.prod((*np.shape(wire.fan), wire.senders)) for wire in found}
        return {name: share for name, size in sizes.items() if size == share.size}
    name, layer = next(iter(model.layers()))
    x = inputs.reshape(-1, *inputs.shape[axes:])
    for module in layer.before:
        x = module(x)
    return {name: (np.asarray(x).reshape(len(x), -1) != 0).mean(0)}
