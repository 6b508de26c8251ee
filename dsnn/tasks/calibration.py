"""How sure answers sound, fitted on examples that select: a temperature of class logits, the size of a number's noise.

A network that has learned from few examples is surer of its answers than it should be. One number mends most of that
(temperature scaling, Guo et al. 2017): what the readout's weights are divided by, or what the standard deviation of the
noise is multiplied by. It has a log-normal prior about 1, so that a handful of examples moves it little.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from scipy.optimize import minimize_scalar

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import SCALE
from dsnn.bayes.weight_posterior import ANSWERS
from dsnn.cells import kind
from dsnn.data import Split, sample, size
from dsnn.networks.stack import Stack
from dsnn.parameters import Params
from dsnn.tasks.task import Task, Temper

FARTHEST = math.log(20.0)
MOST = 1000
"""Examples that are looked at, at most."""

DRAWS = 16
TOLERANCE = 0.03


def of_logits(lost: Callable[[Any, Any], float]) -> Temper:
    """Returns the temperature of logits, where they are linear in the readout's weights and answered once."""
    return Temper(0.5, _linear, lambda params, value: params | {ANSWERS: jnp.asarray(value, jnp.float32)}, lost)


def of_noise(lost: Callable[[Any, Any], float]) -> Temper:
    """Returns the factor of the noise of numbers, where it is learned."""

    def at(params: Params, value: float) -> Params:
        return params | {SCALE: params[SCALE] * jnp.asarray(value, jnp.float32)}

    return Temper(1.0, lambda bayesian: not bayesian.joint and SCALE in bayesian.likelihood.parameters(), at, lost)


def calibrated(
    task: Task, bayesian: Bayesian, params: Params, split: Split, predict: Any, key: Any, wanted: float
) -> tuple[Params, float]:
    """Returns the parameters with calibrated answers, and the temperature.

    Where the readout is not linear in its weights, where these have bits, where stopping was learned together with the
    weights, and with a label at every step nothing is changed.

    Args:
        task: of the data.
        bayesian: the network.
        params: of the guide, once learning is over.
        split: with its roles assigned.
        predict: the task's compiled predictive.
        key: of the draws.
        wanted: the temperature; 1 changes nothing, -1 fits it on the part that selects.
    """
    temper = task.facts.temper
    if wanted == 1 or temper is None or not temper.possible(bayesian):
        return params, 1.0
    if wanted > 0:
        return temper.at(params, wanted), wanted
    select = sample(split.val, MOST) if size(split.val) else split.val
    if not size(select):
        return params, 1.0

    def lost(log_temperature: float) -> float:
        tempered = temper.at(params, math.exp(log_temperature))
        made = predict(tempered, select.x, key, samples=DRAWS, **task.beside(select.y))
        return temper.lost(made, select.y) + log_temperature**2 / (2 * temper.width**2)

    found = minimize_scalar(lost, bounds=(-FARTHEST, FARTHEST), method="bounded", options={"xatol": TOLERANCE})
    temperature = math.exp(float(found.x)) if found.fun < lost(0.0) else 1.0
    return temper.at(params, temperature), temperature


def _linear(bayesian: Bayesian) -> bool:
    """Returns whether logits are linear in the readout's weights, and these on no grid."""
    model = bayesian.simulator.template.build(bayesian.weights.initial)
    stacked = isinstance(model, Stack)  # what a network of one's own makes of its last weights is its business
    linear = stacked and kind(getattr(model, model.names[-1]).cell) == "LI" and model.readout_kind != "vote"
    return bool(linear) and not bayesian.joint and bayesian.bits is None
