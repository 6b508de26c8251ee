"""Placement against a hand count: one layer, four steps, prices that are easy to multiply."""

import dataclasses

import numpy as np
import pytest

from dsnn import energy
from dsnn.energy import NeuronRecord, SynapseRecord

CORE = dataclasses.replace(
    energy.profile("45nm"),
    bits=8,
    mac_pj=4.0,
    ac_pj=1.0,
    spike_pj=2.0,
    weight_pj_per_bit=1.0,
    state_pj_per_bit=0.0,
    activation_pj_per_bit=0.0,
    update_pj={"any": 10.0},
)


def layer(spikes_in: float, spikes_out: float = 3.0) -> list[energy.Record]:
    """Ten inputs of ``spikes_in`` spikes each over four steps, five neurons."""
    return [
        SynapseRecord("hidden", "dense", (10,), (5,), np.full(10, spikes_in), 4.0),
        NeuronRecord("hidden", "LIF", (5,), 4.0, spikes_out),
    ]


def test_both_energies_by_hand() -> None:
    (placed,) = energy.place([layer(1.0)], CORE, CORE)
    # events: 10 spikes x 5 weights x (1 add + 8 for the weight); 20 updates of 10; 3 spikes sent at 2
    np.testing.assert_allclose(placed.event_nj.mean, 1e-3 * (10 * 5 * 9 + 200 + 6))
    # dense: 50 weights x 4 steps x 4, each weight fetched once, the same updates
    np.testing.assert_allclose(placed.dense_nj.mean, 1e-3 * (50 * 4 * 4 + 50 * 8 + 200))
    assert placed.probability == 1
    assert placed.on_events
    np.testing.assert_allclose(placed.rate.mean, 0.25)
    np.testing.assert_allclose(placed.break_even_rate, 0.25 * (800 + 400 - 6) / 450)
    assert placed.best_nj == placed.event_nj.mean


def test_at_the_break_even_rate_both_cost_the_same() -> None:
    (placed,) = energy.place([layer(1.0)], CORE, CORE)
    (even,) = energy.place([layer(4 * placed.break_even_rate)], CORE, CORE)
    np.testing.assert_allclose(even.event_nj.mean, even.dense_nj.mean)


def test_the_probability_is_the_share_of_posterior_draws() -> None:
    draws = [layer(rate) for rate in (0.5, 1.0, 3.0, 3.5)]
    (placed,) = energy.place(draws, CORE, CORE)
    assert placed.probability == 0.5
    dense = energy.place(draws[2:], CORE, CORE)[0]
    assert not dense.on_events
    assert dense.best_nj == dense.dense_nj.mean
    assert placed.rate.low < placed.rate.mean < placed.rate.high
    with pytest.raises(ValueError, match="draws of one network"):
        energy.place([], CORE, CORE)


def test_a_faster_engine_takes_the_layer() -> None:
    cheap = dataclasses.replace(CORE, mac_pj=0.1, weight_pj_per_bit=0.1)
    assert energy.place([layer(1.0)], CORE, cheap)[0].probability == 0
