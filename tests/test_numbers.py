"""Numbers in their own unit: scaling there and back, noise that depends on the input, intervals that hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import data
from dsnn.assembly.assemble import build
from dsnn.bayes.likelihood import SCALE, Categorical, InputGaussian
from dsnn.config import Config, ModelConfig, TrainConfig
from dsnn.tasks import Numbers, calibrated
from dsnn.tasks.numbers import Regression, in_units, margins, mixture_quantile, targets_of, widened

OWN = {SCALE: jnp.asarray(2.0)}


def split_of(y: np.ndarray) -> data.Split:
    part = data.Arrays(np.arange(len(y), dtype=np.float32)[:, None], y.astype(np.float32))
    return data.Split(part, part, part, y.shape[1], "toy", task="regression")


def test_targets_are_standardised_and_come_back() -> None:
    y = np.array([[100.0, 0.0], [300.0, 0.0], [200.0, 3.0]])
    split = data.standardised(split_of(y))
    np.testing.assert_allclose(split.train.y.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(split.train.y.std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(targets_of(split, "test"), y, rtol=1e-6, atol=1e-5)
    assert data.standardised(split) is split  # once will do
    scale = y.std(0)
    made = Regression(*[np.zeros((3, 2))] * 3, *[np.ones((3, 2))] * 2, np.zeros(3))
    back = in_units(made, split)
    np.testing.assert_allclose(back.mean, np.tile(y.mean(0), (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(back.aleatoric, np.tile(scale, (3, 1)), rtol=1e-6)
    np.testing.assert_allclose(back.log_prob, -np.log(scale).sum(), rtol=1e-6)


def test_intervals_give_way_by_what_examples_that_certify_ask() -> None:
    """Nine of them: at level 0.9 the largest distance counts, and a margin below zero stops at the middle."""
    held = Regression(*[np.zeros((9, 1))] * 2, np.full((9, 1), 10.0), *[np.zeros((9, 1))] * 2, np.zeros(9))
    assert margins(held, np.full((9, 1), 12.0), 0.9).tolist() == [2.0]
    assert np.isinf(margins(held, np.full((9, 1), 12.0), 0.95)).all()
    wide = widened(held, np.array([-7.0]))
    np.testing.assert_array_equal(wide.lower, wide.upper)
    np.testing.assert_array_equal(wide.lower, 5.0)


def test_noise_of_the_input_is_a_normal_of_two_outputs() -> None:
    """At r = 0 the deviation is s (1 + 0.001); elsewhere s (softplus(r + log(e - 1)) + 0.001)."""
    found = InputGaussian()
    outputs = jnp.array([[0.5, 0.0], [1.0, 2.0]])
    mean, deviation = found.moments(OWN, outputs)
    raw = np.log1p(np.exp(np.array([0.0, 2.0]) + np.log(np.e - 1)))
    np.testing.assert_allclose(mean[:, 0], [0.5, 1.0])
    np.testing.assert_allclose(deviation[:, 0], 2 * (raw + 0.001), rtol=1e-6)
    y = jnp.array([[1.5], [-1.0]])
    by_hand = -0.5 * ((np.array([1.0, -2.0]) / (2 * (raw + 0.001))) ** 2) - np.log(2 * (raw + 0.001))
    np.testing.assert_allclose(found.log_prob(OWN, outputs, y), by_hand - 0.5 * np.log(2 * np.pi), rtol=1e-5)
    assert found.outputs(3) == 6


def test_curvature_of_noisy_numbers_is_the_expected_hessian() -> None:
    found, outputs = InputGaussian(), jnp.array([[0.3, -0.7]])
    mean, deviation = found.moments(OWN, outputs)
    noise = jax.random.normal(jax.random.key(0), (100_000, 1))
    targets = mean + deviation * noise

    def nll(o):
        return -found.log_prob(OWN, jnp.broadcast_to(o, (len(targets), 2)), targets).mean()

    np.testing.assert_allclose(jax.hessian(nll)(outputs[0]), found.curvature(OWN, outputs)[0], atol=0.02)


def test_quantiles_of_a_mixture_whose_parts_have_their_own_noise() -> None:
    centres, deviation = jnp.array([[0.0], [10.0]]), jnp.array([[1.0], [2.0]])
    # half of the mass lies about each: the 0.25 quantile is the first's median, the 0.75 the second's
    np.testing.assert_allclose(mixture_quantile(centres, deviation, 0.25), [0.0], atol=1e-3)
    np.testing.assert_allclose(mixture_quantile(centres, deviation, 0.75), [10.0], atol=1e-3)


def test_classes_may_count_alike() -> None:
    outputs, y = jnp.zeros((3, 2)), jnp.array([0, 1, 1])
    np.testing.assert_allclose(Categorical((2.0, 0.5)).log_prob({}, outputs, y), -np.log(2) * np.array([2, 0.5, 0.5]))


def test_a_noise_that_is_too_large_is_found_on_the_part_that_selects() -> None:
    """With S draws that agree, the likeliest deviation is the root mean square of the errors."""

    rng = np.random.default_rng(0)
    y = rng.normal(size=(900, 1))
    split = data.standardised(split_of(y))
    config = Config(model=ModelConfig(hidden=[2]), train=TrainConfig(batch_size=8, epochs=1))
    bayesian = build(config, split).bayesian

    def predict(params, x, key, *, samples, y):
        deviation = float(params[SCALE])
        log_prob = -0.5 * (np.asarray(y)[:, 0] / deviation) ** 2 - np.log(deviation)
        zeros = np.zeros_like(y)
        return Regression(zeros, zeros, zeros, zeros, zeros, log_prob)

    params, factor = calibrated(Numbers(), bayesian, {SCALE: jnp.asarray(4.0)}, split, predict, jax.random.key(0), -1.0)
    assert factor == pytest.approx(0.25, rel=0.03)
    assert float(params[SCALE]) == pytest.approx(1.0, rel=0.03)
    assert calibrated(Numbers(), bayesian, params, split, predict, jax.random.key(0), 1.0)[0] is params


@pytest.mark.slow
def test_a_notebook_fits_numbers_in_any_unit() -> None:
    """x and y in other units are the same problem: the answers follow."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2)).astype(np.float32)
    y = (2 * x[:, 0] - x[:, 1] + 0.1 * rng.normal(size=120)).astype(np.float32)
    options = {"hidden": [16], "epochs": 20, "steps": 4, "batch_size": 16, "baseline": "none"}
    plain = dsnn.fit(x, y, **options)
    moved = dsnn.fit(1000 * x + 5, 64 * y + 1024, **options)
    made, other = dsnn.predict(plain, x, samples=4), dsnn.predict(moved, 1000 * x + 5, samples=4)
    assert made.mean.shape == (120, 1)
    np.testing.assert_allclose(other.mean, 64 * made.mean + 1024, rtol=0.02, atol=4)
    assert np.corrcoef(made.mean[:, 0], y)[0, 1] > 0.9
