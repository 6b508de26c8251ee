"""When the decided network stops: its rule fitted on held-out examples, its risk certified, rival rules beside it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logit

from dsnn import evaluate, rng
from dsnn.anytime import normalised_entropy
from dsnn.bayes import halting
from dsnn.bayes.refit import refit
from dsnn.deploy import deploy, running

if TYPE_CHECKING:
    from dsnn.assemble import Setup

CANDIDATES = np.linspace(-15, 15, 241)
"""Log odds of the quantiles among which the certified one is chosen, fixed before any example is seen."""

BLOCKS = 40
"""Most blocks of steps in which accuracy and confidence are compared."""


class Settled(NamedTuple):
    """How the network stops.

    Attributes:
        params: of the guide, with the head that was fitted.
        quantile: at which an example stops.
        metrics: what was chosen, and on what.
    """

    params: dict[str, Any]
    quantile: float
    metrics: dict[str, Any]


def halves(setup: "Setup") -> tuple[np.ndarray, np.ndarray]:
    """Returns the validation examples that fit the rule and those that certify its risk; no example does both."""
    count = len(setup.split.val.x)
    order = np.asarray(jax.random.permutation(rng.stream(rng.stream(setup.root, "data"), "data"), count))
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def stops(setup: "Setup") -> bool:
    """Returns whether the network decides when to stop."""
    return setup.lifted.feature is not None and setup.split.task == "classification"


def scored(setup: "Setup") -> Any:
    """Returns which validation examples score and calibrate the network: those that did not fit its stopping rule."""
    fitted = stops(setup) and setup.config.halting.fit == "held_out"
    return halves(setup)[1] if fitted else slice(None)


def settle(setup: "Setup", params: dict[str, Any], price: float) -> Settled:
    """Returns the stopping rule as the configuration wants it.

    Args:
        setup: of the run.
        params: of the guide, trained.
        price: of a step at the end of training, nats.

    Raises:
        ValueError: there are too few validation examples for what is asked.
    """
    config, lifted, val = setup.config.halting, setup.lifted, setup.split.val
    metrics: dict[str, Any] = {}
    if not stops(setup) or not (config.fit == "held_out" or config.risk):
        return Settled(params, config.quantile, metrics)
    fitting, certifying = halves(setup)
    logits, labels = running(lifted, deploy(lifted, params), val.x, setup.root), np.asarray(val.y)
    if config.fit == "held_out":
        price = price if config.price < 0 else config.price
        fit = jax.jit(lambda logits, labels, price: refit(
            logits, labels, price, feature=lifted.feature or "margin", entropy=config.entropy
        ))  # fmt: skip
        found = fit(logits[:, fitting], labels[fitting], price)
        params = params | {f"halting.{name}": value for name, value in found.head.items()}
        metrics |= {"halting/price": price, "halting/fitted_on": len(fitting), "halting/objective": float(found.end)}
    if not config.risk:
        return Settled(params, config.quantile, metrics)
    score = scores(setup, params, logits[:, certifying])["variational"]
    right = logits[:, certifying].argmax(-1) == labels[certifying]
    threshold = evaluate.certified_threshold(score, right, CANDIDATES, config.risk, config.risk_delta)
    metrics |= {"halting/risk": config.risk, "halting/risk_delta": config.risk_delta}
    metrics |= {"halting/certified_on": len(certifying), "halting/certified": float(np.isfinite(threshold))}
    return Settled(params, float(expit(threshold)), metrics)


def scores(setup: "Setup", params: dict[str, Any], logits: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what each rule holds against its threshold, ``[time, batch]`` by rule; larger stops.

    The variational rule's is the log odds of having stopped, DT-SNN's minus the normalised entropy, SEENN-I's the
    largest probability, and that of fixed stopping the step.
    """
    lifted, given = setup.lifted, jnp.asarray(logits)
    steps = np.broadcast_to(np.arange(1.0, len(logits) + 1)[:, None], logits.shape[:2])
    found = {"dt_snn": -normalised_entropy(given), "seenn": jax.nn.softmax(given).max(-1), "fixed": steps}
    if lifted.feature is not None:
        hazards = halting.hazard_logits(lifted.head(params), given, lifted.feature)
        found = {"variational": halting.log_odds_stopped(hazards), **found}
    return {name: np.asarray(score, float) for name, score in found.items()}


def exits(setup: "Setup", settled: Settled) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns metrics and curves of the decided network's early exits on the whole test part."""
    test = setup.split.test
    labels = np.asarray(test.y)
    logits = running(setup.lifted, deploy(setup.lifted, settled.params), test.x, setup.root)
    right = logits.argmax(-1) == labels
    probs = np.moveaxis(np.asarray(jax.nn.softmax(logits), float), 0, 1)
    at_all = np.broadcast_to(labels[:, None], probs.shape[:2])
    blocks = evaluate.block_calibration(probs, at_all, np.ones(at_all.shape, bool), -(-len(logits) // BLOCKS))
    metrics: dict[str, Any] = {
        "halting/accuracy_all_steps": float(right[-1].mean()),
        # an ECE of a step has few predictions to a bin; the gap of all of them has no bias for that
        "deployed/confidence_gap_mean": float(np.abs(blocks.confidence - blocks.accuracy).mean()),
    }
    records: dict[str, np.ndarray] = {f"deployed_blocks/{name}": values for name, values in blocks._asdict().items()}
    every = scores(setup, settled.params, logits)
    stopped = float(len(logits))
    if "variational" in every:
        threshold = float(logit(settled.quantile))
        stop = evaluate.exit_steps(every["variational"], threshold)
        stopped = float(stop.mean())
        metrics |= {
            "halting/quantile": settled.quantile,
            "halting/accuracy": float(np.take_along_axis(right, stop[None] - 1, 0).mean()),
            "halting/steps_mean": stopped,
            "halting/extra_errors": float(evaluate.extra_errors(every["variational"], right, threshold).mean()),
        }
    for name, score in every.items():
        curve = evaluate.exit_curve(score, right)
        records |= {f"exits/{name}/steps": curve.steps, f"exits/{name}/accuracy": curve.accuracy}
        if name != "variational":
            metrics[f"halting/{name}_accuracy"] = float(evaluate.accuracy_at(curve, np.array([stopped]))[0])
    return metrics, records
