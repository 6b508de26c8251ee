"""What a trained network of numbers is worth: error, density, intervals and what they promise."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dsnn import data, evaluate, rng
from dsnn.bayes.regress import Regression
from dsnn.numbers import in_units, margins, targets_of, widened

if TYPE_CHECKING:
    from dsnn.run.job import Setup

LEVEL = 0.9
EVAL_BATCH = 256


def scores(part: str, prediction: Regression, targets: np.ndarray) -> dict[str, float]:
    """Returns the scores of a prediction, in the unit of the targets.

    The negative log-likelihood is that of an example's outputs together, everything else a mean over outputs.

    Args:
        part: prefix of the names, such as "test".
        prediction: made with these targets and the level `LEVEL`.
        targets: ``[n, output]``.
    """
    lower, upper = prediction.lower, prediction.upper
    return {
        f"{part}/rmse": float(np.sqrt(np.mean((prediction.mean - targets) ** 2))),
        f"{part}/r2": evaluate.r2(prediction.mean, targets),
        f"{part}/nll": -float(prediction.log_prob.mean()),
        f"{part}/coverage_90": evaluate.interval_coverage(lower, upper, targets),
        f"{part}/interval_score_90": evaluate.interval_score(lower, upper, targets, LEVEL),
        f"{part}/interval_width_90": float(np.mean(upper - lower)),
    }


def deployed(setup: "Setup", logits: np.ndarray) -> dict[str, float]:
    """Returns what the decided network's answers ``[n, output]`` on the test part are worth."""
    unit, targets = data.target_scaling(setup.split), targets_of(setup.split, "test")
    logits = logits[:, : targets.shape[1]]  # where the noise depends on the input, its part comes after
    answers = np.asarray(logits, float) if unit is None else np.asarray(logits, float) * unit.scale + unit.shift
    return {
        "deployed/rmse": float(np.sqrt(np.mean((answers - targets) ** 2))),
        "deployed/r2": evaluate.r2(answers, targets),
        "deployed/steps_mean": float(setup.lifted.forward.steps),
    }


def conformal(held: Regression, held_targets: np.ndarray, test: Regression, targets: np.ndarray) -> dict[str, float]:
    """Returns what the test intervals are worth after a margin, one per output, from the examples that certify.

    With too few examples for a finite margin there is nothing to report.
    """
    margin = margins(held, held_targets, LEVEL)
    if not np.isfinite(margin).all():
        return {}
    wide = widened(test, margin)
    return {
        "conformal/level": LEVEL,
        "conformal/coverage": evaluate.interval_coverage(wide.lower, wide.upper, targets),
        "conformal/width": float(np.mean(wide.upper - wide.lower)),
        "conformal/interval_score": evaluate.interval_score(wide.lower, wide.upper, targets, LEVEL),
    }


def assess(setup: "Setup", params: dict[str, Any], predict: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and the arrays for ``records.npz``."""
    config, key = setup.config, rng.stream(setup.root, "noise", setup.config.train.epochs)
    metrics: dict[str, Any] = {}
    records: dict[str, np.ndarray] = {}
    answered: dict[str, Regression] = {}
    for part in ("val", "certify", "test"):
        arrays = getattr(setup.split, part)
        if arrays is None or not len(arrays.x):
            continue
        targets = targets_of(setup.split, part)
        options = {"samples": config.bayes.samples, "y": arrays.y, "level": LEVEL, "batch_size": EVAL_BATCH}
        made = in_units(predict(params, arrays.x, key, **options), setup.split)
        answered[part] = made
        metrics |= scores(part, made, targets) if part != "certify" else {}
        records |= {f"{part}/{name}": getattr(made, name) for name in ("mean", "lower", "upper")}
        records[f"{part}/y"] = targets
        if part == "test":
            metrics["uncertainty/aleatoric"] = float(made.aleatoric.mean())
            metrics["uncertainty/epistemic"] = float(made.epistemic.mean())
    if "certify" in answered:
        metrics |= conformal(answered["certify"], records["certify/y"], answered["test"], records["test/y"])
    metrics["compute/steps_mean"] = metrics["compute/steps_total"] = float(setup.lifted.forward.steps)
    return metrics, records
