"""Held inputs of zeros and ones: read by additions, on both machines and by every twin, counted by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import data, energy
from dsnn.assembly.assemble import build
from dsnn.bayes.bit_posterior import input_range
from dsnn.config import Config, EnergyConfig, GatesConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.deploy.decided import deploy, ran
from dsnn.energy import NeuronRecord, SynapseRecord
from dsnn.energy.twin import scaled_spikes
from dsnn.run import assess_activity

INT8 = energy.profile("45nm-int8").addressed()
SHARE = np.array([1.0, 0.5, 0.0])


def records(binary: bool) -> list[energy.Record]:
    source = "spikes" if binary else "analog"
    first = SynapseRecord("a", "dense", (3,), (2,), SHARE, 1, source=source, binary=binary)
    return [first, NeuronRecord("a", "ReLU", (2,), 1)]


def test_zeros_and_ones_are_added_on_both_machines_by_hand() -> None:
    parts = {
        (machine, binary): energy.price(
            energy.count(energy.on_machine(records(binary), machine, 1)), INT8, "memory"
        ).parts
        for machine in energy.MACHINES
        for binary in (True, False)
    }
    # int8 at 45 nm: add 0.03, multiply and add 0.23 pJ; 1.5 of three inputs are one, each meets two weights
    events, dense = parts["events", True], parts["dense", True]
    assert (events["acs"], events["macs"]) == (pytest.approx(1e-3 * 3 * 0.03), 0)
    assert (dense["acs"], dense["macs"]) == (pytest.approx(1e-3 * 6 * 0.03), 0)
    assert events["activations"] == pytest.approx(1e-3 * 1.5 * 0.15625)  # a bit each
    assert dense["activations"] == pytest.approx(1e-3 * 3 * 0.15625)
    assert events["addresses"] == parts["events", False]["addresses"] > 0
    assert dense["addresses"] == 0
    assert parts["events", False]["macs"] == pytest.approx(1e-3 * 3 * 0.23)
    assert events["weights"] == parts["events", False]["weights"]


def test_twins_add_them_too_and_no_rate_counts_them() -> None:
    (twin, _), ours = energy.ann_twin(records(True)), records(True)
    counts = energy.count([twin]).total
    assert (counts.effective_acs, counts.effective_macs, counts.addresses) == (6, 0, 0)
    assert energy.spike_rate(ours) == 0
    hidden = SynapseRecord("b", "dense", (2,), (2,), np.array([1.0, 2.0]), 4)
    assert energy.spike_rate([*ours, hidden]) == 3 / 8
    scaled = scaled_spikes([*ours, hidden], 2.0)
    np.testing.assert_array_equal(scaled[0].events, SHARE)
    np.testing.assert_array_equal(scaled[2].events, [2.0, 4.0])
    with pytest.raises(ValueError, match="binary inputs are added and not multiplied, got source='analog'"):
        SynapseRecord("a", "dense", (3,), (2,), SHARE, 1, source="analog", binary=True)


def setup_of(x: np.ndarray, cell: str, bits: bool = False) -> object:
    config = Config(
        energy=EnergyConfig(profile="45nm-int8", accounting="memory"),
        model=ModelConfig(architecture="mlp", hidden=[4], cell=cell),
        train=TrainConfig(batch_size=8, steps=1 if cell == "ReLU" else 3),
        gates=GatesConfig(enabled=False),
        halting=HaltingConfig(enabled=False),
    )
    config.bits.enabled, config.bits.fixed = bits, 4 if bits else 0
    part = data.Arrays(x, np.arange(len(x), dtype=np.int32) % 2)
    return build(config, data.Split(part, part, part, 2, "mine"))


@pytest.mark.parametrize(("cell", "bits"), [("ReLU", False), ("LIF", False), ("ReLU", True)])
def test_what_is_trained_on_zeros_and_ones_reads_them_by_additions_and_nobody_else(cell: str, bits: bool) -> None:
    binary = (np.random.default_rng(0).uniform(size=(24, 5)) < 0.4).astype(np.float32)
    for x, source in ((binary, "spikes"), (binary * 0.5, "analog")):
        setup = setup_of(x, cell, bits)
        params = setup.params(setup.learner.init()) | (input_range(x) if bits else {})
        deployed = deploy(setup.bayesian, params)
        inputs = jnp.asarray(x)
        sent = ran(deployed.simulator, deployed.small, inputs)
        first = assess_activity.records(setup, deployed, deployed.small, inputs, sent.kept)[0]
        assert (first.source, first.binary, first.executions) == (source, source == "spikes", 1)
        assert float(first.events.sum()) == pytest.approx((x != 0).sum(1).mean())
        wires = {wire.name: wire for wire in setup.sites.wires}
        assert wires["hidden0"].analog == (source == "analog")
        assert deployed.fixed is None or (deployed.fixed.inputs is None) == (source == "spikes")
