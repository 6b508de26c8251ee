"""One class an example: softmax likelihood, probabilities with early stopping, what they are worth and promise."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dsnn import evaluate
from dsnn.bayes.likelihood import Categorical, Likelihood, Stepwise
from dsnn.data import Split
from dsnn.tasks.calibration import of_logits
from dsnn.tasks.probabilities import Prediction, Probable
from dsnn.tasks.task import LEAST_ERROR, Ask, Assessed, Decided, Facts, Losses, capped, scored
from dsnn.types import Array, Key

LEVEL = 0.9
"""Share of the labels that conformal sets hold."""


@dataclasses.dataclass(frozen=True)
class Classes(Probable):
    """A class of an example.

    Attributes:
        weights: what an example of each class counts in learning; empty is 1.
        every_step: whether the class is held against the outputs of all steps alike, and not of the last alone.
        skip: first steps that do not count then.
    """

    weights: tuple[float, ...] = ()
    every_step: bool = False
    skip: int = 0

    facts = Facts(
        has="classes",
        noun="classes",
        dtype=np.int32,
        best={"accuracy": True, "nll": False},
        halts=True,
        learners=(),
        watched=("accuracy", "nll", "ece"),
        shows=("example", "decision", "sources", "plane", "posterior"),
        linear="logistic regression",
        temper=of_logits(lambda made, y: evaluate.nll(made.full, np.asarray(y)) * np.size(y)),
    )

    def likelihood(self) -> Likelihood:
        """Returns the softmax of the last outputs, or of all steps' in the mean."""
        return Stepwise(self.skip, mean=True) if self.every_step else Categorical(self.weights)

    def scores(self, prediction: Prediction, y: np.ndarray) -> dict[str, float]:
        """Returns the scores of class probabilities ``[n, class]``."""
        probs = prediction.probs
        return {
            "accuracy": evaluate.accuracy(probs, y),
            "balanced_accuracy": evaluate.balanced_accuracy(probs, y),
            "nll": evaluate.nll(probs, y),
            "ece": evaluate.ece(probs, y),
            "brier": evaluate.brier(probs, y),
        }

    def assess(self, ask: Ask, split: Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns scores, recalibration, conformal sets, uncertainty and how unsure it is of other data."""
        labels = self.targets(split, "test")
        test: Prediction = ask(split.test.x)
        metrics: dict[str, Any] = scored("test", self.scores(test, labels))
        if len(split.val.x):
            # at all steps: where early answers stop is known from the examples that certify, which select nothing
            val, val_labels = ask(split.val.x).full, self.targets(split, "val")
            late = Prediction(val, val, None, None)
            metrics |= scored("val", self.scores(late, val_labels)) | recalibrated(val, val_labels, test.full, labels)
        if split.certify is not None and len(split.certify.x):
            # at all steps, which these examples did not choose
            held = ask(split.certify.x).full
            metrics |= conformal(held, self.targets(split, "certify"), test.full, labels)
        total = evaluate.entropy(test.probs)
        metrics |= {
            "test/aurc": evaluate.aurc(total, test.probs.argmax(-1) != labels),
            "test/accuracy_all_steps": evaluate.accuracy(test.full, labels),
            "uncertainty/aleatoric": float(test.aleatoric.mean()),
            "uncertainty/epistemic": float((total - test.aleatoric).mean()),
            "compute/steps_mean": float(test.steps.mean()),
        }
        records = {"test/probs": test.probs, "test/y": labels, "test/steps": test.steps}
        for name, x in foreign.items():
            other: Prediction = ask(x)
            unsure = evaluate.entropy(other.probs)
            metrics[f"ood/{name}/auroc"] = evaluate.auroc(total, unsure)
            metrics[f"ood/{name}/fpr95"] = evaluate.fpr95(total, unsure)
            metrics[f"ood/{name}/auroc_epistemic"] = evaluate.auroc(total - test.aleatoric, unsure - other.aleatoric)
            records[f"ood/{name}/probs"] = other.probs
        return metrics, records

    def deployed(self, decided: Decided, split: Split) -> dict[str, float]:
        """Returns nothing: where the decided network stops is what its answers are worth (`dsnn.run.exit_rule`)."""
        return {}

    def averaged(self, probs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Returns the scores of an ensemble's probabilities."""
        return scored("test", self.scores(Prediction(probs, probs, None, None), y))

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns how many examples each class has, and how many there are."""
        found = np.bincount(np.ravel(y), minlength=classes)
        return found, int(found.sum())

    def losses(self, prediction: Prediction, y: np.ndarray) -> Losses:
        """Returns the losses of all steps' probabilities."""
        return class_losses(prediction.full, y)

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns accuracy and NLL."""
        return {"accuracy": 1 - float(losses.error.mean()), "nll": float(losses.nll.mean())}

    def nats(self, y: np.ndarray) -> float:
        """Returns the entropy of the classes; steps without a label say nothing."""
        share = np.bincount(y[y >= 0].ravel()) / max((y >= 0).sum(), 1)
        share = share[share > 0]
        return float(-(share * np.log(share)).sum())

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns classes."""
        return jax.random.categorical(key, outputs)

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs), all classes counting alike."""
        return Categorical().log_prob(own, outputs, y)

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns class probabilities."""
        return jax.nn.softmax(outputs)


def balanced(y: np.ndarray, classes: int) -> tuple[float, ...]:
    """Returns weights under which all classes of labels count alike, 1 on average over the examples."""
    counts = np.bincount(y, minlength=classes)
    present = max((counts > 0).sum(), 1)
    return tuple(float(counts.sum() / (present * count)) if count else 0.0 for count in counts)


def class_losses(probs: np.ndarray, labels: np.ndarray) -> Losses:
    """Returns the losses of class probabilities ``[n, class]``."""
    chosen = np.take_along_axis(np.asarray(probs, float), np.asarray(labels)[:, None], -1)[:, 0]
    wrong = np.asarray(probs.argmax(-1) != labels, float)
    return Losses(wrong, capped(-np.log(np.maximum(chosen, 1e-300))), LEAST_ERROR)


def recalibrated(val: np.ndarray, val_labels: np.ndarray, test: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns test scores after temperature scaling, fitted on the examples that select."""
    tiny = np.finfo(np.float32).tiny
    temperature = evaluate.fit_temperature(np.log(np.maximum(val, tiny)), val_labels)
    scaled = evaluate.with_temperature(np.log(np.maximum(test, tiny)), temperature)
    return {
        "calibration/temperature": temperature,
        "calibration/nll": evaluate.nll(scaled, labels),
        "calibration/ece": evaluate.ece(scaled, labels),
    }


def conformal(
    held: np.ndarray, held_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, level: float = LEVEL
) -> dict[str, float]:
    """Returns what conformal sets are worth whose threshold comes from the examples that certify."""
    sets = evaluate.conformal_sets(test, evaluate.conformal_threshold(held, held_labels, level))
    return {
        "conformal/level": level,
        "conformal/coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "conformal/size": float(sets.sum(-1).mean()),
    }
