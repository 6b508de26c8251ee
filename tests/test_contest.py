"""Levels, ratios and verdicts against enumeration and closed forms; what addresses and machines add to energies."""

import itertools

import numpy as np
import pytest

from dsnn import energy, evaluate

RNG = np.random.default_rng(0)


def test_expected_best_is_the_mean_over_all_draws():
    values = np.array([0.3, 0.9, 0.5, 0.5, 0.7])
    wanted = [np.mean([max(drawn) for drawn in itertools.combinations(values, k)]) for k in range(1, 6)]
    np.testing.assert_allclose(evaluate.expected_best(values), wanted)


@pytest.mark.parametrize(("most", "kept"), [(1, [9]), (2, [3, 9]), (3, [3, 7, 9]), (5, [3, 5, 7, 8, 9])])
def test_a_front_is_thinned_from_its_ends(most, kept):
    assert evaluate.spread_over([3, 5, 7, 8, 9], most) == kept


def test_the_cheapest_within_a_tolerance_is_taken():
    accuracy, spent = np.array([0.98, 0.975, 0.96, 0.99]), np.array([5.0, 3.0, 1.0, 9.0])
    assert evaluate.levels(0.99, 0.01) == pytest.approx([0.99, 0.98, 0.97, 0.95])
    assert evaluate.cheapest(accuracy, spent, 0.99, 0.01) == 0
    assert evaluate.cheapest(accuracy, spent, 0.985, 0.01) == 1
    assert evaluate.cheapest(accuracy, spent, 1.0, 0.005) is None


def test_a_ratio_is_of_means_and_its_interval_is_the_bootstraps():
    ours = RNG.gamma(4.0, size=(1, 400))
    ratio = evaluate.paired_ratio(ours, np.full((1, 400), 2.0))
    assert ratio.value == pytest.approx(ours.mean() / 2)
    half = 1.96 * ours.std() / 2 / np.sqrt(400)  # of a mean, by the central limit
    assert ratio.high - ratio.value == pytest.approx(half, rel=0.12)
    assert ratio.value - ratio.low == pytest.approx(half, rel=0.12)


def test_pairs_take_out_what_both_sides_share():
    ours = RNG.gamma(1.0, size=(3, 60))
    ratio = evaluate.paired_ratio(2 * ours, ours)
    assert ratio == pytest.approx((2.0, 2.0, 2.0))
    gained = evaluate.paired_gain(np.ones((2, 9)), np.ones((2, 9)) * 0.5)
    assert gained == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="same seeds and blocks"):
        evaluate.paired_ratio(ours, ours[:2])


@pytest.mark.parametrize(
    ("low", "high", "gained", "said"),
    [
        (0.5, 0.9, 0.0, "win"), (0.5, 0.9, -0.011, "tie"), (0.5, 0.9, -0.01, "win"), (0.5, 1.1, 0.0, "tie"),
        (1.1, 2.0, 0.0, "loss"), (1.1, 2.0, 0.011, "tie"), (1.1, 2.0, -0.5, "loss"), (0.5, 0.9, 0.5, "win"),
    ],
)  # fmt: skip
def test_verdicts(low, high, gained, said):
    assert evaluate.verdict(evaluate.Ratio(1.0, low, high), gained, 0.01) == said


def test_blocks_weigh_by_their_examples():
    ours, theirs, sizes = np.full((2, 32), 1.0), np.full((2, 32), 2.0), np.full(32, 32)
    ours[:, -1], theirs[:, -1], sizes[-1] = 9.0, 3.0, 8
    ratio = evaluate.paired_ratio(ours, theirs, sizes)
    examples = [np.repeat(side[0], sizes) for side in (ours, theirs)]
    assert ratio.value == pytest.approx(examples[0].mean() / examples[1].mean()) == pytest.approx(1064 / 2008)
    assert evaluate.paired_ratio(ours, theirs).value == pytest.approx(40 / 65)
    assert evaluate.paired_ratio(ours, theirs, 0 * sizes + 5) == evaluate.paired_ratio(ours, theirs)
    assert 0.5 <= ratio.low <= ratio.value <= ratio.high < evaluate.paired_ratio(ours, theirs).high
    with pytest.raises(ValueError, match="sizes must be one for each of 32 blocks"):
        evaluate.paired_ratio(ours, theirs, np.ones(3))


@pytest.mark.parametrize(
    ("ours", "theirs", "gained", "said"),
    [
        (4.0, 0.0, 0.0, "loss"), (4.0, 0.0, 0.01, "loss"), (4.0, 0.0, 0.011, "tie"), (4.0, 0.0, -0.5, "loss"),
        (0.0, 4.0, 0.0, "win"), (0.0, 4.0, -0.01, "win"), (0.0, 4.0, -0.011, "tie"), (0.0, 0.0, 0.5, "tie"),
    ],
)  # fmt: skip
def test_who_spends_nothing_is_held_to_accuracy_alone(ours, theirs, gained, said):
    assert evaluate.free_verdict(ours, theirs, gained, 0.01) == said


def test_corners_are_the_ends_over_a_grid_of_prices():
    ours, theirs = {"acs": 3.0, "weights": 5.0, "states": 1.0}, {"macs": 4.0, "weights": 2.0}
    grid = itertools.product(np.linspace(0.8, 1.2, 5), repeat=4)
    ratios = [(3 * a + 5 * w + s) / (4 * m + 2 * w) for a, w, s, m in grid]
    assert evaluate.corners(ours, theirs, 0.2) == pytest.approx((min(ratios), max(ratios)))


# --- Addresses and machines


def layers(source="analog", executions=1.0):
    """8 inputs of which 3 are not zero, 4 units of which one is closed for two inputs."""
    events = np.array([1, 0, 0.5, 0, 0, 1, 0, 0.5]) * executions
    kernel = np.ones((8, 4), bool)
    kernel[:2, 0] = False
    neuron = "ReLU" if source == "analog" else "LIF"
    return [
        energy.SynapseRecord("hidden", "dense", (8,), (4,), events, executions, source, connected=kernel),
        energy.NeuronRecord("hidden", neuron, (4,), executions, 2.0),
        energy.NeuronRecord("readout", "LI", (2,), executions),
    ]


def parts(records, profile, machine, steps, accounting="memory"):
    return energy.price(energy.count(energy.on_machine(records, machine, steps)), profile, accounting)


def test_a_machine_skips_zeros_or_multiplies_all():
    profile = energy.profile("45nm-int8").addressed()
    skips, all_of_it = (parts(layers(), profile, machine, 1) for machine in energy.MACHINES)
    assert skips.parts["macs"] == pytest.approx(1e-3 * 0.23 * (3 * 4 - 1))  # one event at a row with a zero
    assert all_of_it.parts["macs"] == pytest.approx(1e-3 * 0.23 * 32)
    assert skips.parts["weights"] == pytest.approx(1e-3 * 8 * 1.5625 * (3 * 4 - 1))
    # three events: an addition of 32 bits each; three bits of address, written and read
    assert skips.parts["addresses"] == pytest.approx(1e-3 * 3 * (0.03 * 4 + 3 * 2 * 0.15625))
    assert all_of_it.parts["addresses"] == 0
    assert skips.parts["states"] == all_of_it.parts["states"] == 0  # nothing is kept for a next step
    assert skips.parts["updates"] == pytest.approx(1e-3 * 0.03 * 4)


def test_spikes_have_addresses_on_both_machines_and_states_at_every_step():
    profile = energy.profile("45nm-int8").addressed()
    ran = [parts(layers("spikes", 10.0), profile, machine, 10).parts for machine in energy.MACHINES]
    assert ran[0] == ran[1]
    assert ran[0]["acs"] == pytest.approx(1e-3 * 0.03 * 110)
    assert ran[0]["addresses"] == pytest.approx(1e-3 * 30 * (0.12 + 3 * 2 * 0.15625))
    assert ran[0]["states"] == pytest.approx(1e-3 * 2 * 10 * (4 + 2) * 8 * 0.3125)  # idle or not, read and written
    assert ran[0]["updates"] == pytest.approx(1e-3 * 10 * (4 * (0.23 + 0.03) + 2 * 0.23))


def test_addresses_cost_nothing_where_nobody_prices_them():
    assert "addresses" not in parts(layers("spikes", 10.0), energy.profile("45nm-int8"), "events", 10).parts
    loihi = energy.profile("loihi")
    assert loihi.addressed() == loihi  # its published events hold them
    assert "addresses" not in parts(layers(), loihi.addressed(), "events", 1).parts
    cheap = parts(layers(), energy.profile("45nm").addressed(), "events", 1, "updates").parts
    assert cheap["addresses"] == pytest.approx(1e-3 * 3 * 0.9)  # no memory in this accounting
    with pytest.raises(ValueError, match="machine must be one of events, dense"):
        energy.on_machine(layers(), "both", 1)
