"""What a trained network of several labels is worth: decisions, probabilities, and what they promise."""

from typing import TYPE_CHECKING, Any

import numpy as np

from dsnn import evaluate, rng

if TYPE_CHECKING:
    from dsnn.run.job import Setup

EVAL_BATCH = 256


def scores(part: str, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the scores of a prediction; accuracy, ECE and Brier are means over labels, NLL is summed over them.

    Args:
        part: prefix of the names, such as "test".
        probs: of each label, ``[n, label]``.
        labels: 0 or 1, ``[n, label]``.
    """
    one_by_one = evaluate.binary(probs, labels)
    return {
        f"{part}/accuracy": evaluate.accuracy(*one_by_one),
        f"{part}/nll": evaluate.nll(*one_by_one) * labels.shape[1],
        f"{part}/ece": evaluate.ece(*one_by_one),
        f"{part}/brier": evaluate.brier(*one_by_one),
        f"{part}/exact_match": evaluate.exact_match(probs, labels),
        f"{part}/f1_micro": evaluate.f1(probs, labels, average="micro"),
        f"{part}/f1_macro": evaluate.f1(probs, labels, average="macro"),
    }


def assess(setup: "Setup", params: dict[str, Any], predict: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and the arrays for ``records.npz``."""
    config, key = setup.config, rng.stream(setup.root, "noise", setup.config.train.epochs)
    metrics: dict[str, Any] = {}
    records: dict[str, np.ndarray] = {}
    for part, arrays in (("val", setup.split.val), ("test", setup.split.test)):
        if not len(arrays.x):
            continue
        labels = np.asarray(arrays.y)
        made = predict(params, arrays.x, key, samples=config.bayes.samples, batch_size=EVAL_BATCH)
        metrics |= scores(part, made.probs, labels)
        records |= {f"labels/{part}/probs": made.probs, f"labels/{part}/y": labels}
        if part == "test":
            p = np.clip(made.probs, 1e-12, 1 - 1e-12)
            total = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(-1)
            metrics["uncertainty/aleatoric"] = float(made.aleatoric.mean())
            metrics["uncertainty/epistemic"] = float((total - made.aleatoric).mean())
    metrics["compute/steps_mean"] = metrics["compute/steps_total"] = float(setup.lifted.forward.steps)
    return metrics, records
