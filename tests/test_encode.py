"""Encoders against hand-worked codes, and against bounds on what chance may do."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn.simulate import encode


def spike_steps(spikes):
    """The step of each value's only spike, -1 where there is none; more than one fails."""
    spikes = np.asarray(spikes)
    assert set(np.unique(spikes)) <= {0.0, 1.0}
    assert (spikes.sum(0) <= 1).all()
    return np.where(spikes.any(0), spikes.argmax(0), -1)


def test_direct_repeats_the_values_at_every_step():
    x = jnp.array([[0.5, -2.0], [3.0, 0.0]])
    xs = encode.direct(x, 3)
    assert xs.shape == (3, 2, 2)
    assert np.array_equal(xs, np.stack([x] * 3))


def test_rate_spikes_with_the_given_probability():
    x = jnp.array([[0.0, 0.1, 0.5, 0.9, 1.0]])
    steps = 20_000
    spikes = np.asarray(encode.rate(x, steps, jax.random.key(0)))[:, 0]
    assert set(np.unique(spikes)) == {0.0, 1.0}
    p = np.asarray(x[0], float)
    bound = 5 * np.sqrt(p * (1 - p) / steps)  # five standard deviations; exactly 0 at p = 0 and p = 1
    assert (np.abs(spikes.mean(0) - p) <= bound + 1e-12).all()


def test_rate_is_independent_over_time_and_features():
    steps = 20_000
    spikes = np.asarray(encode.rate(jnp.full((1, 2), 0.5), steps, jax.random.key(1)))[:, 0]
    bound = 5 / math.sqrt(steps)
    assert abs(np.corrcoef(spikes[:, 0], spikes[:, 1])[0, 1]) < bound
    assert abs(np.corrcoef(spikes[:-1, 0], spikes[1:, 0])[0, 1]) < bound


def test_rate_saturates_outside_the_unit_interval():
    spikes = encode.rate(jnp.array([[-0.5, 1.5]]), 50, jax.random.key(2))
    assert np.array_equal(spikes[:, 0].sum(0), [0, 50])


def test_rate_follows_its_key():
    x = jnp.full((4, 8), 0.5)
    one = encode.rate(x, 10, jax.random.key(0))
    assert np.array_equal(one, encode.rate(x, 10, jax.random.key(0)))
    assert not np.array_equal(one, encode.rate(x, 10, jax.random.key(1)))


def test_linear_latency_places_one_spike():
    x = jnp.array([[1.0, 0.5, 0.25, 0.02, 0.01, 0.0]])
    spikes = encode.latency(x, 11)
    assert np.array_equal(spike_steps(spikes)[0], [0, 5, 8, 10, -1, -1])  # 10 (1 - x): 0, 5, 7.5 (even: 8), 9.8


def test_latency_of_one_after_first_step_five_of_ten_is_five():
    for method in ("linear", "log"):  # the value that snnTorch's own tests hold
        assert spike_steps(encode.latency(jnp.array([[1.0]]), 10, first=5, method=method))[0, 0] == 5


def test_log_latency_is_the_charging_time_of_a_membrane():
    x, threshold, tau, dt = 0.3, 0.2, 10.0, 1e-4
    membrane, crossing = 0.0, 0.0
    while membrane < threshold:  # du/dt = (x - u) / tau by small Euler steps
        membrane += dt * (x - membrane) / tau
        crossing += dt
    spikes = encode.latency(jnp.array([[x]]), 30, method="log", threshold=threshold, tau=tau)
    assert spike_steps(spikes)[0, 0] == round(crossing) == 11


def test_log_latency_fills_the_steps_by_default():
    x = jnp.array([[1.0, 0.011, 0.010001, 0.01, 0.0]])
    steps = spike_steps(encode.latency(x, 101, method="log"))[0]
    scale = 100 / math.log((0.01 + 1e-7) / 1e-7)
    assert steps[0] == round(scale * math.log(1 / 0.99)) == 0
    assert steps[1] == round(scale * math.log(0.011 / 0.001)) == 21
    assert abs(steps[2] - scale * math.log(0.010001 / 1e-6)) < 1
    assert list(steps[3:]) == [-1, -1]


def test_latency_past_the_last_step_is_no_spike():
    assert encode.latency(jnp.array([[0.1]]), 5, tau=20.0).sum() == 0


def test_delta_marks_rises():
    xs = jnp.array([1, 2, 2.91, 3, 3.9])[:, None]
    assert np.array_equal(encode.delta(xs, 0.1)[:, 0], [1, 1, 1, 0, 1])


def test_delta_marks_falls_by_sign_or_channel():
    xs = jnp.array([0.0, 0.5, 0.5, 0.2, 0.15, -0.2])[:, None]
    assert np.array_equal(encode.delta(xs, 0.1)[:, 0], [0, 1, 0, 0, 0, 0])
    assert np.array_equal(encode.delta(xs, 0.1, off="sign")[:, 0], [0, 1, 0, -1, 0, -1])
    both = encode.delta(jnp.concatenate([xs, -xs], axis=1)[:, None], 0.1, off="channel")[:, 0]
    assert both.shape == (6, 4)
    assert np.array_equal(both[:, 0], [0, 1, 0, 0, 0, 0])
    assert np.array_equal(both[:, 2], [0, 0, 0, 1, 0, 1])
    assert np.array_equal(both[:, [0, 2]], both[:, [3, 1]])  # the mirrored input swaps rises and falls


def test_population_is_gaussian_about_even_centres():
    x = jnp.array([[0.25, 1.0]])
    activity = encode.population(x, 5, 2)
    assert activity.shape == (2, 1, 2, 5)
    expected = [[math.exp(-((v - c / 4) ** 2) / (2 * 0.25**2)) for c in range(5)] for v in (0.25, 1.0)]
    assert np.allclose(activity[0, 0], expected, atol=1e-6)
    assert np.array_equal(activity[0], activity[1])
    narrow = encode.population(jnp.array([[3.0]]), 3, 1, low=1.0, high=5.0, width=0.5)
    assert np.allclose(narrow[0, 0, 0], [math.exp(-8), 1, math.exp(-8)], atol=1e-6)


def test_population_spikes_at_its_activity_with_a_key():
    x = jnp.array([[0.4]])
    steps = 20_000
    p = np.asarray(encode.population(x, 4, 1)[0, 0, 0], float)
    spikes = np.asarray(encode.population(x, 4, steps, jax.random.key(3)))[:, 0, 0]
    assert set(np.unique(spikes)) == {0.0, 1.0}
    assert (np.abs(spikes.mean(0) - p) < 5 * np.sqrt(p * (1 - p) / steps) + 1e-12).all()


@pytest.mark.parametrize(
    "code",
    [
        lambda x: encode.direct(x, 6),
        lambda x: encode.rate(x, 6, jax.random.key(0)),
        lambda x: encode.latency(x, 6),
        lambda x: encode.latency(x, 6, method="log"),
        lambda x: encode.delta(encode.direct(x, 6), 0.1),
        lambda x: encode.population(x, 3, 6),
    ],
    ids=["direct", "rate", "linear latency", "log latency", "delta", "population"],
)
def test_encoders_compile_to_the_same_time_major_codes(code):
    x = jax.random.uniform(jax.random.key(7), (2, 4, 4, 1))
    eager, compiled = code(x), jax.jit(code)(x)
    assert eager.shape[:2] == (6, 2)
    assert eager.dtype == x.dtype
    assert np.allclose(eager, compiled, atol=1e-6)
    assert np.isfinite(eager).all()


X = jnp.ones((1, 2))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: encode.direct(X, 0), "steps must be an integer of at least 1, got 0"),
        (lambda: encode.rate(X, -3, jax.random.key(0)), "steps must be .* got -3"),
        (lambda: encode.latency(X, 5, first=5), "first must be a step from 0 to 4, got 5"),
        (lambda: encode.latency(X, 5, threshold=1.0), r"threshold must be in \[0, 1\).*got 1.0"),
        (lambda: encode.latency(X, 5, threshold=0.0, method="log"), r"threshold must be in \(0, 1\).*got 0.0"),
        (lambda: encode.latency(X, 5, tau=0.0), "tau must be above 0 steps, got 0.0"),
        (lambda: encode.delta(X, 0.0), "threshold must be above 0, got 0.0"),
        (lambda: encode.delta(X, float("nan")), "threshold must be above 0, got nan"),
        (lambda: encode.population(X, 1, 5), "units must be an integer of at least 2, got 1"),
        (lambda: encode.population(X, 3, 5, low=1.0, high=1.0), "low must lie below high, got 1.0 and 1.0"),
        (lambda: encode.population(X, 3, 5, width=-1.0), "width must be above 0, got -1.0"),
    ],
)
def test_wrong_static_arguments_get_a_sentence(call, said):
    with pytest.raises(ValueError, match=said):
        call()
