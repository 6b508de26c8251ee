"""How soon a class is called once it has begun, counted by hand and by a second, slow implementation."""

import numpy as np
import pytest

from dsnn import evaluate


def probabilities(sure: np.ndarray, predicted: np.ndarray, classes: int = 3) -> np.ndarray:
    """Returns probabilities whose largest is ``sure``, at the class ``predicted``."""
    probs = np.repeat(((1 - sure) / (classes - 1))[..., None], classes, -1)
    np.put_along_axis(probs, predicted[..., None], sure[..., None], -1)
    return probs


LABELS = np.array([[0, 0, 1, 1, 1, 2, 2, 0]])
PREDICTED = np.array([[0, 0, 0, 1, 1, 1, 1, 0]])
SURE = np.array([[0.9, 0.9, 0.6, 0.6, 0.8, 0.7, 0.5, 0.95]])
ALL = np.ones_like(LABELS, bool)


def rows(found: evaluate.Onsets) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in zip(*found, strict=True)]


def test_an_onset_is_where_a_class_begins_after_another_that_counts() -> None:
    assert rows(evaluate.onsets(LABELS, ALL)) == [(0, 2, 5, 1), (0, 5, 7, 2), (0, 7, 8, 0)]
    known = ALL.copy()
    known[0, 4] = False  # the class after it began unseen, and the one before it ends there
    assert rows(evaluate.onsets(LABELS, known)) == [(0, 2, 4, 1), (0, 7, 8, 0)]
    assert not rows(evaluate.onsets(LABELS * 0, ALL)), "what a sequence begins with has no onset"


def test_risk_coverage_and_delay_are_counted_by_hand() -> None:
    curve = evaluate.detection_curve(probabilities(SURE, PREDICTED), LABELS, ALL, np.array([0.4, 0.75, 0.99]))
    np.testing.assert_array_equal(curve.threshold, [0.99, 0.75, 0.4])
    np.testing.assert_allclose(curve.coverage, [0, 4 / 8, 1])
    np.testing.assert_allclose(curve.risk, [np.nan, 0, 3 / 8])
    # class 1 is called after 2 steps, or 1 at the lowest threshold; class 2 never; class 0 at once
    np.testing.assert_allclose(curve.miss_rate, [1, 1 / 3, 1 / 3])
    np.testing.assert_allclose(curve.median_delay, [np.inf, 2, 1])


def test_a_curve_is_what_a_loop_over_steps_counts() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 4, (6, 12)), 5, axis=1)
    probs, known = rng.dirichlet(np.ones(4), labels.shape), rng.random(labels.shape) > 0.05
    curve = evaluate.detection_curve(probs, labels, known, np.linspace(0.2, 0.95, 9))
    for at, threshold in enumerate(curve.threshold):
        called = wrong = 0
        delays: list[float] = []
        for row in range(len(labels)):
            waiting = -1  # the step at which the class that is waited for began
            for t in range(labels.shape[1]):
                here, sure = probs[row, t].argmax(), probs[row, t].max() >= threshold
                if waiting >= 0 and (not known[row, t] or labels[row, t] != labels[row, t - 1]):
                    delays.append(np.inf)
                    waiting = -1
                if not known[row, t]:
                    continue
                if t > 0 and known[row, t - 1] and labels[row, t] != labels[row, t - 1]:
                    waiting = t
                called += sure
                wrong += sure and here != labels[row, t]
                if waiting >= 0 and sure and here == labels[row, t]:
                    delays.append(t - waiting)
                    waiting = -1
            if waiting >= 0:
                delays.append(np.inf)
        np.testing.assert_allclose(curve.coverage[at], called / known.sum())
        np.testing.assert_allclose(curve.risk[at], wrong / called if called else np.nan)
        np.testing.assert_allclose(curve.miss_rate[at], np.mean(np.isinf(delays)))
        np.testing.assert_allclose(curve.median_delay[at], np.median(delays))


def test_the_threshold_of_a_risk_is_the_lowest_that_keeps_it() -> None:
    risk, coverage = np.array([np.nan, 0.06, 0.04, 0.2]), np.array([0, 0.1, 0.5, 0.9])
    curve = evaluate.DetectionCurve(np.array([0.99, 0.9, 0.8, 0.7]), risk, coverage, *np.zeros((2, 4)))
    assert evaluate.threshold_within(curve, 0.05) == 0.8
    assert evaluate.threshold_within(curve, 0.01) == np.inf, "a threshold at which nothing is called keeps no risk"
    with pytest.raises(ValueError, match="risk"):
        evaluate.threshold_within(curve, 1.5)
    with pytest.raises(ValueError, match="needs steps that count, got none"):
        evaluate.detection_curve(probabilities(SURE, PREDICTED), LABELS, ~ALL, np.array([0.5]))
