"""Where spikes win, against energies that are added up by hand."""

import numpy as np
import pytest

from dsnn import energy
from dsnn.energy import NeuronRecord, SynapseRecord

STEPS, INPUTS, HIDDEN, OUTPUTS = 4, 6, 5, 3


def network(spikes: float) -> list[energy.Record]:
    """A held input, hidden neurons that fire so often an inference, and a readout."""
    return [
        SynapseRecord("hidden0", "dense", (INPUTS,), (HIDDEN,), np.ones(INPUTS), 1, source="analog"),
        NeuronRecord("hidden0", "LIF", (HIDDEN,), STEPS, spikes * HIDDEN),
        SynapseRecord("readout", "dense", (HIDDEN,), (OUTPUTS,), np.full(HIDDEN, spikes), STEPS),
        NeuronRecord("readout", "LI", (OUTPUTS,), STEPS),
    ]


def spent(records: list[energy.Record], accounting: energy.Accounting, profile: energy.Profile) -> float:
    return energy.price(energy.count(records), profile, accounting).total_nj


@pytest.mark.parametrize("accounting", energy.ACCOUNTINGS)
@pytest.mark.parametrize("bits", [32, 4])
def test_on_the_line_both_cost_alike(accounting: energy.Accounting, bits: int) -> None:
    """Both sides built anew at a point of the line, and not scaled."""
    profile = energy.profile("45nm")
    rival_profile = profile.at_bits(bits)
    nonzero = {"hidden0": np.asarray([1.0, 0.5, 0.0, 1.0, 0.25, 0.25])}
    found = energy.boundary(network(1.3), profile, accounting, nonzero=nonzero, rival_profile=rival_profile)
    assert found is not None
    for share in (0.0, 0.4, 1.0):
        shares = {**nonzero, "readout": np.full(HIDDEN, share)}
        rival = spent(energy.skip_zeros(energy.ann_twin(network(1.0)), shares), accounting, rival_profile)
        spikes = found.at(share)
        slope = spent(network(2.0), accounting, profile) - spent(network(1.0), accounting, profile)
        ours = spent(network(1.0), accounting, profile) + (spikes - 1.0) * slope
        np.testing.assert_allclose(ours, rival, rtol=1e-9)
        if 0 <= spikes <= STEPS:
            np.testing.assert_allclose(spent(network(spikes), accounting, profile), rival, rtol=1e-9)


def test_in_arithmetic_a_spike_against_a_value_is_an_addition_against_a_multiplication() -> None:
    profile = energy.profile("45nm")
    found = energy.boundary(network(0.7), profile, "arithmetic")
    assert found is not None
    everything = energy.boundary(network(0.7), profile, "arithmetic", nonzero={"hidden0": np.ones(INPUTS)})
    assert everything is not None
    np.testing.assert_allclose(everything.at_none, 0.0, atol=1e-12)  # the inputs cost the same
    np.testing.assert_allclose(everything.at_all, profile.mac_pj / profile.ac_pj)
    assert found.at_none < 0, "without a name the first layer reads hidden activations"


def test_updates_and_states_move_the_line_down_with_every_step() -> None:
    profile, nonzero = energy.profile("45nm"), {"hidden0": np.ones(INPUTS)}
    lines = [energy.boundary(network(0.7), profile, a, nonzero=nonzero) for a in energy.ACCOUNTINGS]
    ends = [line.at_none for line in lines if line is not None]
    assert ends[0] == pytest.approx(0.0)
    assert max(ends[1:]) < 0


def test_who_never_fires_has_no_line() -> None:
    assert energy.boundary(network(0.0), energy.profile("45nm"), "updates") is None
    assert energy.spikes_a_neuron(network(0.0)) == 0.0
    assert energy.spikes_a_neuron(network(1.3)) == pytest.approx(1.3)
