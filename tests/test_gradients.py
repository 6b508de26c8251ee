"""Gradient estimators and online learning rules against enumeration, backpropagation and hand-written updates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsnn import parameters, unroll
from dsnn.cells import ALIF, LI, LIF
from dsnn.escape import Concrete, Logistic
from dsnn.learn import gradients
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack

KEY = jax.random.key(3)
XS = jax.random.normal(jax.random.key(4), (3, 2, 2)) + 0.5


def tiny(noise: Any) -> tuple[parameters.Template, parameters.Params]:
    """Two noisy units and a linear readout."""
    hidden = Layer(Dense(2, 2, key=KEY, gain=1.5), LIF(beta=0.8, noise=noise), recurrent_key=jax.random.key(9))
    return parameters.split(Stack(hidden=hidden, readout=Layer(Dense(2, 1, key=jax.random.key(5)), LI(beta=0.5))))


def squared(outputs: jax.Array) -> jax.Array:
    return ((outputs - 0.7) ** 2).sum((0, 2))


def flat(grads: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)])


def test_enumeration_is_the_closed_form_of_one_spike() -> None:
    """One neuron, one step: E[L] = p L(1) + (1 - p) L(0)."""
    template, params = parameters.split(Stack(only=Layer(Dense(1, 1, key=KEY), LIF(beta=0.9, noise=Logistic(0.5)))))
    params = {"only.synapse.kernel": jnp.asarray([[0.8]]), "only.synapse.bias": jnp.asarray([0.1])}
    value, grads = gradients.exact_gradient(template.build, params, jnp.full((1, 1, 1), 2.0), squared)
    p = 1 / (1 + np.exp(-(0.8 * 2 + 0.1 - 1) / 0.5))
    slope = p * (1 - p) / 0.5 * (0.3**2 - 0.7**2)
    np.testing.assert_allclose(value, p * 0.3**2 + (1 - p) * 0.7**2, rtol=1e-6)
    np.testing.assert_allclose(grads["only.synapse.kernel"][0, 0], 2 * slope, rtol=1e-5)
    np.testing.assert_allclose(grads["only.synapse.bias"][0], slope, rtol=1e-5)


def test_enumeration_is_the_mean_of_what_is_drawn() -> None:
    template, params = tiny(Logistic(0.3))
    value, _ = gradients.exact_gradient(template.build, params, XS, squared)
    model = template.build(params)
    drawn = jax.vmap(lambda key: squared(unroll(model, XS, key)[0]).mean())(jax.random.split(KEY, 4000))
    assert abs(drawn.mean() - value) < 4 * drawn.std() / 4000**0.5


def test_enumeration_of_many_spikes_is_refused() -> None:
    template, params = tiny(Logistic(0.3))
    with pytest.raises(ValueError, match=r"at most 16 possible spikes, got 18 \(9 steps x 2 neurons\)"):
        gradients.exact_gradient(template.build, params, jnp.ones((9, 1, 2)), squared)


def estimates(template: parameters.Template, params: parameters.Params, runs: int, **options: Any) -> np.ndarray:
    def one(key: jax.Array) -> Any:
        return gradients.score_gradient(template.build, params, XS, squared, key, **options)[1]

    found = jax.jit(jax.vmap(one))(jax.random.split(KEY, runs))
    return np.stack([flat(jax.tree.map(lambda g, r=r: g[r], found)) for r in range(runs)])


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "control_variate"])
def test_score_gradient_is_unbiased(baseline: str) -> None:
    template, params = tiny(Logistic(0.3))
    exact = flat(gradients.exact_gradient(template.build, params, XS, squared)[1])
    found = estimates(template, params, 2000, samples=8, baseline=baseline)
    error = found.std(0) / len(found) ** 0.5
    assert (np.abs(found.mean(0) - exact) < 4 * error + 1e-6).all()
    assert error.max() < 0.1 * np.abs(exact).max()  # the bound is tight enough to mean something


def test_baselines_lower_the_variance() -> None:
    template, params = tiny(Logistic(0.3))
    spread = {
        name: estimates(template, params, 500, samples=16, baseline=name).var(0).sum()
        for name in ("none", "leave_one_out", "control_variate")
    }
    assert spread["leave_one_out"] < 0.7 * spread["none"]
    assert spread["control_variate"] < 0.8 * spread["none"]


def test_concrete_gradient_nears_the_exact_one_as_the_temperature_falls() -> None:
    def mean_and_error(temperature: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        template, params = tiny(Concrete(Logistic(0.3), temperature, hard=False))
        exact = flat(gradients.exact_gradient(template.build, params, XS, squared)[1])

        def one(key: jax.Array) -> Any:
            return jax.grad(lambda p: squared(unroll(template.build(p), XS, key)[0]).mean())(params)

        found = jax.jit(jax.vmap(one))(jax.random.split(KEY, 20_000))
        rows = np.concatenate([np.reshape(leaf, (20_000, -1)) for leaf in jax.tree.leaves(found)], 1)
        return exact, rows.mean(0), rows.std(0) / 20_000**0.5

    exact, mean, error = mean_and_error(0.02)
    assert (np.abs(mean - exact) < 4 * error + 0.02 * np.abs(exact).max()).all()
    exact, far, far_error = mean_and_error(1.0)
    assert np.abs(far - exact).max() > 5 * far_error.max()
    assert far_error.max() < error.max()


def test_hard_concrete_spikes_are_spikes_and_deterministic_without_a_key() -> None:
    noise, u = Concrete(Logistic(0.3), 0.2), jnp.linspace(-1, 1, 101)
    assert set(np.unique(noise.spike(u, KEY))) == {0.0, 1.0}
    np.testing.assert_array_equal(noise.spike(u, KEY), Logistic(0.3).spike(u, KEY, "atan"))
    np.testing.assert_array_equal(noise.spike(u), u > 0)
    soft = Concrete(Logistic(0.3), 0.2, hard=False)
    hard_slope = jax.grad(lambda u: noise.spike(u, KEY).sum())(u)
    np.testing.assert_allclose(hard_slope, jax.grad(lambda u: soft.spike(u, KEY).sum())(u), rtol=1e-6)


def test_a_neuron_without_noise_has_no_score() -> None:
    template, params = tiny(None)
    with pytest.raises(ValueError, match="needs an escape noise, got NoneType"):
        gradients.score_gradient(template.build, params, XS, squared, KEY)


@pytest.mark.parametrize(("baseline", "samples"), [("leave_one_out", 1), ("control_variate", 2), ("mean", 8)])
def test_too_few_samples_get_a_sentence(baseline: str, samples: int) -> None:
    template, params = tiny(Logistic(0.3))
    with pytest.raises(ValueError, match="baseline"):
        gradients.score_gradient(template.build, params, XS, squared, KEY, samples=samples, baseline=baseline)


# --- learning over time


def net(cell: Any, recurrent: bool) -> tuple[parameters.Template, parameters.Params]:
    back = jax.random.key(8) if recurrent else None
    hidden = Layer(Dense(4, 6, key=KEY, gain=3.0), cell, recurrent_key=back)
    return parameters.split(Stack(hidden=hidden, readout=Layer(Dense(6, 3, key=jax.random.key(7)), LI(beta=0.7))))


LONG = jax.random.normal(jax.random.key(6), (13, 5, 4))


def step_loss(out: jax.Array, t: jax.Array) -> jax.Array:
    return ((out - jnp.sin(t + jnp.arange(3.0))) ** 2).sum(-1)


def by_hand(template: parameters.Template, params: Any, cut: Any, window: int = 10**6, key: Any = None) -> Any:
    """The same sum of losses by a Python loop; gradients stop where ``cut`` or the window's border says."""

    def total(params: Any) -> jax.Array:
        model = template.build(params)
        (_, hidden), (_, readout) = model.layers()
        state, out = hidden.init((5,)), readout.init((5,))
        value = 0.0
        for t, x in enumerate(LONG):
            if t % window == 0:
                state, out = jax.lax.stop_gradient((state, out))
            if state.spikes is not None:
                state = state._replace(spikes=cut(state.spikes))
            at = None if key is None else jax.random.fold_in(jax.random.fold_in(key, t), 0)
            state, spikes = hidden.step(state, x, at)
            out, membrane = readout.step(out, spikes)
            value += step_loss(membrane, jnp.asarray(float(t))).mean()
        return value

    return jax.value_and_grad(total)(params)


def same(a: Any, b: Any) -> None:
    for name in b:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-4, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("window", [1, 4, 13, 99])
@pytest.mark.parametrize("recurrent", [False, True])
def test_truncated_gradient_stops_at_the_border_of_a_window(window: int, recurrent: bool) -> None:
    template, params = net(LIF(beta=0.9), recurrent)
    value, grads = gradients.truncated_gradient(template.build, params, LONG, step_loss, window)
    expected, reference = by_hand(template, params, lambda s: s, window)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    same(grads, reference)
    assert np.abs(flat(reference)).max() > 1


CELLS = {
    "LIF": LIF(beta=0.9),
    "LIF next": LIF(beta=0.9, reset_timing="next"),
    "LIF noise": LIF(beta=0.9, noise=Logistic(0.2)),
    "ALIF": ALIF(0.9),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_eprop_is_backpropagation_without_the_path_over_other_neurons(name: str, recurrent: bool) -> None:
    """Without recurrent wiring that is full backpropagation through time."""
    template, params = net(CELLS[name], recurrent)
    key = KEY if "noise" in name else None
    value, grads = gradients.eprop_gradient(template.build, params, LONG, step_loss, key)
    expected, reference = by_hand(template, params, jax.lax.stop_gradient, key=key)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    same(grads, reference)
    if recurrent:
        full = by_hand(template, params, lambda s: s, key=key)[1]
        assert np.abs(flat(full) - flat(reference)).max() > 0.01


def test_random_feedback_changes_the_hidden_gradient_only() -> None:
    template, params = net(LIF(beta=0.9), False)
    run = lambda **options: gradients.eprop_gradient(template.build, params, LONG, step_loss, **options)[1]  # noqa: E731
    ours, other = run(), run(feedback=jnp.ones((6, 3)))
    np.testing.assert_array_equal(ours["readout.synapse.kernel"], other["readout.synapse.kernel"])
    assert jnp.abs(ours["hidden.synapse.kernel"] - other["hidden.synapse.kernel"]).max() > 0.01


def label_loss(out: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
    return ((out - labels) ** 2).sum(-1)


@pytest.mark.parametrize("window", [1, 5])
def test_fptt_follows_the_updates_of_its_paper(window: int) -> None:
    """Kag and Saligrama 2021, algorithm 1, by a Python loop with plain gradient descent."""
    template, params = net(LIF(beta=0.9), True)
    alpha, beta, rate = 0.3, 0.5, 0.05
    labels = jnp.ones((5, 3))
    init, step = gradients.fptt(template.build, label_loss, optax.sgd(rate), gradients.FPTT(window, alpha, beta))
    state, total = step(init(params), LONG, labels)

    w, average, slope, expected = params, params, jax.tree.map(jnp.zeros_like, params), 0.0
    neurons = template.build(params).init((5,))
    for start in range(0, 13, window):

        def run(w: Any, neurons: Any, start: int = start) -> Any:
            model, value = template.build(w), 0.0
            for x in LONG[start : start + window]:
                neurons, out = model.step(neurons, x)
                value += label_loss(out, jnp.zeros(()), labels).mean()
            return value, neurons

        (value, neurons), g = jax.value_and_grad(run, has_aux=True)(w, neurons)
        expected += value
        for name in w:
            total_slope = g[name] + alpha * (w[name] - average[name]) - slope[name]
            w = w | {name: w[name] - rate * total_slope}
            slope = slope | {name: slope[name] - alpha * (w[name] - average[name])}
            average = average | {name: 0.5 * (average[name] + w[name]) - slope[name] / (2 * alpha)}
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    same(state.params, w)
    same(state.average, average)
    assert state.step == -(-13 // window)


@pytest.mark.parametrize("rule", ["eprop", "fptt", "truncated"])
def test_memory_does_not_grow_with_time(rule: str) -> None:
    template, params = net(LIF(beta=0.9), True)
    init, step = gradients.fptt(template.build, label_loss, optax.sgd(0.1), gradients.FPTT(8))
    run = {
        "eprop": lambda p, xs: gradients.eprop_gradient(template.build, p, xs, step_loss)[1],
        "truncated": lambda p, xs: gradients.truncated_gradient(template.build, p, xs, step_loss, 8)[1],
        "fptt": lambda p, xs: step(init(p), xs, jnp.ones((5, 3)))[0].params,
    }[rule]

    def temporary(steps: int) -> int:
        compiled = jax.jit(run).lower(params, jnp.ones((steps, 5, 4))).compile()
        return compiled.memory_analysis().temp_size_in_bytes - steps * 4 * 8  # losses and indices of the steps

    assert temporary(512) < 1.3 * temporary(64)


@pytest.mark.parametrize("options", [{"window": 0}, {"alpha": 0.0}, {"beta": 1.5}])
def test_fptt_settings_out_of_range_get_a_sentence(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        gradients.FPTT(**options)
