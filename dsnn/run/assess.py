"""What a trained network is worth: scores, calibration, where it computes, what that costs, and how fast it is.

All of it reads one decided network that ran once (`dsnn.run.assess_activity.Measured`).
"""

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsnn import data, evaluate, parameters, rng, tasks
from dsnn.deploy import exit_calibration
from dsnn.deploy.decided import (
    Deployed,
    deploy,
    running_ahead,
    speed,
)
from dsnn.deploy.decided import running as running_logits
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.run import assess_beliefs, assess_energy, assess_example, assess_integer, assess_placement, exit_rule
from dsnn.run.assess_activity import Measured, inputs_of
from dsnn.run.console import batches

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

PLANTED = {"channels": "input", "pixels": "input", "steps": "time"}
"""Group of gates that must find each planted truth."""


class Assessed(NamedTuple):
    """Numbers for ``metrics.json``, arrays for ``records.npz``, gate probabilities for ``gates.npz``, and what to time.

    Attributes:
        metrics: all but wall times.
        records: what figures are drawn from.
        gates: probability that each site runs, by group.
        measured: for `timed`; None where nothing is timed.
    """

    metrics: dict[str, Any]
    records: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]
    measured: Measured | None


def assess(setup: "Setup", settled: Calibrated, predict: Any) -> Assessed:
    """Returns everything that is reported of a trained network that stops as settled; wall times come from `timed`."""
    metrics, records = predicted(setup, settled, predict)
    return measured(setup, settled, metrics, records)


def predicted(setup: "Setup", settled: Calibrated, predict: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what the posterior predictive is worth: metrics and records."""
    config, split, task, params = setup.config, setup.split, setup.task, settled.params
    ask, steps = asking(setup, settled, predict), float(setup.bayesian.simulator.steps)
    found, records = task.assess(ask, split, _foreign(setup))
    metrics = {"compute/steps_mean": steps, "compute/steps_total": steps} | found
    if "sources" in task.facts.shows:
        metrics |= assess_beliefs.sources(setup, params, predictive_key(setup))
    if "plane" in task.facts.shows:
        records |= assess_beliefs.plane(setup, ask)
    if "posterior" in task.facts.shows:
        records |= assess_beliefs.posterior(setup, params, rng.stream(setup.root, "weights", config.train.epochs))
    return metrics, records


def asking(setup: "Setup", settled: Calibrated, predict: Any) -> tasks.Ask:
    """Returns ``ask(x, **options)``: what a trained network that stops as settled predicts, as an assessment has it."""
    exits = {"threshold": settled.threshold} if setup.task.facts.halts else {}
    how = {"samples": setup.config.bayes.samples, **exits}

    def ask(x: Any, **options: Any) -> Any:
        with batches("predicting") as progress:
            return predict(settled.params, x, predictive_key(setup), progress=progress, **how, **options)

    return ask


def _foreign(setup: "Setup") -> dict[str, Any]:
    """Returns the inputs of the data sets that the network should be unsure of, at the scale of its own."""
    config, scaled = setup.config.data, data.scaling_of(setup.split)
    every = {name: data.load(name, root=config.root).test.x for name in config.ood}
    return {name: x if scaled is None else scaled(np.asarray(x)) for name, x in every.items()}


def measured(setup: "Setup", settled: Calibrated, metrics: dict[str, Any], records: dict[str, np.ndarray]) -> Assessed:
    """Returns what was predicted together with what the decided network does and costs."""
    bayesian, params = setup.bayesian, settled.params
    deployed = deploy(bayesian, params, settled.threshold)
    inputs = inputs_of(setup)
    seen = Measured(deployed, inputs, deployed.run(inputs))
    costs, error = assess_energy.modelled(setup, seen)
    if setup.task.facts.halts:
        answered, curves = exit_rule.exits(setup, settled, deployed)
        metrics, records = metrics | settled.metrics | answered, records | curves
    else:
        metrics |= setup.task.deployed(_decided(setup, deployed, inputs), setup.split)
    metrics |= costs | {
        "compute/compaction_error": error,
        "compute/parameters": parameters.count(deployed.full),
        "compute/parameters_kept": parameters.count(parameters.split(deployed.small)[1]),
    }
    probabilities = {name: np.asarray(p) for name, p in bayesian.running_probabilities(params).items()}
    for name, gates in deployed.gates.items():
        metrics[f"gates/{name}/kept"] = int((np.asarray(gates) > 0).sum())
        metrics[f"gates/{name}/total"] = len(gates)
    if deployed.gates:
        kept = sum(int((np.asarray(g) > 0).sum()) for g in deployed.gates.values())
        every = sum(len(g) for g in deployed.gates.values())
        metrics |= {"gates/kept": kept, "gates/total": every, "gates/kept_fraction": kept / every}
    metrics |= _found(setup.split.truth, probabilities) | assess_placement.placement(setup, params, seen)
    precise, widths = assess_integer.widths(setup, params, deployed)
    metrics |= precise | assess_integer.assessed(setup, deployed, inputs)
    example = assess_example.example(setup, seen, settled)
    return Assessed(metrics, records | widths | example, probabilities, seen)


def _decided(setup: "Setup", deployed: Deployed, inputs: Any) -> tasks.Decided:
    """Returns the decided network as a task looks at it."""
    simulator = deployed.simulator

    def logits() -> np.ndarray:
        return running_logits(setup.bayesian, deployed, setup.split.test.x, setup.root)

    return tasks.Decided(logits, simulator.template.build(deployed.full), inputs, simulator.steps, simulator.held)


def ahead(setup: "Setup", params: dict[str, Any], predict: Any) -> None:
    """Begins to compile what an assessment of a network that answers once will need, while it learns.

    Args:
        setup: of a run that learns alone.
        params: of the guide, as they are now.
        predict: the task's compiled predictive.
    """
    split, bayesian = setup.split, setup.bayesian
    if not setup.task.facts.halts:
        return
    key, held = predictive_key(setup), split.certify is not None and data.size(split.certify) > 0
    certified = exit_rule.stops(setup) and held
    for x in (split.val.x, split.test.x):
        predict.ahead(params, x, key)
    if certified:
        exit_calibration.ahead(bayesian, split, setup.config.halting)
        predict.ahead(params, split.val.x, key, threshold=np.zeros(2))
        running_ahead(bayesian, split.val.x, setup.root)
    running_ahead(bayesian, split.test.x, setup.root)
    assess_beliefs.ahead(setup, params)
    if bayesian.gates is not None and bayesian.bits is None:
        gates = {name: np.zeros(size, np.float32) for name, size in bayesian.gates.sites.groups.items()}
        assess_placement.placing(setup).ahead(
            assess_beliefs.guide_only(params), gates, inputs_of(setup), key, np.int32(0)
        )


def timed(setup: "Setup", settled: Calibrated, assessed: Assessed, predict: Any) -> dict[str, float]:
    """Returns the wall times of prediction and of the deployed network; nothing else should run meanwhile."""
    if assessed.measured is None:
        return {}
    timing = speed(setup.bayesian, assessed.measured.deployed, assessed.measured.inputs)
    x, ask = setup.split.test.x[: tasks.EVAL_BATCH], asking(setup, settled, predict)
    began = time.monotonic()
    ask(x)
    return {
        "time/predict_us": 1e6 * (time.monotonic() - began) / len(x),
        "compute/speedup_realised": timing.speedup,
        "compute/full_ms": timing.full_ms,
        "compute/deployed_ms": timing.deployed_ms,
    }


def predictive_key(setup: "Setup") -> Any:
    """Returns the key of all draws of an assessment."""
    return rng.stream(setup.root, "noise", setup.config.train.epochs)


def _found(truth: Any, probabilities: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns how well gates tell the sites that matter from the others, where the data say which do."""
    metrics: dict[str, float] = {}
    for name, group in PLANTED.items():
        if name in truth and group in probabilities:
            p, matters = probabilities[group].ravel(), np.asarray(truth[name]).ravel()
            metrics |= {
                f"truth/{name}/auroc": evaluate.auroc(p[~matters], p[matters]),
                f"truth/{name}/kept": float((p[matters] > 0.5).mean()),
                f"truth/{name}/kept_in_vain": float((p[~matters] > 0.5).mean()),
            }
    return metrics
