"""What a task is: everything that a run asks of classes, labels, numbers or a class at every step, in one contract.

A task of one's own needs three of these functions (`dsnn.protocols.Task`); `dsnn.tasks.Own` answers the others for it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import Likelihood
from dsnn.data import Split
from dsnn.parameters import Params
from dsnn.types import Array, Key

Assessed = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Metrics, and arrays for ``records.npz``."""

Ask = Callable[..., Any]
"""``ask(x, **options) -> prediction``: a trained network's compiled predictive with its parameters, key and draws."""

UNIT_NORMAL = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy in nats of a standardised number."""

LEAST_ERROR = 0.005
"""Half a point of errors: a smaller difference does not matter."""

MOST_NATS = 8.0
"""Larger log losses of an example count as this, so that one of them does not decide."""


class Losses(NamedTuple):
    """What each example that selects costs a model.

    Attributes:
        error: 0 or 1 for a class, the share of wrong labels, or the squared error in standard deviations, ``[n]``.
        nll: negative log-likelihood in nats, ``[n]``.
        least: difference of mean errors from these that matters; smaller ones are not worth another fit.
    """

    error: np.ndarray
    nll: np.ndarray
    least: float = 0.0


def scored(part: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Returns scores named after the part that they are of."""
    return {f"{part}/{name}": value for name, value in scores.items()}


def capped(nats: np.ndarray) -> np.ndarray:
    """Returns log losses of examples, none of them more than `MOST_NATS`."""
    return np.minimum(nats, MOST_NATS)


class Decided(NamedTuple):
    """The decided network, as a task looks at it.

    Attributes:
        logits: gives its outputs on the whole test part after every step, ``[time, n, output]``.
        model: the network itself, nothing removed.
        inputs: examples, encoded.
        steps: of time.
        held: whether the inputs are held, and so have no axis of time.
    """

    logits: Callable[[], np.ndarray]
    model: Any
    inputs: Any
    steps: int
    held: bool


BALANCED = "train.class_weight=balanced is for one class an example, {name} has another task."
SOURCES = "uncertainty is split for one class an example, got {name}; predict gives the whole."


class Temper(NamedTuple):
    """What one number makes of a network's answers.

    Attributes:
        width: standard deviation of its logarithm under its prior.
        possible: whether the network has such a number.
        at: the guide's parameters at a value of it.
        lost: what a prediction costs in nats, all examples together; the second argument are targets as learned.
    """

    width: float
    possible: Callable[[Bayesian], bool]
    at: Callable[[Params, float], Params]
    lost: Callable[[Any, Any], float]


class Facts(NamedTuple):
    """What is so for a task, and what does not exist for it.

    Attributes:
        has: what examples have, in a sentence: "numbers", "several labels".
        noun: what the outputs are called, beside their number.
        dtype: of the targets that a network learns from.
        halts: whether examples may stop early: one class is asked for, and it is answered once.
        learners: that learn it; empty is any.
        readout: that the network has to have; empty is any.
        best: scores that may select an epoch, and whether more is better.
        watched: scores that a validation keeps; empty is all of them.
        shows: what a run records: "example" (one test example in time), "decision" (with what is believed of it),
            "sources" (where doubt comes from), "plane" (doubt over two inputs), "posterior" (of single parameters).
        counted: whether targets are classes or labels, which `Task.counts` counts.
        linear: its linear model, a name in `dsnn.assembly.linear.MODELS`; empty where there is none.
        twin: whether the deterministic twin is compared by its losses.
        most_tempered: the largest KL weight that is chosen from the data; mean-field posteriors that learn from little
            underfit beyond it.
        certifies: whether an answer needs the examples that certify.
        temper: what makes answers sound as sure as they should; None where nothing does.
        note: what is said of a task that leaves things out; empty where it leaves out nothing.
        absent: the sentence for whoever asks for something that does not exist; ``{name}`` stands for the data set.
    """

    has: str
    noun: str
    dtype: Any
    best: Mapping[str, bool]
    halts: bool = False
    learners: tuple[str, ...] = ("svi", "map", "nuts")
    readout: str = ""
    watched: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    counted: bool = True
    linear: str = ""
    twin: bool = True
    most_tempered: float = 0.05
    certifies: bool = False
    temper: Temper | None = None
    note: str = ""
    absent: Mapping[str, str] = {}


@runtime_checkable
class Task(Protocol):
    """The contract: likelihood, prediction and scores; then what a run shows, compares and chooses by."""

    @property
    def facts(self) -> Facts:
        """What is so for the task, and what does not exist for it."""
        ...

    def likelihood(self) -> Likelihood:
        """Returns what is observed given the network's outputs."""
        ...

    def outputs(self, classes: int) -> int:
        """Returns how many outputs a network needs for so many classes, labels or numbers."""
        ...

    def predictor(self, bayesian: Bayesian, devices: int = 1) -> Callable[..., Any]:
        """Returns the compiled ``predict(params, x, key, *, samples, batch_size, progress, ...) -> prediction``.

        Args:
            bayesian: the network.
            devices: of this process that may share the draws.
        """
        ...

    def predict(self, bayesian: Bayesian, params: dict[str, Array], x: Any, key: Key[Array, ""], samples: int) -> Any:
        """Returns what the posterior predicts of examples; compiled and batched, the key is consumed."""
        ...

    def scores(self, prediction: Any, y: Any) -> dict[str, float]:
        """Returns the scores of a prediction by name, such as ``accuracy``; ``y`` are `targets`."""
        ...

    def check(self, split: Split) -> None:
        """Checks the targets of every part.

        Raises:
            ValueError: their shape, dtype or range, in one sentence.
        """
        ...

    def beside(self, y: Any) -> dict[str, Any]:
        """Returns the options of a prediction that come with the targets as they are learned."""
        ...

    def placed(self, prediction: Any, split: Split) -> Any:
        """Returns a prediction in the unit that the targets came in."""
        ...

    def targets(self, split: Split, part: str) -> Any:
        """Returns the targets of a part as `scores` takes them."""
        ...

    def told(self, ask: Ask, x: Any, split: Split, level: float) -> Any:
        """Returns what a user gets who asks about new examples; intervals hold the share ``level``."""
        ...

    def assess(self, ask: Ask, split: Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns metrics of an assessment and arrays for ``records.npz``.

        Args:
            ask: the trained network.
            split: the data.
            foreign: inputs of other data sets by name, which it should be unsure of.
        """
        ...

    def deployed(self, decided: Decided, split: Split) -> dict[str, float]:
        """Returns what the decided network's answers with all steps are worth; of a task that halts, nothing."""
        ...

    def averaged(self, probs: np.ndarray, y: Any) -> dict[str, float]:
        """Returns the test scores of an ensemble's mean probabilities."""
        ...

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns how often each class or label is in targets, and how often it could be; see `Facts.counted`."""
        ...

    def losses(self, prediction: Any, y: np.ndarray) -> Losses:
        """Returns what each example costs, of a prediction with all steps and targets as they are learned."""
        ...

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns the means of losses by the names of scores."""
        ...

    def nats(self, y: np.ndarray) -> float:
        """Returns what the target of an example carries in nats; what energy and divergences are weighed by."""
        ...

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns targets drawn given outputs ``[batch, output]`` and the likelihood's parameters; consumes the key."""
        ...

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs) ``[batch]``."""
        ...

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns probabilities or means of the targets given outputs."""
        ...


def refuse(task: Task, what: str, name: str) -> None:
    """Raises where something is asked for that a task has not.

    Raises:
        ValueError: the task's own sentence.
    """
    if what in task.facts.absent:
        raise ValueError(task.facts.absent[what].format(name=name))


def patient_by(facts: Facts) -> tuple[str, bool]:
    """Returns the score that patience watches, NLL or the first that may select, and whether more of it is better."""
    name = "nll" if "nll" in facts.best or not facts.best else next(iter(facts.best))
    return name, facts.best.get(name, False)
