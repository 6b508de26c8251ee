import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dsnn
from dsnn import escape, surrogate
from dsnn.cells import ALIF, BRF, IF, LI, LIF, LTC, PLIF, RF, AdEx, CuBaLIF, Izhikevich, Noisy, SignedIF

KEY = jax.random.key(0)


def trace(cell, xs, key=None):
    """Returns membranes and spikes [time, ...] as numpy."""
    _, _, kept = dsnn.unroll(cell, jnp.asarray(xs, jnp.float32), key, record=lambda state, s: (state.membrane, s))
    return tuple(np.asarray(a, np.float64) for a in kept)


def drive(steps=64, scale=0.4, mean=0.25, seed=0, neurons=40):
    return np.random.default_rng(seed).normal(mean, scale, (steps, 3, neurons)).astype(np.float32)


def assert_same(cell, xs, reference, atol=1e-5):
    """Compares with a float64 recurrence; away from ties no spike may differ."""
    membrane, spikes = trace(cell, xs)
    expected_membrane, expected_spikes = reference(np.float64(xs))
    assert 0.01 < expected_spikes.mean() < 0.99, "a recurrence that is silent or saturated tests nothing"
    np.testing.assert_array_equal(spikes, expected_spikes)
    np.testing.assert_allclose(membrane, expected_membrane, atol=atol, rtol=1e-5)


def reset(u, s, how, threshold):
    match how:
        case "subtract":
            return u - s * threshold
        case "none":
            return u
        case "zero":
            return np.where(s > 0, 0.0, u)
    return np.where(s > 0, how, u)


def lif(xs, beta=0.9, threshold=1.0, how="subtract", timing="same", scale=1.0, rest=0.0, alpha=None):
    u, i, s, us, ss = np.full(xs.shape[1:], rest), np.zeros(xs.shape[1:]), np.zeros(xs.shape[1:]), [], []
    for x in xs:
        i = x if alpha is None else alpha * i + x
        if timing == "next" and how == "subtract":
            u = rest + beta * (u - rest) + scale * i - s * threshold
        elif timing == "next":
            u = rest + beta * (reset(u, s, how, threshold) - rest) + scale * i
        else:
            u = rest + beta * (u - rest) + scale * i
        s = np.float64(u > threshold)
        if timing == "same":
            u = reset(u, s, how, threshold)
        us.append(u)
        ss.append(s)
    return np.stack(us), np.stack(ss)


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("how", ["subtract", "zero", "none", -0.3])
def test_lif_follows_its_equation_for_every_reset(timing, how):
    assert_same(LIF(0.9, reset=how, reset_timing=timing), drive(), lambda xs: lif(xs, how=how, timing=timing))


@pytest.mark.parametrize(
    ("options", "constants"),
    [
        ({"tau": 8.0, "dt": 0.5}, {"beta": math.exp(-0.5 / 8)}),
        ({"tau": 8.0, "dt": 0.5, "method": "euler"}, {"beta": 1 - 0.5 / 8}),
        ({"tau": 4.0, "input_scale": "decay"}, {"beta": math.exp(-0.25), "scale": 1 - math.exp(-0.25)}),
        ({"tau": 4.0, "input_scale": "dt_over_tau"}, {"beta": math.exp(-0.25), "scale": 0.25}),
        ({"beta": 0.8, "input_scale": 0.7}, {"beta": 0.8, "scale": 0.7}),
        ({"beta": 0.8, "rest": -0.5, "threshold": 0.4}, {"beta": 0.8, "rest": -0.5, "threshold": 0.4}),
        ({"beta": 0.8, "rest": -65.0, "threshold": -64.0, "reset": -66.0},
         {"beta": 0.8, "rest": -65.0, "threshold": -64.0, "how": -66.0}),
    ],
)  # fmt: skip
def test_lif_decays_scales_and_rests_as_told(options, constants):
    xs = drive(mean=1.0, scale=1.0)
    assert_same(LIF(**options), xs, lambda xs: lif(xs, **constants), atol=3e-5)


def test_cubalif_and_if_follow_their_equations():
    assert_same(CuBaLIF(0.9, 0.7), drive(mean=0.1, scale=0.2), lambda xs: lif(xs, alpha=0.7))
    assert_same(
        CuBaLIF(tau=10.0, tau_syn=5.0, reset="zero", reset_timing="next"),
        drive(mean=0.1, scale=0.2),
        lambda xs: lif(xs, beta=math.exp(-0.1), alpha=math.exp(-0.2), how="zero", timing="next"),
    )
    assert_same(IF(), drive(), lambda xs: lif(xs, beta=1.0))


def test_per_neuron_constants_broadcast_over_the_last_axis():
    betas = np.linspace(0.5, 0.95, 40)
    assert_same(LIF(betas, threshold=1 + betas), drive(mean=0.6), lambda xs: lif(xs, beta=betas, threshold=1 + betas))
    images = drive().reshape(64, 3, 2, 4, 5)
    membrane, _ = trace(LIF(betas[:5]), images)
    flat, _ = trace(LIF(np.tile(betas[:5], 8)), drive())
    np.testing.assert_array_equal(membrane.reshape(flat.shape), flat)


def test_compare_decides_about_a_membrane_on_the_threshold():
    xs = np.full((4, 1, 1), 0.5)
    assert trace(IF(compare=">="), xs)[1].ravel().tolist() == [0, 1, 0, 1]
    assert trace(IF(compare=">"), xs)[1].ravel().tolist() == [0, 0, 1, 0]


def test_alif_is_the_neuron_of_yin():
    def yin(xs, b0=0.1, beta=1.8):
        alpha, rho = math.exp(-1 / 20), math.exp(-1 / 50)
        u = b = s = np.zeros(xs.shape[1:])
        us, ss = [], []
        for x in xs:
            b = rho * b + (1 - rho) * s
            theta = b0 + beta * b
            u = alpha * u + (1 - alpha) * x - theta * s
            s = np.float64(u - theta > 0)
            us.append(u)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    options = {"reset_timing": "next", "input_scale": "decay", "threshold": 0.1, "strength": 1.8}
    assert_same(ALIF(tau=20.0, tau_adp=50.0, **options), drive(mean=0.6), yin)


def test_alif_with_a_same_step_reset_raises_the_next_threshold():
    def adaptive(xs, beta=0.9, rho=0.8, strength=0.5):
        u = a = np.zeros(xs.shape[1:])
        us, ss = [], []
        for x in xs:
            theta = 1 + strength * a
            u = beta * u + x
            s = np.float64(u > theta)
            u, a = u - theta * s, rho * a + (1 - rho) * s
            us.append(u)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    assert_same(ALIF(0.9, 0.8, strength=0.5), drive(mean=0.5), adaptive)
    no_adaptation = ALIF(0.9, strength=0.0)
    for got, expected in zip(trace(no_adaptation, drive()), trace(LIF(0.9), drive()), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_brf_and_rf_are_those_of_higuchi():
    omega, damping = np.linspace(5, 15, 40), np.linspace(1.5, 4, 40)

    def resonators(xs, balanced, dt=0.01):
        u = v = q = np.zeros(xs.shape[1:])
        us, ss = [], []
        for x in xs:
            b = (-1 + np.sqrt(1 - (dt * omega) ** 2)) / dt - damping - q if balanced else -damping
            u, v = u + dt * (b * u - omega * v + x), v + dt * (omega * u + b * v)
            s = np.float64(u - 1 - q > 0) if balanced else np.float64(u - 1 > 0)
            q = 0.9 * q + s
            us.append(u)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    xs = drive(200, mean=8.0, scale=25.0)
    assert_same(BRF(omega, damping), xs, lambda xs: resonators(xs, True))
    assert_same(RF(omega, damping), xs, lambda xs: resonators(xs, False), atol=1e-4)


def test_balanced_neuron_neither_gains_nor_loses_energy_on_its_boundary():
    """On the boundary the Euler step is a rotation: |1 + dt (b + i omega)| = 1."""
    omega, dt, start = 20.0, 0.01, jnp.full((1, 1), 0.5)
    cell = BRF(omega, 1e-7, dt=dt)
    state = cell.init((1, 1))._replace(membrane=start)
    for _ in range(500):
        state, _ = cell.step(state, jnp.zeros((1, 1)))
    np.testing.assert_allclose(jnp.hypot(state.membrane, state.imaginary), start, rtol=1e-4)


def test_adex_follows_its_equations():
    c = {"tau": 281 / 30, "tau_w": 144.0, "R": 1000 / 30, "rest": -70.6, "rh": -50.4, "D": 2.0, "a": 0.004, "b": 0.0805}

    def adex(xs, dt=0.1):
        u, w = np.full(xs.shape[1:], -70.6), np.zeros(xs.shape[1:])
        us, ss = [], []
        for x in xs:
            upswing = c["D"] * np.exp((np.minimum(u, -40.0) - c["rh"]) / c["D"])
            du = (c["rest"] - u + upswing + c["R"] * (x - w)) / c["tau"]
            dw = (c["a"] * (u - c["rest"]) - w) / c["tau_w"]
            u, w = u + dt * du, w + dt * dw
            s = np.float64(u > -40.0)
            u, w = np.where(s > 0, -70.6, u), w + c["b"] * s
            us.append(u)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    assert_same(AdEx(), drive(600, mean=2.5, scale=1.0, neurons=8), adex, atol=5e-3)


def test_izhikevich_follows_the_program_of_its_paper():
    def izhikevich(xs, a=0.02, b=0.2, c=-65.0, d=8.0):
        v = np.full(xs.shape[1:], -65.0)
        r, us, ss = b * v, [], []
        for x in xs:
            v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - r + x)
            v = v + 0.5 * (0.04 * v**2 + 5 * v + 140 - r + x)
            r = r + a * (b * v - r)
            s = np.float64(v >= 30)
            v, r = np.where(s > 0, c, v), r + d * s
            us.append(v)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    # in mV; the quadratic upswing magnifies a rounding error a thousandfold within one spike
    assert_same(Izhikevich(), drive(120, mean=10.0, scale=3.0, neurons=8), izhikevich, atol=0.3)


def test_ltc_follows_the_program_of_its_paper():
    cell = LTC(6, key=KEY)
    kernel, gate = np.float64(cell.membrane_kernel[...]), np.float64(cell.adaptation_kernel[...])

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def liquid(xs):
        u = b = s = np.zeros(xs.shape[1:])
        us, ss = [], []
        for x in xs:
            rate = sigmoid(np.concatenate([x, u], -1) @ kernel)
            rho = sigmoid(np.concatenate([x, b], -1) @ gate)
            b = rho * b + (1 - rho) * s
            u = u + (x - u) * rate
            s = np.float64(u - (0.1 + 1.8 * b) > 0)
            u = (1 - s) * u
            us.append(u)
            ss.append(s)
        return np.stack(us), np.stack(ss)

    assert_same(cell, drive(neurons=6), liquid)


def test_plif_learns_through_the_sigmoid_of_fang():
    """In w, with 1/tau = sigmoid(w), the membrane is theirs and so is its slope."""
    xs = jnp.asarray(drive(8, mean=0.2)[:, :1, :1])
    w, step = math.log(0.4 / 0.6), 1e-3

    def membrane(cell):
        return dsnn.unroll(cell, xs, record=lambda state, s: state.membrane)[2][-1].sum()

    def fang(w):
        rate, v = 1 / (1 + math.exp(-w)), 0.0
        for x in np.float64(xs).ravel():
            v = v + (x - v) * rate
            v = 0.0 if v >= 1 else v
        return v

    cell = PLIF(0.6, detach_reset=True)  # the slope of the spike has no counterpart in a finite difference
    assert cell.beta.get_metadata("support") == "unit_interval"
    np.testing.assert_allclose(membrane(cell), fang(w), rtol=1e-5)
    graph, params, rest = nnx.split(cell, nnx.Param, ...)
    slope = jax.grad(lambda p: membrane(nnx.merge(graph, p, rest)))(params)["beta"][...]
    chain = -0.4 * 0.6  # d beta / d w
    np.testing.assert_allclose(slope * chain, (fang(w + step) - fang(w - step)) / (2 * step), rtol=1e-3)


def test_li_integrates_and_with_beta_one_sums():
    xs = drive()
    membrane, output = trace(LI(0.8), xs)
    np.testing.assert_array_equal(membrane, output)
    np.testing.assert_allclose(output[2], 0.64 * xs[0] + 0.8 * np.float64(xs[1]) + xs[2], atol=1e-6)
    np.testing.assert_allclose(trace(LI(1.0), xs)[1][-1], np.float64(xs).sum(0), atol=1e-5)


# closed forms


@pytest.mark.parametrize("refractory", [0, 3])
@pytest.mark.parametrize("current", [1.02, 1.1, 1.5, 3.0, 12.0])
def test_rate_of_a_lif_is_its_closed_form(current, refractory):
    """From rest, u = I (1 - beta^n) passes the threshold at n = floor(log(1 - 1/I) / log beta) + 1, then rests."""
    tau = 7.3
    cell = LIF(tau=tau, input_scale="decay", reset="zero", refractory=float(refractory))
    spikes = trace(cell, np.full((400, 1, 1), current))[1].ravel()
    interval = math.floor(math.log(1 - 1 / current) / (-1 / tau)) + 1 + refractory
    times = np.flatnonzero(spikes)
    assert times[0] == interval - refractory - 1
    assert set(np.diff(times)) == {interval}


@pytest.mark.parametrize("current", [0.125, 0.3, 0.7, 1.0])
def test_rate_of_an_integrator_is_its_closed_form(current):
    """Subtraction loses nothing: n steps of I hold floor(n I) spikes, one less where n I lands on the threshold."""
    spikes = trace(IF(), np.full((1000, 1, 1), current))[1].ravel()
    assert abs(spikes.sum() - 1000 * current) <= 1
    zero = trace(IF(reset="zero"), np.full((1000, 1, 1), current))[1].ravel()
    assert set(np.diff(np.flatnonzero(zero))) == {math.floor(1 / np.float32(current)) + 1}


def test_adaptation_slows_firing_to_its_fixed_point():
    """With a slow trace the mean of a is the rate r, and each step spends r thresholds: r (1 + strength r) = I."""
    spikes = trace(ALIF(1.0, 0.999, strength=2.0), np.full((20_000, 1, 1), 0.5))[1].ravel()
    rate = spikes[10_000:].mean()
    np.testing.assert_allclose(rate * (1 + 2 * rate), 0.5, rtol=0.02)


# discretisation


def orders(cells, steps, reference, current=1.0):
    """Returns the order of convergence between successive halvings of the step."""
    errors = []
    for cell, n in zip(cells, steps, strict=True):
        membrane, _ = trace(cell, np.full((n, 1, 1), current))
        errors.append(abs(float(membrane[-1, 0, 0]) - reference))
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)], errors


def test_euler_converges_at_first_order_and_exp_is_exact():
    tau, time, dts = 10.0, 16.0, [2.0, 1.0, 0.5, 0.25]
    exact = 0.8 * (1 - math.exp(-time / tau))
    steps = [round(time / dt) for dt in dts]
    euler = [LIF(tau=tau, dt=dt, method="euler", input_scale="dt_over_tau", threshold=9.0) for dt in dts]
    slopes, _ = orders(euler, steps, exact, 0.8)
    assert all(abs(slope - 1) < 0.1 for slope in slopes)
    _, errors = orders([LIF(tau=tau, dt=dt, input_scale="decay", threshold=9.0) for dt in dts], steps, exact, 0.8)
    assert max(errors) < 2e-6


def test_resonator_and_adex_converge_at_first_order():
    omega, damping, time = 8.0, 1.0, 1.0
    fixed = 1 / complex(damping, -omega)
    exact = (fixed * (1 - np.exp(complex(-damping, omega) * time))).real
    dts = [0.01, 0.005, 0.0025]
    slopes, _ = orders([RF(omega, damping, dt=dt, threshold=9.0) for dt in dts], [100, 200, 400], exact)
    assert all(abs(slope - 1) < 0.15 for slope in slopes)
    fine = trace(AdEx(dt=0.005), np.full((4000, 1, 1), 0.5))[0][-1, 0, 0]
    slopes, _ = orders([AdEx(dt=dt) for dt in (0.4, 0.2, 0.1)], [50, 100, 200], fine, 0.5)
    assert all(abs(slope - 1) < 0.15 for slope in slopes)


def test_spike_times_converge_to_those_of_continuous_time():
    """The first spike of an exactly integrated membrane is the first grid point after the continuous one."""
    tau, current = 10.0, 1.3
    continuous = -tau * math.log(1 - 1 / current)
    for dt in (1.0, 0.1, 0.01):
        spikes = trace(LIF(tau=tau, dt=dt, input_scale="decay"), np.full((round(20 / dt), 1, 1), current))[1]
        first = (int(np.argmax(spikes.ravel())) + 1) * dt
        assert 0 <= first - continuous < dt + 1e-6


# refractory period, jitter, noise


def test_refractory_neuron_holds_and_cannot_fire():
    xs = np.full((12, 1, 1), 0.6)
    xs[5] = 100.0
    membrane, spikes = trace(LIF(1.0, reset="subtract", refractory=2.0, dt=0.5), xs)
    assert np.flatnonzero(spikes).tolist() == [1, 7]
    np.testing.assert_allclose(membrane[1:6].ravel(), 0.2, atol=1e-6)


def test_refractory_neuron_is_silent_even_above_its_threshold():
    """Subtraction leaves 4 of 5 units, which holds until the silence is over."""
    membrane, spikes = trace(LIF(1.0, refractory=2.0), np.full((7, 1, 1), 5.0))
    assert spikes.ravel().tolist() == [1, 0, 0, 1, 0, 0, 1]
    np.testing.assert_allclose(membrane.ravel(), [4, 4, 4, 8, 8, 8, 12])


def test_jittered_threshold_changes_only_after_a_spike():
    xs = np.full((200, 1, 500), 0.05)
    cell = LIF(1.0, reset="zero", noise=escape.ThresholdJitter(0.2))
    _, _, (membrane, shift, spikes) = dsnn.unroll(
        cell, jnp.asarray(xs, jnp.float32), KEY, record=lambda state, s: (state.membrane, state.shift, s)
    )
    membrane, shift, spikes = (np.asarray(a) for a in (membrane, shift, spikes))
    changed = shift[1:] != shift[:-1]
    assert changed.any()
    assert not changed[spikes[1:] == 0].any()
    before = membrane[:-1] + np.float32(0.05)
    np.testing.assert_array_equal(spikes[1:] > 0, before > 1 + shift[:-1])
    assert trace(cell, xs)[1].sum() == trace(LIF(1.0, reset="zero"), xs)[1].sum()


def test_noise_is_counted_once():
    """Firing of a memoryless neuron under a current: its frequency is the noise's own probability, not a sum of two."""
    noise, u = escape.Gaussian(0.3), -0.2
    xs = np.full((1, 200, 1000), 1 + u)
    p = float(noise.probability(jnp.float32(u)))
    for cell in (LIF(0.0, noise=noise), LIF(0.0, noise=noise, surrogate="atan"), ALIF(0.0, noise=noise)):
        share = trace(cell, xs, KEY)[1].mean()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / xs.size) + 2.0**-17
    white = Noisy(LIF(0.0), current=escape.OrnsteinUhlenbeck(0.3, tau=None))
    share = trace(white, xs, KEY)[1].mean()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / xs.size) + 2.0**-16


def test_unreleased_spikes_still_reset():
    xs = drive(100, mean=0.5)
    plain_membrane, plain = trace(LIF(0.9), xs)
    membrane, released = trace(Noisy(LIF(0.9), release=escape.ReleaseFailure(0.6)), xs, KEY)
    np.testing.assert_array_equal(membrane, plain_membrane)
    assert np.all(released <= plain)
    assert abs(released.sum() / plain.sum() - 0.6) < 5 * math.sqrt(0.24 / plain.sum())


def test_noisy_cell_shows_the_cell_inside():
    inner = LIF(0.9, threshold=1.5, noise=escape.Logistic(0.1))
    cell = Noisy(inner, current=escape.OrnsteinUhlenbeck(0.1))
    assert (cell.threshold, cell.noise, cell.surrogate) == (1.5, inner.noise, None)


# gradients


@pytest.mark.parametrize("name", ["tau", "beta"])
@pytest.mark.parametrize("shape", [(), (40,)])
def test_decays_get_the_gradient_of_a_finite_difference(name, shape):
    start, step = {"tau": 9.0, "beta": 0.85}[name], {"tau": 1e-2, "beta": 1e-4}[name]
    xs = jnp.asarray(drive(20))

    def last(cell):
        return dsnn.unroll(cell, xs, record=lambda state, s: state.membrane)[2][-1].sum()

    def at(number):
        with jax.enable_x64(False):
            u = np.zeros(xs.shape[1:])
            beta = math.exp(-1 / number) if name == "tau" else number
            for x in np.float64(xs):
                u = beta * u + x
            return u.sum()

    cell = LIF(**{name: start}, reset="none", learnable=(name,), shape=shape)
    graph, params, rest = nnx.split(cell, nnx.Param, ...)
    slope = jax.grad(lambda p: last(nnx.merge(graph, p, rest)))(params)[name][...]
    assert slope.shape == shape
    np.testing.assert_allclose(slope.sum(), (at(start + step) - at(start - step)) / (2 * step), rtol=1e-3)


def test_detached_reset_stops_the_gradient_through_the_reset():
    xs = jnp.array([[[1.2]], [[0.3]]])

    def second_membrane(cell):
        return jax.grad(lambda xs: dsnn.unroll(cell, xs, record=lambda state, s: state.membrane)[2][1].sum())(xs)

    first, second = (float(surrogate.derivative("atan", jnp.float32(u - 1))) for u in (1.2, 0.48))
    np.testing.assert_allclose(second_membrane(LIF(0.9))[0, 0, 0], 0.9 * (1 - first) * (1 - second), rtol=1e-5)
    np.testing.assert_allclose(second_membrane(LIF(0.9, detach_reset=True))[0, 0, 0], 0.9, rtol=1e-6)


def test_compiled_membranes_have_the_bits_of_plain_arithmetic():
    """No product is fused with an addition: one loop in float32, rounded at every operation, gives the same bits."""
    xs = drive(100, mean=0.3)
    beta, scale = np.float32(0.9), np.float32(1 - 0.9)
    u = np.zeros(xs.shape[1:], np.float32)
    membrane, _ = trace(LIF(0.9, input_scale="decay", threshold=0.3), xs)
    for x, got in zip(xs, membrane, strict=True):
        u = beta * u + scale * x
        u = u - np.float32(0.3) * (u > np.float32(0.3))
        np.testing.assert_array_equal(got, u)


# parameters and messages


def test_learnable_parameters_hold_the_constrained_value_and_say_their_support():
    cell = ALIF(tau=[5.0, 10.0], rho=0.9, learnable=("tau", "rho", "strength", "threshold"), shape=(2,))
    found = {name: (p.get_metadata("support"), p[...].tolist()) for name, p in nnx.to_flat_state(nnx.state(cell))
             for name in [name[0]]}  # fmt: skip
    assert found["tau"] == ("positive", [5.0, 10.0])
    assert found["threshold"] == ("positive", [1.0, 1.0])
    assert found["strength"] == ("real", pytest.approx([1.8, 1.8]))
    assert found["rho"] == ("unit_interval", pytest.approx([0.9, 0.9]))


def test_fixed_constants_are_static_and_fixed_arrays_are_no_parameters():
    assert not jax.tree.leaves(nnx.state(LIF(0.9, noise=escape.Logistic(0.2))))
    cell = LIF([0.8, 0.9])
    assert not jax.tree.leaves(nnx.state(cell, nnx.Param))
    assert len(jax.tree.leaves(nnx.state(cell))) == 1


def test_first_state_is_zero_where_rest_is_zero():
    for cell in (LIF(), CuBaLIF(), ALIF(reset_timing="next"), IF(refractory=2.0), RF(), BRF(), LI()):
        leaves = jax.tree.leaves(cell.init((2, 3)))
        assert all(leaf.dtype == jnp.float32 and leaf.shape == (2, 3) and not leaf.any() for leaf in leaves)
    np.testing.assert_array_equal(AdEx().init((2, 3)).membrane, np.float32(-70.6))
    np.testing.assert_array_equal(LIF(rest=-65.0, threshold=-50.0).init((2, 3)).membrane, -65)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: LIF(1.3), ["beta must be in [0, 1], got 1.3; a time constant in ms goes in tau."]),
        (lambda: LIF(0.9, tau=5.0), ["only one of beta and tau"]),
        (lambda: LIF(tau=-5.0), ["tau", "positive", "-5.0", "decay per step goes in beta"]),
        (lambda: LIF(tau=0.5, method="euler"), ["tau", "at least dt = 1.0", "exp"]),
        (lambda: LIF(reset="substract"), ["reset", "'substract'", "did you mean 'subtract'"]),
        (lambda: LIF(reset=None), ["reset", "None"]),
        (lambda: LIF(reset_timing="later"), ["reset_timing", "'later'", "'next'"]),
        (lambda: LIF(compare="=>"), ["compare", "'=>'"]),
        (lambda: LIF(method="rk4"), ["method", "'rk4'", "'euler'"]),
        (lambda: LIF(input_scale="dt_over_tau"), ["input_scale", "needs tau"]),
        (lambda: LIF(input_scale="tau"), ["input_scale", "'tau'"]),
        (lambda: LIF(threshold=-1.0), ["threshold", "positive", "-1.0"]),
        (lambda: LIF(threshold=[1.0, -1.0]), ["threshold", "positive", "[-1.0, 1.0]"]),
        (lambda: LIF(dt=0.0), ["dt", "positive", "ms"]),
        (lambda: LIF(refractory=1.5), ["refractory", "multiple of dt", "1.5"]),
        (lambda: LIF(refractory=2.0, reset_timing="next"), ["refractory", '"same"']),
        (lambda: LIF(learnable=("taus",)), ["'taus'", "did you mean 'tau'"]),
        (lambda: LIF(learnable=("tau",)), ["learnable tau needs tau"]),
        (lambda: LIF(tau=5.0, learnable=("beta",)), ["learnable beta needs beta"]),
        (lambda: LIF(1.0, learnable=("beta",)), ["beta", "(0, 1) to be learnable"]),
        (lambda: LIF(surrogate="atann"), ["'atann'", "atan"]),
        (lambda: CuBaLIF(alpha=2.0), ["alpha", "tau_syn"]),
        (lambda: ALIF(rho=0.9, tau_adp=3.0), ["only one of rho and tau_adp"]),
        (lambda: LI(-0.1), ["beta", "[0, 1]"]),
        (lambda: BRF(omega=200.0), ["dt omega", "below 1"]),
        (lambda: RF(damping=0.0), ["damping", "positive"]),
        (lambda: Izhikevich(dt=2.0), ["dt", "at most 1 ms"]),
        (lambda: AdEx(sharpness=0.0), ["sharpness", "positive"]),
        (lambda: LTC(0, key=KEY), ["neurons", "positive"]),
        (lambda: LTC(4, key=KEY).init((2, 5)), ["4 neurons", "(2, 5)"]),
    ],
)
def test_messages_give_the_rule_what_was_received_and_the_fix(build, words):
    with pytest.raises(ValueError, match=r"\S") as raised:
        build()
    for word in words:
        assert word in str(raised.value)


def test_a_signed_neuron_takes_back_what_later_currents_forbid() -> None:
    cell = SignedIF(rest=0.5)
    rng = np.random.default_rng(0)
    currents = np.round(rng.normal(0.1, 0.6, (12, 500)) * 64) / 64  # sums are exact
    outputs, _, _ = dsnn.unroll(
        cell, jnp.asarray(np.concatenate([currents, np.zeros((12, 500))]), jnp.float32)[:, None]
    )
    spikes = np.asarray(outputs)[:, 0]
    expected = np.zeros_like(spikes)
    for neuron in range(500):  # one neuron at a time, in numbers of Python
        membrane, sent = 0.5, 0
        for t in range(24):
            membrane += currents[t, neuron] if t < 12 else 0.0
            s = 1 if membrane >= 1 else -1 if membrane < 0 and sent else 0
            membrane, sent, expected[t, neuron] = membrane - s, sent + s, s
    np.testing.assert_array_equal(spikes, expected)
    total = currents.sum(0)
    rounded = np.maximum(np.floor(total + 0.5), 0)
    held = total + 0.5 >= 0  # else the membrane ends below zero with nothing left to take back
    np.testing.assert_array_equal(spikes.sum(0)[held], rounded[held])
    assert (spikes.sum(0)[~held] == 0).all()
    assert spikes.min() == -1
    plain, _, _ = dsnn.unroll(IF(rest=0.5, compare=">="), jnp.asarray(currents, jnp.float32)[:, None])
    assert (np.asarray(plain)[:, 0].sum(0) > rounded).mean() > 0.2, "an unsigned neuron has sent too many"
