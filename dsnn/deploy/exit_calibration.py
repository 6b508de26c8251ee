"""When the decided network stops: its rule fitted on examples that select, its risk certified on examples that do not.

Learning runs all steps. Afterwards q(n | x) is fitted on the select part (`dsnn.deploy.refit`), which also gives the
candidate thresholds; the certify part then says how early is early enough. Starting from the most cautious candidate,
each is tested for the share of examples that stopping early makes wrong and all steps would have made right, of the
deployed network and of the posterior predictive alike, and one of the last that pass is taken. So the promise holds
for both, whatever the data: where evidence comes late, nothing is certified before it.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit

from dsnn import evaluate
from dsnn.bayes import halting
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.halting_posterior import SHARPNESS, TEMPERATURE, HaltingPosterior
from dsnn.data import Arrays, Split, size
from dsnn.data.batches import ROWS
from dsnn.deploy.decided import Deployed, deploy, running
from dsnn.deploy.exit_options import HaltingConfig
from dsnn.deploy.refit import refit
from dsnn.learn import SviState
from dsnn.native.programs import Program, quickly
from dsnn.tasks import Predict
from dsnn.types import Array, Bool, Float, Key

FEWEST = 50
"""Examples below which no risk is certified by default, and every step runs."""

LEAST_RISK = 0.01
"""The risk that is aimed at by default, where there are examples enough to certify it."""

CANDIDATES = 40
"""Thresholds that are tested, at most."""

AIM = 0.4
"""Share of the risk that a candidate may add on the select part: one that is near the limit there is seldom certified,
and where it is, by luck."""

CAUTION = 0.1
"""Share of the candidates that passed by which the one that is taken is more cautious than the last of them, which of
all of them had the most luck."""


class Calibrated(NamedTuple):
    """How a network stops.

    Attributes:
        params: of the guide, with the head that was fitted.
        threshold: log odds of having stopped at which an example stops; infinity runs all steps.
        metrics: what was chosen, on what, and what was certified.
    """

    params: dict[str, Any]
    threshold: float
    metrics: dict[str, float]


def calibrate(
    bayesian: Bayesian,
    params: dict[str, Any],
    split: Split,
    config: HaltingConfig,
    root: Key[Array, ""],
    *,
    price: float = 0.0,
    predict: Predict,
    samples: int,
    key: Key[Array, ""],
) -> Calibrated:
    """Returns the stopping rule as the configuration wants it.

    Args:
        bayesian: the network; it must have a halting feature.
        params: of the guide, trained.
        split: with its roles assigned (`dsnn.data.assign_roles`).
        config: what is asked.
        root: root key of the run, for encodings that draw.
        price: of a step at the end of training, λ E_step in nats.
        predict: of `dsnn.tasks.predictor`.
        samples: posterior draws of the predictive that is certified.
        key: of these draws.
    """
    select, certify = split.val, split.certify
    metrics: dict[str, float] = {}
    if certify is None or not size(select):
        if config.risk or config.fit != "training":
            return Calibrated(params, math.inf, _uncertified(0, config))
        return Calibrated(params, float(logit(config.quantile)), metrics)
    deployed = deploy(bayesian, params)
    logits, labels = running(bayesian, deployed, select.x, root), np.asarray(select.y)
    wanted = config.risk if config.risk >= 0 else default_risk(size(certify), config.risk_delta)
    if config.fit != "training":
        params, found = _refitted(bayesian, params, logits, labels, config, max(wanted, LEAST_RISK), price)
        metrics |= found
    if not config.risk:
        threshold = float(logit(config.quantile))
        return Calibrated(params, threshold, metrics | _compared(bayesian, params, deployed, split, root, threshold))
    if config.risk < 0 and size(certify) < FEWEST:
        return Calibrated(params, math.inf, metrics | _uncertified(size(certify), config))
    score, right = odds(bayesian, params, logits), logits.argmax(-1) == labels
    thresholds = candidates(score)
    hopeful = deployed_extra(score, right, thresholds).mean(1) <= AIM * wanted
    thresholds = thresholds[: len(thresholds) if hopeful.all() else max(int(hopeful.argmin()), 1)]
    params = params | {SHARPNESS: _sharpness(params, select, float(thresholds[-1]), predict, samples, key)}
    late = running(bayesian, deployed, certify.x, root)
    extra = deployed_extra(odds(bayesian, params, late), late.argmax(-1) == np.asarray(certify.y), thresholds)
    made = predict(params, certify.x, key, samples=samples, threshold=thresholds)
    extra_predictive = _extra(made.probs.argmax(-1), made.full.argmax(-1), np.asarray(certify.y))
    passed = min(evaluate.certified_count(e, wanted, config.risk_delta) for e in (extra, extra_predictive))
    threshold = float(thresholds[max(int((1 - CAUTION) * passed), 1) - 1]) if passed else math.inf
    metrics |= {
        "halting/risk": wanted,
        "halting/risk_delta": config.risk_delta,
        "halting/selected_on": size(select),
        "halting/certified_on": size(certify),
        "halting/certified": float(passed > 0),
    }
    return Calibrated(params, threshold, metrics)


def default_risk(examples: int, delta: float = 0.1) -> float:
    """Returns the risk that is certified where none is asked for: 1 %, or the least that so many examples can certify.

    With m examples none of which got worse, a risk of 1 - delta^(1/m) is certified with probability 1 - delta.
    """
    return max(LEAST_RISK, 1.0 - delta ** (1 / examples) + 1e-12) if examples else 1.0


def candidates(score: Float[np.ndarray, "time batch"]) -> Float[np.ndarray, " point"]:
    """Returns the thresholds to test, falling: quantiles of what examples of the select part reach before the end."""
    return evaluate.exit_curve(score, np.zeros(score.shape, bool), CANDIDATES).threshold[1:]


def odds(bayesian: Bayesian, params: dict[str, Any], logits: Float[np.ndarray, "time batch class"]) -> np.ndarray:
    """Returns the log odds of having stopped after each step, ``[time, batch]``, of running logits."""
    count = logits.shape[1]
    filled = np.pad(logits, ((0, 0), (0, -count % ROWS), (0, 0)), mode="edge") if count else logits
    found = _stopped(_halting(bayesian).feature)(_halting(bayesian).head(params), filled)
    return np.asarray(found, float)[:, :count]


@functools.cache
def _stopped(feature: str) -> Any:
    """Returns the compiled log odds of having stopped of a head and running logits."""

    def found(head: dict[str, Array], logits: Array) -> Array:
        return halting.log_odds_stopped(halting.hazard_logits(head, logits, feature))

    return jax.jit(found, compiler_options=quickly())


@functools.cache
def _refit(feature: str, entropy: float | None) -> Program:
    return Program(lambda logits, labels, price: refit(logits, labels, price, feature=feature, entropy=entropy))


def ahead(bayesian: Bayesian, split: Split, config: HaltingConfig) -> None:
    """Begins to compile the fit of q(n | x), where there will be one."""
    if split.certify is None or not size(split.val) or config.fit == "training":
        return
    classes = bayesian.simulator.template.build(bayesian.weights.initial).out_shape
    logits = np.zeros((bayesian.simulator.steps, size(split.val), *classes), np.float32)
    _refit(*_how(bayesian, config)).ahead(logits, np.asarray(split.val.y), np.float32(0.0))


def _how(bayesian: Bayesian, config: HaltingConfig) -> tuple[str, float | None]:
    """Returns the feature that the head reads and the weight of its entropy, None for the default."""
    return _halting(bayesian).feature, None if config.entropy < 0 else config.entropy


def _halting(bayesian: Bayesian) -> HaltingPosterior:
    if bayesian.halting is None:
        raise ValueError("a stopping rule is calibrated where a network halts, got halting=None; give it one.")
    return bayesian.halting


def deployed_extra(
    score: Float[np.ndarray, "time batch"],
    right: Bool[np.ndarray, "time batch"],
    thresholds: Float[np.ndarray, " point"],
) -> Bool[np.ndarray, "point batch"]:
    """Returns which examples each threshold makes wrong that all steps would have made right."""
    return np.stack([evaluate.extra_errors(score, right, t) for t in thresholds])


def step_price(bayesian: Bayesian, params: dict[str, Any], state: SviState) -> float:
    """Returns λ E_step at the end of training, in nats."""
    energy = bayesian.energy
    if energy is None:
        return 0.0

    def step_nj(params: dict[str, Any], events: dict[str, Array]) -> Array:
        return energy.expected(bayesian.chances(params), events).step_nj

    priced = jax.jit(step_nj, compiler_options=quickly())
    price = math.exp(float(state.duals.log_lam)) * float(priced(params, state.events))
    return price if price > 1e-9 else 0.0  # where energy is free, its price starts at next to nothing


def said(calibrated: Calibrated) -> str:
    """Returns one sentence on what was promised of stopping early."""
    found = calibrated.metrics
    if "halting/risk" not in found:
        worse = ""
        if found.get("halting/held_out_clearly_worse"):
            early, late = found["halting/held_out_accuracy"], found["halting/held_out_accuracy_all_steps"]
            worse = (
                f" On held-out examples early answers are clearly worse, {early:.3f} right against {late:.3f} with all "
                "steps; leave halting.risk at its default, or set halting.enabled=false."
            )
        return (
            f"stops early at log odds {calibrated.threshold:.3g}; the errors that this adds are not certified.{worse}"
        )
    count, risk = int(found["halting/certified_on"]), found["halting/risk"]
    fewest = FEWEST
    if risk != default_risk(count, found["halting/risk_delta"]):  # somebody's own
        fewest = math.ceil(math.log(found["halting/risk_delta"]) / math.log1p(-min(risk, 0.999)))
    if count < fewest and math.isinf(calibrated.threshold):
        return (
            f"runs all steps: stopping early is certified on {fewest} held-out examples or more, and there are {count}."
        )
    level = f"{100 * (1 - found['halting/risk_delta']):g} %"
    if math.isinf(calibrated.threshold):
        return f"runs all steps: stopping early added more than {100 * risk:.2g} % errors on {count} held-out examples."
    return f"stops early, adding at most {100 * risk:.2g} % errors (certified at {level} on {count} held-out examples)."


def _sharpness(
    params: dict[str, Any], select: Arrays, threshold: float, predict: Predict, samples: int, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Returns what the predictive's early logits are multiplied by: its draws differ, and their mean sounds less sure.

    The likeliest on the select part of a grid that holds 1, which is where a predictive of one draw stays.
    """
    tried = np.geomspace(0.25, 16.0, CANDIDATES).astype(np.float32)
    tried[np.abs(np.log(tried)).argmin()] = 1.0
    early = predict(params, select.x, key, samples=samples, threshold=np.full(len(tried), threshold), sharpness=tried)
    own = np.take_along_axis(early.probs, np.asarray(select.y)[None, :, None], -1)[..., 0]
    return jnp.asarray(tried[np.log(np.maximum(own, 1e-12)).mean(1).argmax()])


def _compared(
    bayesian: Bayesian, params: dict[str, Any], deployed: Deployed, split: Split, root: Key[Array, ""], threshold: float
) -> dict[str, float]:
    """Returns how early answers fare on examples that chose nothing, where no risk is certified."""
    if split.certify is None or not size(split.certify):
        return {}
    logits = running(bayesian, deployed, split.certify.x, root)
    right = logits.argmax(-1) == np.asarray(split.certify.y)
    stop = evaluate.exit_steps(odds(bayesian, params, logits), threshold)
    early = np.take_along_axis(right, stop[None] - 1, 0)[0]
    return {
        "halting/held_out_accuracy": float(early.mean()),
        "halting/held_out_accuracy_all_steps": float(right[-1].mean()),
        "halting/held_out_clearly_worse": float(evaluate.clearly_worse(early, right[-1])),
    }


def _uncertified(count: int, config: HaltingConfig) -> dict[str, float]:
    return {
        "halting/risk": config.risk if config.risk > 0 else default_risk(count, config.risk_delta),
        "halting/risk_delta": config.risk_delta,
        "halting/certified_on": count,
        "halting/certified": 0.0,
    }


def _refitted(
    bayesian: Bayesian,
    params: dict[str, Any],
    logits: np.ndarray,
    labels: np.ndarray,
    config: HaltingConfig,
    risk: float,
    price: float,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Returns the guide's parameters with the head and temperatures that suit the select part, and its metrics.

    All steps together are worth at least the share ``risk`` of what the labels carry, H(y), whatever λ is; where the
    energy prior asks for more, that counts.
    """
    least = risk * label_entropy(labels) / len(logits)
    price = config.price if config.price >= 0 else max(price, least)
    found = _refit(*_how(bayesian, config))(logits, labels, np.float32(price))
    params = params | {f"halting.{name}": value for name, value in found.head.items()}
    # the last step answers as the network that learned does: running all steps is what it was without halting
    suited = np.array(found.temperatures)
    suited[-1] = 1.0
    params |= {TEMPERATURE: jnp.asarray(suited)}
    return params, {"halting/price": price, "halting/objective": float(found.end)}


def label_entropy(labels: np.ndarray) -> float:
    """Returns H(y) in nats, from the shares of the classes."""
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(share * np.log(share)).sum())


def _extra(early: np.ndarray, late: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns which examples ``[point, batch]`` are wrong early and right with all steps."""
    return (early != labels) & (late == labels)
