"""The rivals: dense, quantised and gated twins, break-even rates, and three accountings side by side."""

import math

import numpy as np
import pytest

from dsnn.energy import (
    RIVALS,
    NeuronRecord,
    SynapseRecord,
    ann_twin,
    break_even,
    compare,
    count,
    gated_twin,
    price,
    profile,
    quantised_bits,
    spike_rate,
)


def dense(name, n_in, n_out, events, executions, **more):
    return SynapseRecord(name, "dense", (n_in,), (n_out,), np.full((n_in,), float(events)), executions, **more)


def ecg():
    """The 4-36-6 recurrent network of Yin, Corradi & Bohte 2021 on ECG-QTDB, 1301 steps, from its spike counts.

    Rates: 401.5 input events a sequence, .29 in the hidden layer; 42 adaptive neurons (readout included).
    Per step: .3086 x 36 + 36 x .29 x 36 + 36 x .29 x 6 = 11.1 + 375.8 + 62.6 = 449.6 accumulates.
    """
    steps = 1301
    fired = 0.29 * steps
    return [
        dense("in", 4, 36, 401.5 / 4, steps),
        SynapseRecord("loop", "recurrent", (36,), (36,), np.full(36, fired), steps),
        NeuronRecord("hidden", "ALIF", (36,), updates=steps, spikes=36 * fired),
        dense("out", 36, 6, fired, steps),
        NeuronRecord("out", "ALIF", (6,), updates=steps),
    ]


def test_ecg_network_against_lstm_shows_what_each_accounting_hides():
    snn, lstm = count(ecg()), count(gated_twin(ecg(), "LSTM"))
    assert snn.total.effective_acs / 1301 == pytest.approx(449.6, abs=0.05)
    assert lstm.total.effective_macs / 1301 == 4 * (4 * 36 + 36 * 36) + 36 * 6 == 5976
    ratio = {
        (hardware, accounting): price(lstm, profile(hardware), accounting).total_nj
        / price(snn, profile(hardware), accounting).total_nj
        for hardware in ("45nm-int32", "45nm-fp32")
        for accounting in ("arithmetic", "updates")
    }
    assert {key: round(value) for key, value in ratio.items()} == {
        ("45nm-int32", "arithmetic"): 425,
        ("45nm-int32", "updates"): 43,
        ("45nm-fp32", "arithmetic"): 68,
        ("45nm-fp32", "updates"): 28,
    }


def test_compare_prints_three_accountings_with_every_rival():
    table = compare(ecg(), profile("45nm-int32"), steps=1301)
    assert [row.accounting for row in table] == ["arithmetic", "updates", "memory"]
    assert all(tuple(row.rivals) == RIVALS for row in table)
    assert round(table[0].ratios["lstm"]) == 425
    assert round(table[1].ratios["lstm"]) == 43
    # Memory: 449.6 weights and 42 x 2 states twice a step against 5976 weights and 36 x 2 states twice.
    assert table[2].ratios["lstm"] == pytest.approx(
        (5976 * (3.2 + 50) + 36 * (9.6 + 40) + (40 + 36) * 32 * 0.15625)
        / (449.57 * (0.1 + 50) + 42 * (9.6 + 40) + (0.3086 + 2 * 36 * 0.29) * 0.15625),
        rel=1e-3,
    )
    assert "lstm" not in compare(feed_forward(0.1, 8), profile("45nm"), steps=8)[0].rivals


def feed_forward(rate, steps, sizes=(256, 128, 10)):
    """Linear - LIF - Linear - LI, every input and hidden neuron firing at the same mean rate (Yan et al. 2024)."""
    n_in, hidden, classes = sizes
    return [
        dense("first", n_in, hidden, rate * steps, steps),
        NeuronRecord("hidden", "LIF", (hidden,), updates=steps, spikes=rate * steps * hidden),
        dense("second", hidden, classes, rate * steps, steps),
        NeuronRecord("out", "LI", (classes,), updates=steps),
    ]


def test_dense_twin_of_a_gated_network_by_hand():
    mask = np.zeros((256, 128), bool)
    records = [dense("first", 256, 128, 1, 8, connected=mask), *feed_forward(0.1, 8)[1:]]
    twin = count(ann_twin(records))
    assert twin.total.effective_macs == twin.total.dense_macs == 256 * 128 + 128 * 10
    assert twin.total.effective_acs == 0
    assert twin.total.neuron_updates == {"ReLU": 128, "Linear": 10}
    assert twin.connection_sparsity == 0


def test_dense_twin_of_a_recurrent_network_runs_as_many_steps():
    twin = count(ann_twin(ecg()))
    assert twin.total.effective_macs == 1301 * (4 * 36 + 36 * 36 + 36 * 6)


@pytest.mark.parametrize(("steps", "bits"), [(1, 1), (3, 2), (4, 3), (5, 3), (7, 3), (8, 4), (10, 4), (15, 4), (16, 5)])
def test_quantised_bits(steps, bits):
    assert quantised_bits(steps) == bits
    assert 2**bits >= steps + 1 > 2 ** (bits - 1)


@pytest.mark.parametrize(("steps", "percent"), [(5, 7.50), (6, 6.25), (7, 5.36), (8, 6.25), (9, 5.56), (10, 5.00)])
@pytest.mark.parametrize("rate", [0.0, 0.02, 0.3])
def test_break_even_rate_against_the_quantised_twin(steps, percent, rate):
    """Yan, Bai & Wong 2024, as recomputed by Spyx: the rate below which the spiking network is cheaper."""
    table = compare(feed_forward(rate, steps), profile("22nm"), steps=steps)
    assert round(100 * table[2].break_even["pruned_quantised"].break_even, 2) == percent
    assert table[2].break_even["pruned_quantised"].measured == pytest.approx(rate)


def test_network_at_its_break_even_rate_costs_what_its_rival_costs():
    rival = price(count(ann_twin(feed_forward(0.1, 8))), profile("22nm").at_bits(4), "memory").total_nj
    rate = break_even(feed_forward(0.1, 8), rival, profile("22nm")).break_even
    there = price(count(feed_forward(rate, 8)), profile("22nm"), "memory").total_nj
    assert there == pytest.approx(rival, rel=1e-12)


def test_break_even_is_zero_where_standing_cost_is_too_high_and_infinite_without_spikes():
    assert break_even(feed_forward(0.1, 8), 1e-9, profile("45nm"), "updates").break_even == 0
    analog = [dense("only", 4, 2, 1, 1, source="analog"), NeuronRecord("n", "LIF", (2,), updates=3)]
    assert break_even(analog, 1.0, profile("45nm")).break_even == math.inf
    assert spike_rate(analog) == 0


def test_twins_that_cannot_be_stop_with_a_sentence():
    with pytest.raises(ValueError, match="needs a recurrent layer"):
        gated_twin(feed_forward(0.1, 8), "LSTM")
    with pytest.raises(ValueError, match="must be one of LSTM, GRU, tanh, got 'lstm'"):
        gated_twin(ecg(), "lstm")
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        quantised_bits(0)
