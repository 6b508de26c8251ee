import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.random import threefry_2x32
from scipy import special, stats

from dsnn import surrogate
from dsnn.escape import (
    ExponentialHazard,
    Gaussian,
    Logistic,
    OrnsteinUhlenbeck,
    ReleaseFailure,
    ThresholdJitter,
)
from dsnn.escape.draw import normal16, threefry, uniform16

KEY = jax.random.key(0)
# noise, and the probability of a spike in float64, written from the definition
LAWS = {
    "logistic": (Logistic(0.3), lambda u: special.expit(u / 0.3)),
    "gaussian": (Gaussian(0.3), lambda u: special.ndtr(u / 0.3)),
    "hazard": (ExponentialHazard(0.4, 0.3, 2.0), lambda u: -np.expm1(-0.4 * 2.0 * np.exp(u / 0.3))),
}
noises = pytest.mark.parametrize("name", sorted(LAWS))


@noises
def test_probability_is_its_formula(name):
    noise, law = LAWS[name]
    u = np.linspace(-2, 1.5, 71)
    np.testing.assert_allclose(noise.probability(jnp.float32(u)), law(u), rtol=3e-5, atol=1e-7)


@noises
@pytest.mark.parametrize("named", [None, "atan"])
def test_spikes_occur_with_their_probability(name, named):
    """The mean of 400 000 draws stays within 5 standard deviations and the 2^-17 of rounding."""
    noise, law = LAWS[name]
    u, draws = np.linspace(-1.5, 1.0, 11), 400_000
    spikes = noise.spike(jnp.broadcast_to(jnp.float32(u), (draws, 11)), KEY, named)
    p = law(u)
    bound = 5 * np.sqrt(p * (1 - p) / draws) + 2.0**-17
    np.testing.assert_array_less(np.abs(np.asarray(spikes, np.float64).mean(0) - p), bound)


@noises
def test_log_prob_is_the_log_of_the_probability_and_sums_to_one(name):
    noise, law = LAWS[name]
    u = np.linspace(-2.4, 0.7, 39)
    silent, spiking = (noise.log_prob(jnp.float32(u), jnp.full(39, s)) for s in (0.0, 1.0))
    np.testing.assert_allclose(np.exp(np.logaddexp(np.float64(silent), np.float64(spiking))), 1, atol=2e-6)
    np.testing.assert_allclose(spiking, np.log(law(u)), rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(silent, np.log1p(-law(u)), rtol=2e-5, atol=2e-6)


@noises
def test_likelihoods_of_all_spike_trains_of_three_neurons_sum_to_one(name):
    noise, _ = LAWS[name]
    u = jnp.array([-0.4, 0.05, 0.3])
    trains = jnp.array([[(n >> k) & 1 for k in range(3)] for n in range(8)], jnp.float32)
    np.testing.assert_allclose(jnp.exp(jax.vmap(lambda s: noise.log_prob(u, s).sum())(trains)).sum(), 1, rtol=2e-6)


@noises
@pytest.mark.parametrize("u", [-1e30, -1e6, -30.0, -3.0, 0.0, 3.0, 30.0, 1e6, 1e30])
@pytest.mark.parametrize("s", [0.0, 1.0])
def test_log_prob_and_its_gradient_are_finite_for_extreme_membranes(name, u, s):
    noise, _ = LAWS[name]
    value, slope = jax.value_and_grad(lambda u: noise.log_prob(u, jnp.float32(s)))(jnp.float32(u))
    assert math.isfinite(value)
    assert math.isfinite(slope)
    assert value <= 0
    chance, chance_slope = jax.value_and_grad(lambda u: noise.probability(u))(jnp.float32(u))
    assert 0 <= chance <= 1
    assert math.isfinite(chance_slope)


@noises
def test_gradient_of_log_prob_far_out(name):
    """Against the score in float64: width-scaled and, in the tails, what underflows if computed naively."""
    noise, _ = LAWS[name]
    z = np.array([-40.0, -14.0, -11.0, -3.0, -0.5, 0.5, 3.0])
    score = {
        "logistic": special.expit(-z),
        "gaussian": np.exp(stats.norm.logpdf(z) - special.log_ndtr(z)),
        "hazard": 0.8 * np.exp(z) / np.expm1(0.8 * np.exp(z)),
    }[name]
    got = jax.vmap(jax.grad(lambda u: noise.log_prob(u, jnp.float32(1))))(jnp.float32(0.3 * z))
    np.testing.assert_allclose(got * 0.3, score, rtol=3e-4)


@noises
def test_quantile_inverts_the_probability(name):
    noise, law = LAWS[name]
    rank = np.array([0.001, 0.1, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(law(np.float64(noise.quantile(jnp.float32(rank)))), rank, rtol=2e-4)


@pytest.mark.parametrize("kind", [Logistic, Gaussian])
@pytest.mark.parametrize(("compare", "at_zero"), [(">", 0), (">=", 1)])
def test_without_a_key_it_is_the_threshold_neuron(kind, compare, at_zero):
    u = jnp.array([-1.0, -1e-9, 0.0, 1e-9, 1.0])
    for named in (None, "atan"):
        np.testing.assert_array_equal(kind(0.2).spike(u, None, named, compare), [0, 0, at_zero, 1, 1])


def test_without_a_key_the_hazard_fires_where_a_spike_is_more_likely_than_not():
    u = jnp.linspace(-1, 1, 41)
    noise = ExponentialHazard(0.1, 0.3, 2.0)
    np.testing.assert_array_equal(noise.spike(u), noise.probability(u) > 0.5)
    half = 0.3 * math.log(math.log(2) / 0.2)
    np.testing.assert_array_equal(noise.spike(u), u > half)
    np.testing.assert_array_equal(ExponentialHazard().spike(u), u > 0)


@pytest.mark.parametrize("kind", [Logistic, Gaussian, lambda width: ExponentialHazard(width=width)])
def test_vanishing_width_is_the_threshold_neuron(kind):
    u = jax.random.normal(jax.random.key(1), (1000,))
    for named in (None, "atan"):
        np.testing.assert_array_equal(kind(1e-7).spike(u, KEY, named), u > 0)


@noises
def test_unnamed_surrogate_is_the_density_of_the_noise(name):
    noise, law = LAWS[name]
    u, step = np.linspace(-1.5, 1.0, 51), 1e-6
    density = (law(u + step) - law(u - step)) / (2 * step)
    for key in (None, KEY):
        slope = jax.grad(lambda u, key=key: noise.spike(u, key).sum())(jnp.float32(u))
        np.testing.assert_allclose(slope, density, rtol=2e-4, atol=1e-6)


@noises
def test_unnamed_surrogate_makes_the_gradient_that_of_the_expected_count(name):
    """E[s] differentiates to the density, so averaging the gradient over draws leaves it as it is: no variance."""
    noise, _ = LAWS[name]
    slopes = [jax.grad(lambda u, n=n: noise.spike(u, jax.random.key(n)))(jnp.float32(0.1)) for n in range(5)]
    assert len({float(s) for s in slopes}) == 1


@noises
def test_named_surrogate_is_taken_at_u_minus_xi(name):
    noise, _ = LAWS[name]
    u = jnp.linspace(-1, 1, 200)
    xi = noise.quantile(uniform16(KEY, u.shape))
    slope = jax.grad(lambda u: noise.spike(u, KEY, "atan").sum())(u)
    np.testing.assert_allclose(slope, surrogate.derivative("atan", u - xi), rtol=1e-5)
    np.testing.assert_array_equal(noise.spike(u, KEY, "atan"), u > xi)


@noises
def test_named_and_unnamed_surrogates_fire_the_same_spikes(name):
    """They decide in different domains, so a draw within rounding of the membrane may fall on either side."""
    noise, law = LAWS[name]
    u = jax.random.normal(jax.random.key(1), (20_000,))
    differ = noise.spike(u, KEY) != noise.spike(u, KEY, "atan")
    near = np.abs(law(np.float64(u)) - np.asarray(uniform16(KEY, u.shape), np.float64)) < 1e-6
    assert not np.any(np.asarray(differ) & ~near)


@pytest.mark.parametrize("kind", [Logistic, Gaussian])
def test_learnable_width_gets_the_gradient_of_the_probability(kind):
    noise = kind(0.3, learnable=("width",), shape=(3,))
    assert noise.width.get_metadata("support") == "positive"
    graph, params, rest = nnx.split(noise, nnx.Param, ...)
    u, step = jnp.array([-0.2, 0.1, 0.5]), 1e-3

    def count(params):
        return nnx.merge(graph, params, rest).spike(u, KEY).sum()

    slope = jax.tree.leaves(jax.grad(count)(params))[0]
    expected = (kind(0.3 + step).probability(u) - kind(0.3 - step).probability(u)) / (2 * step)
    np.testing.assert_allclose(slope, expected, rtol=2e-3)


def test_learnable_hazard_gets_the_gradient_of_its_log_prob():
    noise = ExponentialHazard(0.4, 0.3, 2.0, learnable=("rho0", "width"))
    graph, params, rest = nnx.split(noise, nnx.Param, ...)
    slopes = jax.grad(lambda p: nnx.merge(graph, p, rest).log_prob(jnp.float32(-0.2), jnp.float32(0)))(params)
    rate = 0.4 * 2.0 * math.exp(-0.2 / 0.3)
    np.testing.assert_allclose(slopes["rho0"][...], -rate / 0.4, rtol=1e-5)
    np.testing.assert_allclose(slopes["width"][...], -rate * 0.2 / 0.3**2, rtol=1e-5)


def test_random_words_are_those_of_threefry():
    seed = jax.random.key_data(jax.random.key(42))
    counters = jnp.concatenate([jnp.arange(5, dtype=jnp.uint32), jnp.zeros(5, jnp.uint32)])
    expected = threefry_2x32(seed, counters)
    np.testing.assert_array_equal(jnp.concatenate(threefry(seed, 5)), expected)


@pytest.mark.parametrize("make", [jax.random.key, lambda n: jax.random.key(n, impl="rbg")])
def test_sixteen_bit_ranks_are_uniform_midpoints(make):
    ranks = np.asarray(uniform16(make(3), (3, 70_001)), np.float64)
    assert ranks.shape == (3, 70_001)
    scaled = ranks * 2**16 - 0.5
    np.testing.assert_array_equal(scaled, np.round(scaled))
    assert scaled.min() >= 0
    assert scaled.max() <= 2**16 - 1
    # Kolmogorov-Smirnov at one in a million, with half a step of the grid
    assert stats.kstest(ranks.ravel(), "uniform").statistic < 2.7 / math.sqrt(ranks.size) + 2.0**-17
    assert abs(np.corrcoef(ranks[0, :-1], ranks[0, 1:])[0, 1]) < 5 / math.sqrt(70_000)


def test_neurons_of_one_block_are_independent():
    """Four neurons share a block of the cipher: their ranks must not be correlated over keys."""
    ranks = np.asarray(jax.vmap(lambda key: uniform16(key, (4,)))(jax.random.split(KEY, 20_000)))
    correlation = np.corrcoef(ranks.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)


def test_normal_draws_have_the_moments_of_a_normal():
    draws = np.asarray(normal16(KEY, (200_000,)), np.float64)
    assert abs(draws.mean()) < 5 / math.sqrt(draws.size)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / draws.size)
    assert abs((draws**4).mean() - 3) < 5 * math.sqrt(96 / draws.size)


def run_noise(noise, steps, batch):
    def body(state, t):
        state = noise.step(state, jax.random.fold_in(KEY, t))
        return state, state

    return np.asarray(jax.lax.scan(body, noise.init((batch,)), jnp.arange(steps))[1], np.float64)


def test_ornstein_uhlenbeck_has_its_variance_and_correlation():
    noise = run_noise(OrnsteinUhlenbeck(0.5, tau=4.0, dt=2.0), 60, 40_000)
    decay = math.exp(-0.5)
    for t in (0, 1, 5, 59):
        variance = 0.25 * (1 - decay ** (2 * (t + 1)))
        assert abs(noise[t].var() / variance - 1) < 5 * math.sqrt(2 / 40_000)
    for lag in (1, 3):
        correlation = np.corrcoef(noise[59 - lag], noise[59])[0, 1]
        assert abs(correlation - decay**lag) < 5 / math.sqrt(40_000)


def test_ornstein_uhlenbeck_is_the_same_process_at_any_step():
    """Two steps of dt have the law of one step of 2 dt: decay and variance added compose exactly."""
    one, two = OrnsteinUhlenbeck(0.5, tau=4.0, dt=2.0), OrnsteinUhlenbeck(0.5, tau=4.0, dt=1.0)
    start = jnp.ones(1)
    np.testing.assert_allclose(two.step(two.step(start)), one.step(start), rtol=1e-6)
    kicks = [float(n.step(jnp.zeros(1), KEY)[0]) / float(normal16(KEY, (1,))[0]) for n in (one, two)]
    np.testing.assert_allclose(kicks[0] ** 2, kicks[1] ** 2 * (1 + math.exp(-0.5)), rtol=1e-5)


def test_white_current_has_no_memory():
    noise = run_noise(OrnsteinUhlenbeck(0.5, tau=None), 3, 40_000)
    assert abs(noise[2].std() - 0.5) < 0.5 * 5 / math.sqrt(2 * 40_000)
    assert abs(np.corrcoef(noise[1], noise[2])[0, 1]) < 5 / math.sqrt(40_000)
    np.testing.assert_array_equal(OrnsteinUhlenbeck(0.5, tau=None).step(jnp.ones(2)), 0)


def test_threshold_jitter_holds_until_the_next_spike():
    noise = ThresholdJitter(0.2)
    shift, spikes = jnp.zeros(1000), []
    u = jnp.where(jnp.arange(1000) % 2 == 0, 1.5, -1.5)  # far from the threshold on either side
    shift, spikes = noise.step(shift, u, KEY)
    np.testing.assert_array_equal(spikes, u > 0)
    np.testing.assert_array_equal(shift[1::2], 0)
    assert np.unique(shift[::2]).size > 450
    assert abs(np.std(shift[::2]) - 0.2) < 0.2 * 5 / math.sqrt(2 * 500)
    kept, silent = noise.step(shift, shift - 1e-4, KEY)
    np.testing.assert_array_equal(silent, 0)
    np.testing.assert_array_equal(kept, shift)
    _, crossed = noise.step(shift, shift + 1e-4, KEY)
    np.testing.assert_array_equal(crossed, 1)


def test_release_failure_drops_its_share_of_spikes():
    spikes = jnp.ones(100_000)
    passed = ReleaseFailure(0.7).release(spikes, KEY)
    assert abs(float(passed.mean()) - 0.7) < 5 * math.sqrt(0.21 / 100_000) + 2.0**-17
    np.testing.assert_array_equal(ReleaseFailure(0.7).release(spikes), spikes)
    np.testing.assert_array_equal(ReleaseFailure(1.0).release(spikes, KEY), spikes)
    np.testing.assert_array_equal(ReleaseFailure(0.0).release(spikes, KEY), 0)
    np.testing.assert_array_equal(ReleaseFailure(0.7).release(0 * spikes, KEY), 0)


def test_release_failure_passes_gradients_to_what_it_releases():
    noise = ReleaseFailure(0.7, learnable=("probability",))
    spikes = jnp.ones(50)
    slope = jax.grad(lambda s: noise.release(s, KEY).sum())(spikes)
    np.testing.assert_array_equal(slope, noise.release(spikes, KEY))
    graph, params, rest = nnx.split(noise, nnx.Param, ...)
    gradient = jax.grad(lambda p: nnx.merge(graph, p, rest).release(spikes, KEY).sum())(params)
    np.testing.assert_allclose(gradient["probability"][...], 50)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Logistic(0.0), ["width", "positive", "0.0", "noise=None"]),
        (lambda: Gaussian(-1.0), ["width", "positive", "-1.0"]),
        (lambda: Gaussian(float("nan")), ["width", "finite", "nan"]),
        (lambda: Logistic(0.2, learnable=("widht",)), ["widht", "did you mean 'width'"]),
        (lambda: Logistic(0.2, learnable="width"), ["tuple", '("width",)']),
        (lambda: Logistic([0.1, 0.2], learnable=("width",), shape=(3,)), ["width", "(3,)", "(2,)"]),
        (lambda: ExponentialHazard(rho0=-2.0), ["rho0", "positive", "-2.0"]),
        (lambda: ExponentialHazard(dt=0.0), ["dt", "positive", "0.0", "ms"]),
        (lambda: ThresholdJitter(0.0), ["sigma", "positive"]),
        (lambda: OrnsteinUhlenbeck(0.1, tau=0.0), ["tau", "positive", "None is white noise"]),
        (lambda: OrnsteinUhlenbeck(0.1, tau=None, learnable=("tau",)), ["tau", "sigma"]),
        (lambda: ReleaseFailure(1.2), ["probability", "[0, 1]", "1.2"]),
        (lambda: ReleaseFailure(1.0, learnable=("probability",)), ["probability", "(0, 1)"]),
    ],
)
def test_messages_say_what_was_received_and_what_to_do(call, words):
    with pytest.raises(ValueError, match=r"\S") as raised:
        call()
    for word in words:
        assert word in str(raised.value)
