"""Several labels an example, each 0 or 1: their likelihood, probabilities, and what decisions by them are worth."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dsnn import evaluate
from dsnn.bayes.likelihood import Bernoulli
from dsnn.data import Split
from dsnn.tasks.calibration import of_logits
from dsnn.tasks.probabilities import Prediction, Probable
from dsnn.tasks.task import BALANCED, LEAST_ERROR, SOURCES, Ask, Assessed, Decided, Facts, Losses, capped, scored
from dsnn.types import Array, Key


def _label_nats(made: Prediction, y: Any) -> float:
    return evaluate.nll(*evaluate.binary(made.full, np.asarray(y))) * np.size(y)


@dataclasses.dataclass(frozen=True)
class Labels(Probable):
    """Labels of an example, independent given the outputs, which are their log odds."""

    facts = Facts(
        has="several labels",
        noun="labels",
        dtype=np.int32,
        best={"accuracy": True, "nll": False},
        shows=("example",),
        linear="logistic regression of each label",
        temper=of_logits(_label_nats),
        absent={
            "balanced": BALANCED,
            "ood": "data.ood is scored for classes, {name} has several labels; leave it empty.",
            "sources": SOURCES,
            "ensemble": "members must predict classes, got several labels in {name}.",
        },
    )

    def likelihood(self) -> Bernoulli:
        """Returns independent labels given the last outputs."""
        return Bernoulli()

    def scores(self, prediction: Prediction, y: np.ndarray) -> dict[str, float]:
        """Returns scores; accuracy, ECE and Brier are means over labels, NLL is summed over them."""
        one_by_one = evaluate.binary(prediction.probs, y)
        return {
            "accuracy": evaluate.accuracy(*one_by_one),
            "nll": evaluate.nll(*one_by_one) * y.shape[1],
            "ece": evaluate.ece(*one_by_one),
            "brier": evaluate.brier(*one_by_one),
            "exact_match": evaluate.exact_match(prediction.probs, y),
            "f1_micro": evaluate.f1(prediction.probs, y, average="micro"),
            "f1_macro": evaluate.f1(prediction.probs, y, average="macro"),
        }

    def assess(self, ask: Ask, split: Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns scores of the selecting and the test part, and the uncertainty of the latter."""
        metrics: dict[str, Any] = {}
        records: dict[str, np.ndarray] = {}
        for part in ("val", "test"):
            if not len(getattr(split, part).x):
                continue
            labels, made = self.targets(split, part), ask(getattr(split, part).x)
            metrics |= scored(part, self.scores(made, labels))
            records |= {f"labels/{part}/probs": made.probs, f"labels/{part}/y": labels}
            if part == "test":
                p = np.clip(made.probs, 1e-12, 1 - 1e-12)
                total = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(-1)
                metrics["uncertainty/aleatoric"] = float(made.aleatoric.mean())
                metrics["uncertainty/epistemic"] = float((total - made.aleatoric).mean())
        return metrics, records

    def deployed(self, decided: Decided, split: Split) -> dict[str, float]:
        """Returns the share of labels that the decided network has right."""
        logits = decided.logits()
        right = (logits[-1] > 0) == self.targets(split, "test")
        return {"deployed/accuracy": float(right.mean()), "deployed/steps_mean": float(len(logits))}

    def averaged(self, probs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Returns the scores of averaged probabilities."""
        return scored("test", self.scores(Prediction(probs, probs, None, None), y))

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns how many examples have each label, and how many there are."""
        return y.sum(0), len(y)

    def losses(self, prediction: Prediction, y: np.ndarray) -> Losses:
        """Returns the losses of all steps' probabilities."""
        return label_losses(prediction.full, y)

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns accuracy and NLL."""
        return {"accuracy": 1 - float(losses.error.mean()), "nll": float(losses.nll.mean())}

    def nats(self, y: np.ndarray) -> float:
        """Returns the entropy of each label, added up."""
        share = np.clip(y.mean(0), 1e-12, 1 - 1e-12)
        return float(-(share * np.log(share) + (1 - share) * np.log1p(-share)).sum())

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns labels."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(outputs)).astype(np.int32)

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs), summed over labels."""
        return Bernoulli().log_prob(own, outputs, y)

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns the probability of each label."""
        return jax.nn.sigmoid(outputs)


def label_losses(probs: np.ndarray, labels: np.ndarray) -> Losses:
    """Returns the losses of probabilities of several labels ``[n, label]``."""
    p = np.clip(np.asarray(probs, float), 1e-12, 1 - 1e-12)
    nll = -(labels * np.log(p) + (1 - labels) * np.log1p(-p)).sum(-1)
    return Losses(np.asarray((p > 0.5) != labels, float).mean(-1), capped(nll), LEAST_ERROR)
