"""Scores against scikit-learn, closed forms and counts done by hand."""

import numpy as np
import pytest
from sklearn import metrics

from dsnn import evaluate
from dsnn.evaluate.checks import checked_labels, checked_probs
from dsnn.tasks.numbers import Regression, conformal

HAND = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.35, 0.25], [0.0, 0.0, 1.0]])
HAND_LABELS = np.array([0, 2, 0, 2])


def random_predictions(seed=0, batch=400, classes=5):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((batch, classes))
    labels = np.array([rng.choice(classes, p=softmax(row / 2)) for row in logits])
    return logits, softmax(logits), labels


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def test_classification_scores_equal_scikit_learn():
    _, probs, labels = random_predictions()
    assert evaluate.accuracy(probs, labels) == metrics.accuracy_score(labels, probs.argmax(axis=-1))
    assert evaluate.nll(probs, labels) == pytest.approx(metrics.log_loss(labels, probs), rel=1e-12)
    reference = metrics.brier_score_loss(labels, probs, labels=range(5), scale_by_half=False)
    assert evaluate.brier(probs, labels) == pytest.approx(reference, rel=1e-12)


def test_scores_of_four_predictions_by_hand():
    assert evaluate.accuracy(HAND, HAND_LABELS) == 0.75
    assert evaluate.nll(HAND, HAND_LABELS) == pytest.approx(-np.log([0.7, 0.3, 0.4, 1.0]).mean())
    # (0.09 + 0.04 + 0.01) + (0.01 + 0.36 + 0.49) + (0.36 + 0.1225 + 0.0625) + 0
    assert evaluate.brier(HAND, HAND_LABELS) == pytest.approx((0.14 + 0.86 + 0.545) / 4)


def test_scores_of_several_labels_equal_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 4))
    probs = np.clip(0.6 * labels + 0.4 * rng.random((200, 4)) + 0.2 * rng.standard_normal((200, 4)), 0, 1)
    said = (probs > 0.5).astype(int)
    assert evaluate.exact_match(probs, labels) == metrics.accuracy_score(labels, said)
    for average in ("micro", "macro"):
        assert evaluate.f1(probs, labels, average=average) == pytest.approx(
            metrics.f1_score(labels, said, average=average)
        )
    assert evaluate.accuracy(*evaluate.binary(probs, labels)) == pytest.approx((said == labels).mean())
    # 2 TP / (2 TP + FP + FN): one of two right, one false alarm; the silent label counts nothing
    probs, labels = np.array([[0.9, 0.1, 0.7], [0.2, 0.1, 0.8]]), np.array([[1, 0, 0], [1, 0, 1]])
    assert evaluate.f1(probs, labels) == pytest.approx(4 / 6)
    assert evaluate.f1(probs, labels, average="macro") == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)
    assert evaluate.exact_match(probs, labels) == 0


@pytest.mark.parametrize(
    ("probs", "labels", "words"),
    [
        ([[0.5, 1.5]], [[0, 1]], r"must be in \[0, 1\], got 0.5 to 1.5"),
        ([[0.5, 0.5]], [[0, 2]], "Labels must be 0 or 1, got 0 to 2"),
    ],
)
def test_several_labels_that_make_no_sense_get_a_sentence(probs, labels, words):
    with pytest.raises(ValueError, match=words):
        evaluate.exact_match(np.array(probs), np.array(labels))


def test_nll_stays_finite_where_a_label_had_no_probability():
    assert evaluate.nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(708.396, abs=1e-3)


def test_ece_by_hand_and_the_last_bin_is_closed():
    # Two bins of width 1/2: [0, .5) holds .4 (right); [.5, 1] holds .7 (right), .6 (wrong) and 1.0 (right).
    # Gaps: |.4 - 1| over 1 of 4; |2.3/3 - 2/3| over 3 of 4.
    assert evaluate.ece(HAND, HAND_LABELS, bins=2) == pytest.approx(0.25 * 0.6 + 0.75 * 0.1)
    diagram = evaluate.reliability(HAND, HAND_LABELS, bins=10)
    np.testing.assert_array_equal(diagram.counts, [0, 0, 0, 0, 1, 0, 1, 1, 0, 1])
    assert diagram.confidence[9] == 1.0
    assert np.isnan(diagram.accuracy[0])


def test_equal_mass_bins_by_hand():
    # Sorted confidences .4 .6 | .7 1.0, right wrong | right right: gaps |.5 - .5| and |.85 - 1|.
    diagram = evaluate.reliability(HAND, HAND_LABELS, bins=2, binning="mass")
    np.testing.assert_array_equal(diagram.counts, [2, 2])
    assert evaluate.ece(HAND, HAND_LABELS, bins=2, binning="mass") == pytest.approx(0.5 * 0.15)
    three = evaluate.reliability(HAND, HAND_LABELS, bins=3, binning="mass")
    np.testing.assert_array_equal(three.counts, [2, 1, 1])


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_ece_of_calibrated_predictions_is_within_its_sampling_bound(binning):
    rng = np.random.default_rng(1)
    top = rng.uniform(0.5, 1.0, 200_000)
    labels = (rng.uniform(size=top.size) > top).astype(int)  # class 0 with exactly the stated probability
    ece = evaluate.ece(np.stack([top, 1 - top], axis=-1), labels, bins=15, binning=binning)
    # Each bin's gap is about normal with sd sqrt(p(1-p)/n) <= .5/sqrt(n/15); four of those bound the weighted mean.
    assert ece < 4 * 0.5 / np.sqrt(top.size / 15)


def test_auroc_equals_scikit_learn_with_ties():
    rng = np.random.default_rng(2)
    inside, outside = rng.integers(0, 12, 150) * 1.0, rng.integers(3, 15, 70) * 1.0
    reference = metrics.roc_auc_score(np.r_[np.zeros(150), np.ones(70)], np.r_[inside, outside])
    assert evaluate.auroc(inside, outside) == pytest.approx(reference, rel=1e-12)


def test_fpr95_by_hand():
    # 95 % of 20 inside scores 1..20 is 19 of them: threshold 19, which lets in 18.5 and 19 but not 19.5 and 40.
    assert evaluate.fpr95(np.arange(1.0, 21.0), np.array([18.5, 19.0, 19.5, 40.0])) == 0.5
    # With scores 1..21, 95 % needs 20 of them.
    assert evaluate.fpr95(np.arange(1.0, 22.0), np.array([20.0, 20.5])) == 0.5


def test_risk_coverage_by_hand_and_ties_share_errors():
    curve = evaluate.risk_coverage(np.array([0.1, 0.4, 0.2, 0.3]), np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 1 / 2])  # most certain first: right, right, wrong, wrong
    assert evaluate.aurc(np.array([0.1, 0.4, 0.2, 0.3]), np.array([0, 1, 0, 1])) == pytest.approx((1 / 3 + 1 / 2) / 4)
    tied = [evaluate.aurc(np.zeros(4), np.array(wrong)) for wrong in ([1, 0, 0, 0], [0, 0, 0, 1])]
    assert tied == [0.25, 0.25]  # no ranking: the risk is the error rate at every coverage


def test_uncertainty_of_two_extreme_ensembles():
    torn = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # two samples that are certain of opposite classes
    split = evaluate.uncertainty(torn)
    assert [part[0] for part in split] == pytest.approx([np.log(2), 0.0, np.log(2)])
    agreed = evaluate.uncertainty(np.full((3, 1, 2), 0.5))
    assert [part[0] for part in agreed] == pytest.approx([np.log(2), np.log(2), 0.0])


def test_epistemic_parts_by_source_are_the_chain_rule():
    rng = np.random.default_rng(3)
    probs = softmax(2 * rng.standard_normal((4, 3, 5, 7, 6)))  # weights, gates, spikes, batch, class
    parts = evaluate.epistemic_by_source(probs)
    assert list(parts) == ["weights", "gates", "spikes"]
    whole = evaluate.uncertainty(probs.reshape(-1, 7, 6)).epistemic
    np.testing.assert_allclose(sum(parts.values()), whole, rtol=1e-12)


def test_epistemic_part_is_zero_for_a_source_that_changes_nothing():
    weights = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])  # [weights, batch, class]
    probs = np.broadcast_to(weights[:, None, None], (2, 3, 4, 1, 2))
    parts = evaluate.epistemic_by_source(probs)
    assert parts["weights"][0] == pytest.approx(np.log(2))
    assert parts["gates"][0] == parts["spikes"][0] == 0


def test_interval_scores_by_hand():
    lower, upper, targets = np.zeros(3), np.ones(3), np.array([0.5, -0.2, 1.0])
    assert evaluate.interval_coverage(lower, upper, targets) == pytest.approx(2 / 3)
    # Width 1 each; one miss by 0.2 at level 0.9 costs 2/0.1 * 0.2 = 4.
    assert evaluate.interval_score(lower, upper, targets, level=0.9) == pytest.approx((1 + 5 + 1) / 3)


def test_credible_interval_covers_its_nominal_share():
    rng = np.random.default_rng(4)
    lower, upper = evaluate.credible_interval(rng.standard_normal((2000, 3000)), level=0.9)
    coverage = evaluate.interval_coverage(lower, upper, rng.standard_normal(3000))
    assert abs(coverage - 0.9) < 4 * np.sqrt(0.9 * 0.1 / 3000)
    assert np.mean(upper) == pytest.approx(1.645, abs=0.01)


def test_fitted_temperature_is_the_minimum_of_the_likelihood():
    logits, _, labels = random_predictions(batch=4000)
    temperature = evaluate.fit_temperature(logits, labels)
    best = evaluate.nll(evaluate.with_temperature(logits, temperature), labels)
    for factor in (0.99, 1.01):
        assert evaluate.nll(evaluate.with_temperature(logits, temperature * factor), labels) > best
    assert temperature == pytest.approx(2.0, rel=0.1)  # labels were drawn at twice the temperature of the logits


def test_fitted_temperature_of_perfect_predictions_is_the_coldest():
    assert evaluate.fit_temperature(5 * np.eye(4), np.arange(4)) == pytest.approx(0.01)


def test_conformal_threshold_by_hand():
    # Scores 1 - p(label): .1 .2 ... .9; level 0.8 wants the ceil(10 * 0.8) = 8th smallest, .8.
    p = 1 - np.arange(1, 10) / 10
    probs, labels = np.stack([p, 1 - p], axis=-1), np.zeros(9, dtype=int)
    assert evaluate.conformal_threshold(probs, labels, level=0.8) == pytest.approx(0.2)
    assert evaluate.conformal_threshold(probs, labels, level=0.95) == 0.0  # the tenth of nine: every class
    sets = evaluate.conformal_sets(np.array([[0.2, 0.3, 0.5], [0.1, 0.15, 0.75]]), 0.2)
    np.testing.assert_array_equal(sets, [[True, True, True], [False, False, True]])


def test_conformal_sets_cover_on_fresh_data():
    _, probs, labels = random_predictions(seed=5, batch=6000)
    threshold = evaluate.conformal_threshold(probs[:3000], labels[:3000], level=0.9)
    sets = evaluate.conformal_sets(probs[3000:], threshold)
    covered = sets[np.arange(3000), labels[3000:]].mean()
    assert abs(covered - 0.9) < 4 * np.sqrt(2 * 0.9 * 0.1 / 3000)  # calibration and test both sampled
    assert sets.sum(axis=-1).mean() < 5


def test_conformal_margin_by_hand():
    """Intervals [0, 10] and targets at their ends or outside: scores -1 ... -4 inside, 1 ... 5 outside."""
    targets = np.array([1.0, 2.0, 7.0, 6.0, 11.0, 12.0, -3.0, 14.0, -5.0])
    lower, upper = np.zeros(9), np.full(9, 10.0)
    assert evaluate.conformal_margin(lower, upper, targets, level=0.8) == 4.0  # the eighth of nine
    assert evaluate.conformal_margin(lower, upper, targets, level=0.3) == -2.0  # the third: both ends move in
    assert evaluate.conformal_margin(lower, upper, targets, level=0.95) == np.inf  # the tenth of nine


def test_conformal_margin_mends_intervals_of_any_width():
    targets = np.random.default_rng(3).normal(size=8000)
    for half in (0.3, 4.0):  # far too narrow, far too wide
        ends = np.full(4000, -half), np.full(4000, half)
        margin = evaluate.conformal_margin(*ends, targets[:4000], level=0.9)
        covered = evaluate.interval_coverage(ends[0] - margin, ends[1] + margin, targets[4000:])
        assert abs(covered - 0.9) < 4 * np.sqrt(2 * 0.9 * 0.1 / 4000)
        assert half + margin == pytest.approx(1.645, abs=0.1)


def test_recalibrated_intervals_have_one_margin_for_each_output():
    """Nine examples that certify, level 0.9: the largest score, here -1 and 2; a margin never crosses the middle."""

    def answered(lower, upper):
        zeros = np.zeros_like(lower)
        return Regression(zeros, lower, upper, zeros, zeros, zeros[:, 0])

    held = answered(np.zeros((9, 2)), np.full((9, 2), 10.0))
    test = answered(np.zeros((1, 2)), np.array([[10.0, 1.0]]))
    given, targets = np.full((9, 2), (1.0, 12.0)), np.array([[0.5, 3.0]])
    found = conformal(held, given, test, targets)
    assert found["conformal/coverage"] == 0.5  # [1, 9] leaves 0.5 out, [-2, 3] holds 3
    assert found["conformal/width"] == pytest.approx((8 + 5) / 2)
    assert conformal(answered(held.lower[:8], held.upper[:8]), given[:8], test, targets) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checked_probs(np.array([[0.5, 0.6]])), "must sum to 1 over classes, got a sum of 1.1"),
        (lambda: checked_probs(np.array([[1.5, -0.5]])), "finite and not negative, got -0.5"),
        (lambda: checked_probs(np.array([[np.nan, 1.0]])), "finite and not negative, got nan"),
        (lambda: checked_probs(np.zeros((0, 3))), "non-empty"),
        (lambda: checked_labels(np.array([0, 1]), 3, 2), r"got labels \(2,\) for 3 predictions"),
        (lambda: checked_labels(np.array([0, 2]), 2, 2), r"in \[0, 1\] for 2 classes, got 2"),
        (lambda: checked_labels(np.array([0.0, 1.0]), 2, 2), "must be integers, got float64"),
        (lambda: evaluate.ece(HAND, HAND_LABELS, bins=0), "bins must be at least 1, got 0"),
        (lambda: evaluate.auroc(np.array([]), np.array([1.0])), "Inside scores must be non-empty"),
        (lambda: evaluate.interval_score(np.ones(1), np.zeros(1), np.zeros(1)), r"got \[1, 0\]; swap"),
        (lambda: evaluate.credible_interval(np.ones((3, 2)), level=1.0), r"level must be in \(0, 1\), got 1.0"),
        (lambda: evaluate.with_temperature(HAND, 0.0), "temperature must be positive, got 0.0"),
        (lambda: evaluate.epistemic_by_source(np.full((2, 1, 2), 0.5)), "one name per leading axis, got 3 names"),
    ],
)
def test_bad_input_stops_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
