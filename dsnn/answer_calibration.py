"""How sure answers sound, fitted on examples that select: a temperature of class logits, the size of a number's noise.

A network that has learned from few examples is surer of its answers than it should be. One number mends most of that
(temperature scaling, Guo et al. 2017): what the readout's weights are divided by, or what the standard deviation of the
noise is multiplied by. It has a log-normal prior about 1, so that a handful of examples moves it little.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from dsnn import evaluate
from dsnn.bayes.lift import ANSWERS, Lifted
from dsnn.bayes.likelihood import SCALE, Bernoulli, Gaussian, InputGaussian
from dsnn.cells import kind
from dsnn.data import Split, per_step, sample, size
from dsnn.models import Stack
from dsnn.types import Array, Key

WIDTH, NOISE_WIDTH = 0.5, 1.0
"""Standard deviation of the logarithm under its prior, of a temperature and of a noise's scale."""

FARTHEST = math.log(20.0)
MOST = 1000
"""Examples that are looked at, at most."""

DRAWS = 16
TOLERANCE = 0.03


def calibrated(
    lifted: Lifted, params: dict[str, Any], split: Split, predict: Any, key: Key[Array, ""], wanted: float
) -> tuple[dict[str, Any], float]:
    """Returns the parameters with calibrated answers, and the temperature.

    Where the readout is not linear in its weights, where stopping was learned together with the weights, and with a
    label at every step nothing is changed.

    Args:
        lifted: the network.
        params: of the guide, once learning is over.
        split: with its roles assigned.
        predict: of `dsnn.bayes.predict.predictor` or `dsnn.bayes.regress.regressor`.
        key: of the draws.
        wanted: the temperature; 1 changes nothing, -1 fits it on the part that selects.
    """
    if wanted == 1 or not can(lifted, split):
        return params, 1.0
    if wanted > 0:
        return _at(lifted, params, wanted), wanted
    select = sample(split.val, MOST) if size(split.val) else split.val
    if not size(select):
        return params, 1.0
    labels, numbers = np.asarray(select.y), _of_numbers(lifted)
    width = NOISE_WIDTH if numbers else WIDTH

    def lost(log_temperature: float) -> float:
        tempered = _at(lifted, params, math.exp(log_temperature))
        if numbers:
            made = predict(tempered, select.x, key, samples=DRAWS, y=select.y)
            nats = -float(np.asarray(made.log_prob, float).sum())
        else:
            probs = predict(tempered, select.x, key, samples=DRAWS).full
            several = isinstance(lifted.likelihood, Bernoulli)
            nats = evaluate.nll(*(evaluate.binary(probs, labels) if several else (probs, labels))) * labels.size
        return nats + log_temperature**2 / (2 * width**2)

    found = minimize_scalar(lost, bounds=(-FARTHEST, FARTHEST), method="bounded", options={"xatol": TOLERANCE})
    temperature = math.exp(float(found.x)) if found.fun < lost(0.0) else 1.0
    return _at(lifted, params, temperature), temperature


def can(lifted: Lifted, split: Split) -> bool:
    """Returns whether a temperature is defined: logits are linear in the readout's weights, and answered once."""
    model = lifted.forward.template.build(lifted.initial)
    stacked = isinstance(model, Stack)  # what a network of one's own makes of its last weights is its business
    linear = stacked and kind(getattr(model, model.names[-1]).cell) == "LI" and model.readout_kind != "vote"
    numbers = split.task == "regression"
    return not lifted.joint and not per_step(split) and (_of_numbers(lifted) if numbers else linear)


def _of_numbers(lifted: Lifted) -> bool:
    return isinstance(lifted.likelihood, Gaussian | InputGaussian) and bool(lifted.likelihood.parameters())


def _at(lifted: Lifted, params: dict[str, Any], temperature: float) -> dict[str, Any]:
    value = jnp.asarray(temperature, jnp.float32)
    if _of_numbers(lifted):
        return params | {SCALE: params[SCALE] * value}
    return params | {ANSWERS: value}
