"""A class at every time step: its likelihood, probabilities along time, scores as published and of labelled steps."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from dsnn import data, evaluate
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import UNLABELLED, Stepwise
from dsnn.data.rows import Rows
from dsnn.simulate.unroll import unroll
from dsnn.tasks.batching import EVAL_BATCH, Told, averaged, drawn, in_batches, require_samples
from dsnn.tasks.classes import Classes
from dsnn.tasks.task import BALANCED, SOURCES, Ask, Assessed, Decided, Facts, Losses, scored
from dsnn.types import Array, Key

TOLERANCE = 5
BLOCK = 50
THRESHOLDS = expit(np.linspace(-1.5, 9.0, 127))
"""Probabilities from which on a step is called, about 0.2 to 0.9999."""
RISKS = (0.02, 0.05, 0.1)
"""Shares of wrong calls that thresholds are chosen for, on the examples that certify."""
SHOWN = 4
EVERY_TENTH = 10
"""Of the labelled steps, one in so many is recorded: all would be megabytes."""


class Sequence(NamedTuple):
    """What the posterior predicts step by step.

    Attributes:
        probs: predictive probabilities after each step, ``[n, time, class]``.
        aleatoric: mean entropy of the samples' predictions in nats, ``[n, time]``.
    """

    probs: Any
    aleatoric: Any


class Labelled(NamedTuple):
    """Classes of all steps, and which of them the data give; both ``[n, time]``."""

    y: np.ndarray
    known: np.ndarray


@dataclasses.dataclass(frozen=True)
class Steps:
    """A class at every step.

    Attributes:
        skip: first steps that count nowhere.
    """

    skip: int = 0

    facts = Facts(
        has="a label at every step",
        noun="classes",
        dtype=np.int32,
        best={"accuracy": True, "nll": False},
        learners=(),
        readout="last",
        twin=False,
        absent={
            "balanced": BALANCED,
            "readout": "{name} has a label at every step, each read from that step's output",
            "ood": "data.ood is scored for one class per example, {name} has a label at every step; leave it empty.",
            "sources": SOURCES,
            "arviz": "to_arviz has one target an example, {name} has a label at every step; predict gives the whole.",
        },
    )

    def likelihood(self) -> Stepwise:
        """Returns the softmax of every step's outputs."""
        return Stepwise(self.skip)

    def outputs(self, classes: int) -> int:
        """Returns one for each class."""
        return classes

    def predictor(self, bayesian: Bayesian, devices: int = 1) -> Callable[..., Sequence]:
        """Returns the compiled predictive, see `sequencer`."""
        return sequencer(bayesian)

    def predict(
        self, bayesian: Bayesian, params: dict[str, Array], x: Any, key: Key[Array, ""], samples: int
    ) -> Sequence:
        """Returns class probabilities after each step."""
        return self.predictor(bayesian)(params, x, key, samples=samples)

    def scores(self, prediction: Sequence, y: Labelled | np.ndarray) -> dict[str, float]:
        """Returns the scores of class probabilities ``[n, time, class]``.

        "accuracy" counts steps without a label as published papers do, the others do not. The first `skip` steps count
        nowhere.
        """
        given = y if isinstance(y, Labelled) else Labelled(y, np.ones(y.shape, bool))
        labels, known = given.y[:, self.skip :], given.known[:, self.skip :]
        probs = prediction.probs[:, self.skip :]
        predicted = probs.argmax(-1)
        flat, truth = probs[known], labels[known]
        return {
            "accuracy": float((predicted == labels).mean()),
            "accuracy_labelled": float((predicted == labels)[known].mean()),
            "accuracy_tolerant": evaluate.tolerant_accuracy(predicted, labels, TOLERANCE),
            "nll": evaluate.nll(flat, truth),
            "ece": evaluate.ece(flat, truth),
            "brier": evaluate.brier(flat, truth),
        }

    def check(self, split: data.Split) -> None:
        """Checks for integers from 0, below the number of classes, ``[n, time]``, and that a step is left.

        Raises:
            ValueError: all of them are skipped.
        """
        data.check_targets(split)
        steps = data.steps(split) or 1
        if self.skip >= steps:
            raise ValueError(f"train.skip must be below the {steps} steps, got {self.skip}; lower it.")

    def beside(self, y: Any) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def placed(self, prediction: Sequence, split: data.Split) -> Sequence:
        """Returns the prediction: probabilities have no unit."""
        return prediction

    def targets(self, split: data.Split, part: str) -> Labelled:
        """Returns the classes of a part, and which steps have one; all where the data do not say."""
        labels = np.asarray(getattr(split, part).y)
        known = np.asarray(split.extra.get(f"{part}/labelled", np.ones(labels.shape, bool)))[: len(labels)]
        return Labelled(labels, known)

    def counted(self, split: data.Split, part: str) -> np.ndarray:
        """Returns which steps of a part have a label and are not skipped, ``[n, time]``."""
        known = self.targets(split, part).known.copy()
        known[:, : self.skip] = False
        return known

    def told(self, ask: Ask, x: Any, split: data.Split, level: float) -> Sequence:
        """Returns the probabilities; there is no interval."""
        made: Sequence = ask(x)
        return made

    def assess(self, ask: Ask, split: data.Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns scores, calibration and uncertainty along time, and how soon a class is called at which risk."""
        metrics: dict[str, Any] = {}
        records: dict[str, np.ndarray] = {}
        chosen: dict[float, float] = {}
        for part in ("val", "certify", "test"):
            arrays = getattr(split, part)
            if arrays is None or not len(arrays.x):
                continue
            made: Sequence = ask(arrays.x)
            metrics |= scored(part, self.scores(made, self.targets(split, part))) if part != "certify" else {}
            known, labels = self.counted(split, part), np.asarray(arrays.y)
            curve = evaluate.detection_curve(made.probs, labels, known, THRESHOLDS)
            if part == "certify":
                chosen = {risk: evaluate.threshold_within(curve, risk) for risk in RISKS}
            elif part == "test":
                blocks, along = along_time(made.probs, labels, known)
                metrics |= along | _uncertain(made, known) | _called(curve, chosen)
                records |= {f"blocks/{name}": values for name, values in blocks._asdict().items()}
                records |= {f"detection/{name}": values for name, values in curve._asdict().items()}
                records |= _recorded(made.probs, labels, known)
                if split.class_names:
                    records["sequence/names"] = np.array(split.class_names)
        return metrics, records

    def deployed(self, decided: Decided, split: data.Split) -> dict[str, float]:
        """Returns spikes per neuron and step of each layer and of all, and spikes per example."""
        return firing(decided)

    def averaged(self, probs: np.ndarray, y: Labelled) -> dict[str, float]:
        """Returns the scores of an ensemble's probabilities, and their calibration along time."""
        known = y.known.copy()
        known[:, : self.skip] = False
        return scored("test", self.scores(Sequence(probs, None), y)) | along_time(probs, y.y, known)[1]

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns how many steps each class has, and how many there are."""
        return Classes().counts(y, classes)

    def losses(self, prediction: Sequence, y: np.ndarray) -> Losses:
        """Raises: an example has many labels, and nothing simpler is learned of them."""
        raise ValueError("networks are compared by one loss an example, got a label at every step; set baseline=none.")

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns nothing: there are no losses."""
        return {}

    def nats(self, y: np.ndarray) -> float:
        """Returns the entropy of the classes; a label at every step counts once."""
        return Classes().nats(y)

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns the class of one step."""
        return Classes().draw(own, outputs, key)

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs) of one step."""
        return Classes().log_prob(own, outputs, y)

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns the class probabilities of one step."""
        return Classes().expected(own, outputs)


def sequencer(bayesian: Bayesian) -> Callable[..., Sequence]:
    """Returns a compiled ``predict(params, x, key, *, samples, batch_size, progress) -> Sequence``.

    Posterior draws run one after another, examples in batches; any number of draws uses the same program.
    """

    def one(params: dict[str, Array], x: Array, key: Key[Array, ""], sample: Array) -> Sequence:
        log_p = jax.nn.log_softmax(drawn(bayesian, params, x, key, sample))
        probs = jnp.exp(log_p)
        return Sequence(jnp.swapaxes(probs, 0, 1), -(probs * log_p).sum(-1).T)

    @jax.jit
    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], samples: Array) -> Sequence:
        made: Sequence = averaged(lambda sample: one(params, x, key, sample), samples)
        return made

    def predict(
        params: dict[str, Array],
        x: np.ndarray | Rows,
        key: Key[Array, ""],
        *,
        samples: int,
        batch_size: int = EVAL_BATCH,
        progress: Told | None = None,
    ) -> Sequence:
        require_samples(samples)
        count = jnp.asarray(samples)
        made: Sequence = in_batches(lambda x: batch(params, x, key, count), x, batch_size, progress=progress)
        return made

    return predict


def along_time(
    probs: np.ndarray, labels: np.ndarray, known: np.ndarray
) -> tuple[evaluate.BlockCalibration, dict[str, float]]:
    """Returns the calibration of a test part in blocks of steps, and its metrics."""
    blocks = evaluate.block_calibration(probs, labels, known, BLOCK)
    return blocks, {"test/ece_steps_mean": float(blocks.ece.mean()), "test/ece_steps_max": float(blocks.ece.max())}


def _uncertain(made: Sequence, known: np.ndarray) -> dict[str, float]:
    return {
        "uncertainty/aleatoric": float(made.aleatoric[known].mean()),
        "uncertainty/epistemic": float((evaluate.entropy(made.probs[known]) - made.aleatoric[known]).mean()),
    }


def _recorded(probs: np.ndarray, labels: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Returns some labelled steps, and the first sequences for the pictures."""
    shown = np.where(known, labels, UNLABELLED)[:SHOWN]
    some = {"test/probs": probs[known][::EVERY_TENTH], "test/y": labels[known][::EVERY_TENTH]}
    return some | {"sequence/probs": probs[:SHOWN], "sequence/y": shown}


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


def firing(decided: Decided) -> dict[str, float]:
    """Returns spikes per neuron and step of each layer and of all, and spikes per example."""
    model, steps = decided.model, decided.steps
    layers = dict(model.layers())

    def fired(states: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        every = {}
        for name, layer in layers.items():
            if layer.reads == "spikes" and type(layer.cell).__name__ != "LI":
                every[name] = outputs[name].mean(0)
            elif getattr(states[name].cell, "spikes", None) is not None:
                every[name] = states[name].cell.spikes.mean(0)
        return every

    means = jax.jit(lambda x: unroll(model, x, None, fired, steps=steps if decided.held else None)[2])(decided.inputs)
    rates = {name: float(values.mean()) for name, values in means.items()}
    if not means:  # a network of one's own
        return {}
    sizes = {name: float(np.prod(layers[name].out_shape)) for name in rates}
    total = sum(rates[name] * sizes[name] for name in rates)
    metrics = {f"firing/{name}": rate for name, rate in rates.items()}
    return metrics | {"firing/all": total / sum(sizes.values()), "firing/spikes_per_example": total * steps}
