"""What a trained network of numbers is worth: error, density, intervals and what they promise."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dsnn import evaluate, rng
from dsnn.bayes.regress import Regression

if TYPE_CHECKING:
    from experiments.job import Setup

LEVEL = 0.9
EVAL_BATCH = 256


def scores(part: str, prediction: Regression, targets: np.ndarray) -> dict[str, float]:
    """Returns the scores of a prediction, in the standardised unit of the targets.

    Args:
        part: prefix of the names, such as "test".
        prediction: made with these targets and the level `LEVEL`.
        targets: ``[n, output]``.
    """
    lower, upper = prediction.lower, prediction.upper
    return {
        f"{part}/rmse": float(np.sqrt(np.mean((prediction.mean - targets) ** 2))),
        f"{part}/nll": -float(prediction.log_prob.sum(-1).mean()),
        f"{part}/coverage_90": evaluate.interval_coverage(lower, upper, targets),
        f"{part}/interval_score_90": evaluate.interval_score(lower, upper, targets, LEVEL),
        f"{part}/interval_width_90": float(np.mean(upper - lower)),
    }


def assess(setup: "Setup", params: dict[str, Any], predict: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and the arrays for ``records.npz``."""
    config, key = setup.config, rng.stream(setup.root, "noise", setup.config.train.epochs)
    metrics: dict[str, Any] = {}
    records: dict[str, np.ndarray] = {}
    for part, arrays in (("val", setup.split.val), ("test", setup.split.test)):
        if not len(arrays.x):
            continue
        targets = np.asarray(arrays.y)
        options = {"samples": config.bayes.samples, "y": targets, "level": LEVEL, "batch_size": EVAL_BATCH}
        made = predict(params, arrays.x, key, **options)
        metrics |= scores(part, made, targets)
        records |= {f"{part}/{name}": getattr(made, name) for name in ("mean", "lower", "upper")}
        records[f"{part}/y"] = targets
        if part == "test":
            metrics["uncertainty/aleatoric"] = float(made.aleatoric.mean())
            metrics["uncertainty/epistemic"] = float(made.epistemic.mean())
    metrics["compute/steps_mean"] = metrics["compute/steps_total"] = float(setup.lifted.forward.steps)
    return metrics, records
