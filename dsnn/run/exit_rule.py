"""How the decided network's early exits fare on the test part, and rival rules beside it."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax, softmax

from dsnn import evaluate
from dsnn.deploy.decided import Deployed, running
from dsnn.deploy.exit_calibration import Calibrated, odds

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

BLOCKS = 40
"""Most blocks of steps in which accuracy and confidence are compared."""


def stops(setup: "Setup") -> bool:
    """Returns whether the network decides when to stop."""
    return setup.bayesian.halting is not None


def scores(setup: "Setup", params: dict[str, Any], logits: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what each rule holds against its threshold, ``[time, batch]`` by rule; larger stops.

    The variational rule's is the log odds of having stopped, DT-SNN's minus the normalised entropy, SEENN-I's the
    largest probability, and that of fixed stopping the step.
    """
    bayesian = setup.bayesian
    steps = np.broadcast_to(np.arange(1.0, len(logits) + 1)[:, None], logits.shape[:2])
    log_p = log_softmax(logits, -1)
    entropy = -(np.exp(log_p) * log_p).sum(-1) / math.log(logits.shape[-1])
    found = {"dt_snn": -entropy, "seenn": softmax(logits, -1).max(-1), "fixed": steps}
    if bayesian.halting is not None:
        found = {"variational": odds(bayesian, params, logits), **found}
    return {name: np.asarray(score, float) for name, score in found.items()}


def exits(setup: "Setup", settled: Calibrated, deployed: Deployed) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and curves of what a decided network of classes answers on the test part, early or not."""
    test = setup.split.test
    labels = np.asarray(test.y)
    logits = running(setup.bayesian, deployed, test.x, setup.root)
    probs = np.moveaxis(softmax(logits, -1).astype(float), 0, 1)
    at_all = np.broadcast_to(labels[:, None], probs.shape[:2])
    blocks = evaluate.block_calibration(probs, at_all, np.ones(at_all.shape, bool), -(-len(logits) // BLOCKS))
    every = scores(setup, settled.params, logits)
    stop = np.full(len(labels), len(logits))
    if stops(setup):
        stop = evaluate.exit_steps(every["variational"], settled.threshold)
    answered = np.take_along_axis(logits, stop[None, :, None] - 1, 0)[0]
    if stops(setup) and not math.isinf(settled.threshold):
        answered = answered / np.asarray(setup.bayesian.temperature(settled.params))[stop - 1][:, None]
    early = softmax(answered, -1).astype(float)
    metrics: dict[str, Any] = {
        "deployed/accuracy": evaluate.accuracy(early, labels),
        "deployed/nll": evaluate.nll(early, labels),
        "deployed/ece": evaluate.ece(early, labels),
        "deployed/steps_mean": float(stop.mean()),
        # an ECE of a step has few predictions to a bin; the gap of all of them has no bias for that
        "deployed/confidence_gap_mean": float(np.abs(blocks.confidence - blocks.accuracy).mean()),
    }
    records: dict[str, np.ndarray] = {f"deployed_blocks/{name}": values for name, values in blocks._asdict().items()}
    if stops(setup):
        compared, curves = _compared(every, logits.argmax(-1) == labels, stop)
        metrics, records = metrics | compared, records | curves
        if not math.isinf(settled.threshold):
            metrics["halting/threshold"] = settled.threshold
    return metrics, records


def _compared(
    every: dict[str, np.ndarray], right: np.ndarray, stop: np.ndarray
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns early answers beside those of all steps and of other rules.

    Whether stopping adapts to the example shows in the spread of the steps, and beside the accuracy of stopping all
    examples at one fixed step of the same mean.

    Args:
        every: scores by rule, ``[time, batch]``.
        right: whether the answer after each step is right, ``[time, batch]``.
        stop: where each example stops, ``[batch]``.
    """
    answered = np.take_along_axis(right, stop[None] - 1, 0)[0]
    metrics: dict[str, Any] = {
        "halting/accuracy_all_steps": float(right[-1].mean()),
        "halting/steps_sd": float(stop.std()),
        "halting/extra_errors": float((right[-1] & ~answered).mean()),
        "halting/clearly_worse": float(evaluate.clearly_worse(answered, right[-1])),
    }
    records: dict[str, np.ndarray] = {}
    for name, score in every.items():
        curve = evaluate.exit_curve(score, right)
        records |= {f"exits/{name}/steps": curve.steps, f"exits/{name}/accuracy": curve.accuracy}
        if name != "variational":
            metrics[f"halting/{name}_accuracy"] = float(evaluate.accuracy_at(curve, np.array([stop.mean()]))[0])
    return metrics, records
