"""Networks that a user would deploy instead: against NumPy, against each other, and their operations by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import energy
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.sites import sites
from dsnn.deploy import activity
from dsnn.networks import rivals
from dsnn.networks.compact import compact
from dsnn.networks.whole import as_network
from dsnn.parameters import split
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll

TIME, BATCH, INPUTS, UNITS, CLASSES = 6, 3, 5, 4, 2


def inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(TIME, BATCH, INPUTS)).astype(np.float32)


def filled(network, seed=1):
    """A network with biases that are not zero, so that they are seen."""
    template, params = split(as_network(network, "a network"))
    rng = np.random.default_rng(seed)
    return template.build({n: jnp.asarray(rng.normal(size=v.shape) * 0.6, jnp.float32) for n, v in params.items()})


def run(model, xs, **how):
    outputs, _, sent = unroll(model, jnp.asarray(xs), None, keep_spikes, **how)
    return np.asarray(outputs), {name: np.asarray(value) for name, value in sent.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_gru(params, xs):
    """Cho et al. 2014 with the reset gate behind the product, one unit's equation after another, in double."""
    p = {name.removeprefix("network."): np.asarray(value, np.float64) for name, value in params.items()}
    (w_r, w_z, w_c), (u_r, u_z, u_c) = np.split(p["into.kernel"], 3, 1), np.split(p["back.kernel"], 3, 1)
    b_r, b_z, b_c = np.split(p["into.bias"], 3)
    h, out = np.zeros((xs.shape[1], len(u_r))), []
    for x in xs.astype(np.float64):
        r, z = sigmoid(x @ w_r + h @ u_r + b_r), sigmoid(x @ w_z + h @ u_z + b_z)
        h = (1 - z) * np.tanh(x @ w_c + b_c + r * (h @ u_c + p["inner"])) + z * h
        out.append(h @ p["out.kernel"] + p["out.bias"])
    return np.stack(out)


def gru(**options):
    return filled(rivals.gru((INPUTS,), CLASSES, key=jax.random.key(0), width=UNITS, **options))


def delta(**options):
    return filled(rivals.delta_gru((INPUTS,), CLASSES, key=jax.random.key(0), width=UNITS, **options))


def test_gru_is_the_equations():
    model, xs = gru(), inputs()
    np.testing.assert_allclose(run(model, xs)[0], numpy_gru(split(model)[1], xs), atol=2e-6)


def test_delta_gru_without_a_threshold_is_the_gru():
    model, xs = delta(threshold=0.0), inputs()
    np.testing.assert_allclose(run(model, xs)[0], numpy_gru(split(model)[1], xs), atol=5e-6)
    assert np.abs(run(delta(threshold=0.5), xs)[0] - run(model, xs)[0]).max() > 1e-2


def test_delta_events_are_changes_beyond_the_threshold():
    xs = np.zeros((TIME, 1, INPUTS), np.float32)
    xs[:, 0, 0] = [0.0, 0.3, 0.3, 0.35, 0.5, 0.5]  # sent at 0.3 and at 0.5: 0.35 is near what was sent
    xs[:, 0, 1] = 1.0  # sent once
    xs[:, 0, 2] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]  # creeps: sent where it has gone far enough from what was sent
    sent = run(delta(threshold=0.15), xs)[1]["hidden"][:, 0]
    np.testing.assert_allclose(sent[:, 0], [0, 0.3, 0, 0, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(sent[:, 1], [1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(sent[:, 2], [0, 0.2, 0, 0.2, 0, 0.2], atol=1e-6)
    assert not sent[:, 3:].any()


def records(model, xs, stop=None, *, held=False, **how):
    sent = {name: jnp.asarray(value) for name, value in run(model, xs, **how)[1].items()}
    return activity.records(model, jnp.asarray(xs), sent, stop, held=held, analog=True)


def test_macs_of_a_gru_by_hand():
    count = energy.count(energy.on_machine(records(gru(), inputs()), "dense", TIME)).total
    by_hand = TIME * INPUTS * 3 * UNITS + TIME * UNITS * 3 * UNITS + UNITS * CLASSES  # one readout, at the end
    assert count.effective_macs == by_hand
    assert count.effective_acs == 0
    assert count.update_macs == 3 * TIME * UNITS
    assert count.state_accesses == TIME * UNITS
    every = energy.count(energy.on_machine(records(gru(answers="every"), inputs()), "dense", TIME)).total
    assert every.effective_macs == by_hand + (TIME - 1) * UNITS * CLASSES


def test_products_of_a_delta_gru_by_hand():
    model, xs = delta(threshold=0.4), inputs()
    sent = run(model, xs)[1]
    count = energy.count(energy.on_machine(records(model, xs), "events", TIME)).total
    into, back = (np.count_nonzero(sent[name]) / BATCH for name in ("hidden", "hidden.recurrent"))
    back -= np.count_nonzero(sent["hidden.recurrent"][-1]) / BATCH  # the last step's news nobody reads
    assert 0 < into < TIME * INPUTS
    np.testing.assert_allclose(count.effective_macs, (into + back) * 3 * UNITS + UNITS * CLASSES)
    np.testing.assert_allclose(count.addresses, into + back + UNITS)
    assert count.state_accesses == TIME * (6 * UNITS + INPUTS)
    assert count.update_compares == TIME * (UNITS + INPUTS)


@pytest.mark.parametrize("make", [gru, delta])
def test_closed_units_and_inputs_leave(make):
    model, xs = make(), inputs()
    gates = {"input": jnp.array([1.0, 0, 1, 1, 0]), "hidden": jnp.array([0.0, 1, 1, 0])}
    closed = xs * np.array([1, 0, 1, 1, 0], np.float32)
    template, params = split(model)
    opened = np.array([0, 1, 1, 0], np.float32)[:, None]
    masked = params | {f"network.{name}.kernel": params[f"network.{name}.kernel"] * opened for name in ("back", "out")}
    small = compact(template.build(params), gates)
    assert small.network.back.kernel.shape == (2, 6)
    np.testing.assert_allclose(run(small, xs)[0], run(template.build(masked), closed)[0], atol=1e-5)


def exits(hidden=(4, 3)):
    return filled(rivals.exits((INPUTS,), CLASSES, key=jax.random.key(0), hidden=hidden))


def test_exits_are_a_network_of_values_read_after_each_layer():
    model, x = exits(), inputs()[0]
    p = {n.removeprefix("network."): np.asarray(v, float) for n, v in split(model)[1].items()}
    first = np.maximum(x @ p["hidden0.kernel"] + p["hidden0.bias"], 0)
    second = np.maximum(first @ p["hidden1.kernel"] + p["hidden1.bias"], 0)
    wanted = [first @ p["exit0.kernel"] + p["exit0.bias"], second @ p["exit1.kernel"] + p["exit1.bias"]]
    np.testing.assert_allclose(run(model, x, steps=3)[0], [*wanted, wanted[1]], atol=1e-5)


def test_exits_cost_the_share_of_examples_that_go_on():
    model, x = exits(), np.abs(inputs()[0]) + 0.1
    ran = records(model, x, np.array([1, 2, 1]), held=True, steps=2)
    count = energy.count(energy.on_machine(ran, "dense", 2)).total
    np.testing.assert_allclose(count.effective_macs, INPUTS * 4 + 4 * CLASSES + (4 * 3 + 3 * CLASSES) / 3)
    np.testing.assert_allclose(count.update_compares, 4 + 3 / 3)
    sent = run(model, x, steps=2)[1]
    first = np.count_nonzero(sent["exit0"][0])
    on = np.count_nonzero(sent["hidden1"][1, 1]), np.count_nonzero(sent["exit1"][1, 1])
    events = energy.count(energy.on_machine(ran, "events", 2)).total
    by_hand = INPUTS * 4 + first / BATCH * CLASSES + (on[0] * 3 + on[1] * CLASSES) / BATCH
    np.testing.assert_allclose(events.effective_macs, by_hand)


@pytest.mark.parametrize("make", ["gru", "exits"])
def test_values_that_a_compacted_network_reads_are_multiplied_by_hand(make):
    gates = {"input": jnp.array([1.0, 0, 1, 1, 0])}
    model, xs = (gru(), inputs()) if make == "gru" else (exits(), inputs()[0])
    gates |= {"hidden": jnp.ones(UNITS)} if make == "gru" else {"hidden0": jnp.ones(4), "hidden1": jnp.ones(3)}
    small = compact(model, gates)
    ran = records(small, xs) if make == "gru" else records(small, xs, held=True, steps=2)
    count = energy.count(energy.on_machine(ran, "dense", TIME if make == "gru" else 2)).total
    assert count.effective_acs == 0
    into = TIME * 3 * 3 * UNITS + TIME * UNITS * 3 * UNITS + UNITS * CLASSES
    assert count.effective_macs == (into if make == "gru" else 3 * 4 + 4 * CLASSES + 4 * 3 + 3 * CLASSES)


@pytest.mark.parametrize("make", [gru, delta])
@pytest.mark.parametrize("accounting", ["arithmetic", "updates"])
def test_the_prior_prices_what_the_records_count(make, accounting):
    model, xs, profile = make(), inputs(), energy.profile("45nm-int8")
    where = sites(model, held_input=False)
    _, _, sent = unroll(model, jnp.asarray(xs), None, keep_spikes)
    prior = EnergyPrior(where, profile, accounting)
    events = prior.measured(model, jnp.asarray(xs), sent, held=False, seen=TIME * BATCH)
    counted = energy.price(energy.count(records(model, xs)), profile, accounting).total_nj
    np.testing.assert_allclose(prior.expected({}, events).total(float(TIME)), counted, rtol=0.02)


def test_tconv_sees_time_as_height():
    network = rivals.tconv((12, 1, 3), CLASSES, key=jax.random.key(0), channels=(4, 8), window=3, stride=2)
    assert [layer.out_shape for _, layer in network.layers()] == [(6, 1, 4), (3, 1, 8), (CLASSES,)]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda key: rivals.gru((3,), 2, key=key, width=0), "width must be at least 1 unit, got 0"),
        (lambda key: rivals.gru((3,), 2, key=key, answers="first"), 'answers must be "last"'),
        (lambda key: rivals.delta_gru((3,), 2, key=key, threshold=-1.0), "threshold must be 0 or more"),
        (lambda key: rivals.exits((3,), 2, key=key, hidden=()), "hidden must name the units"),
        (lambda key: rivals.tconv((3,), 2, key=key), "set data.view=whole"),
        (lambda key: rivals.tconv((9, 1, 2), 2, key=key, stride=0), "window and stride of 1 or more"),
    ],
)
def test_mistakes_get_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(jax.random.key(0))
