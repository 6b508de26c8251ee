"""What a network that answers at every time step is worth: scores as published and on labelled steps, over time."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from scipy.special import expit

from dsnn import data, evaluate, rng
from dsnn.bayes.likelihood import UNLABELLED
from dsnn.bayes.sequence import Sequence
from dsnn.deploy import Deployed
from dsnn.unroll import unroll

if TYPE_CHECKING:
    from dsnn.assemble import Setup

EVAL_BATCH = 256
TOLERANCE = 5
BLOCK = 50
THRESHOLDS = expit(np.linspace(-1.5, 9.0, 127))
"""Probabilities from which on a step is called, about 0.2 to 0.9999."""
RISKS = (0.02, 0.05, 0.1)
"""Shares of wrong calls that thresholds are chosen for, on the examples that certify."""
SHOWN = 4


def labelled(split: data.Split, part: str) -> np.ndarray:
    """Returns which steps of a part have a label, ``[n, time]``; all where the data do not say."""
    labels = np.asarray(getattr(split, part).y)
    return np.asarray(split.extra.get(f"{part}/labelled", np.ones(labels.shape, bool)))[: len(labels)]


def counted(setup: "Setup", part: str) -> np.ndarray:
    """Returns which steps of a part have a label and are not skipped, ``[n, time]``."""
    known = labelled(setup.split, part).copy()
    known[:, : setup.config.train.skip] = False
    return known


def scores(setup: "Setup", part: str, prediction: Sequence) -> dict[str, float]:
    """Returns the scores of a prediction of a part; see `scored`."""
    return scored(setup, part, prediction.probs)


def scored(setup: "Setup", part: str, probs: np.ndarray) -> dict[str, float]:
    """Returns the scores of class probabilities ``[n, time, class]`` of a part.

    "accuracy" counts steps without a label as published papers do, the others do not. The first ``train.skip`` steps
    count nowhere.
    """
    skip = setup.config.train.skip
    labels, known = np.asarray(getattr(setup.split, part).y)[:, skip:], labelled(setup.split, part)[:, skip:]
    probs = probs[:, skip:]
    predicted = probs.argmax(-1)
    flat, truth = probs[known], labels[known]
    return {
        f"{part}/accuracy": float((predicted == labels).mean()),
        f"{part}/accuracy_labelled": float((predicted == labels)[known].mean()),
        f"{part}/accuracy_tolerant": evaluate.tolerant_accuracy(predicted, labels, TOLERANCE),
        f"{part}/nll": evaluate.nll(flat, truth),
        f"{part}/ece": evaluate.ece(flat, truth),
        f"{part}/brier": evaluate.brier(flat, truth),
    }


def validation(setup: "Setup", part: str, params: dict[str, Any], predict: Any, key: Any, samples: int) -> dict:
    """Returns the scores of a part during training."""
    x = getattr(setup.split, part).x
    return scores(setup, part, predict(params, x, key, samples=samples, batch_size=EVAL_BATCH))


def assess(setup: "Setup", params: dict[str, Any], predict: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and the arrays for ``records.npz``."""
    config, key = setup.config, rng.stream(setup.root, "noise", setup.config.train.epochs)
    metrics: dict[str, Any] = {}
    records: dict[str, np.ndarray] = {}
    chosen: dict[float, float] = {}
    for part in ("val", "certify", "test"):
        arrays = getattr(setup.split, part)
        if arrays is None or not len(arrays.x):
            continue
        made = predict(params, arrays.x, key, samples=config.bayes.samples, batch_size=EVAL_BATCH)
        metrics |= scores(setup, part, made) if part != "certify" else {}
        known, labels = counted(setup, part), np.asarray(arrays.y)
        curve = evaluate.detection_curve(made.probs, labels, known, THRESHOLDS)
        if part == "certify":
            chosen = {risk: evaluate.threshold_within(curve, risk) for risk in RISKS}
        elif part == "test":
            blocks, along = along_time(made.probs, labels, known)
            metrics |= along | {
                "uncertainty/aleatoric": float(made.aleatoric[known].mean()),
                "uncertainty/epistemic": float((evaluate.entropy(made.probs[known]) - made.aleatoric[known]).mean()),
            }
            metrics |= _called(curve, chosen)
            records |= {f"blocks/{name}": values for name, values in blocks._asdict().items()}
            records |= {f"detection/{name}": values for name, values in curve._asdict().items()}
            # all steps would be megabytes; the first sequences serve the pictures
            records |= {"test/probs": made.probs[known][::10], "test/y": labels[known][::10]}
            shown = np.where(known, labels, UNLABELLED)[:SHOWN]
            records |= {"sequence/probs": made.probs[:SHOWN], "sequence/y": shown}
            if setup.split.class_names:
                records["sequence/names"] = np.array(setup.split.class_names)
    metrics["compute/steps_mean"] = metrics["compute/steps_total"] = float(setup.lifted.forward.steps)
    return metrics, records


def along_time(
    probs: np.ndarray, labels: np.ndarray, known: np.ndarray
) -> tuple[evaluate.BlockCalibration, dict[str, float]]:
    """Returns the calibration of a test part in blocks of steps, and its metrics."""
    blocks = evaluate.block_calibration(probs, labels, known, BLOCK)
    return blocks, {"test/ece_steps_mean": float(blocks.ece.mean()), "test/ece_steps_max": float(blocks.ece.max())}


def _called(curve: evaluate.DetectionCurve, chosen: dict[float, float]) -> dict[str, float]:
    """Returns what the thresholds that were chosen for each risk give on the test part.

    They come from examples that chose nothing else, the epoch least of all. A delay that is endless, since half of the
    onsets or more are missed, and a risk that no threshold kept have no entry.
    """
    metrics: dict[str, float] = {}
    for risk, threshold in chosen.items():
        if not np.isfinite(threshold):
            continue
        at = int(np.flatnonzero(curve.threshold == threshold)[0])
        found = {name: float(values[at]) for name, values in curve._asdict().items()}
        metrics |= {f"test/detection/{risk:g}/{name}": value for name, value in found.items() if np.isfinite(value)}
    return metrics


def firing(setup: "Setup", deployed: Deployed, inputs: Any) -> dict[str, float]:
    """Returns spikes per neuron and step of each layer and of all, and spikes per example."""
    model = setup.lifted.forward.template.build(deployed.full)
    layers = dict(model.layers())

    def fired(states: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        every = {}
        for name, layer in layers.items():
            if layer.reads == "spikes" and type(layer.cell).__name__ != "LI":
                every[name] = outputs[name].mean(0)
            elif getattr(states[name].cell, "spikes", None) is not None:
                every[name] = states[name].cell.spikes.mean(0)
        return every

    held = setup.lifted.forward.held
    steps = setup.lifted.forward.steps
    means = jax.jit(lambda x: unroll(model, x, None, fired, steps=steps if held else None)[2])(inputs)
    rates = {name: float(values.mean()) for name, values in means.items()}
    if not means:  # a network of one's own
        return {}
    sizes = {name: float(np.prod(layers[name].out_shape)) for name in rates}
    total = sum(rates[name] * sizes[name] for name in rates)
    metrics = {f"firing/{name}": rate for name, rate in rates.items()}
    return metrics | {"firing/all": total / sum(sizes.values()), "firing/spikes_per_example": total * steps}
