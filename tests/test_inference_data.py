"""Draws in ArviZ's form, and the prior predictive."""

import dataclasses
import math
import sys

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

import dsnn
from dsnn import rng
from dsnn.api import Fitted
from dsnn.bayes import priors
from dsnn.config import BayesConfig, Config, GatesConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.learn.sampling import NutsConfig

X = np.asarray(jax.random.normal(jax.random.key(0), (100, 2)), np.float32)
CLASSES, NUMBERS = (X[:, 0] > 0).astype(int), 5 + 3 * X[:, :1] + 0.3
QUICK = {"hidden": [4], "steps": 3, "epochs": 3, "batch_size": 16, "baseline": "none", "held_out": 0.3}


@pytest.fixture(scope="module")
def classes() -> Fitted:
    return dsnn.fit(X, CLASSES, **QUICK)


@pytest.fixture(scope="module")
def numbers() -> Fitted:
    return dsnn.fit(X, NUMBERS, **QUICK)


def arviz_of(fitted, **options):
    pytest.importorskip("xarray")
    return fitted.to_arviz(**options)


def test_groups_hold_weights_gates_and_predictions(classes) -> None:
    made = arviz_of(classes, samples=40)
    held = len(classes.setup.split.val.x)
    assert set(made.groups()) == {
        "posterior",
        "prior",
        "posterior_predictive",
        "log_likelihood",
        "observed_data",
        "constant_data",
    }
    for name, value in classes.setup.bayesian.weights.initial.items():
        assert made.posterior[name].shape == made.prior[name].shape == (1, 40, *value.shape)
    for group, probability in classes.gates.items():
        assert made.posterior[f"gates.{group}"].shape == (1, 40, len(probability))
        np.testing.assert_array_equal(made.constant_data[f"gate_probability.{group}"], probability)
        decided = np.asarray(classes.setup.bayesian.centre(classes.params).gates[group]) > 0
        np.testing.assert_array_equal(made.constant_data[f"gate_decided.{group}"], decided)
    assert made.posterior_predictive["y"].dims == ("chain", "draw", "example")
    assert made.posterior_predictive["y"].shape == made.log_likelihood["y"].shape == (1, 40, held)
    np.testing.assert_array_equal(made.observed_data["y"], classes.setup.split.val.y)
    train = arviz_of(classes, samples=2, part="train")
    np.testing.assert_array_equal(train.observed_data["y"], classes.setup.split.train.y)


def test_log_likelihood_of_classes_is_that_of_the_predictive(classes) -> None:
    made, split = arviz_of(classes, samples=25, seed=3), classes.setup.split
    key = rng.stream(rng.root(3), "noise")
    probs = classes._predict(classes.params, split.val.x, key, samples=25).full
    mixed = logsumexp(np.asarray(made.log_likelihood["y"])[0], 0) - math.log(25)
    expected = np.log(probs[np.arange(len(probs)), np.asarray(split.val.y)])
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)
    # classes are drawn as often as the draws say
    share = (np.asarray(made.posterior_predictive["y"])[0] == np.asarray(split.val.y)).mean(0)
    assert (np.abs(share - np.exp(expected)) < 5 * math.sqrt(0.25 / 25)).all()


def test_log_likelihood_of_numbers_is_that_of_the_predictive_in_their_unit(numbers) -> None:
    from dsnn.tasks.numbers import in_units, targets_of

    made, split = arviz_of(numbers, samples=25, seed=3), numbers.setup.split
    key = rng.stream(rng.root(3), "noise")
    said = in_units(numbers._predict(numbers.params, split.val.x, key, samples=25, y=split.val.y), split)
    mixed = logsumexp(np.asarray(made.log_likelihood["y"])[0], 0) - math.log(25)
    np.testing.assert_allclose(mixed, said.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.observed_data["y"], targets_of(split, "val"))
    spread = np.sqrt(said.aleatoric**2 + said.epistemic**2)
    drawn = np.asarray(made.posterior_predictive["y"])[0]
    assert (np.abs(drawn.mean(0) - said.mean) < 5 * spread / math.sqrt(25)).all()


def test_prior_draws_have_the_prior_s_deviation(classes) -> None:
    made = arviz_of(classes, samples=400)
    names = list(classes.setup.bayesian.weights.initial)
    for name in names:
        prior = classes.setup.bayesian.weights.of(name)
        drawn = np.asarray(made.prior[name]).reshape(400, -1) / np.sqrt(np.ravel(prior.variance))
        sizes = 400 * drawn.shape[1]
        assert abs(drawn.std() - 1) < 5 / math.sqrt(2 * sizes)
        assert abs(drawn.mean()) < 5 / math.sqrt(sizes)


def test_posterior_draws_are_those_of_the_guide(classes) -> None:
    made, name = arviz_of(classes, samples=400), "hidden0.synapse.kernel"
    drawn = np.asarray(made.posterior[name])[0]
    loc, scale = (np.asarray(classes.params[f"{name}.{part}"]) for part in ("loc", "scale"))
    assert (np.abs(drawn.mean(0) - loc) < 5 * scale / 20).all()
    np.testing.assert_allclose(drawn.std(0), scale, rtol=5 / math.sqrt(800))


def test_chains_of_nuts_are_chains() -> None:
    off = {"gates": GatesConfig(enabled=False), "halting": HaltingConfig(enabled=False)}
    nuts = NutsConfig(warmup=20, samples=12, chains=2, thin=3, chunk=16, tree_depth=3)
    config = Config(learner="nuts", model=ModelConfig(hidden=[3]), train=TrainConfig(steps=2), nuts=nuts, **off)
    fitted = dsnn.fit(X[:40], CLASSES[:40], config=config, baseline="none")
    made = arviz_of(fitted)
    bias = np.asarray(made.posterior["hidden0.synapse.bias"])
    assert bias.shape == (2, 4, 3)
    members = np.asarray(fitted.params["hidden0.synapse.bias.point"])
    np.testing.assert_array_equal(bias[0, 0], members[0])
    np.testing.assert_array_equal(bias[1, 0], members[1])
    np.testing.assert_array_equal(bias[0, 2], members[2])
    assert made.prior["hidden0.synapse.bias"].shape == (1, 200, 3)


def test_prior_predictive_of_a_silent_prior_is_the_readout_s_bias(classes, monkeypatch) -> None:
    """Kernels that are all but zero leave the biases of the readout: their draws decide alone."""
    made = classes.prior_predictive(X[:7], samples=300, seed=1)
    assert made.shape == (300, 7, 2)
    np.testing.assert_allclose(made.sum(-1), 1.0, rtol=1e-5)
    assert np.ptp(made[:, 0, 0]) > 0.2, "draws of the prior disagree"
    assert (made == classes.prior_predictive(X[:7], samples=300, seed=1)).all()
    bayesian = classes.setup.bayesian
    narrow = priors.by_pattern(
        {"readout*.bias": priors.normal(1.0), "*": priors.normal(1e-6)}, bayesian.simulator.template
    )
    weights = dataclasses.replace(bayesian.weights, priors=narrow)
    setup = dataclasses.replace(classes.setup, bayesian=dataclasses.replace(bayesian, weights=weights))
    silent = dataclasses.replace(classes, setup=setup).prior_predictive(X[:7], samples=2000)
    assert np.ptp(silent, 1).max() < 1e-4, "nothing of the input arrives"
    # the readout's membrane after each of three steps adds up a constant current; the logits are their mean
    total = np.cumsum([0.9**k for k in range(3)]).mean()
    logits = np.log(silent[:, 0, 0] / silent[:, 0, 1])
    np.testing.assert_allclose(logits.std(), math.sqrt(2) * total, rtol=5 / math.sqrt(4000))


def test_prior_predictive_of_numbers_is_in_their_unit(numbers) -> None:
    made = numbers.prior_predictive(X[:5], samples=200)
    assert made.shape == (200, 5, 1)
    unit = numbers.target_scaling
    assert abs(made.mean() - unit.shift) < 5 * made.mean(1).std() / math.sqrt(200)


def test_points_have_no_prior() -> None:
    twin = dsnn.fit(X, CLASSES, bayesian=False, **QUICK)
    with pytest.raises(ValueError, match="where weights have one, got points alone; fit with bayesian=True"):
        twin.prior_predictive(X[:2])


def test_an_auto_guide_goes_all_the_way() -> None:
    config = Config(
        model=ModelConfig(hidden=[4]),
        train=TrainConfig(steps=3, epochs=2, batch_size=16),
        bayes=BayesConfig(guide="AutoLowRankMultivariateNormal", options={"rank": 2}),
    )
    fitted = dsnn.fit(X, CLASSES, config=config, baseline="none")
    assert fitted.params["auto_cov_factor"].shape[1] == 2
    assert np.isfinite(dsnn.predict(fitted, X[:9]).probs).all()
    assert fitted.network() is not None
    assert fitted.gates


def test_a_missing_library_or_part_gets_a_sentence(classes, monkeypatch) -> None:
    pytest.importorskip("xarray")
    with pytest.raises(ValueError, match="one of train, val, certify, which have examples, got 'test'"):
        classes.to_arviz(part="test")
    with pytest.raises(ValueError, match="number of draws must be at least 1, got 0"):
        classes.to_arviz(samples=0)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"got an installation without it; pip install 'dsnn\[arviz\]'\."):
        classes.to_arviz()
