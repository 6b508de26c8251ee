"""Numbers an example: Normal noise, a mixture of Normals over draws, and intervals that hold what they promise.

A network learns standardised targets; what it predicts is brought to the unit that they came in.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, evaluate
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import Gaussian, InputGaussian
from dsnn.data.rows import Rows
from dsnn.tasks.batching import EVAL_BATCH, Told, in_batches, outputs, require_samples
from dsnn.tasks.calibration import of_noise
from dsnn.tasks.task import BALANCED, SOURCES, UNIT_NORMAL, Ask, Assessed, Decided, Facts, Losses, capped, scored
from dsnn.types import Array, Float, Key

BISECTIONS = 40
LEVEL = 0.9
"""Share of the targets that the intervals of an assessment hold."""

LEAST_SQUARED = 0.04
"""4 % of a squared error, 2 % of its root: a smaller difference does not matter."""


class Regression(NamedTuple):
    """What the posterior predicts, each ``[n, output]`` in the unit of the targets but for the density, ``[n]``.

    Intervals and deviations are those of each output by itself. The density is that of all outputs of an example
    together: they are independent given one draw, but not under the mixture of draws, whose density is
    1/S Σ_s Π_o N(y_o; centre_so, deviation²).

    Attributes:
        mean: of the predictive.
        lower: end of the central interval.
        upper: its other end.
        aleatoric: standard deviation of the observation noise.
        epistemic: standard deviation of the outputs over draws of weights, gates and firing.
        log_prob: joint log density of the targets given to `regressor`'s function, NaN without them.
    """

    mean: Any
    lower: Any
    upper: Any
    aleatoric: Any
    epistemic: Any
    log_prob: Any


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers of an example, of any unit.

    Attributes:
        input_noise: whether the noise depends on the input, with an output for each number's.
    """

    input_noise: bool = False

    facts = Facts(
        has="numbers",
        noun="numbers",
        dtype=np.float32,
        best={"nll": False, "rmse": False},
        shows=("example", "posterior"),
        counted=False,
        linear="ridge regression",
        most_tempered=0.2,  # the noise, which is learned, weighs the data anew
        certifies=True,
        temper=of_noise(lambda made, y: -float(np.asarray(made.log_prob, float).sum())),
        absent={
            "balanced": BALANCED,
            "ood": "data.ood is scored for classes, {name} has numbers; leave it empty.",
            "sources": SOURCES,
            "ensemble": "members must predict classes, got numbers in {name}.",
        },
    )

    def likelihood(self) -> Gaussian | InputGaussian:
        """Returns Normal noise about the last outputs, of one deviation or of the input's."""
        return InputGaussian() if self.input_noise else Gaussian()

    def outputs(self, classes: int) -> int:
        """Returns one for each number, two where its noise is an output too."""
        return self.likelihood().outputs(classes)

    def predictor(self, bayesian: Bayesian, devices: int = 1) -> Callable[..., Regression]:
        """Returns the compiled predictive, see `regressor`."""
        return regressor(bayesian)

    def predict(
        self, bayesian: Bayesian, params: dict[str, Array], x: Any, key: Key[Array, ""], samples: int
    ) -> Regression:
        """Returns numbers as they are learned, without a density of targets."""
        return self.predictor(bayesian)(params, x, key, samples=samples)

    def scores(self, prediction: Regression, y: np.ndarray) -> dict[str, float]:
        """Returns the scores of a prediction that was made with these targets ``[n, output]`` and the level `LEVEL`.

        The negative log-likelihood is that of an example's outputs together, everything else a mean over outputs.
        """
        lower, upper = prediction.lower, prediction.upper
        return {
            "rmse": float(np.sqrt(np.mean((prediction.mean - y) ** 2))),
            "r2": evaluate.r2(prediction.mean, y),
            "nll": -float(prediction.log_prob.mean()),
            "coverage_90": evaluate.interval_coverage(lower, upper, y),
            "interval_score_90": evaluate.interval_score(lower, upper, y, LEVEL),
            "interval_width_90": float(np.mean(upper - lower)),
        }

    def check(self, split: data.Split) -> None:
        """Checks for finite numbers, ``[n, output]``."""
        data.check_targets(split)

    def beside(self, y: Any) -> dict[str, Any]:
        """Returns the targets, whose density the prediction holds."""
        return {"y": y}

    def placed(self, prediction: Regression, split: data.Split) -> Regression:
        """Returns the prediction in the unit that the targets came in."""
        return in_units(prediction, split)

    def targets(self, split: data.Split, part: str) -> Float[np.ndarray, "n output"]:
        """Returns the targets of a part in the unit that they came in."""
        return targets_of(split, part)

    def told(self, ask: Ask, x: Any, split: data.Split, level: float) -> Regression:
        """Returns numbers and their intervals, conformal where enough examples certify."""
        made, certify = in_units(ask(x, level=level), split), split.certify
        if certify is None or not data.size(certify):
            return made
        held = in_units(ask(np.asarray(certify.x), level=level), split)
        margin = margins(held, targets_of(split, "certify"), level)
        return widened(made, margin) if np.isfinite(margin).all() else made

    def assess(self, ask: Ask, split: data.Split, foreign: Mapping[str, Any]) -> Assessed:
        """Returns scores of the selecting and the test part, uncertainty, and what conformal intervals are worth."""
        metrics: dict[str, Any] = {}
        records: dict[str, np.ndarray] = {}
        answered: dict[str, Regression] = {}
        for part in ("val", "certify", "test"):
            arrays = getattr(split, part)
            if arrays is None or not len(arrays.x):
                continue
            targets = targets_of(split, part)
            made = in_units(ask(arrays.x, y=arrays.y, level=LEVEL), split)
            answered[part] = made
            metrics |= scored(part, self.scores(made, targets)) if part != "certify" else {}
            records |= {f"{part}/{name}": getattr(made, name) for name in ("mean", "lower", "upper")}
            records[f"{part}/y"] = targets
        test = answered["test"]
        metrics["uncertainty/aleatoric"] = float(test.aleatoric.mean())
        metrics["uncertainty/epistemic"] = float(test.epistemic.mean())
        if "certify" in answered:
            metrics |= conformal(answered["certify"], records["certify/y"], test, records["test/y"])
        return metrics, records

    def deployed(self, decided: Decided, split: data.Split) -> dict[str, float]:
        """Returns what the decided network's answers on the test part are worth."""
        unit, targets = data.target_scaling(split), targets_of(split, "test")
        logits = decided.logits()[-1][:, : targets.shape[1]]  # where the noise is an output, it comes after
        answers = np.asarray(logits, float) if unit is None else np.asarray(logits, float) * unit.scale + unit.shift
        return {
            "deployed/rmse": float(np.sqrt(np.mean((answers - targets) ** 2))),
            "deployed/r2": evaluate.r2(answers, targets),
            "deployed/steps_mean": float(decided.steps),
        }

    def averaged(self, probs: np.ndarray, y: np.ndarray) -> dict[str, float]:
        """Raises: there are no probabilities to average."""
        raise ValueError(self.facts.absent["ensemble"].format(name="them"))

    def counts(self, y: np.ndarray, classes: int) -> tuple[np.ndarray, int]:
        """Returns nothing: numbers are not counted."""
        return np.zeros(0), 0

    def losses(self, prediction: Regression, y: np.ndarray) -> Losses:
        """Returns the losses of standardised numbers."""
        return number_losses(prediction.mean, prediction.log_prob, y)

    def summary(self, losses: Losses) -> dict[str, float]:
        """Returns the root mean squared error, in standard deviations of the target, and the NLL."""
        return {"rmse": float(losses.error.mean()) ** 0.5, "nll": float(losses.nll.mean())}

    def nats(self, y: np.ndarray) -> float:
        """Returns the entropy of standardised numbers, added up."""
        return UNIT_NORMAL * y.shape[1]

    def draw(self, own: Mapping[str, Array], outputs: Array, key: Key[Array, ""]) -> Array:
        """Returns numbers."""
        mean, deviation = self.likelihood().moments(own, outputs)
        return mean + deviation * jax.random.normal(key, mean.shape)

    def log_prob(self, own: Mapping[str, Array], outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs), summed over numbers."""
        return self.likelihood().log_prob(own, outputs, y)

    def expected(self, own: Mapping[str, Array], outputs: Array) -> Array:
        """Returns the means."""
        return self.likelihood().moments(own, outputs)[0]


def mixture_quantile(centres: Float[Array, "sample *axes"], deviation: Array, share: float) -> Float[Array, "*axes"]:
    """Returns the quantile of an equal mixture of Normals, by bisection.

    Args:
        centres: their means.
        deviation: their standard deviations, one or as many as means.
        share: in (0, 1).
    """
    low, high = (centres - 8 * deviation).min(0), (centres + 8 * deviation).max(0)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = jax.scipy.stats.norm.cdf(middle, centres, deviation).mean(0) < share
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    return (low + high) / 2


def regressor(bayesian: Bayesian) -> Callable[..., Regression]:
    """Returns a compiled ``predict(params, x, key, *, samples, y, level, batch_size, progress) -> Regression``.

    Draws run one after another, examples in batches; only one number per draw and output of a batch is kept.

    Raises:
        ValueError: the network's likelihood is not Gaussian.
    """
    likelihood = bayesian.likelihood
    if not isinstance(likelihood, Gaussian | InputGaussian):
        raise ValueError(f"numbers are predicted under a Gaussian likelihood, got {type(likelihood).__name__}.")

    def batch(params: dict[str, Array], x: Array, y: Array, key: Key[Array, ""], samples: int, level: float) -> Any:
        drawn = outputs(bayesian, params, x, key, samples)
        own = bayesian.likelihood_parameters(params)
        centres, deviation = likelihood.moments(own, drawn)
        tail = (1 - level) / 2
        log_prob = jax.nn.logsumexp(likelihood.log_prob(own, drawn, y), 0) - jnp.log(samples)
        return Regression(
            centres.mean(0),
            mixture_quantile(centres, deviation, tail),
            mixture_quantile(centres, deviation, 1 - tail),
            jnp.sqrt((deviation**2).mean(0)),
            centres.std(0),
            log_prob,
        )

    compiled = jax.jit(batch, static_argnums=(4, 5))

    def predict(
        params: dict[str, Array],
        x: np.ndarray | Rows,
        key: Key[Array, ""],
        *,
        samples: int,
        y: np.ndarray | None = None,
        level: float = LEVEL,
        batch_size: int = EVAL_BATCH,
        progress: Told | None = None,
    ) -> Regression:
        require_samples(samples)
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval must be in (0, 1), got {level}; 0.9 is usual.")
        width = bayesian.simulator.template.build(bayesian.weights.initial).out_shape[-1] // likelihood.outputs(1)
        targets = np.full((len(x), width), np.nan, np.float32) if y is None else np.asarray(y)

        def run(x: Array, y: Array) -> Any:
            return compiled(params, x, y, key, samples, level)

        made: Regression = in_batches(run, x, batch_size, beside=(targets,), progress=progress)
        return made

    return predict


def in_units(prediction: Regression, split: data.Split) -> Regression:
    """Returns a prediction of standardised targets in the unit that the targets came in."""
    unit = data.target_scaling(split)
    if unit is None:
        return prediction
    placed = {name: getattr(prediction, name) * unit.scale + unit.shift for name in ("mean", "lower", "upper")}
    spread = {name: getattr(prediction, name) * unit.scale for name in ("aleatoric", "epistemic")}
    outputs = prediction.mean.shape[-1]
    log_prob = prediction.log_prob - np.log(np.broadcast_to(unit.scale, outputs)).sum()
    return prediction._replace(**placed, **spread, log_prob=log_prob)


def targets_of(split: data.Split, part: str) -> Float[np.ndarray, "n output"]:
    """Returns the targets of a part in the unit that they came in."""
    y, unit = np.asarray(getattr(split, part).y), data.target_scaling(split)
    return y if unit is None else y * unit.scale + unit.shift


def margins(prediction: Regression, targets: Float[np.ndarray, "n output"], level: float) -> np.ndarray:
    """Returns what both ends of each output's interval give way by, so that the share ``level`` is held, ``[output]``.

    Split conformal prediction with the distance from the interval as the score (Romano et al. 2019); infinite where
    there are too few examples for the level.

    Args:
        prediction: of examples that chose nothing.
        targets: of these examples, in the same unit.
        level: in (0, 1).
    """
    ends = zip(prediction.lower.T, prediction.upper.T, targets.T, strict=True)
    return np.asarray([evaluate.conformal_margin(*one, level) for one in ends])


def widened(prediction: Regression, margin: np.ndarray) -> Regression:
    """Returns the prediction with intervals that a margin was added to; one below zero takes no more than there is."""
    wide = np.maximum(margin, -(prediction.upper - prediction.lower) / 2)
    return prediction._replace(lower=prediction.lower - wide, upper=prediction.upper + wide)


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


def number_losses(mean: np.ndarray, log_prob: np.ndarray, targets: np.ndarray) -> Losses:
    """Returns the losses of predicted numbers ``[n, output]`` with their joint log density ``[n]``."""
    squared = ((mean - targets) ** 2).mean(-1)
    return Losses(squared, capped(-np.asarray(log_prob, float)), LEAST_SQUARED * float(squared.mean()))
