import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from dsnn import surrogate
from dsnn.surrogate import Surrogate, heaviside

# smoothed steps in float64, written from the papers, whose slope the surrogate must be
PRIMITIVES = {
    "arctan": lambda u, k=2.0: np.arctan(np.pi * k * u) / (np.pi**2 * k),
    "atan": lambda u, alpha=2.0: np.arctan(np.pi / 2 * alpha * u) / np.pi + 0.5,
    "boxcar": lambda u, width=2.0, height=0.5: height * np.clip(u, -width / 2, width / 2),
    "circ": lambda u, alpha=1.0: u / np.sqrt(1 + (u / alpha) ** 2),
    "double_gaussian": lambda u: 0.5 * (1.15 * special.ndtr(u / 0.5) - 0.3 * special.ndtr(u / 3)),
    "erf": lambda u, alpha=2.0: 0.5 * special.erfc(-alpha * u),
    "exponential": lambda u, width=0.5: np.sign(u) * (1 - np.exp(-np.abs(u) / width)),
    "fast_sigmoid": lambda u, slope=25.0: u / (1 + slope * np.abs(u)),
    "gaussian": lambda u, sigma=0.5: special.ndtr(u / sigma),
    "leaky_relu": lambda u, leak=0.1, slope=1.0: np.where(u >= 0, slope * u, leak * u),
    "log_tailed_relu": lambda u: np.where(u <= 0, 0, np.where(u <= 1, u, 1 + np.log(np.maximum(u, 1)))),
    "multi_gaussian": lambda u: (
        0.5 * (1.15 * special.ndtr(u / 0.5) - 0.15 * (special.ndtr((u - 0.5) / 3) + special.ndtr((u + 0.5) / 3)))
    ),
    "nonzero_sign_log_abs": lambda u, alpha=1.0: np.sign(u) * np.log(np.abs(alpha * u) + 1),
    "piecewise_exp": lambda u, alpha=1.0: np.where(u < 0, np.exp(alpha * u) / 2, 1 - np.exp(-alpha * u) / 2),
    "piecewise_leaky_relu": lambda u: np.where(np.abs(u) < 1, u / 2 + 0.5, 0.01 * u + np.where(u < 0, 0.01, 0.99)),
    "piecewise_quadratic": lambda u, alpha=1.0: np.where(
        np.abs(alpha * u) > 1, u > 0, -0.5 * alpha**2 * np.abs(u) * u + alpha * u + 0.5
    ),
    "relu": lambda u: np.maximum(u, 0),
    "s2nn": lambda u: np.where(u < 0, special.expit(4 * u), 0.5 + np.log(np.maximum(u, 0) + 1)),
    "sigmoid": lambda u, alpha=4.0: special.expit(alpha * u),
    "soft_sign": lambda u, alpha=2.0: 0.5 * (alpha * u / (1 + np.abs(alpha * u)) + 1),
    "squarewave": lambda u: 2 / np.pi * np.sin(2 * np.pi * u / 8) + 0.5,
    "straight_through": lambda u: u,
    "superspike": lambda u, alpha=100.0: u / (1 + alpha * np.abs(u)),
    "tanh": lambda u, k=1.0: np.tanh(k * u) / k,
    "triangle": lambda u: np.where(np.abs(u) < 1, u - 0.5 * np.abs(u) * u, np.sign(u) / 2),
    "triangle_slope": lambda u: -np.abs(u),
}
# values worked out by hand for those that are the slope of nothing simple
VALUES = {
    "fake_numerical_gradient": [(0.1, 0.3), (-5.0, 0.2)],
    "periodic_exponential": [(-0.5, math.exp(-1)), (0.0, 1.0), (0.75, math.exp(-1)), (1.0, 1.0)],
    "q_pseudo_spike": [(0.0, 1.0), (-0.5, 0.25)],
    "sparse_fast_sigmoid": [(0.9, 0.0), (1.4, 1 / 36**2)],
    "spike_rate_escape": [(1.0, 25.0), (0.0, 25 / math.e)],
    "stochastic": [(0.5, 1.0)],
}
# what the other frameworks offer, under our names
FRAMEWORKS = {
    "snntorch": "atan fast_sigmoid heaviside leaky_relu sfs sigmoid spike_rate_escape sso ste triangle_slope",
    "spikingjelly": "piecewise_quadratic piecewise_exp sigmoid soft_sign atan nonzero_sign_log_abs erf "
    "piecewise_leaky_relu squarewave_fourier_series s2nn q_pseudo_spike leaky_k_relu fake_numerical_gradient "
    "log_tailed_relu deterministic_pass rect",
    "norse": "super heavi_erfc tanh circ triangle",
    "spyx": "tanh boxcar triangular arctan superspike straight_through",
    "sinabs": "heaviside gaussian multi_gaussian single_exponential periodic_exponential",
    "papers": "multi_gaussian double_gaussian",
}
GRID = np.linspace(-2.0137, 2.0271, 400)  # no kink falls on it


def test_every_surrogate_has_a_reference():
    assert set(surrogate.names()) == PRIMITIVES.keys() | VALUES.keys()


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_derivative_is_the_slope_of_its_primitive(name):
    step = 1e-5
    f = PRIMITIVES[name]
    slope = (f(GRID + step) - f(GRID - step)) / (2 * step)
    np.testing.assert_allclose(surrogate.derivative(name, jnp.float32(GRID)), slope, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("atan", {"alpha": 5.0}),
        ("boxcar", {"width": 1.0, "height": 2.0}),
        ("circ", {"alpha": 0.4}),
        ("fast_sigmoid", {"slope": 7.0}),
        ("gaussian", {"sigma": 0.2}),
        ("leaky_relu", {"leak": 0.3, "slope": 0.7}),
        ("piecewise_exp", {"alpha": 3.0}),
        ("sigmoid", {"alpha": 25.0}),
        ("tanh", {"k": 3.0}),
    ],
)
def test_parameters_reach_the_derivative(name, parameters):
    step = 1e-6
    f = PRIMITIVES[name]
    slope = (f(GRID + step, **parameters) - f(GRID - step, **parameters)) / (2 * step)
    np.testing.assert_allclose(surrogate.derivative(name, jnp.float32(GRID), **parameters), slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_derivative_at_points_worked_out_by_hand(name):
    for u, expected in VALUES[name]:
        np.testing.assert_allclose(surrogate.derivative(name, jnp.float32(u)), expected, rtol=1e-5, atol=1e-7)


def test_squarewave_sums_its_terms():
    expected = 0.5 * (np.cos(np.pi / 4 * GRID) + np.cos(3 * np.pi / 4 * GRID) + np.cos(5 * np.pi / 4 * GRID))
    np.testing.assert_allclose(
        surrogate.derivative("squarewave", jnp.float32(GRID), terms=3), expected, rtol=1e-4, atol=1e-5
    )


def test_stochastic_gradient_is_spread_over_its_range_and_a_function_of_u():
    u = -jnp.linspace(0.001, 3, 4000)
    noise = surrogate.derivative("stochastic", u, mean=0.5, variance=0.4)
    np.testing.assert_array_equal(noise, surrogate.derivative("stochastic", u, mean=0.5, variance=0.4))
    assert 0 <= noise.min() < 0.01
    assert 0.39 < noise.max() <= 0.4
    # the mean of n uniform draws on an interval of length 0.4 is within 5 standard errors
    assert abs(noise.mean() - 0.2) < 5 * 0.4 / math.sqrt(12 * u.size)


def test_boxcar_and_quadratic_are_those_of_spikingjelly():
    u = jnp.float32(GRID)
    np.testing.assert_allclose(
        surrogate.derivative("rect", u, width=0.5, height=2.0), 2.0 * (np.abs(GRID) < 0.25), atol=1e-6
    )
    np.testing.assert_allclose(
        surrogate.derivative("piecewise_quadratic", u, alpha=2.0),
        surrogate.derivative("triangle", u, width=0.5, height=2.0),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("framework", sorted(FRAMEWORKS))
def test_union_of_the_other_frameworks_is_known(framework):
    for name in FRAMEWORKS[framework].split():
        assert surrogate.get(name).name in surrogate.names()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(("compare", "at_zero"), [(">", 0), (">=", 1)])
def test_heaviside_is_exactly_zero_or_one(dtype, compare, at_zero):
    u = jnp.array([-jnp.inf, -1, -1e-7, 0, 1e-7, 1, jnp.inf], dtype)
    spikes = heaviside(u, "atan", compare)
    assert spikes.dtype == dtype
    np.testing.assert_array_equal(spikes, np.array([0, 0, 0, at_zero, 1, 1, 1], dtype))


@pytest.mark.parametrize("name", surrogate.names())
def test_gradient_of_heaviside_is_the_derivative_forwards_and_backwards(name):
    u = jnp.float32(GRID)
    expected = surrogate.derivative(name, u)
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda u: heaviside(u, name)))(u), expected)
    _, tangent = jax.jvp(lambda u: heaviside(u, name), (u,), (2 * jnp.ones_like(u),))
    np.testing.assert_allclose(tangent, 2 * expected, rtol=1e-6)


def test_surrogates_peak_within_one_unit_and_fall_off():
    for name in ("atan", "sigmoid", "gaussian", "superspike", "triangle", "soft_sign", "tanh", "circ"):
        values = [float(surrogate.derivative(name, jnp.float32(u))) for u in (0.0, 0.3, 0.6, 1.2)]
        assert all(a > b or a == b == 0 for a, b in pairwise(values)), name


def test_a_surrogate_of_ones_own_needs_no_registration():
    def mine(u, gain):
        return gain * jnp.cos(u)

    own = Surrogate(mine, (("gain", 3.0),))
    assert own.name == "mine"
    np.testing.assert_allclose(jax.grad(lambda u: heaviside(u, own))(jnp.float32(0.5)), 3 * math.cos(0.5), rtol=1e-6)
    assert hash(own) == hash(Surrogate(mine, (("gain", 3.0),)))
    np.testing.assert_allclose(surrogate.derivative(own, jnp.float32(0.0), gain=5.0), 5.0)


def test_equal_surrogates_are_equal_and_hash_alike():
    assert surrogate.get("atan") == surrogate.get("atan", alpha=2.0)
    assert hash(surrogate.get("atan")) == hash(surrogate.get("atan", alpha=2.0))
    assert surrogate.get("atan") != surrogate.get("atan", alpha=3.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: surrogate.get("atann"), ["'atann'", "atan"]),
        (lambda: surrogate.get("zzz"), ["'zzz'", "known", "sigmoid"]),
        (lambda: surrogate.get("atan", slope=2.0), ["slope", "alpha"]),
        (lambda: surrogate.get("atan", alpha=-1.0), ["alpha", "above 0", "-1.0", "2"]),
        (lambda: surrogate.get("q_pseudo_spike", alpha=1.0), ["alpha", "above 1", "1.0"]),
        (lambda: surrogate.get("stochastic", mean=float("nan")), ["mean", "finite"]),
        (lambda: heaviside(jnp.zeros(1), "atan", "<"), ["compare", "'<'"]),
    ],
)
def test_messages_say_what_was_received_and_what_to_do(call, words):
    with pytest.raises(ValueError, match=r"\S") as raised:
        call()
    for word in words:
        assert word in str(raised.value)
