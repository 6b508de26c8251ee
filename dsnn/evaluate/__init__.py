"""Scores of predictions, on arrays only: accuracy, calibration, ranking, uncertainty, intervals, recalibration.

Probabilities are [batch, class] (or [sample, batch, class] where posterior samples are told apart), labels [batch].
Everything is NumPy in double precision; a score is a float, a curve a small named tuple of arrays.
"""

from dsnn.evaluate.calibration import Reliability, ece, reliability
from dsnn.evaluate.classification import accuracy, balanced_accuracy, brier, nll
from dsnn.evaluate.contest import (
    Ratio,
    cheapest,
    corners,
    expected_best,
    free_verdict,
    levels,
    paired_gain,
    paired_ratio,
    spread_over,
    verdict,
)
from dsnn.evaluate.detection import DetectionCurve, Onsets, detection_curve, onsets, threshold_within
from dsnn.evaluate.exits import (
    ExitCurve,
    accuracy_at,
    certified_count,
    certified_threshold,
    clearly_worse,
    exit_curve,
    exit_steps,
    extra_errors,
)
from dsnn.evaluate.labels import binary, exact_match, f1
from dsnn.evaluate.ranking import RiskCoverage, aurc, auroc, fpr95, risk_coverage
from dsnn.evaluate.recalibrate import conformal_sets, conformal_threshold, fit_temperature, with_temperature
from dsnn.evaluate.regression import conformal_margin, credible_interval, interval_coverage, interval_score, r2
from dsnn.evaluate.stepwise import BlockCalibration, block_calibration, tolerant_accuracy
from dsnn.evaluate.uncertainty import Uncertainty, entropy, epistemic_by_source, uncertainty

__all__ = [
    "BlockCalibration",
    "DetectionCurve",
    "ExitCurve",
    "Onsets",
    "Ratio",
    "Reliability",
    "RiskCoverage",
    "Uncertainty",
    "accuracy",
    "accuracy_at",
    "aurc",
    "auroc",
    "balanced_accuracy",
    "binary",
    "block_calibration",
    "brier",
    "certified_count",
    "certified_threshold",
    "cheapest",
    "clearly_worse",
    "conformal_margin",
    "conformal_sets",
    "conformal_threshold",
    "corners",
    "credible_interval",
    "detection_curve",
    "ece",
    "entropy",
    "epistemic_by_source",
    "exact_match",
    "exit_curve",
    "exit_steps",
    "expected_best",
    "extra_errors",
    "f1",
    "fit_temperature",
    "fpr95",
    "free_verdict",
    "interval_coverage",
    "interval_score",
    "levels",
    "nll",
    "onsets",
    "paired_gain",
    "paired_ratio",
    "r2",
    "reliability",
    "risk_coverage",
    "spread_over",
    "threshold_within",
    "tolerant_accuracy",
    "uncertainty",
    "verdict",
    "with_temperature",
]
