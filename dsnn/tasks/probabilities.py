"""Probabilities of classes or labels: averaged over weights, gates and firing noise, with early stopping.

The compiled predictive that classes and labels share; what is theirs alone is in their files.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn.bayes import halting
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.halting_posterior import SHARPNESS
from dsnn.bayes.likelihood import Bernoulli, Categorical, Stepwise
from dsnn.data import Split, check_targets, eval_batches
from dsnn.native.programs import Program
from dsnn.tasks.batching import EVAL_BATCH, Told, drawn, first_batch, in_batches, require_samples
from dsnn.tasks.task import Ask
from dsnn.types import Array, Float, Key


class Prediction(NamedTuple):
    """What the posterior predicts.

    Where several thresholds were asked for, all but ``full`` have an axis of them in front.

    Attributes:
        probs: predictive probabilities with early stopping, ``[n, class]``, or of each label, ``[n, label]``.
        full: the same when every step runs.
        aleatoric: mean entropy of the samples' predictions in nats, ``[n]``.
        steps: mean stopping step, ``[n]``.
    """

    probs: Any
    full: Any
    aleatoric: Any
    steps: Any


class Rules(NamedTuple):
    """When examples stop, and what their early logits are multiplied by, ``[rule]``."""

    threshold: Float[Array, " rule"]
    sharpness: Float[Array, " rule"]


Predict = Callable[..., Prediction]
"""``predict(params, x, key, *, samples, threshold, sharpness, batch_size, progress)``, see `predictor`."""

RULES, FEW = 40, 2048
"""Several thresholds are filled up to a multiple of `RULES`, so that any number of them finds the compiled program.

In a batch of at most `FEW` probabilities one is filled up as well, which costs next to nothing there."""


def predictor(bayesian: Bayesian, devices: int = 1) -> "Predictor":
    """Returns a compiled ``predict(params, x, key, *, samples, threshold, sharpness, batch_size, progress)``.

    Every draw stops each example by itself, once its log odds of having stopped reach ``threshold``; by default all
    steps run. Early logits are divided by the temperature of their step and multiplied by ``sharpness``, by default
    those among the parameters. Several thresholds share the draws and the steps. No examples have an empty answer.
    Memory is bounded: posterior draws run one after another, examples in batches. Any number of draws uses the same
    compiled program. An ensemble's members take turns. ``progress(done, total)`` is called after every batch.

    Args:
        bayesian: the network.
        devices: of this process that share the draws.

    Raises:
        ValueError: the network's likelihood is of numbers, or of a class at every step.
    """
    likelihood = bayesian.likelihood
    every_step = isinstance(likelihood, Stepwise) and not likelihood.mean
    if not isinstance(likelihood, Categorical | Bernoulli | Stepwise) or every_step:
        raise ValueError(f"classes are predicted by a likelihood of classes, got {type(likelihood).__name__}.")

    def one(params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, sample: Array) -> Prediction:
        logits = drawn(bayesian, params, x, key, sample)
        hazards = None
        if bayesian.halting is not None:
            hazards = bayesian.halting.hazards(bayesian.halting.head(params), logits)

        def stopped(threshold: Array, sharper: Array) -> tuple[Array, Array, Array]:
            stop = jnp.full(x.shape[0], logits.shape[0]) if hazards is None else halting.stop_step(hazards, threshold)
            at = jnp.take_along_axis(logits, (stop - 1)[None, :, None], 0)[0]
            sharp = jnp.where(stop == logits.shape[0], 1.0, sharper / bayesian.temperature(params)[stop - 1])
            at = at * sharp[:, None]
            return *likelihood.distribution(at), stop.astype(jnp.float32)

        probs, entropy, steps = jax.vmap(stopped)(*rules)
        return Prediction(probs, likelihood.distribution(logits[-1])[0], entropy, steps)

    def every(
        params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, samples: Array, first: Any = 0
    ) -> Prediction:
        """Sums the draws first, first + devices, ... below ``samples``."""

        def add(turn: Array, total: Prediction) -> Prediction:
            return jax.tree.map(jnp.add, total, one(params, x, key, rules, first + turn * devices))

        shapes = jax.eval_shape(one, params, x, key, rules, jnp.zeros((), jnp.int32))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, (samples - first + devices - 1) // devices, add, zero)

    row, whole = Mesh(np.array(jax.local_devices()[:devices]), ("device",)), PartitionSpec()

    def shared(*arguments: Any) -> Prediction:
        def here(params: Any, x: Array, key: Any, rules: Rules, samples: Array) -> Prediction:
            first = jax.lax.axis_index("device")
            return jax.lax.psum(every(params, x, key, rules, samples, first), "device")

        return jax.shard_map(here, mesh=row, in_specs=whole, out_specs=whole, check_vma=False)(*arguments)

    summed = every if devices == 1 else shared

    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, samples: Array) -> Prediction:
        total = summed(params, x, key, rules, samples)
        return jax.tree.map(lambda a: a / samples, total)

    everywhere = (lambda tree: jax.device_put(tree, NamedSharding(row, whole))) if devices > 1 else lambda tree: tree
    return Predictor(bayesian, Program(batch), everywhere)


class Predictor:
    """A compiled predictive, see `predictor`.

    Args:
        bayesian: the network.
        program: ``(params, x, key, rules, samples) -> Prediction`` of one batch.
        everywhere: puts parameters on all devices that share the draws.
    """

    def __init__(self, bayesian: Bayesian, program: Program, everywhere: Callable[[Any], Any]):
        self._bayesian, self._program, self._everywhere = bayesian, program, everywhere
        self._unfitted: dict[str, Array] = {}

    def __call__(
        self,
        params: dict[str, Array],
        x: Any,
        key: Key[Array, ""],
        *,
        samples: int,
        threshold: float | Sequence[float] | np.ndarray = math.inf,
        sharpness: float | np.ndarray | None = None,
        batch_size: int = EVAL_BATCH,
        progress: Told | None = None,
    ) -> Prediction:
        """Returns what the posterior predicts of examples ``[n, ...]``; the key is consumed."""
        require_samples(samples)
        wanted, count = np.size(threshold), jnp.asarray(samples)
        if not len(x):
            made = _nothing(self._bayesian, wanted)
        else:
            params = self._everywhere(self._whole(params))
            rules = self._rules(params, threshold, sharpness, eval_batches(len(x), batch_size).indices.shape[1])

            def run(batch: Array) -> Prediction:
                made = jax.device_get(self._program(params, batch, key, rules, count))
                probs, aleatoric, steps = (a[:wanted] for a in (made.probs, made.aleatoric, made.steps))
                return Prediction(probs, made.full, aleatoric, steps)

            made = in_batches(run, x, batch_size, axes=Prediction(1, 0, 1, 1), progress=progress)
        return made if np.ndim(threshold) else Prediction(made.probs[0], made.full, made.aleatoric[0], made.steps[0])

    def ahead(
        self,
        params: dict[str, Array],
        x: Any,
        key: Key[Array, ""],
        *,
        threshold: float | Sequence[float] | np.ndarray = math.inf,
        batch_size: int = EVAL_BATCH,
    ) -> None:
        """Begins to compile what a call with arguments of these shapes will need."""
        if len(x):
            params, batch = self._everywhere(self._whole(params)), first_batch(x, batch_size)
            rules = self._rules(params, threshold, None, len(batch))
            self._program.ahead(params, batch, key, rules, jnp.asarray(1))

    def _whole(self, params: dict[str, Array]) -> dict[str, Array]:
        """Returns parameters with those that are fitted after learning, or are not: they suit one program."""
        self._unfitted = self._unfitted or self._bayesian.unfitted()
        return self._unfitted | params

    def _rules(self, params: dict[str, Array], threshold: Any, sharpness: Any, rows: int) -> Rules:
        """Returns thresholds with what belongs to each, filled up with the last of them."""
        thresholds = np.atleast_1d(np.asarray(threshold, np.float32))
        fitted = params.get(SHARPNESS, 1.0) if sharpness is None else sharpness
        sharper = np.broadcast_to(np.asarray(fitted, np.float32), thresholds.shape)
        classes = math.prod(self._bayesian.simulator.template.build(self._bayesian.weights.initial).out_shape)
        several = len(thresholds) > 1 or (self._bayesian.halting is not None and rows * classes <= FEW)
        more = -len(thresholds) % RULES if several else 0
        return Rules(*(jnp.asarray(np.pad(rule, (0, more), mode="edge")) for rule in (thresholds, sharper)))


def _nothing(bayesian: Bayesian, thresholds: int) -> Prediction:
    """Returns the prediction of no examples."""
    classes = bayesian.simulator.template.build(bayesian.weights.initial).out_shape
    empty = np.zeros((thresholds, 0), np.float32)
    return Prediction(
        np.zeros((thresholds, 0, *classes), np.float32), np.zeros((0, *classes), np.float32), empty, empty
    )


class Probable:
    """What classes and labels have in common: one output for each, and probabilities, which have no unit."""

    def outputs(self, classes: int) -> int:
        """Returns one for each class or label."""
        return classes

    def predictor(self, bayesian: Bayesian, devices: int = 1) -> Predictor:
        """Returns the compiled probabilities, see `predictor`."""
        return predictor(bayesian, devices)

    def predict(
        self, bayesian: Bayesian, params: dict[str, Array], x: Any, key: Key[Array, ""], samples: int
    ) -> Prediction:
        """Returns the probability of each class or label, with all steps."""
        return self.predictor(bayesian)(params, x, key, samples=samples)

    def check(self, split: Split) -> None:
        """Checks for integers from 0, below the number of classes, ``[n]``, or 0 and 1, ``[n, label]``."""
        check_targets(split)

    def beside(self, y: Any) -> dict[str, Any]:
        """Returns nothing."""
        return {}

    def placed(self, prediction: Prediction, split: Split) -> Prediction:
        """Returns the prediction: probabilities have no unit."""
        return prediction

    def targets(self, split: Split, part: str) -> np.ndarray:
        """Returns the labels of a part."""
        return np.asarray(getattr(split, part).y)

    def told(self, ask: Ask, x: Any, split: Split, level: float) -> Prediction:
        """Returns the probabilities; there is no interval."""
        made: Prediction = ask(x)
        return made
