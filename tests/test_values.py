"""Networks of values with few bits: rounding, integers, prices and the whole of a run, by hand and bit for bit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import energy
from dsnn.assembly.activations import in_few_bits
from dsnn.bayes import sites
from dsnn.bayes.bit_posterior import BitPosterior
from dsnn.bayes.bits_config import BitsConfig
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.quantiser import quantised
from dsnn.bayes.widths import Widths
from dsnn.cells import LI, LIF, QuantisedReLU, ReLU, kind
from dsnn.config import BayesConfig, Config, EnergyConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.deploy.decided import deploy, ran
from dsnn.deploy.fixed_point import check_network, formats
from dsnn.deploy.integer import integer_network
from dsnn.learn import SviConfig
from dsnn.networks import Conv, Dense, Layer, Pool, Stack
from dsnn.parameters import split
from dsnn.run import assess_activity
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll

KEYS = jax.random.split(jax.random.key(2), 8)
INT32 = energy.profile("45nm-int32")


# --- The unit


def test_values_are_rounded_cut_off_and_learned_by_hand() -> None:
    cell = QuantisedReLU(2, -1.2)  # step 1/2, integers 0 to 3
    current = jnp.asarray([[-1.0, 0.2, 0.25, 0.8, 1.4, 9.0]])

    def given(cell: QuantisedReLU, current: jax.Array) -> jax.Array:
        return cell.step(cell.init(current.shape), current)[1]

    np.testing.assert_array_equal(given(cell, current), [[0.0, 0.0, 0.5, 1.0, 1.5, 1.5]])
    np.testing.assert_array_equal(jax.grad(lambda i: given(cell, i).sum())(current), [[0, 1, 1, 1, 1, 0]])

    def total(log_step: jax.Array) -> jax.Array:
        changed = QuantisedReLU(2, 0.0)
        changed.log_step[...] = log_step
        return given(changed, current).sum()

    # within the rounding error, beyond the largest integer, times step ln 2; six values share a grid up to 3
    errors = sum(round_ - i / 0.5 for round_, i in ((0, 0.2), (1, 0.25), (2, 0.8), (3, 1.4))) + 3
    by_hand = errors * 0.5 * math.log(2) / math.sqrt(6 * 3)
    np.testing.assert_allclose(jax.grad(total)(jnp.asarray(-1.2)), by_hand, rtol=1e-5)
    assert kind(cell) == "ReLU"
    with pytest.raises(ValueError, match="at least 1, got 0"):
        QuantisedReLU(0, 0.0)


def test_a_step_begins_where_nothing_that_was_seen_is_cut_off() -> None:
    x = jax.random.normal(KEYS[0], (50, 6))
    plain = Stack(
        a=Layer(Dense(6, 5, key=KEYS[1]), ReLU()),
        b=Layer(Dense(5, 4, key=KEYS[2]), ReLU()),
        readout=Layer(Dense(4, 2, key=KEYS[3]), LI()),
    )
    few = in_few_bits(plain, lambda: x, 4, held=True)
    for name in ("a", "b"):
        largest = float(unroll(few if name == "b" else plain, x, None, keep_spikes, steps=1)[2][name].max())
        step = 2.0 ** float(getattr(few, name).cell.log_step[...])
        assert 15 * step >= largest
    step = 2.0 ** float(few.a.cell.log_step[...])
    assert 15 * step / 2 < float(jnp.maximum(plain.a.drive(x), 0).max())
    assert type(plain.a.cell) is ReLU
    spiking = Stack(a=Layer(Dense(6, 5, key=KEYS[1]), LIF()), readout=Layer(Dense(5, 2, key=KEYS[3]), LI()))
    assert in_few_bits(spiking, lambda: pytest.fail("nothing needs it"), 4, held=True) is spiking


# --- Integers


def rounded(stack: Stack, bits: int) -> Stack:
    for number, (_, layer) in enumerate(stack.layers()):
        layer.synapse.kernel[...] = quantised(layer.synapse.kernel[...], jnp.asarray([-3.0 - number]), bits)
        layer.synapse.bias[...] = 0.1 * jax.random.normal(KEYS[7], layer.synapse.bias.shape)
    return stack


def dense(bits: int) -> Stack:
    return rounded(
        Stack(
            a=Layer(Dense(20, 16, key=KEYS[0], gain=2.0), QuantisedReLU(bits, 1.0 - bits)),
            b=Layer(Dense(16, 16, key=KEYS[2], gain=2.0), QuantisedReLU(bits, 2.0 - bits)),
            readout=Layer(Dense(16, 3, key=KEYS[4]), LI(beta=0.9)),
        ),
        4,
    )


def convolutional(bits: int) -> Stack:
    first = Conv((8, 8, 2), 4, key=KEYS[0], window=3, gain=2.0)
    return rounded(
        Stack(
            "sum",
            a=Layer(first, QuantisedReLU(bits, 1.0 - bits)),
            b=Layer(Dense((4, 4, 4), 6, key=KEYS[1]), QuantisedReLU(bits, 1.0 - bits), before=(Pool((8, 8, 4)),)),
            readout=Layer(Dense(6, 3, key=KEYS[2]), LI(beta=0.8)),
        ),
        8,
    )


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("membrane", [16, 8])
@pytest.mark.parametrize(("made", "shape", "steps"), [(dense, (20,), 1), (convolutional, (8, 8, 2), 2)])
def test_integers_of_values_are_float32_bit_for_bit(made, shape: tuple, steps: int, bits: int, membrane: int) -> None:
    x = jax.random.normal(KEYS[5], (9, *shape))
    stack = made(bits)
    fixed = formats(stack, (float(x.min()), float(x.max())), steps, membrane=membrane, leak=8, inputs=8)
    assert fixed.exact
    assert fixed.saturates == ()
    floats = fixed.applied(stack)
    network = integer_network(floats)
    outputs, _, given = unroll(floats, x, None, keep_spikes, steps=steps)
    integers = network.run(x, steps)
    np.testing.assert_array_equal(floats.logits(outputs), integers.logits)
    for name, values in given.items():
        np.testing.assert_array_equal(values, np.asarray(integers.given[name]) * network.unit(name))
        assert integers.given[name].dtype == jnp.int32
    for name in ("a", "b"):
        found, most = np.unique(integers.given[name]), 2**bits - 1
        assert found[0] == 0
        assert most / 4 < found[-1] <= most
    assert membrane == 8 or most in np.unique(integers.given["a"])  # something is cut off
    if membrane == 16:  # what learned, but for inputs that are rounded and values that lie at an edge
        learned = unroll(stack, x, None, keep_spikes, steps=steps)[2]["a"]
        assert float(jnp.abs(learned - given["a"]).mean()) < 0.05


def test_one_unit_is_plain_python_integers() -> None:
    stack = Stack(
        a=Layer(Dense(2, 1, key=KEYS[0]), QuantisedReLU(4, -2.0)),
        readout=Layer(Dense(1, 1, key=KEYS[1], bias=False), LI(beta=0.0)),
    )
    stack.a.synapse.kernel[...] = jnp.asarray([[0.75], [-1.25]])
    stack.a.synapse.bias[...] = jnp.asarray([0.3])
    stack.readout.synapse.kernel[...] = jnp.asarray([[-0.5]])
    x = jax.random.uniform(KEYS[6], (40, 2), minval=-4.0, maxval=4.0)
    fixed = formats(stack, (-4.0, 4.0), 1, membrane=12, leak=8, inputs=6)
    network = integer_network(fixed.applied(stack))
    run = network.run(x, 1)
    unit, step = fixed.layers["a"].unit, fixed.inputs[0]
    assert (unit, step) == (2.0**-7, 0.125)  # at most 8.3, in 2047 units; -4 to 4 in 64 steps
    values = []
    for first, second in np.asarray(x, np.float64):
        a, b = (min(max(math.floor(v / step + 0.5), -32), 31) for v in (first, second))
        sums = 3 * a - 5 * b  # of 1/4 times 1/8, four units of 2^-7
        membrane = sums * 4 + math.floor(0.3 / unit + 0.5)
        values.append(min(max((membrane + 16) >> 5, 0), 15))  # 1/4 is 2^5 units
    np.testing.assert_array_equal(np.asarray(run.given["a"]).ravel(), values)
    assert {0, 15} < set(values)
    np.testing.assert_allclose(run.logits.ravel(), -0.5 * 0.25 * np.asarray(values), atol=fixed.layers["readout"].unit)


@pytest.mark.parametrize("given", [{"skip": True}, {"recurrent_key": KEYS[2]}])
def test_values_in_loops_and_blocks_get_a_sentence(given: dict) -> None:
    middle = Layer(Dense(3, 3, key=KEYS[0]), ReLU(), **given)
    ends = (Layer(Dense(3, size, key=KEYS[1]), cell) for size, cell in ((3, ReLU()), (2, LI())))
    stack = Stack(a=next(ends), b=middle, readout=next(ends))
    with pytest.raises(ValueError, match="a ReLU in a residual block or with recurrent weights, 'b'; leave these out"):
        check_network(stack)


# --- Prices


def test_a_value_at_a_weight_costs_by_both_widths() -> None:
    stack = Stack(
        hidden=Layer(Dense(3, 2, key=KEYS[0], bias=False), ReLU()),
        readout=Layer(Dense(2, 2, key=KEYS[1], bias=False), LI()),
    )
    template, params = split(stack)
    bits = BitPosterior({name: params[name] for name in template.names}, (4,), zero=False, inputs=8, activations=5)
    prior = EnergyPrior(sites.sites(stack), INT32, "memory", widths=Widths(bits, INT32, INT32.at_bits(16)))
    found = float(prior.expected({}, {"hidden": jnp.ones(3), "readout": jnp.asarray([1.0, 0.25])}).total(1.0))
    # 45 nm, int32: add 0.1, multiply 3.1 pJ at 32 bits; sums of three inputs need 2 bits more, of two 1
    first = 3 * 2 * (3.1 * 4 * 8 / 32**2 + 0.1 * (4 + 2 + 8) / 32)
    second = 1.25 * 2 * (3.1 * 4 * 5 / 32**2 + 0.1 * (4 + 1 + 5) / 32)
    read = (6 + 2.5) * 4 * INT32.weight_pj_per_bit
    at16 = INT32.at_bits(16)
    updates = 2 * (at16.update_nj("ReLU", "memory") + at16.update_nj("LI", "memory"))
    assert found == pytest.approx(1e-3 * (first + second + read) + updates, rel=1e-5)
    assert at16.update_nj("ReLU", "memory") == pytest.approx(1e-3 * INT32.compare_pj / 2)


def fit(**parts):
    rows = np.random.default_rng(0).normal(size=(160, 6)).astype(np.float32)
    config = Config(
        bits=BitsConfig(enabled=True, activations=4, **parts),
        energy=EnergyConfig(profile="45nm-int32", accounting="memory"),
        bayes=BayesConfig(guide="mean_field", samples=2),
        halting=HaltingConfig(enabled=False),
        model=ModelConfig(architecture="mlp", hidden=[12], cell="ReLU"),
        train=TrainConfig(epochs=3, batch_size=32, steps=1),
        svi=SviConfig(lam=0.3, decide_fraction=0.4),
    )
    return dsnn.fit(rows, (rows[:, 0] > 0).astype(int), config=config), rows


@pytest.mark.slow
def test_a_fitted_network_of_values_is_decided_on_integers_and_priced_by_its_widths(tmp_path) -> None:
    fitted, rows = fit()
    setup, params = fitted.setup, fitted.params
    bayesian = setup.bayesian
    assert float(params["hidden0.cell.log_step"]) != float(bayesian.weights.initial["hidden0.cell.log_step"])
    deployed = deploy(bayesian, params)
    x = jnp.asarray(setup.split.test.x)
    floats = ran(deployed.simulator, deployed.small, x)
    np.testing.assert_array_equal(floats.logits, integer_network(deployed.small).run(x, 1).logits)
    fitted.save(tmp_path / "saved")
    again = dsnn.load(tmp_path / "saved")
    np.testing.assert_array_equal(dsnn.predict(again, rows[:20]).probs, dsnn.predict(fitted, rows[:20]).probs)
    made = assess_activity.records(setup, deployed, deployed.small, x, floats.kept)
    width = {name: int(own[0]) for name, own in deployed.widths.items()}
    first, hidden, second, _ = made
    assert (first.name, first.source, first.input_bits) == ("hidden0", "analog", 8)
    assert (second.name, second.source, second.input_bits) == ("readout", "analog", 4)
    assert (hidden.kind, hidden.bits, hidden.total_spikes) == ("ReLU", 16, 0.0)
    assert 0 < second.events.sum() < 12
    priced = energy.price(energy.count([second]), INT32, "memory")
    bits, events = width["readout.synapse.kernel"], float(second.events.sum())
    at_weights = float(
        (second.events[:, None] * (np.ones((1, 2)) if second.connected is None else second.connected)).sum()
    )
    assert bits > 0
    assert priced.total_nj == pytest.approx(
        at_weights * INT32.event_at_nj("analog", "memory", bits, len(second.events), 4)
        + 1e-3 * events * 4 * INT32.activation_pj_per_bit
    )


@pytest.mark.slow
def test_members_of_an_ensemble_have_values_of_few_bits_too() -> None:
    config = Config(
        bits=BitsConfig(enabled=True, fixed=4, activations=4),
        energy=EnergyConfig(profile="45nm-int32"),
        bayes=BayesConfig(guide="ensemble", members=2, samples=2),
        halting=HaltingConfig(enabled=False),
        model=ModelConfig(architecture="mlp", hidden=[5], cell="ReLU"),
        train=TrainConfig(epochs=1, batch_size=32, steps=1),
    )
    rows = np.random.default_rng(0).normal(size=(160, 6)).astype(np.float32)
    fitted = dsnn.fit(rows, (rows[:, 0] > 0).astype(int), config=config)
    assert fitted.params["hidden0.cell.log_step"].shape == (2,)
