"""Parallel spiking neurons: by their sums, all at once and step by step, stopped early, cut, priced and configured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.bayes.sites import gate, sites
from dsnn.cells import LI, LIF, PSN, MaskedPSN, SlidingPSN
from dsnn.config import Config, ModelConfig, TrainConfig
from dsnn.deploy.activity import records
from dsnn.energy import count
from dsnn.networks import BNTT, Chain, Conv, Dense, Layer, Stack, Whole
from dsnn.networks.compact import compact
from dsnn.parameters import split
from dsnn.simulate.early_exit import Rule
from dsnn.simulate.simulator import keep_spikes

KEY, STEPS = jax.random.key(0), 6
NOISE = escape.Logistic(0.3)
XS = np.asarray(jax.random.normal(jax.random.key(1), (STEPS, 4, 5)))

CAUSAL: dict[str, Any] = {
    "masked": lambda **options: MaskedPSN(STEPS, 3, key=KEY, threshold=0.1, **options),
    "all before": lambda **options: MaskedPSN(STEPS, key=KEY, threshold=0.1, **options),
    "sliding": lambda **options: SlidingPSN(3, threshold=0.5, **options),
    "of one": lambda **options: SlidingPSN(1, threshold=0.5, **options),
}
every_causal = pytest.mark.parametrize("kind", CAUSAL)


def drawn(cell: Any) -> Any:
    """The cell with a threshold of its own at every step."""
    cell.threshold[...] = jnp.asarray(np.random.default_rng(0).uniform(-0.3, 0.5, cell.threshold.shape), jnp.float32)
    return cell


def matrix(cell: Any) -> np.ndarray:
    """The weights of a causal neuron as their T x T matrix."""
    weights, whole = np.asarray(cell.weight[...], np.float64), np.zeros((STEPS, STEPS))
    rows = weights if weights.ndim == 2 else np.broadcast_to(weights, (STEPS, len(weights)))
    for t in range(STEPS):
        for i, weight in enumerate(rows[t]):
            if (s := t - rows.shape[1] + 1 + i) >= 0:
                whole[t, s] = weight
    return whole


def test_a_psn_fires_where_its_sum_over_all_steps_exceeds() -> None:
    cell = drawn(PSN(STEPS, key=KEY))
    membranes = np.einsum("ts,sbn->tbn", np.asarray(cell.weight[...], np.float64), XS)
    expected = membranes >= np.asarray(cell.threshold[...])[:, :, None]
    outputs, state, _ = dsnn.unroll(cell, XS)
    np.testing.assert_array_equal(outputs, expected)
    assert 0 < outputs.mean() < 1
    np.testing.assert_allclose(state.membrane, membranes[-1], rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(cell.weight[...])).max() <= STEPS**-0.5


@every_causal
def test_a_causal_neuron_fires_where_its_sum_over_the_past_exceeds(kind: str) -> None:
    cell = drawn(CAUSAL[kind]())
    membranes = np.einsum("ts,sbn->tbn", matrix(cell), XS)
    threshold = np.broadcast_to(np.asarray(cell.threshold[...]).reshape(-1), (STEPS,))
    expected = membranes >= threshold[:, None, None]
    stepped, last, _ = dsnn.unroll(cell, XS)
    states, at_once = cell.sequence(cell.init((4, 5)), jnp.asarray(XS))
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(stepped, expected)
    np.testing.assert_array_equal(at_once, expected)
    np.testing.assert_allclose(states.membrane, membranes, rtol=1e-4, atol=1e-5)
    for every, final in zip(jax.tree.leaves(states), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(every[-1], final, rtol=1e-5, atol=1e-5)


def stack(cell: Any, neurons: int = 8, **options: Any) -> Stack:
    first, second, last = jax.random.split(KEY, 3)
    return Stack(
        hidden=Layer(Dense(5, neurons, key=first, gain=2.0), cell(), **options),
        other=Layer(Dense(neurons, 7, key=second, gain=2.0), cell()),
        readout=Layer(Dense(7, 3, key=last), LI(0.9)),
    )


@every_causal
@pytest.mark.parametrize("held", [False, True])
def test_layers_at_once_are_layers_step_by_step(kind: str, held: bool) -> None:
    model, xs = stack(lambda: drawn(CAUSAL[kind](noise=NOISE))), XS[0] if held else XS
    options: dict[str, Any] = {"steps": STEPS} if held else {}
    for key in (None, KEY):
        (one, state, _), (other, after, _) = (
            dsnn.unroll(model, xs, key, None, how, **options) for how in ("layer", "step")
        )
        assert np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        for first, second in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)
    if not held:  # what goes on is what never stopped
        start, state, _ = dsnn.unroll(model, xs[:2], None, None, "layer")
        rest, _, _ = dsnn.unroll(model, xs[2:], None, None, "layer", state=state)
        whole, _, _ = dsnn.unroll(model, xs)
        np.testing.assert_allclose(np.concatenate([start, rest]), whole, rtol=1e-4, atol=1e-5)
        # and a step that is skipped is not there
        running = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
        masked, _, _ = dsnn.unroll(model, xs, running=running)
        alone, _, _ = dsnn.unroll(model, xs[np.asarray(running) > 0])
        np.testing.assert_allclose(np.asarray(masked)[np.asarray(running) > 0], alone, rtol=1e-4, atol=1e-5)


@every_causal
def test_gradients_at_once_are_those_step_by_step(kind: str) -> None:
    model = stack(lambda: drawn(CAUSAL[kind](surrogate="atan")))
    template, params = split(model)

    def loss(params: dict[str, Any], how: str) -> Any:
        return jnp.square(dsnn.unroll(template.build(params), XS, None, None, how)[0]).sum()

    at_once, stepped = (jax.grad(loss)(params, how) for how in ("layer", "step"))
    for name, slope in at_once.items():
        assert np.abs(slope).max() > 0, name
        np.testing.assert_allclose(slope, stepped[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("kind", ["masked", "sliding", "full"])
def test_examples_that_stop_early_get_what_they_would_get(kind: str) -> None:
    model = stack((lambda: drawn(PSN(STEPS, key=KEY))) if kind == "full" else (lambda: drawn(CAUSAL[kind]())))
    x = jax.random.normal(jax.random.key(3), (160, 5))
    logits = model.logits(dsnn.unroll(model, x, steps=STEPS)[0])
    enough = jnp.quantile(logits[0, :, 0], 0.4)
    rule = Rule(lambda batch: jnp.zeros(batch), lambda state, logits, step: (state, logits[:, 0] > enough))
    decision = dsnn.anytime(model, rule, STEPS)(x, None)
    assert len(np.unique(decision.steps)) > 1
    expected = np.asarray(logits)[np.asarray(decision.steps) - 1, np.arange(len(x))]
    np.testing.assert_allclose(decision.logits, expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_run_gets_a_sentence() -> None:
    model = stack(lambda: PSN(STEPS, key=KEY))
    with pytest.raises(ValueError, match=r"needs the currents of all its steps at once.*take MaskedPSN or SlidingPSN"):
        dsnn.unroll(model, XS, schedule="step")
    with pytest.raises(ValueError, match="needs the currents of all its steps at once"):
        dsnn.unroll(stack(lambda: PSN(STEPS, key=KEY), recurrent_key=KEY), XS)
    with pytest.raises(ValueError, match="must run as many steps as it has weights for, 6, got 4"):
        dsnn.unroll(model, XS[:4])
    with pytest.raises(ValueError, match="got 7 steps and 6 in a MaskedPSN; run at most 6"):
        dsnn.unroll(stack(CAUSAL["masked"]), XS[0], steps=7)
    with pytest.raises(ValueError, match="order must be at most the number of steps, 6, got 7"):
        MaskedPSN(STEPS, 7, key=KEY)
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        PSN(0, key=KEY)
    with pytest.raises(ValueError, match="got a ThresholdJitter"):
        SlidingPSN(noise=escape.ThresholdJitter(0.1))


def test_large_networks_of_psn_run_by_layers_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsnn.simulate.unroll.LARGE_BYTES", 1)
    x = jnp.zeros((64, 5))
    assert dsnn.unroll(stack(lambda: PSN(STEPS, key=KEY)), x, steps=STEPS)[0].shape == (STEPS, 64, 3)


@pytest.mark.parametrize(
    ("cell", "macs", "states"),
    [(PSN(STEPS, key=KEY), 6, 6), (MaskedPSN(STEPS, 3, key=KEY), 3, 2), (SlidingPSN(4), 4, 3)],
)
def test_an_update_costs_what_a_hand_counts(cell: Any, macs: int, states: int) -> None:
    assert cell.cost() == (macs, 0, 1, states, True)
    model = Stack(hidden=Layer(Dense(5, 8, key=KEY), cell), readout=Layer(Dense(8, 3, key=KEY), LI(0.9)))
    spikes = dsnn.unroll(model, XS, None, keep_spikes)[2]
    made = count(records(model, jnp.asarray(XS), spikes, held=False, analog=True))
    own = next(layer for layer in made.layers if layer.name == "hidden" and layer.neurons)
    assert (own.update_macs, own.update_compares) == (STEPS * 8 * macs, STEPS * 8)
    assert own.state_accesses == STEPS * 8 * states


@pytest.mark.parametrize("kind", ["full", "masked", "sliding"])
@pytest.mark.parametrize("whole", [False, True])
def test_compacted_is_masked_and_nothing_shared_is_cut(kind: str, whole: bool) -> None:
    """As many neurons as time steps, so that a weight of a step could be taken for one of a neuron."""
    cell = (lambda: drawn(PSN(STEPS, key=KEY))) if kind == "full" else (lambda: drawn(CAUSAL[kind]()))
    model: Any = stack(cell, STEPS)
    model = Whole(Chain(**dict(model.layers()))) if whole else model
    template, params = split(model)
    params = {name: jnp.round(value * 2**8) / 2**8 if "synapse" in name else value for name, value in params.items()}
    model = template.build(params)
    where = sites(model, held_input=False, analog_input=False)
    z = {name: (jnp.arange(size) % 3 > 0) * 1.0 for name, size in where.groups.items()}
    spikes = (jax.random.uniform(jax.random.key(2), (STEPS, 16, 5)) < 0.5).astype(jnp.float32)
    masked, small = template.build(gate(where, params, z)), compact(model, z)
    expected = dsnn.unroll(masked, spikes)[0]
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(dsnn.unroll(small, spikes)[0], expected, rtol=1e-5, atol=1e-6)
    shapes = {name: value.shape for name, value in split(small)[1].items() if ".cell.weight" in name}
    assert set(shapes.values()) == {value.shape for name, value in params.items() if ".cell.weight" in name}


def test_a_psn_takes_convolutions_and_norms_of_each_step() -> None:
    conv = Conv((6, 6, 1), 3, key=KEY, gain=2.0)
    last = Layer(Dense(conv.out_shape, 2, key=KEY), LI(0.9))
    layer = Layer(conv, PSN(STEPS, key=KEY, threshold=0.1), norm=BNTT(3, STEPS))
    model, x = Stack(hidden=layer, readout=last), jax.random.normal(KEY, (4, 6, 6, 1))
    spikes = dsnn.unroll(model, x, None, keep_spikes, steps=STEPS)[2]["hidden"]
    raw = np.broadcast_to(np.asarray(conv(x)) / np.sqrt(1 + 1e-5), (STEPS, 4, 6, 6, 3))
    membranes = np.tensordot(np.asarray(layer.cell.weight[...]), raw, 1)
    sure = np.abs(membranes - 0.1) > 1e-4
    np.testing.assert_array_equal(np.asarray(spikes)[sure], (membranes >= 0.1)[sure])


# --- By configuration


@pytest.mark.parametrize("cell", ["PSN", "MaskedPSN", "SlidingPSN"])
def test_a_configured_network_has_the_steps_of_its_run(cell: str, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    options = {} if cell == "PSN" else {"order": 2}
    config = Config(model=ModelConfig(cell=cell, hidden=[8], options=options), train=TrainConfig(steps=5, epochs=3))
    fitted = dsnn.fit(x, y, config=config, baseline="none")
    made = fitted.setup.bayesian.simulator.template.build(fitted.setup.bayesian.weights.initial)
    hidden = made.hidden0.cell
    assert type(hidden).__name__ == cell
    assert hidden.weight.shape == {"PSN": (5, 5), "MaskedPSN": (5, 2), "SlidingPSN": (2,)}[cell]
    assert fitted.setup.config.halting.enabled == (cell != "PSN")
    assert dsnn.predict(fitted, x, samples=2).probs.shape == (80, 2)


def test_steps_that_nobody_knows_get_a_sentence() -> None:
    from dsnn.assembly.network import build_model

    with pytest.raises(ValueError, match=r"a PSN needs the number of time steps.*set model\.options\.steps"):
        build_model(ModelConfig(cell="PSN", hidden=[4]), (5,), 2, KEY)
    assert isinstance(build_model(ModelConfig(hidden=[4]), (5,), 2, KEY).hidden0.cell, LIF)
