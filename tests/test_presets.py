"""Every preset against a float64 recurrence of the framework's published order, and against the framework itself.

The second needs an interpreter that has the frameworks:
``DSNN_PEERS_PYTHON=/path/to/python pytest -m peers tests/test_presets.py``.
"""

import json
import os
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import surrogate
from dsnn.cells import like, presets

STEPS = 64
GRID = np.linspace(-2.0137, 2.0271, 300, dtype=np.float32)


def leaky(xs, beta=None, threshold=1.0, reset_mechanism="subtract", reset_delay=True, alpha=None, synaptic=False):
    """snnTorch Leaky and Synaptic: the reset is read off the previous membrane."""
    v = i = np.zeros(xs.shape[1:])
    for x in xs:
        r = np.float64(v > threshold)
        i = alpha * i + x if synaptic else x
        if reset_mechanism == "subtract":
            v = beta * v + i - r * threshold
        elif reset_mechanism == "zero":
            v = (1 - r) * (beta * v + i) if synaptic else beta * (1 - r) * v + i
        else:
            v = beta * v + i
        s = np.float64(v > threshold)
        if not reset_delay and reset_mechanism == "subtract":
            v = v - (s - r) * threshold
        elif not reset_delay and reset_mechanism == "zero":
            v = v - (s - r) * v
        yield v, s


def synaptic(xs, **parameters):
    return leaky(xs, **parameters, synaptic=True)


def lif_node(xs, tau=2.0, decay_input=True, v_threshold=1.0, v_reset=0.0):
    v = np.full(xs.shape[1:], 0.0 if v_reset is None else v_reset)
    for x in xs:
        leak = v - (0.0 if v_reset is None else v_reset)
        h = v + (x - leak) / tau if decay_input else v - leak / tau + x
        s = np.float64(h >= v_threshold)
        v = h - s * v_threshold if v_reset is None else h * (1 - s) + s * v_reset
        yield v, s


def if_node(xs, v_threshold=1.0, v_reset=0.0):
    v = np.full(xs.shape[1:], 0.0 if v_reset is None else v_reset)
    for x in xs:
        h = v + x
        s = np.float64(h >= v_threshold)
        v = h - s * v_threshold if v_reset is None else h * (1 - s) + s * v_reset
        yield v, s


def norse_lif(xs, tau_syn_inv=200.0, tau_mem_inv=100.0, v_leak=0.0, v_th=1.0, v_reset=0.0, dt=0.001):
    v, i = np.full(xs.shape[1:], v_leak), np.zeros(xs.shape[1:])
    for x in xs:
        i = i + x
        v = v + dt * tau_mem_inv * (v_leak - v + i)
        i = i - dt * tau_syn_inv * i
        s = np.float64(v > v_th)
        v = (1 - s) * v + s * v_reset
        yield v, s


def lif_box(xs, tau_mem_inv=100.0, v_leak=0.0, v_th=1.0, v_reset=0.0, reset_method="value", dt=0.001):
    v = np.full(xs.shape[1:], v_leak)
    for x in xs:
        v = v + dt * tau_mem_inv * (v_leak - v + x)
        s = np.float64(v > v_th)
        v = (1 - s) * v + s * (v_reset if reset_method == "value" else v - v_th)
        yield v, s


def sinabs_lif(xs, tau_mem, tau_syn=None, spike_threshold=1.0, spike_fn="MultiSpike", min_v_mem=None, norm_input=True,
               max_num_spikes_per_bin=None):  # fmt: skip
    v = i = np.zeros(xs.shape[1:])
    a = np.exp(-1 / tau_mem)
    for x in xs:
        i = x if tau_syn is None else np.exp(-1 / tau_syn) * (i + x)
        v = a * v + ((1 - a) * i if norm_input else i)
        most = {"MultiSpike": np.inf, "SingleSpike": 1, "MaxSpike": max_num_spikes_per_bin}[spike_fn]
        n = np.clip(np.floor(v / spike_threshold), 0, most)
        v = v - n * spike_threshold
        v = v if min_v_mem is None else np.maximum(v, min_v_mem)
        yield v, n


def spyx_neuron(xs, beta=1.0, gamma=None, alpha=None, threshold=1.0):
    """The spike put out is that of the membrane before the step."""
    v = i = b = np.zeros(xs.shape[1:])
    for x in xs:
        theta = threshold + b
        s = np.float64(v > theta)
        if alpha is not None:
            v = v - s * theta
            i = alpha * i + x
            v = beta * v + i
        else:
            v = beta * v + x - s * theta
        if gamma is not None:
            b = gamma * b + (1 - gamma) * s
        yield v, s


def spyx_li(xs, beta=0.8):
    v = np.zeros(xs.shape[1:])
    for x in xs:
        v = beta * v + x
        yield v, v


def nir_lif(xs, tau, r=1.0, v_leak=0.0, v_threshold=1.0, v_reset=0.0, dt=1e-4, method="exp"):
    tau, r = np.asarray(tau), np.asarray(r)
    beta = np.exp(-dt / tau) if method == "exp" else 1 - dt / tau
    v = np.full(xs.shape[1:], v_leak)
    for x in xs:
        v = v_leak + beta * (v - v_leak) + (1 - beta) * r * x
        s = np.float64(v > v_threshold)
        v = np.where(s > 0, v_reset, v)
        yield v, s


def yin_alif(xs, tau_m=20.0, tau_adp=200.0, b_j0=0.01, beta=1.8, dt=1.0):
    alpha, rho = np.exp(-dt / tau_m), np.exp(-dt / tau_adp)
    u = b = s = np.zeros(xs.shape[1:])
    for x in xs:
        b = rho * b + (1 - rho) * s
        theta = b_j0 + beta * b
        u = alpha * u + (1 - alpha) * x - theta * s
        s = np.float64(u > theta)
        yield u, s


CASES = [
    ("snntorch.Leaky", leaky, {"beta": 0.9}),
    ("snntorch.Leaky", leaky, {"beta": 0.95, "threshold": 0.7}),
    ("snntorch.Leaky", leaky, {"beta": 0.9, "reset_mechanism": "zero"}),
    ("snntorch.Leaky", leaky, {"beta": 0.9, "reset_mechanism": "none"}),
    ("snntorch.Leaky", leaky, {"beta": 0.9, "reset_delay": False}),
    ("snntorch.Leaky", leaky, {"beta": 0.9, "reset_mechanism": "zero", "reset_delay": False}),
    ("snntorch.Leaky", leaky, {"beta": 0.9, "reset_mechanism": "none", "reset_delay": False}),
    ("snntorch.Synaptic", synaptic, {"alpha": 0.6, "beta": 0.8}),
    ("snntorch.Synaptic", synaptic, {"alpha": 0.6, "beta": 0.8, "reset_mechanism": "zero"}),
    ("snntorch.Synaptic", synaptic, {"alpha": 0.6, "beta": 0.8, "reset_mechanism": "none"}),
    ("snntorch.Synaptic", synaptic, {"alpha": 0.6, "beta": 0.8, "reset_delay": False}),
    ("snntorch.Synaptic", synaptic, {"alpha": 0.6, "beta": 0.8, "reset_mechanism": "zero", "reset_delay": False}),
    ("spikingjelly.LIFNode", lif_node, {}),
    ("spikingjelly.LIFNode", lif_node, {"tau": 5.0, "v_threshold": 0.4}),
    ("spikingjelly.LIFNode", lif_node, {"tau": 5.0, "decay_input": False}),
    ("spikingjelly.LIFNode", lif_node, {"tau": 3.0, "v_reset": None, "v_threshold": 0.5}),
    ("spikingjelly.LIFNode", lif_node, {"tau": 3.0, "v_reset": -0.3, "v_threshold": 0.5}),
    ("spikingjelly.LIFNode", lif_node, {"tau": 3.0, "v_reset": -0.3, "decay_input": False}),
    ("spikingjelly.IFNode", if_node, {}),
    ("spikingjelly.IFNode", if_node, {"v_reset": None}),
    ("spikingjelly.IFNode", if_node, {"v_reset": 0.2, "v_threshold": 0.8}),
    ("norse.LIF", norse_lif, {}),
    ("norse.LIF", norse_lif, {"v_leak": 0.1, "v_reset": -0.2, "v_th": 0.8, "tau_syn_inv": 100.0}),
    ("norse.LIFBox", lif_box, {"v_th": 0.3}),
    ("norse.LIFBox", lif_box, {"v_leak": 0.1, "v_reset": -0.2, "tau_mem_inv": 300.0, "v_th": 0.5}),
    ("norse.LIFBox", lif_box, {"tau_mem_inv": 300.0, "v_th": 0.5, "reset_method": "subtract"}),
    ("sinabs.LIF", sinabs_lif, {"tau_mem": 10.0, "spike_threshold": 0.2}),
    ("sinabs.LIF", sinabs_lif, {"tau_mem": 10.0, "norm_input": False}),
    ("sinabs.LIF", sinabs_lif, {"tau_mem": 10.0, "tau_syn": 5.0, "spike_threshold": 0.3}),
    ("sinabs.LIF", sinabs_lif, {"tau_mem": 10.0, "norm_input": False, "spike_fn": "SingleSpike", "min_v_mem": -0.2}),
    ("sinabs.LIF", sinabs_lif, {"tau_mem": 10.0, "norm_input": False, "spike_threshold": 0.2, "spike_fn": "MaxSpike",
                                "max_num_spikes_per_bin": 2}),
    ("spyx.LIF", spyx_neuron, {"beta": 0.9}),
    ("spyx.LIF", spyx_neuron, {"beta": 0.7, "threshold": 0.5}),
    ("spyx.IF", spyx_neuron, {}),
    ("spyx.ALIF", spyx_neuron, {"beta": 0.9, "gamma": 0.8}),
    ("spyx.CuBaLIF", spyx_neuron, {"alpha": 0.6, "beta": 0.8}),
    ("spyx.LI", spyx_li, {"beta": 0.8}),
    ("nir.LIF", nir_lif, {"tau": 0.005, "dt": 0.001, "v_threshold": 0.3}),
    ("nir.LIF", nir_lif, {"tau": 0.005, "dt": 0.001, "r": 2.0, "v_leak": 0.1, "v_reset": -0.1, "method": "euler"}),
    ("nir.LIF", nir_lif, {"tau": np.linspace(0.002, 0.02, 48), "r": np.linspace(1, 4, 48), "dt": 0.001}),
    ("yin.ALIF", yin_alif, {"tau_m": 10.0, "tau_adp": 30.0}),
]  # fmt: skip
# a framework's surrogate and its parameters, and ours with the factor by which theirs is higher
SURROGATES = [
    ("snntorch.atan", {"alpha": 3.0}, "atan", {"alpha": 3.0}, 1),
    ("snntorch.fast_sigmoid", {}, "fast_sigmoid", {}, 1),
    ("snntorch.heaviside", {}, "heaviside", {}, 1),
    ("snntorch.sigmoid", {}, "sigmoid", {"alpha": 25.0}, 1),
    ("snntorch.SFS", {"B": 0.2}, "sfs", {"above": 0.2}, 1),
    ("snntorch.spike_rate_escape", {}, "spike_rate_escape", {}, 1),
    ("snntorch.straight_through_estimator", {}, "ste", {}, 1),
    ("snntorch.triangular", {}, "triangle_slope", {}, 1),
    ("spikingjelly.ATan", {}, "atan", {}, 1),
    ("spikingjelly.DeterministicPass", {}, "deterministic_pass", {}, 1),
    ("spikingjelly.Erf", {}, "erf", {}, 1),
    ("spikingjelly.FakeNumericalGradient", {"alpha": 2.0}, "fake_numerical_gradient", {"alpha": 2.0}, 1),
    ("spikingjelly.LeakyKReLU", {"leak": 0.2, "k": 0.7}, "leaky_k_relu", {"leak": 0.2, "slope": 0.7}, 1),
    ("spikingjelly.LogTailedReLU", {"alpha": 0.1}, "log_tailed_relu", {"alpha": 0.1}, 1),
    ("spikingjelly.NonzeroSignLogAbs", {}, "nonzero_sign_log_abs", {}, 1),
    ("spikingjelly.PiecewiseExp", {}, "piecewise_exp", {}, 1),
    ("spikingjelly.PiecewiseLeakyReLU", {}, "piecewise_leaky_relu", {}, 1),
    ("spikingjelly.PiecewiseQuadratic", {}, "piecewise_quadratic", {}, 1),
    ("spikingjelly.QPseudoSpike", {"alpha": 3.0}, "q_pseudo_spike", {"alpha": 3.0}, 1),
    ("spikingjelly.Rect", {"alpha": 0.7}, "rect", {"width": 1 / 0.7, "height": 0.7}, 1),
    ("spikingjelly.S2NN", {}, "s2nn", {}, 1),
    ("spikingjelly.Sigmoid", {}, "sigmoid", {}, 1),
    ("spikingjelly.SoftSign", {}, "soft_sign", {}, 1),
    ("spikingjelly.SquarewaveFourierSeries", {"n": 4}, "squarewave", {"terms": 3}, 1),
    ("spikingjelly.SuperSpike", {"alpha": 2.0}, "fast_sigmoid", {"slope": 1.0, "height": 2.0}, 1),
    ("norse.circ", {"alpha": 0.6}, "circ", {"alpha": 0.6}, 1),
    ("norse.heavi_erfc", {"alpha": 2.0}, "erf", {"alpha": 2.0}, 1),
    ("norse.super", {"alpha": 1.0}, "super", {"alpha": 1.0}, 1),
    ("norse.tanh", {"alpha": 2.0}, "tanh", {"k": 2.0}, 1),
    ("norse.triangle", {"alpha": 0.3}, "triangle", {"height": 0.3}, 1),
    ("spyx.arctan", {}, "arctan", {}, 1),
    ("spyx.boxcar", {}, "boxcar", {}, 1),
    ("spyx.superspike", {}, "fast_sigmoid", {}, 1),
    ("spyx.tanh", {}, "tanh", {}, 1),
    ("spyx.triangular", {}, "triangle", {"width": 0.5}, 1),
    ("sinabs.Gaussian", {}, "gaussian", {}, 1),
    ("sinabs.MultiGaussian", {}, "multi_gaussian", {}, 2),
    ("sinabs.PeriodicExponential", {}, "periodic_exponential", {}, 1),
    ("sinabs.SingleExponential", {}, "single_exponential", {}, 1),
]
PEERS = ("snntorch", "spikingjelly", "norse", "sinabs", "spyx")


def drive():
    """Rows of inputs of different character, none of them on a grid where a float64 recurrence could tie."""
    rng = np.random.default_rng(7)
    rows = [
        rng.normal(0.3, 0.5, (STEPS, 48)),
        rng.uniform(0, 1.5, (STEPS, 48)),
        rng.normal(0, 2, (STEPS, 48)) * (rng.random((STEPS, 48)) < 0.15),
        np.tile(rng.uniform(0.2, 0.8, 48), (STEPS, 1)),
        -np.abs(rng.normal(0, 1, (STEPS, 48))) + 2.5 * (rng.random((STEPS, 48)) < 0.3),
    ]
    return np.stack(rows, 1).astype(np.float32)


def ties():
    """Inputs that bring a membrane onto the threshold, or so near that the last bit decides."""
    rng = np.random.default_rng(8)
    constants = np.array([1, 0.5, 0.25, 0.1, 0.2, 1 / 3, 2, 3, 0.9, 0.8, 0.05, 1.05, 0.3, 0.03, 0.7, 0.35])
    rows = [
        np.tile(np.tile(constants, 3), (STEPS, 1)),
        rng.integers(-4, 9, (STEPS, 48)) / 4,
        rng.integers(-10, 31, (STEPS, 48)) / 10,
        np.tile(rng.integers(0, 41, 48) / 40, (STEPS, 1)),
    ]
    return np.stack(rows, 1).astype(np.float32)


def trace(preset, parameters, xs):
    cell = like(preset, **parameters)
    _, _, kept = jax.jit(lambda xs: dsnn.unroll(cell, xs, record=lambda state, spikes: (state.membrane, spikes)))(
        jnp.asarray(xs)
    )
    return tuple(np.asarray(a) for a in kept)


def test_every_preset_has_a_case():
    assert {preset for preset, _, _ in CASES} == set(presets())


@pytest.mark.parametrize(("preset", "recurrence", "parameters"), CASES)
def test_preset_follows_the_published_recurrence(preset, recurrence, parameters):
    xs = drive()
    membrane, spikes = trace(preset, parameters, xs)
    expected = list(recurrence(np.float64(xs), **parameters))
    expected_membrane, expected_spikes = (np.stack(a) for a in zip(*expected, strict=True))
    assert expected_spikes.std() > 0.05, "a silent or saturated recurrence tests nothing"
    if preset == "spyx.LI":
        np.testing.assert_allclose(spikes, expected_spikes, atol=1e-5)
    else:
        np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(membrane, expected_membrane, atol=1e-5)


def test_orders_differ_where_it_is_said_that_they_do():
    """The recurrences above would prove little if all frameworks agreed."""
    xs = drive()
    traces = {
        "Leaky": trace("snntorch.Leaky", {"beta": 0.9}, xs),
        "prompt": trace("snntorch.Leaky", {"beta": 0.9, "reset_delay": False}, xs),
        "zero": trace("snntorch.Leaky", {"beta": 0.9, "reset_mechanism": "zero"}, xs),
        "SpikingJelly": trace("spikingjelly.LIFNode", {"tau": 10.0, "decay_input": False}, xs),
        "sinabs": trace("sinabs.LIF", {"tau_mem": -1 / np.log(0.9), "norm_input": False}, xs),
    }
    names = list(traces)
    for n, one in enumerate(names):
        for other in names[n + 1 :]:
            assert np.abs(traces[one][0] - traces[other][0]).max() > 0.1, (one, other)
    spyx = trace("spyx.LIF", {"beta": 0.9}, xs)
    np.testing.assert_array_equal(spyx[0], traces["Leaky"][0])
    np.testing.assert_array_equal(spyx[1][1:], traces["Leaky"][1][:-1])
    np.testing.assert_array_equal(spyx[1][0], 0)


def test_norse_golden_numbers():
    """Norse's own tests, functional/test/test_lif.py and test_lif_box.py."""
    ones = np.ones((9, 1, 1), np.float32)
    expected = [0.1, 0.27, 0.487, 0.7335, 0.9963, 0.0, 0.3951, 0.7717, 0.0]
    np.testing.assert_allclose(trace("norse.LIF", {}, ones)[0].ravel(), expected, atol=1e-4)
    box = like("norse.LIFBox")
    state, got = box.init((1, 1))._replace(membrane=jnp.full((1, 1), 10.0)), []
    for x in (1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0):
        state, _ = box.step(state, jnp.full((1, 1), x))
        got.append(float(state.membrane[0, 0]))
    np.testing.assert_allclose(got, [0.0, 0.1, 0.19, 0.271, 0.3439, 0.3095, 0.2786], atol=1e-4)


def test_nir_neuron_converges_to_continuous_time():
    """The first spike of the exact solution, v = r I (1 - exp(-t / tau)) under a constant input."""
    tau, r, current = 0.02, 2.0, 0.9
    exact = -tau * np.log(1 - 1 / (r * current))
    for method in ("exp", "euler"):
        errors = []
        for dt in (1e-3, 1e-4, 1e-5):
            xs = np.full((round(0.03 / dt), 1, 1), current, np.float32)
            spikes = trace("nir.LIF", {"tau": tau, "r": r, "dt": dt, "method": method}, xs)[1]
            errors.append(abs((np.argmax(spikes.ravel()) + 1) * dt - exact))
            assert errors[-1] <= (1 if method == "exp" else 1.5) * dt + 1e-8


def test_surrogates_are_those_of_the_framework():
    assert like("snntorch.Leaky", beta=0.9).surrogate == surrogate.get("atan", alpha=2.0)
    assert like("spikingjelly.LIFNode").surrogate == surrogate.get("sigmoid", alpha=4.0)
    assert like("spikingjelly.IFNode", surrogate_function="atan").surrogate == surrogate.get("atan")
    assert like("norse.LIFBox").surrogate == surrogate.get("superspike", alpha=100.0)
    assert like("norse.LIF", method="triangle", alpha=0.3).surrogate == surrogate.get("triangle", height=0.3)
    assert like("sinabs.LIF", tau_mem=5.0).surrogate == surrogate.get("exponential", width=0.5)
    assert like("spyx.LIF", beta=0.9).surrogate == surrogate.get("superspike", alpha=25.0)


def test_gradients_pass_where_the_framework_lets_them():
    """snnTorch detaches its reset: the membrane after a spike depends on the input by beta alone."""
    xs = jnp.array([[[1.2]], [[0.3]]])

    def slope(preset, **parameters):
        cell = like(preset, **parameters)
        return float(
            jax.grad(lambda xs: dsnn.unroll(cell, xs, record=lambda s, _: s.membrane)[2][1].sum())(xs)[0, 0, 0]
        )

    np.testing.assert_allclose(slope("snntorch.Leaky", beta=0.9), 0.9, rtol=1e-6)
    sharp = float(surrogate.derivative("superspike", jnp.float32(0.2), alpha=25.0))
    np.testing.assert_allclose(slope("spyx.LIF", beta=0.9), 0.9 - sharp, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("snntorch.Leeky", {}, ["'snntorch.Leeky'", "did you mean 'snntorch.Leaky'"]),
        ("lif", {}, ["'lif'"]),
        ("snntorch.Leaky", {"betta": 0.9}, ["no parameter 'betta'", "did you mean 'beta'"]),
        ("snntorch.Leaky", {}, ["needs beta"]),
        ("snntorch.Leaky", {"beta": 1.5}, ["beta", "[0, 1]", "1.5"]),
        ("snntorch.Leaky", {"beta": 0.9, "reset_mechanism": "subtrac"}, ["reset_mechanism", "did you mean 'subtract'"]),
        ("snntorch.Leaky", {"beta": 0.9, "inhibition": True}, ["inhibition", "True"]),
        ("spikingjelly.LIFNode", {"tau": 0.5}, ["tau", "above 1", "0.5"]),
        ("norse.LIF", {"tau_mem_inv": 2000.0}, ["(0, 1]", "2000.0"]),
        ("norse.LIF", {"method": "supr"}, ["'supr'"]),
        ("norse.LIFBox", {"reset_method": "zero"}, ["reset_method", "'zero'"]),
        ("sinabs.LIF", {"tau_mem": 5.0, "spike_fn": "Multi"}, ["spike_fn", "did you mean 'MultiSpike'"]),
        ("sinabs.LIF", {"tau_mem": 5.0, "reset_fn": "MembraneReset"}, ["reset_fn", "MembraneReset"]),
        ("nir.LIF", {"tau": 0.01, "method": "rk4"}, ["method", "'rk4'"]),
    ],
)
def test_messages_name_the_nearest(name, parameters, words):
    with pytest.raises(ValueError, match=r"\S") as raised:
        like(name, **parameters)
    for word in words:
        assert word in str(raised.value)


def test_flags_about_bookkeeping_are_accepted():
    like("snntorch.Leaky", beta=0.9, init_hidden=True, output=True)
    like("spikingjelly.LIFNode", step_mode="m", backend="triton", store_v_seq=True)
    like("sinabs.LIF", tau_mem=10.0, record_states=True, shape=(3,))
    like("spyx.LIF", hidden_shape=(48,), beta=0.9, rngs=None)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Traces of the frameworks themselves, by their own interpreter."""
    python = os.environ.get("DSNN_PEERS_PYTHON", "")
    if not python:
        pytest.skip("needs DSNN_PEERS_PYTHON, an interpreter with snntorch, spikingjelly, norse, sinabs and spyx")
    folder = tmp_path_factory.mktemp("peers")
    cases = [(preset, parameters) for preset, _, parameters in CASES if preset.split(".")[0] in PEERS]
    xs = np.concatenate([drive(), ties()], 1)
    request = {"cells": cases, "surrogates": [(original, theirs) for original, theirs, *_ in SURROGATES]}
    (folder / "request.json").write_text(json.dumps(request))
    np.savez(folder / "input.npz", xs=xs, u=GRID)
    script = Path(__file__).with_name("peer_traces.py")
    files = [folder / name for name in ("request.json", "input.npz", "output.npz")]
    subprocess.run([python, script, *files], check=True, capture_output=True, cwd=folder)
    return cases, xs, np.load(files[-1])


@pytest.mark.peers
@pytest.mark.parametrize("framework", PEERS)
def test_preset_is_the_framework_itself(framework, originals):
    """On inputs of every kind, those that tie included: no spike differs, and no membrane by more than 1e-5."""
    cases, xs, traces = originals
    compared = 0
    for index, (preset, parameters) in enumerate(cases):
        if not preset.startswith(framework + "."):
            continue
        if f"{index}/missing" in traces:
            pytest.skip(f"{framework} is not installed there: {traces[f'{index}/missing']}")
        membrane, spikes = trace(preset, parameters, xs)
        np.testing.assert_array_equal(spikes, traces[f"{index}/spikes"], err_msg=f"{preset} {parameters}")
        np.testing.assert_allclose(membrane, traces[f"{index}/membrane"], atol=1e-5, err_msg=f"{preset} {parameters}")
        compared += 1
    assert compared


@pytest.mark.peers
@pytest.mark.parametrize(("original", "theirs", "name", "parameters", "factor"), SURROGATES)
def test_surrogate_is_the_framework_itself(original, theirs, name, parameters, factor, originals):
    _, _, traces = originals
    if original not in traces:
        pytest.skip(f"{original.split('.')[0]} is not installed there")
    got = factor * surrogate.derivative(name, jnp.asarray(GRID), **parameters)
    np.testing.assert_allclose(got, traces[original], rtol=1e-4, atol=1e-6)


def test_installed_frameworks_are_asked_for_every_preset_they_have():
    named = {preset for preset, _, _ in CASES if preset.split(".")[0] in PEERS}
    assert named == {name for name in presets() if name.split(".")[0] in PEERS}
