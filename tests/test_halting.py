"""Stopping early: rules, the head fitted on held-out examples, curves, and the certified risk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dsnn import evaluate
from dsnn.bayes import halting
from dsnn.config import Config, DataConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.deploy import exit_calibration
from dsnn.deploy.decided import deploy, running
from dsnn.deploy.refit import refit, temperatures
from dsnn.networks.stack import mlp, running_logits
from dsnn.run import exit_rule, job
from dsnn.simulate.early_exit import anytime, confidence_rule, entropy_rule, normalised_entropy
from dsnn.simulate.unroll import unroll
from dsnn.tasks import predictor

KEY = jax.random.key(0)
STEPS, CLASSES = 6, 3


def test_normalised_entropy_is_one_without_and_zero_with_certainty() -> None:
    logits = jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1e9, -1e9], [0.0, -1e9, -1e9, -1e9]])
    np.testing.assert_allclose(normalised_entropy(logits), [1.0, 0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize("smallest", [8, 1000])
def test_published_rules_stop_the_network_where_their_scores_cross(smallest: int) -> None:
    model = mlp((4,), (6,), CLASSES, key=KEY, gain=3.0)
    x = jax.random.uniform(jax.random.key(2), (64, 4))
    logits = running_logits(unroll(model, x, steps=9)[0], "mean")
    scores = {entropy_rule: -normalised_entropy(logits), confidence_rule: jax.nn.softmax(logits).max(-1)}
    for rule, score in scores.items():
        threshold = float(jnp.quantile(score, 0.6)) + 1e-3  # between two scores, so that rounding decides nothing
        stop = evaluate.exit_steps(np.asarray(score), threshold)
        decide = jax.jit(anytime(model, rule(-threshold if rule is entropy_rule else threshold), 9, smallest=smallest))
        decision = decide(x)
        assert len(set(stop.tolist())) > 2, "a rule that always stops at one step would pass by accident"
        assert decision.steps.tolist() == stop.tolist()
        np.testing.assert_allclose(decision.logits, np.asarray(logits)[stop - 1, np.arange(64)], atol=1e-5)


# --- The head fitted on held-out examples


def graded(count: int) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Running logits of examples that know nothing before the step that each needs, and are sure and right then."""
    rng = np.random.default_rng(0)
    labels, needed = rng.integers(CLASSES, size=count), rng.integers(1, STEPS + 1, size=count)
    ready = np.arange(1, STEPS + 1)[:, None] >= needed
    right, guess = np.eye(CLASSES)[labels], np.eye(CLASSES)[rng.integers(CLASSES, size=count)]
    right, guess = right * rng.uniform(6, 10, (count, 1)), guess * rng.uniform(0.01, 0.1, (count, 1))
    logits = np.where(ready[..., None], right, guess)
    return jnp.asarray(logits, jnp.float32), jnp.asarray(labels), needed


@pytest.mark.parametrize("feature", halting.FEATURES)
def test_a_refitted_head_stops_each_example_when_it_is_ready(feature: str) -> None:
    logits, labels, needed = graded(200)
    found = refit(logits, labels, 0.05, feature=feature, updates=50)
    stop = np.asarray(halting.stop_step(halting.hazard_logits(found.head, logits, feature)))
    assert (stop == needed).mean() >= 0.95


def test_a_refitted_head_stops_at_once_when_steps_are_dear_and_never_early_when_they_are_free() -> None:
    logits, labels, needed = graded(200)
    for price, wanted in ((10.0, 1), (0.0, needed)):
        head = refit(logits, labels, price, updates=50).head
        stop = halting.stop_step(halting.hazard_logits(head, logits, "learned"))
        assert (np.asarray(stop) >= wanted).all()
        assert price == 0 or (np.asarray(stop) == 1).all()


def test_a_refitted_posterior_is_the_truncated_geometric_prior_where_steps_change_nothing() -> None:
    price = 0.7
    found = refit(jnp.zeros((STEPS, 50, 2)), jnp.zeros(50, int), price, entropy=1.0, updates=2000, rate=0.03, decay=0.0)
    q = jnp.exp(halting.log_stop(halting.hazard_logits(found.head, jnp.zeros((STEPS, 1, 2)), "learned")))[:, 0]
    prior = np.exp(-price * np.arange(1, STEPS + 1))
    np.testing.assert_allclose(q, prior / prior.sum(), rtol=0.03)
    assert found.end >= found.start


def test_temperatures_are_those_that_the_labels_were_drawn_at() -> None:
    scale = jnp.array([0.5, 2.0])
    logits = jax.random.normal(jax.random.key(1), (2, 20000, 3)) * 2
    labels = jax.random.categorical(jax.random.key(2), logits[0] / scale[0])
    assert temperatures(logits[:1], labels)[0] == pytest.approx(0.5, rel=0.15)
    labels = jax.random.categorical(jax.random.key(2), logits[1] / scale[1])
    assert temperatures(logits[1:], labels)[0] == pytest.approx(2.0, rel=0.15)


# --- Curves and the bound


def test_exit_steps_and_curve_by_hand() -> None:
    score = np.array([[0.9, 0.1, 0.2], [0.9, 0.8, 0.3], [0.0, 0.0, 0.0]])
    right = np.array([[True, False, False], [False, True, False], [False, True, True]])
    assert evaluate.exit_steps(score, 0.5).tolist() == [1, 2, 3]
    assert evaluate.exit_steps(score, np.inf).tolist() == [3, 3, 3]
    curve = evaluate.exit_curve(score, right)
    assert curve.steps[0] == 3
    np.testing.assert_allclose(evaluate.accuracy_at(curve, np.array([3.0, 2.0])), [2 / 3, 1.0])
    assert evaluate.extra_errors(score, right, 0.05).tolist() == [False, True, True]
    with pytest.raises(ValueError, match="must have one shape, got"):
        evaluate.exit_curve(score, right[:2])


def drawn(wrong: float, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores that stop the surest examples first, and first decisions the more often wrong the less sure they are."""
    sure = rng.random(count)
    score = np.stack([sure, np.ones(count)])
    right = np.stack([rng.random(count) > wrong * (1 - sure), np.ones(count, bool)])
    return score, right


def test_certified_threshold_is_the_binomial_bound() -> None:
    """The largest k with P(Bin(n, risk) <= k) <= delta is allowed and no more."""
    count, risk, delta = 400, 0.05, 0.1
    allowed = int(max(k for k in range(count) if stats.binom.cdf(k, count, risk) <= delta))
    order = np.arange(count)
    score = np.stack([(count - order) / count, np.ones(count)])
    right = np.stack([order % 4 > 0, np.ones(count, bool)])
    thresholds = score[0]
    best = evaluate.certified_threshold(score, right, thresholds, risk, delta)
    assert evaluate.extra_errors(score, right, best).sum() == allowed
    assert evaluate.certified_threshold(score[:, :40], right[:, :40], thresholds, risk, delta) == np.inf


def test_the_certified_risk_holds_at_its_rate_on_resampled_calibration_sets() -> None:
    rng, risk, delta = np.random.default_rng(0), 0.03, 0.1
    thresholds = np.linspace(0, 1, 101)
    failed, found = 0, []
    for _ in range(300):
        best = evaluate.certified_threshold(*drawn(0.4, 500, rng), thresholds, risk, delta)
        # P(stop at 1 and wrong) for sure > t is the integral of 0.4 (1 - s)
        failed += min(best, 1.0) < 1 and 0.2 * (1 - best) ** 2 > risk
        found.append(best)
    assert failed <= stats.binom.ppf(0.999, 300, delta)
    assert np.isfinite(found).mean() > 0.95
    assert np.mean(found) < 0.85, "a bound that never lets an example stop would hold trivially"


def test_a_run_fits_on_one_half_and_certifies_on_the_other() -> None:
    config = Config(
        data=DataConfig("digits", val_fraction=0.4),
        model=ModelConfig(hidden=[8]),
        train=TrainConfig(steps=4),
        halting=HaltingConfig(feature="learned", fit="held_out", risk=0.05),
    )
    setup = job.build(config)
    params = setup.params(jax.jit(setup.learner.init)())
    settled = exit_calibration.calibrate(
        setup.bayesian, params, setup.split, config.halting, setup.root, price=0.01,
        predict=predictor(setup.bayesian), samples=2, key=KEY,
    )  # fmt: skip
    assert settled.metrics["halting/selected_on"] == len(setup.split.val.x)
    assert settled.metrics["halting/certified_on"] == len(setup.split.certify.x)
    changed = {name for name, value in settled.params.items() if not np.array_equal(value, params.get(name))}
    assert changed
    assert all(name.startswith("halting.") for name in changed)
    metrics, curves = exit_rule.exits(setup, settled, deploy(setup.bayesian, settled.params))
    lost = metrics["halting/accuracy_all_steps"] - metrics["deployed/accuracy"]
    assert metrics["halting/extra_errors"] >= lost - 1e-9
    rules = {name.split("/")[1] for name in curves if name.startswith("exits/")}
    assert rules == {"variational", "dt_snn", "seenn", "fixed"}
    test = setup.split.test
    logits = running(setup.bayesian, deploy(setup.bayesian, settled.params), test.x, setup.root)
    probs = np.asarray(jax.nn.softmax(logits), float)
    gaps = [p.max(-1).mean() - (p.argmax(-1) == np.asarray(test.y)).mean() for p in probs]
    assert curves["deployed_blocks/accuracy"].shape == (4,), "where steps are few each is a block"
    assert metrics["deployed/confidence_gap_mean"] == pytest.approx(np.mean(np.abs(gaps)))
