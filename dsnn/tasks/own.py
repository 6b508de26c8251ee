"""A task of one's own, `dsnn.protocols.Task`, as a run takes it; what it leaves out gets one sentence each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import Likelihood
from dsnn.data import Split, check_targets, size
from dsnn.tasks.batching import EVAL_BATCH, Told, in_batches, require_samples
from dsnn.tasks.task import BALANCED, SOURCES, UNIT_NORMAL, Ask, Assessed, Decided, Facts, Losses, capped, scored
from dsnn.types import Array, Key

WANTED = ("likelihood", "predict", "scores")
OPTIONAL = ("best", "check", "deployed", "draw", "losses", "nats", "outputs")
WITHOUT = {
    "losses": "a comparison with its deterministic twin (losses)",
    "deployed": "scores of the decided network (deployed)",
    "best": "a choice of the epoch (best)",
    "draw": "an InferenceData (draw)",
}
"""What is lost without each optional part that a run would use."""


@dataclasses.dataclass(frozen=True)
class Density:
    """A likelihood of one's own that has not all of `dsnn.bayes.likelihood.Likelihood`: what it lacks is usual here.

    Attributes:
        given: with ``log_prob(own, outputs, y)`` at least.
        name: that its task was given by.
    """

    given: Any
    name: str

    def parameters(self) -> dict[str, Array]:
        """Returns its parameters, by default none."""
        return dict(self.given.parameters()) if hasattr(self.given, "parameters") else {}

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs), ``[*axes, batch]``."""
        found: Array = heard(self.name, "log_prob", self.given.log_prob, own, outputs, y)
        if jnp.shape(found) != outputs.shape[:-1]:
            raise ValueError(
                f"log_prob must give one number an example, {outputs.shape[:-1]}, got {jnp.shape(found)} of outputs "
                f"{outputs.shape} and targets {jnp.shape(y)} from {self.name}; sum over an example's targets."
            )
        return found

    def of_sequence(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs of all steps), by default of the last."""
        if hasattr(self.given, "of_sequence"):
            found: Array = self.given.of_sequence(own, outputs, y)
            return found
        return self.log_prob(own, outputs[-1], y)

    def curvature(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns its curvature.

        Raises:
            ValueError: it has none.
        """
        if not hasattr(self.given, "curvature"):
            raise ValueError(
                f"the laplace guide needs a likelihood's curvature(own, outputs), got {self.name} without it; give it, "
                "or take another guide."
            )
        found: Array = self.given.curvature(own, outputs)
        return found


class Own:
    """A task of one's own.

    Args:
        task: with likelihood(), predict(...) and scores(...), and whatever of `OPTIONAL` it has.
        name: that it was given by.

    Raises:
        ValueError: one of the three is missing.
    """

    def __init__(self, task: Any, name: str):
        for method in WANTED:
            if not callable(getattr(task, method, None)):
                raise ValueError(
                    "task must give likelihood(), predict(bayesian, params, x, key, samples) and scores(prediction, y),"
                    f" got a {type(task).__name__} without {method} from {name}; see dsnn.protocols.Task."
                )
        best = getattr(task, "best", None) or {}
        if not isinstance(best, Mapping):
            raise ValueError(
                "best of a task must say by score whether more is better, such as dict(accuracy=True), got "
                f"{best!r} from {name}."
            )
        self.task, self.name = task, name
        self.parts: dict[str, Any] = {part: getattr(task, part, None) for part in OPTIONAL}
        lost = [said for part, said in WITHOUT.items() if self.parts[part] is None]
        self.facts = Facts(
            has=f"targets of {name}",
            noun="outputs",
            dtype=np.float32,
            best=dict(self.parts["best"] or {}),
            shows=("example", "posterior"),
            counted=False,
            twin=self.parts["losses"] is not None,
            note=f"{name} runs all steps, without {', '.join(['a temperature', 'a linear model', 'figures', *lost])}.",
            absent={
                "balanced": BALANCED,
                "ood": f"data.ood is scored for classes, {{name}} has targets of {name}; leave it empty.",
                "sources": SOURCES,
                "ensemble": f"members must predict classes, got targets of {name} in {{name}}.",
            }
            | (
                {}
                if self.parts["draw"]
                else {"arviz": f"to_arviz draws targets, got {name} without draw(); give it one."}
            ),
        )

    def likelihood(self) -> Likelihood:
        """Returns the task's own, whose density has to be there.

        Raises:
            ValueError: it is not.
        """
        found: Any = self._heard("likelihood")
        if not callable(getattr(found, "log_prob", None)):
            raise ValueError(
                f"a likelihood must have log_prob(own, outputs, y), got a {type(found).__name__} without it from "
                f"{self.name}; see dsnn.bayes.likelihood.Likelihood."
            )
        return found if isinstance(found, Likelihood) else Density(found, self.name)

    def outputs(self, classes: int) -> int:
        """Returns as many as the task says, or one for each of its targets."""
        found = self._heard("outputs", classes) if self.parts["outputs"] else classes
        if isinstance(found, bool) or not isinstance(found, int | np.integer) or found < 1:
            raise ValueError(f"outputs of a task must be a whole number from 1 on, got {found!r} from {self.name}.")
        return int(found)

    def predictor(self, bayesian: Bayesian, devices: int = 1) -> Callable[..., Any]:
        """Returns the task's own prediction, compiled, a batch at a time."""

        def of_batch(params: Any, x: Array, key: Any, samples: int) -> Any:
            made = self._heard("predict", bayesian, params, x, key, samples)
            shapes = [np.shape(leaf) for leaf in jax.tree.leaves(made)]
            if not shapes or any(shape[:1] != (x.shape[0],) for shape in shapes):
                raise ValueError(
                    f"a prediction must be arrays whose first axis are the {x.shape[0]} examples of the batch, got "
                    f"shapes {shapes} from {self.name}; move that axis to the front."
                )
            return made

        compiled = jax.jit(of_batch, static_argnums=3)

        def predict(
            params: dict[str, Array],
            x: Any,
            key: Key[Array, ""],
            *,
            samples: int,
            batch_size: int = EVAL_BATCH,
            progress: Told | None = None,
        ) -> Any:
            require_samples(samples)
            return in_batches(lambda x: compiled(params, x, key, samples), x, batch_size, progress=progress)

        return predict

    def predict(self, bayesian: Bayesian, params: dict[str, Array], x: Any, key: Key[Array, ""], samples: int) -> Any:
        """Returns the task's own prediction."""
        return self.predictor(bayesian)(params, x, key, samples=samples)

    def scores(self, prediction: Any, y: np.ndarray) -> dict[str, float]:
        """Returns the task's own scores.

        Raises:
            ValueError: they are no dictionary of finite numbers.
        """
        found = self._heard("scores", prediction, y)
        if not isinstance(found, Mapping):
            raise ValueError(f"scores must be a dictionary of numbers, got a {type(found).__name__} from {self.name}.")
        return self._numbers(found)

    def check(self, split: Split) -> None:
        """Checks for finite numbers, and lets the task check the targets of every part, where it does."""
        check_targets(split)
        for part in ("train", "val", "test"):
            if self.parts["check"] and size(getattr(split, part)):
                self._heard("check", np.asarray(getattr(split, part).y))

    def beside(self, y: Any) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def placed(self, prediction: Any, split: Split) -> Any:
        """Returns the prediction: targets are learned as they come."""
        return prediction

    def targets(self, split: Split, part: str) -> np.ndarray:
        """Returns the targets of a part."""
        return np.asarray(getattr(split, part).y)

    def told(self, ask: Ask, x: Any, split: Split, level: float) -> Any:
        """Returns the prediction."""
        return ask(x)

    def assess(self, ask: Ask, split: Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns the scores of the selecting and the test part, and what was predicted of the latter."""
        metrics: dict[str, Any] = {}
        records: dict[str, np.ndarray] = {}
        for part in ("val", "test"):
            if not size(getattr(split, part)):
                continue
            made, y = ask(getattr(split, part).x), self.targets(split, part)
            metrics |= scored(part, self.scores(made, y))
            if part == "test":
                records = {f"own/{name}": values for name, values in _fields(made).items()} | {"own/y": y}
        return metrics, records

    def deployed(self, decided: Decided, split: Split) -> dict[str, float]:
        """Returns the task's own scores of the decided network's outputs, where it has any."""
        found = {"deployed/steps_mean": float(decided.steps)}
        if self.parts["deployed"]:
            own = self._heard("deployed", decided.logits()[-1], self.targets(split, "test"))
            found |= scored("deployed", self._numbers(own))
        return found

    def averaged(self, probs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Raises: there are no probabilities to average."""
        raise ValueError(self.facts.absent["ensemble"].format(name="them"))

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns nothing: targets are not counted."""
        return np.zeros(0), 0

    def losses(self, prediction: Any, y: np.ndarray) -> Losses:
        """Returns the task's own ``(error, nll)`` of each example.

        Raises:
            ValueError: it has none.
        """
        if self.parts["losses"] is None:
            raise ValueError(
                f"networks are compared by one loss an example, got {self.name} without losses(); give it."
            )
        found = self._heard("losses", prediction, y)
        shapes = [np.shape(values) for values in found] if isinstance(found, tuple | list) else []
        if shapes != [(len(y),)] * 2:
            raise ValueError(
                f"losses must be (error, nll) with one number each of {len(y)} examples, got shapes {shapes} from "
                f"{self.name}."
            )
        error, nll = (np.asarray(values, float) for values in found)
        return Losses(error, capped(nll))

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns the mean error and the NLL."""
        return {"error": float(losses.error.mean()), "nll": float(losses.nll.mean())}

    def nats(self, y: np.ndarray) -> float:
        """Returns what the task says, or the entropy of as many standardised numbers as an example has targets."""
        if not self.parts["nats"]:
            return UNIT_NORMAL * max(int(np.prod(y.shape[1:])), 1)
        found = self._numbers({"nats": self._heard("nats", y)})["nats"]
        if found < 0:
            raise ValueError(f"nats of a target must not be negative, got {found} from {self.name}.")
        return found

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns targets drawn by the task."""
        made: Array = self.parts["draw"](own, outputs, key)
        return made

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs) of the task's likelihood."""
        return self.likelihood().log_prob(own, outputs, y)

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns the outputs: what they stand for is the task's business."""
        return outputs

    def _heard(self, method: str, *arguments: Any) -> Any:
        """Returns what a method of the task says, and in one sentence what it raises."""
        return heard(self.name, method, getattr(self.task, method), *arguments)

    def _numbers(self, found: Mapping[str, Any]) -> dict[str, float]:
        try:
            scores = {str(name): float(value) for name, value in found.items()}
        except (TypeError, ValueError) as error:
            raise ValueError(f"scores must be numbers, got {dict(found)!r} from {self.name}.") from error
        if odd := [name for name, value in scores.items() if not np.isfinite(value)]:
            raise ValueError(f"a score must be finite, got {scores[odd[0]]} for {odd[0]!r} from {self.name}.")
        return scores


def heard(name: str, method: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a part of a task says, and in one sentence what it raises; what ``check`` says stands as it is.

    Raises:
        ValueError: it failed.
    """
    try:
        return function(*arguments)
    except Exception as error:
        said = " ".join(str(error).split())
        if method == "check" and isinstance(error, ValueError):
            raise
        raise ValueError(
            f"{method} of {name} failed: {type(error).__name__}: {said}; mend it, and the same command goes on from "
            "what was learned."
        ) from error


def _fields(prediction: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a prediction by the names of its fields."""
    named = prediction._asdict() if hasattr(prediction, "_asdict") else prediction
    named = named if isinstance(named, Mapping) else {"prediction": named}
    return {str(name): np.asarray(values) for name, values in named.items() if isinstance(values, np.ndarray)}
