"""The integer network against float32 in fixed point and against plain Python integers, bit for bit."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.bayes.bit_posterior import BitPosterior
from dsnn.bayes.bits_config import BitsConfig
from dsnn.bayes.quantiser import quantised
from dsnn.cells import ALIF, IF, LI, LIF, PLIF
from dsnn.cells.fixed_point import FixedPoint, Format
from dsnn.config import BayesConfig, Config, EnergyConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.deploy.activity import with_widths
from dsnn.deploy.decided import deploy, ran
from dsnn.deploy.fixed_point import check_network, formats, grid_of
from dsnn.deploy.integer import integer_network
from dsnn.energy import NeuronRecord, SynapseRecord, count
from dsnn.learn import SviConfig
from dsnn.networks import Conv, Dense, Layer, Pool, Stack
from dsnn.networks.norms import TdBN
from dsnn.networks.rounded import Rounded
from dsnn.protocols import Axis, Wire
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll

KEYS = jax.random.split(jax.random.key(2), 8)


def rounded(stack: Stack, bits: int = 4) -> Stack:
    """The network with every kernel on a grid of its own."""
    for number, (_, layer) in enumerate(stack.layers()):
        step = jnp.asarray([-3.0 - number])
        layer.synapse.kernel[...] = quantised(layer.synapse.kernel[...], step, bits)
        if layer.recurrent is not None:
            layer.recurrent[...] = quantised(layer.recurrent[...], step - 1, bits)
        if layer.synapse.bias is not None:
            layer.synapse.bias[...] = 0.1 * jax.random.normal(KEYS[7], layer.synapse.bias.shape)
    return stack


def dense() -> Stack:
    return rounded(
        Stack(
            a=Layer(Dense(20, 16, key=KEYS[0], gain=2.0), LIF(beta=0.9), recurrent_key=KEYS[1]),
            b=Layer(Dense(16, 16, key=KEYS[2], gain=2.0), IF(reset="zero", compare=">="), skip=True),
            c=Layer(Dense(16, 12, key=KEYS[3], gain=2.0), LIF(beta=0.7, reset_timing="next")),
            readout=Layer(Dense(12, 3, key=KEYS[4]), LI(beta=0.9)),
        )
    )


def convolutional() -> Stack:
    first = Conv((8, 8, 2), 4, key=KEYS[0], window=3, gain=2.0)
    second = Conv((4, 4, 4), 6, key=KEYS[1], window=3, gain=2.0, groups=2, padding=1, strides=2)
    return rounded(
        Stack(
            "sum",
            a=Layer(first, LIF(beta=0.8, reset=0.25)),
            b=Layer(second, LIF(beta=0.9, reset="zero", reset_timing="next"), before=(Pool((8, 8, 4)),)),
            readout=Layer(Dense((2, 2, 6), 3, key=KEYS[2]), LI(beta=0.8)),
        ),
        bits=8,
    )


def both(stack: Stack, x: jax.Array, steps: int, held: bool, membrane: int = 16) -> tuple:
    """What float32 in fixed point and the integers do, and the formats."""
    values = (float(x.min()), float(x.max())) if held else None
    fixed = formats(stack, values, steps, membrane=membrane, leak=8, inputs=8)
    floats = fixed.applied(stack)
    network = integer_network(floats)
    outputs, _, spikes = unroll(floats, x, None, keep_spikes, steps=steps if held else None)
    return floats.logits(outputs), spikes, network, network.run(x, steps if held else None), fixed


@pytest.mark.parametrize("membrane", [16, 8])
@pytest.mark.parametrize(("made", "shape"), [(dense, (20,)), (convolutional, (8, 8, 2))])
def test_float32_in_fixed_point_is_the_integer_network_bit_for_bit(made, shape: tuple, membrane: int) -> None:
    for held in (True, False):
        x = jax.random.normal(KEYS[5], (9, *shape))
        x = x if held else (jax.random.uniform(KEYS[6], (7, 9, *shape)) < 0.4).astype(jnp.float32)
        logits, spikes, network, integers, fixed = both(made(), x, 7, held, membrane)
        assert fixed.exact
        assert bool(fixed.saturates) == (membrane == 8)
        np.testing.assert_array_equal(logits, integers.logits)
        for name, given in spikes.items():
            np.testing.assert_array_equal(given, np.asarray(integers.given[name]) * network.unit(name))
            assert float((given != 0).mean()) > 0.02
        assert all(integers.given[name].dtype == jnp.int32 for name in spikes)


def test_one_neuron_is_plain_python_integers_with_saturation() -> None:
    layer = Layer(Dense(2, 1, key=KEYS[0], bias=False), LIF(beta=0.9))
    layer.synapse.kernel[...] = jnp.asarray([[0.75], [-1.25]])
    stack = Stack(a=layer, readout=Layer(Dense(1, 1, key=KEYS[1], bias=False), LI(beta=1.0)))
    stack.readout.synapse.kernel[...] = jnp.asarray([[0.5]])
    fixed = formats(stack, None, 40, membrane=6, leak=8, inputs=8)
    assert fixed.saturates == ("a",)
    # at first the second input holds the membrane down, then the first drives it up
    x = (jax.random.uniform(KEYS[6], (40, 1, 2)) < 0.8).astype(jnp.float32)
    x = x.at[20:, :, 1].set(0.0)
    _, _, network, integers, _ = both(stack, x, 40, False, membrane=6)
    form = fixed.layers["a"]
    low, high, threshold, m = -32, 31, round(1 / form.unit), round(0.9 * 256)
    membrane, reached, fired = 0, [], []
    for first, second in np.asarray(x[:, 0]):
        current = (0.75 * first - 1.25 * second) / form.unit
        membrane = (m * membrane + 128 >> 8) + math.floor(current + 0.5)
        membrane = min(max(membrane, low), high)
        reached.append(membrane)
        fired.append(int(membrane > threshold))
        membrane -= fired[-1] * threshold
    assert min(reached) == low
    np.testing.assert_array_equal(integers.given["a"][:, 0, 0], fired)
    assert 0 < sum(fired) < 40
    assert network.layers["a"].kernel.tolist() == [[3], [-5]]


def test_membranes_never_leave_a_range_that_does_not_saturate() -> None:
    stack, x = dense(), jax.random.normal(KEYS[5], (64, 20))
    fixed = formats(stack, (float(x.min()), float(x.max())), 50, membrane=16, leak=8, inputs=8)
    wide = formats(stack, (float(x.min()), float(x.max())), 50, membrane=16, leak=8, inputs=8)
    wide = wide.applied(stack)
    for _, layer in wide.layers():  # twice the range on the same unit
        layer.cell.format = layer.cell.format._replace(bits=17)
    kept = [unroll(net, x, None, keep_spikes, steps=50)[2] for net in (fixed.applied(stack), wide)]
    assert fixed.saturates == ()
    for name, given in kept[0].items():
        np.testing.assert_array_equal(given, kept[1][name])


def test_sums_that_float32_does_not_hold_are_told() -> None:
    wide = Stack(readout=Layer(Dense(1000, 2, key=KEYS[0], gain=5.0), LI(beta=0.9)))
    wide.readout.synapse.kernel[...] = quantised(wide.readout.synapse.kernel[...], jnp.asarray([-14.0]), 16)
    fixed = formats(wide, (0.0, 1.0), 3, membrane=16, leak=8, inputs=8)
    assert not fixed.exact
    x = jax.random.uniform(KEYS[5], (5, 1000))
    _, _, _, integers, _ = both(wide, x, 3, True)
    # the integers are those of Python all the same
    kernel = np.round(np.asarray(wide.readout.synapse.kernel[...], np.float64) * 2**14).astype(int)
    read = np.clip(np.floor(np.asarray(x, np.float64) * 256 + 0.5), 0, 255).astype(int)
    form = fixed.layers["readout"]
    drive = np.floor(read @ kernel / 2.0**22 / form.unit + 0.5).astype(int)
    np.testing.assert_array_equal(integers.given["readout"][0], drive)


def test_grids_are_found_and_inputs_round_and_saturate() -> None:
    assert grid_of(np.array([0.75, -2.0, 0.0])) == 0.25
    assert grid_of(np.zeros(3)) == 1.0
    bytes_ = Rounded((3,), 2.0**-8, 0, 255)
    np.testing.assert_array_equal(bytes_(jnp.asarray([[1.0, -1.0, 0.5 / 256]])) * 256, [[255, 0, 1]])


def test_a_fixed_neuron_is_the_neuron_where_its_unit_is_fine() -> None:
    cell = LIF(beta=0.75)
    fixed = FixedPoint(cell, Format(2.0**-10, 20, 4))
    current = jnp.round(jax.random.normal(KEYS[0], (30, 5)) * 1024) / 1024
    states = [cell.init((5,)), fixed.init((5,))]
    for each in current:
        (states[0], ours), (states[1], theirs) = cell.step(states[0], each), fixed.step(states[1], each)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(states[0].membrane, states[1].membrane, atol=4 * 2.0**-11)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (lambda: Layer(Dense(3, 2, key=KEYS[0]), ALIF(beta=0.9)), "integer networks have neurons of LIF, IF or LI"),
        (lambda: Layer(Dense(3, 2, key=KEYS[0]), PLIF()), "got input_scale='decay'"),
        (lambda: Layer(Dense(3, 2, key=KEYS[0]), LIF(refractory=2.0)), "rest at zero without a refractory time"),
        (lambda: Layer(Dense(3, 2, key=KEYS[0]), LIF(), norm=TdBN(2)), "got a norm in 'a'"),
        (lambda: Layer(Dense(3, 2, key=KEYS[0]), LIF(), reads="membrane"), "that gives its membrane"),
        (
            lambda: Layer(Dense((1, 1, 3), 2, key=KEYS[0]), LIF(), before=(Pool((2, 2, 3), kind="mean"),)),
            "an integer network pools by maxima, got 'mean' before 'a'",
        ),
    ],
)
def test_what_integers_do_not_take_gets_a_sentence(layer, said: str) -> None:
    stack = Stack(a=layer(), readout=Layer(Dense(2, 2, key=KEYS[1]), LI()))
    with pytest.raises(ValueError, match=r"integer|bits") as caught:
        check_network(stack)
    assert said in str(caught.value)


def test_records_of_a_compacted_network_have_the_widths_of_the_channels_that_are_left() -> None:
    sites = Axis("a", -1, np.arange(4))
    wire = Wire("a", "a.synapse.kernel", (), (sites,))
    record = SynapseRecord("a", "dense", (3,), (2,), np.array([1.0, 0.0, 2.0]), 2, source="analog")
    neurons = NeuronRecord("a", "LIF", (2,), 2)
    deployed = SimpleNamespace(
        widths={"a.synapse.kernel": np.array([2, 4, 0, 8])}, gates={"a": np.array([1.0, 0.0, 1.0, 0.0])}
    )
    bits = BitPosterior({"a.synapse.kernel": jnp.ones((3, 4))}, membrane=12)
    synapses, updated = with_widths([record, neurons], (wire,), deployed, bits)
    assert synapses.bits.tolist() == [2, 0]
    assert synapses.connected.tolist() == [[True, False]] * 3
    assert (synapses.input_bits, updated.bits) == (8, 12)
    assert count([synapses]).layers[0].by_width == {0: 0.0, 2: 3.0}


def fit(**parts):
    rows = np.random.default_rng(0).normal(size=(160, 6)).astype(np.float32)
    config = Config(
        bits=BitsConfig(enabled=True, **parts),
        energy=EnergyConfig(profile="45nm-int32", accounting="memory"),
        bayes=BayesConfig(guide="mean_field", samples=2),
        halting=HaltingConfig(enabled=False),
        model=ModelConfig(architecture="mlp", hidden=[12]),
        train=TrainConfig(epochs=3, batch_size=32, steps=4),
        svi=SviConfig(lam=0.3, decide_fraction=0.4),
    )
    return dsnn.fit(rows, (rows[:, 0] > 0).astype(int), config=config), rows


def test_a_fitted_network_is_decided_on_integers_and_loads_bit_equal(tmp_path) -> None:
    fitted, rows = fit(per="channel")
    bayesian = fitted.setup.bayesian
    deployed = deploy(bayesian, fitted.params)
    x = jnp.asarray(fitted.setup.split.test.x)
    floats = ran(deployed.simulator, deployed.small, x)
    integers = integer_network(deployed.small).run(x, bayesian.simulator.steps)
    np.testing.assert_array_equal(floats.logits, integers.logits)
    for kernel, widths in deployed.widths.items():
        values = np.asarray(deployed.full[kernel], np.float64)
        for channel, bits in enumerate(np.asarray(widths)):
            column = values[:, channel]
            most = 2 ** (int(bits) - 1) - 1 if bits else 0
            assert not bits or np.abs(column / grid_of(column)).max() <= most
            assert bits or not column.any()
    fitted.save(tmp_path / "saved")
    again = dsnn.load(tmp_path / "saved")
    np.testing.assert_array_equal(dsnn.predict(again, rows[:20]).probs, dsnn.predict(fitted, rows[:20]).probs)
    other = deploy(again.setup.bayesian, again.params)
    for name, value in deployed.full.items():
        np.testing.assert_array_equal(value, other.full[name])


@pytest.mark.slow
@pytest.mark.parametrize(("parts", "bits"), [({"fixed": 4}, {4}), ({"family": "posterior_width"}, {2, 4, 8, 16})])
def test_controls_decide_widths_without_gates(parts: dict, bits: set) -> None:
    fitted, _ = fit(**parts)
    assert not any(name.startswith("bits.gates.") for name in fitted.params)
    deployed = deploy(fitted.setup.bayesian, fitted.params)
    assert {int(w) for widths in deployed.widths.values() for w in widths} <= bits
    if "family" in parts:  # the fewest bits whose step is within the posterior's deviation
        for kernel, (width,) in deployed.widths.items():
            deviation = float(jnp.sqrt((fitted.params[f"{kernel}.scale"] ** 2).mean()))
            steps = dict(
                zip(
                    (2, 4, 8, 16),
                    2.0
                    ** np.asarray(
                        fitted.setup.bayesian.bits.log_steps(
                            kernel, fitted.setup.bayesian.weights.centre(fitted.params)[kernel]
                        )
                    )[:, 0],
                    strict=True,
                )
            )
            fits = [w for w, step in steps.items() if step <= deviation]
            assert int(width) == min(fits, default=16)
