"""Counts, profiles and prices against counts done by hand and published reference values."""

import math

import numpy as np
import pytest

from dsnn.energy import (
    NEURONS,
    NeuronRecord,
    Profile,
    SynapseRecord,
    count,
    fan_out,
    gated_twin,
    merge,
    price,
    price_interval,
    profile,
    profile_names,
    site_prices,
)

PADDINGS = ["VALID", "SAME", ((2, 1), (0, 3))]


def dense(name, n_in, n_out, events, executions, **more):
    return SynapseRecord(name, "dense", (n_in,), (n_out,), np.broadcast_to(events, (n_in,)), executions, **more)


def three_layers():
    """4-3-2 after 4 analog inputs held for 5 steps: two hidden LIF layers and a leaky readout."""
    return [
        # Inputs 1 and 3 are non-zero, evaluated once: 2 x 3 = 6 MACs of 4 x 3 = 12.
        dense("first", 4, 3, [1, 0, 1, 0], 1, source="analog", bias=True),
        NeuronRecord("first", "LIF", (3,), updates=5, spikes=np.array([2.0, 0.0, 3.0])),
        # 2 + 0 + 3 = 5 spikes to 2 neurons: 10 ACs of 5 steps x 3 x 2 = 30.
        dense("second", 3, 2, [2, 0, 3], 5, bias=True),
        NeuronRecord("second", "LIF", (2,), updates=5, spikes=np.array([4.0, 1.0])),
        # Spikes 4 and 1; the first reaches both outputs, the second only one: 4 x 2 + 1 = 9 ACs of 5 x 2 x 2 = 20.
        dense("readout", 2, 2, [4, 1], 5, connected=np.array([[True, True], [False, True]])),
        NeuronRecord("readout", "LI", (2,), updates=5),
    ]


def test_three_dense_layers_by_hand():
    counts = count(three_layers())
    total = counts.total
    assert (total.effective_macs, total.effective_acs, total.dense_macs) == (6, 10 + 9, 12 + 30 + 20)
    assert total.neuron_updates == {"LIF": 5 * 3 + 5 * 2, "LI": 5 * 2}
    assert (total.update_macs, total.update_compares) == (25 + 10, 25)
    assert (total.spikes, total.neurons) == (5 + 5, 3 + 2 + 2)
    # 12 + 6 + 4 weights, 3 + 2 biases and one membrane for each of 7 neurons, 4 bytes each.
    assert counts.footprint == 4 * (22 + 5 + 7)
    assert counts.connection_sparsity == 1 / 22
    # 10 spikes among 5 steps x 5 neurons that fire; the readout does not fire.
    assert counts.activation_sparsity == pytest.approx(1 - 10 / 25)
    assert counts.weight_bytes_read == 4 * (6 + 19)
    assert counts.state_bytes_read == counts.state_bytes_written == 4 * (25 + 10)
    assert counts.synaptic_operations == {"Effective_MACs": 6, "Effective_ACs": 19, "Dense": 62}


@pytest.mark.parametrize(
    ("padding", "out", "first", "second"),
    [
        # Valid: 10 x 10 outputs x 9 taps x 2 channels; then 8 x 8 x 9 x 2 in x 3 out.
        ("VALID", (10, 8), 100 * 9 * 2, 64 * 9 * 2 * 3),
        # Padded: per axis 12 outputs reach 12 * 3 - 2 = 34 inputs, so 34 x 34 taps instead of 144 x 9.
        ("SAME", (12, 12), 34 * 34 * 2, 34 * 34 * 2 * 3),
    ],
)
def test_two_convolutions_on_twelve_by_twelve_by_hand(padding, out, first, second):
    records = [
        SynapseRecord(
            "one", "conv", (12, 12, 1), (out[0], out[0], 2), np.ones((12, 12, 1)), 1, "analog", (3, 3, 1, 2),
            padding=padding,
        ),
        SynapseRecord(
            "two", "conv", (out[0], out[0], 2), (out[1], out[1], 3), np.full((out[0], out[0], 2), 4.0), 4, "spikes",
            (3, 3, 2, 3), padding=padding,
        ),
    ]  # fmt: skip
    one, two = count(records).layers
    assert (one.effective_macs, one.dense_macs) == (first, first)
    assert (two.effective_acs, two.dense_macs) == (4 * second, 4 * second)  # every input fires in all 4 steps


def test_one_spike_at_the_border_reaches_fewer_neurons():
    # A 3x3 kernel on a padded 12x12 image: the corner reaches 4 positions, an edge 6, the inside 9; times 2 channels.
    record = SynapseRecord(
        "c", "conv", (12, 12, 1), (12, 12, 2), np.zeros((12, 12, 1)), 1, kernel_shape=(3, 3, 1, 2), padding="SAME"
    )
    reach = fan_out(record)[:, :, 0]
    assert (reach[0, 0], reach[0, 5], reach[5, 5], reach[11, 11]) == (8, 12, 18, 8)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv_fan_out_equals_the_convolution_itself(padding, strides, groups):
    import jax
    from jax import lax

    rng = np.random.default_rng(0)
    mask = rng.uniform(size=(3, 2, 4 // groups, 8)) < 0.6
    events = rng.integers(0, 6, (7, 9, 4)).astype(float)

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x[None], kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )[0]

    expected = convolve(np.float32(events), np.float32(mask))
    record = SynapseRecord(
        "c", "conv", (7, 9, 4), expected.shape, events, 5, "spikes", mask.shape, strides, padding, connected=mask
    )
    counted = count([record]).total
    assert counted.effective_acs == float(expected.sum())
    assert counted.dense_macs == 5 * float(convolve(np.ones((7, 9, 4), np.float32), np.ones(mask.shape)).sum())
    assert counted.zero_weights == int((~mask).sum())
    del jax


@pytest.mark.parametrize("padding", PADDINGS)
def test_pooling_adds_once_per_window_and_is_no_synaptic_operation(padding):
    from jax import lax

    events = np.random.default_rng(1).integers(0, 4, (6, 5, 3)).astype(float)
    summed = lax.reduce_window(np.float32(events), np.float32(0), lax.add, (2, 2, 1), (2, 2, 1), [*padding, (0, 0)]
                               if not isinstance(padding, str) else padding)  # fmt: skip
    record = SynapseRecord("p", "pool", (6, 5, 3), summed.shape, events, 3, "spikes", (2, 2), (2, 2), padding)
    counts = count([record])
    assert counts.total.pool_adds == float(summed.sum())
    assert counts.synaptic_operations == {"Effective_MACs": 0, "Effective_ACs": 0, "Dense": 0}
    assert counts.footprint == 0


def test_recurrent_network_with_a_given_spike_train_by_hand():
    # Spikes of 3 recurrent neurons over 4 steps. Each step feeds the step before it back, so the last step's two
    # spikes are not fed back: 5 of the 7 spikes are, each to 3 neurons (15 ACs), in 3 products of 9 weights.
    train = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [1, 0, 1]])
    records = [
        dense("in", 2, 3, [3, 2], 4),  # 5 input spikes x 3 = 15 ACs of 4 x 6
        SynapseRecord("loop", "recurrent", (3,), (3,), train[:-1].sum(axis=0), 3),
        NeuronRecord("hidden", "ALIF", (3,), updates=4, spikes=train.sum(axis=0)),
        dense("out", 3, 2, train.sum(axis=0), 4),  # 7 spikes x 2 = 14 ACs of 4 x 6
        NeuronRecord("out", "LI", (2,), updates=4),
    ]
    total = count(records).total
    assert total.effective_acs == 15 + 15 + 14
    assert total.dense_macs == 24 + 27 + 24
    assert total.neuron_updates == {"ALIF": 12, "LI": 8}
    assert total.update_macs == 12 * 3 + 8
    assert total.state_accesses == 12 * 2 + 8


def test_gated_and_early_stopped_records_count_what_ran():
    # Half of the examples stopped after 2 of 4 steps (3 on average), and one of three neurons is gated off.
    records = [
        dense("d", 4, 3, [0.0, 1.5, 3.0, 0.5], 3.0, connected=np.array([[True, True, False]] * 4)),
        NeuronRecord("n", "LIF", (3,), updates=np.array([3.0, 3.0, 0.0]), spikes=1.25),
    ]
    counts = count(records)
    assert counts.total.effective_acs == 5.0 * 2
    assert counts.total.dense_macs == 3.0 * 12
    assert counts.total.neuron_updates == {"LIF": 6.0}
    assert counts.activation_sparsity == pytest.approx(1 - 1.25 / 6)


def test_neurobench_reference_values():
    """NeuroBench, tests/test_metrics.py: the values its own test suite asserts."""
    # Linear(20, 5) on ones of [batch 5, time 10, 20]: 1000 accumulates per sample.
    snn = count([dense("l", 20, 5, 10, 10), NeuronRecord("n", "LIF", (5,), updates=10)])
    assert snn.synaptic_operations["Effective_ACs"] == 1000
    assert snn.total.neuron_updates["LIF"] == 50  # its membrane updates
    # Conv2d 3x3 on 3x3 ones, and on 12x12 ones.
    for side, macs in ((3, 9), (12, 900)):
        out = (side - 2, side - 2, 1)
        conv = SynapseRecord("c", "conv", (side, side, 1), out, np.ones((side, side, 1)), 1, "analog", (3, 3, 1, 1))
        assert count([conv]).synaptic_operations == {"Effective_MACs": macs, "Effective_ACs": 0, "Dense": macs}
    # Conv1d(5, 5, 5) on [1, 5, 10]: 6 positions x 5 taps x 5 x 5 = 750 MACs.
    conv = SynapseRecord("c", "conv", (10, 5), (6, 5), np.ones((10, 5)), 1, "analog", (5, 5, 5))
    assert count([conv]).synaptic_operations["Effective_MACs"] == 750


@pytest.mark.parametrize(("kind", "operations"), [("LSTM", 615), ("tanh", 150), ("GRU", 465)])
def test_neurobench_reference_values_of_recurrent_cells(kind, operations):
    """LSTM(25, 5), RNN and GRU cells on ones, one step: gates x (25 x 5 + 5 x 5), and 3 element-wise products x 5."""
    records = [
        dense("in", 25, 5, 1, 1),
        SynapseRecord("loop", "recurrent", (5,), (5,), np.ones(5), 1),
        NeuronRecord("cell", "ALIF", (5,), updates=1),
    ]
    total = count(gated_twin(records, kind)).total
    assert total.effective_macs + total.update_macs == operations


def test_counts_do_not_change_when_batches_are_merged():
    rng = np.random.default_rng(3)
    batches = [
        [dense("d", 6, 4, rng.integers(0, 5, 6), 5), NeuronRecord("n", "LIF", (4,), 5.0, float(rng.integers(9)))]
        for _ in range(4)
    ]
    running = batches[0]
    for seen, batch in enumerate(batches[1:], start=2):
        running = merge(running, batch, 1 / seen)
    singles = [count(batch).total for batch in batches]
    assert count(running).total.effective_acs == pytest.approx(np.mean([t.effective_acs for t in singles]))
    assert count(running).total.spikes == pytest.approx(np.mean([t.spikes for t in singles]))
    with pytest.raises(ValueError, match="one network"):
        merge(batches[0], batches[1][:1], 0.5)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        merge(batches[0], batches[1], 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "linear"}, "kind must be one of dense"),
        ({"source": "spike"}, "source must be one of spikes, analog, got 'spike'"),
        ({"events": np.array([1.0, -1.0])}, "events must be finite and not negative, got -1.0"),
        ({"events": np.array([1.0, math.nan])}, "events must be finite and not negative, got nan"),
        ({"events": np.ones(1)}, r"events must have shape \(2,\), got \(1,\)"),
        ({"events": np.array([1.0, 6.0])}, "got 6 events in 5 executions"),
        ({"executions": math.inf}, "executions must be finite"),
        ({"kernel_shape": (2, 4)}, r"must be \(inputs, outputs\) = \(2, 3\), got \(2, 4\)"),
        ({"connected": np.ones((3, 2), bool)}, r"the kernel's shape \(2, 3\), got \(3, 2\)"),
        ({"kind": "conv"}, "a conv layer needs kernel_shape"),
        ({"kind": "conv", "kernel_shape": (3, 3, 1, 3)}, "images are channels last"),
    ],
)
def test_bad_synapse_records_stop_with_a_sentence(fields, message):
    good = {
        "name": "d",
        "kind": "dense",
        "in_shape": (2,),
        "out_shape": (3,),
        "events": np.array([1.0, 2.0]),
        "executions": 5,
    }
    with pytest.raises(ValueError, match=message):
        SynapseRecord(**(good | fields))


def test_conv_record_with_channels_first_is_refused():
    with pytest.raises(ValueError, match="channels last"):
        SynapseRecord("c", "conv", (1, 12, 12), (2, 10, 10), np.zeros((1, 12, 12)), 1, kernel_shape=(3, 3, 1, 2))
    with pytest.raises(ValueError, match=r"takes \(12, 12\) to \(10, 10\), got out_shape \(12, 12, 2\)"):
        SynapseRecord("c", "conv", (12, 12, 1), (12, 12, 2), np.zeros((12, 12, 1)), 1, kernel_shape=(3, 3, 1, 2))


def test_bad_neuron_records_stop_with_a_sentence():
    with pytest.raises(ValueError, match=r"updates must have shape \(3,\), got \(2,\)"):
        NeuronRecord("n", "LIF", (3,), updates=np.ones(2))
    with pytest.raises(ValueError, match="kind must be one of IF, LIF"):
        count([NeuronRecord("n", "Leaky", (3,), updates=1)])
    with pytest.raises(ValueError, match="at least one record"):
        count([])


# Prices.


def test_price_of_three_layers_by_hand():
    counts = count(three_layers())
    cheap = price(counts, profile("45nm"), "arithmetic")
    assert cheap.parts == pytest.approx({"macs": 6 * 4.6e-3, "acs": 19 * 0.9e-3, "pooling": 0})
    middle = price(counts, profile("45nm"), "updates")
    # 25 LIF updates of one MAC and one comparison, 10 LI updates of one MAC.
    assert middle.parts["updates"] == pytest.approx(25e-3 * (4.6 + 0.9) + 10e-3 * 4.6)
    assert middle.total_nj == pytest.approx(cheap.total_nj + middle.parts["updates"])
    full = price(counts, profile("45nm"), "memory")
    # 25 weights of 32 bit from 1 MB SRAM (100 pJ per 64 bit); 35 membranes read and written (20 pJ per 64 bit);
    # 2 analog inputs of 32 bit and 10 spikes of 1 bit (10 pJ per 64 bit).
    assert full.parts["weights"] == pytest.approx(25 * 50e-3)
    assert full.parts["states"] == pytest.approx(35 * 2 * 10e-3)
    assert full.parts["activations"] == pytest.approx((2 * 32 + 10) * 10e-3 / 64)
    assert full.total_nj == pytest.approx(sum(full.parts.values()))
    assert sum(full.layers.values()) == pytest.approx(full.total_nj)
    assert list(full.layers) == ["first", "second", "readout"]


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("accounting", ["arithmetic", "updates", "memory"])
def test_site_prices_add_up_to_the_price_of_the_network(name, accounting):
    hardware = profile(name)
    priced = price(count(three_layers()), hardware, accounting)
    # 6 analog events, 19 spike events, 25 LIF updates, 10 LI updates, as counted by hand above.
    by_site = 6 * hardware.event_nj("analog", accounting) + 19 * hardware.event_nj("spikes", accounting)
    by_site += 25 * hardware.update_nj("LIF", accounting) + 10 * hardware.update_nj("LI", accounting)
    outside_sites = priced.parts.get("spikes", 0.0) + priced.parts.get("activations", 0.0)
    assert by_site + outside_sites == pytest.approx(priced.total_nj, rel=1e-12)
    sites = site_prices(hardware, "LIF", accounting)
    assert sites.spike_event_nj == hardware.event_nj("spikes", accounting)
    assert sites.update_nj == hardware.update_nj("LIF", accounting)


@pytest.mark.parametrize("name", profile_names())
def test_every_number_of_a_profile_has_a_source(name):
    hardware = profile(name)
    assert hardware.about
    assert all(len(source) > 10 for source in hardware.sources.values())
    assert {"mac_pj", "ac_pj"} <= set(hardware.sources)


def test_published_prices():
    expected = {  # pJ per accumulate, per LIF update
        "45nm-fp32": (0.9, 5.5), "45nm-fp16": (0.4, 1.9), "45nm-int32": (0.1, 3.3), "45nm-int8": (0.03, 0.26),
        "loihi": (27.1, 81), "loihi-sanafe": (35.5, 72.8), "truenorth": (26, 0), "spinnaker": (13300, 26000),
        "spinnaker2": (450, 2190), "cpu": (8600, 8600), "gpu": (300, 300), "22nm": (0.05448, 0.05448),
    }  # fmt: skip
    for name, (event, update) in expected.items():
        assert 1e3 * profile(name).event_nj("spikes", "arithmetic") == pytest.approx(event)
        assert 1e3 * profile(name).update_nj("LIF", "updates") == pytest.approx(update)
    assert 1e3 * profile("45nm").event_nj("analog", "arithmetic") == pytest.approx(4.6)
    # DRAM: 1.3 nJ per 64 bit, 32 bit a weight. SRAM energies are per 64-bit access, not per 32-bit word.
    assert profile("45nm-dram").event_nj("spikes", "memory") == pytest.approx(0.9e-3 + 0.65)
    assert profile("45nm-sram").event_nj("spikes", "memory") == pytest.approx(0.9e-3 + 0.05)


def test_prices_at_another_width():
    eight = profile("45nm-fp32").at_bits(8)
    assert eight.ac_pj == pytest.approx(0.9 / 4)
    assert eight.mac_pj == pytest.approx(3.7 / 16 + 0.9 / 4)
    assert eight.event_nj("spikes", "memory") == pytest.approx(1e-3 * (0.225 + 8 * 1.5625))
    with pytest.raises(ValueError, match="bits must be at least 1, got 0"):
        eight.at_bits(0)


def test_a_user_adds_a_profile_by_a_file(tmp_path):
    path = tmp_path / "chip.yaml"
    path.write_text("like: 45nm-int8\nabout: a test chip\nac_pj: {value: 0.021, source: measured on die 4}\n")
    chip = profile(str(path))
    assert (chip.name, chip.ac_pj, chip.bits) == ("chip", 0.021, 8)
    assert chip.mac_pj == profile("45nm-int8").mac_pj
    assert chip.sources["ac_pj"] == "measured on die 4"


COMPLETE = {
    "about": "a test chip",
    "bits": 8,
    "mac_pj": {"value": 1.0, "source": "data sheet"},
    "ac_pj": {"value": 0.5, "source": "data sheet"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ac_pj": None}, "the entry ac_pj is missing"),
        ({"ac_pj": {"value": -1.0, "source": "s"}}, "ac_pj must be a finite number of pJ, not negative, got -1.0"),
        ({"ac_pj": {"value": math.nan, "source": "s"}}, "must be a finite number of pJ, not negative, got nan"),
        ({"ac_pj": {"value": math.inf, "source": "s"}}, "must be a finite number of pJ, not negative, got inf"),
        ({"ac_pj": {"value": "0.5 pJ", "source": "s"}}, "must be a finite number of pJ"),
        ({"ac_pj": {"value": True, "source": "s"}}, "must be a finite number of pJ"),
        ({"ac_pj": 0.5}, "must have value and source"),
        ({"ac_pj": {"value": 0.5, "source": ""}}, "must name its source"),
        ({"bits": 0}, "bits must be a whole number of at least 1, got 0"),
        ({"acc_pj": {"value": 0.5, "source": "s"}}, "unknown entry 'acc_pj'"),
        ({"update_pj": {"Leaky": {"value": 0.5, "source": "s"}}}, "prices a kind 'Leaky'"),
        ({"multiply_pj": {"value": 2.0, "source": "s"}}, "multiply_pj must not exceed mac_pj, got 2.0 and 1.0"),
    ],
)
def test_bad_profiles_stop_with_a_sentence(tmp_path, change, message):
    import yaml

    entries = {key: value for key, value in (COMPLETE | change).items() if value is not None}
    path = tmp_path / "chip.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(ValueError, match=message):
        profile(str(path))


def test_unusable_profile_files_stop_with_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of 22nm, 45nm.*got '46nm'"):
        profile("46nm")
    with pytest.raises(ValueError, match="There is no profile file"):
        profile(str(tmp_path / "none.yaml"))
    path = tmp_path / "odd.yaml"
    for text, message in (("a: [", "no valid YAML"), ("- a", "must hold a table"), ("like: " + str(path), "circle")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            profile(str(path))


def test_memory_accounting_needs_prices_of_memory():
    bare = Profile("bare", "test", 8, mac_pj=1.0, ac_pj=0.5)
    assert bare.event_nj("spikes", "updates") == 0.5e-3
    for ask in (
        lambda: bare.event_nj("spikes", "memory"),
        lambda: bare.update_nj("LIF", "memory"),
        lambda: price(count(three_layers()), bare, "memory"),
    ):
        with pytest.raises(ValueError, match="must price memory"):
            ask()


def test_interval_over_posterior_samples():
    prices = [
        price(count([dense("d", 2, 3, [spikes, 0], 100)]), profile("45nm"), "arithmetic") for spikes in range(101)
    ]
    interval = price_interval(prices, level=0.9)
    event = 3 * 0.9e-3
    assert interval.total_nj == pytest.approx((50 * event, 5 * event, 95 * event))
    assert interval.parts["acs"] == interval.total_nj
    with pytest.raises(ValueError, match="one profile and one accounting"):
        price_interval([prices[0], price(count([dense("d", 2, 3, [1, 0], 1)]), profile("loihi"), "arithmetic")])


def test_every_neuron_kind_has_a_price():
    for kind in NEURONS:
        assert profile("45nm").update_nj(kind, "memory") >= profile("45nm").update_nj(kind, "updates") >= 0
