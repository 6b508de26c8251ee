"""Pictures of one example in the decided network: rasters, membranes and the running answer."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from dsnn.deploy.decided import ran
from dsnn.deploy.exit_calibration import Calibrated, odds
from dsnn.networks.whole import Whole
from dsnn.run import exit_rule
from dsnn.run.assess_activity import Measured, measured_on
from dsnn.simulate.simulator import keep_traces

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

SHOWN_NEURONS = 8


def example(setup: "Setup", seen: Measured, settled: Calibrated) -> dict[str, np.ndarray]:
    """Returns rasters, membranes and running decisions in the gated network: the first test example, and a late one."""
    simulator, deployed, test = setup.bayesian.simulator, seen.deployed, measured_on(setup)
    model, running = deployed.simulator.built(deployed.masked)
    taken = np.asarray(seen.decision.steps)
    late = int(taken.argmax())
    inputs = np.take(np.asarray(seen.inputs), [0, late], axis=0 if simulator.held else 1)
    logits, traces = jax.device_get(ran(simulator, model, jnp.asarray(inputs), keep_traces, running))
    shows = setup.task.facts.shows
    out = {"example/x": np.asarray(test.x[0]), "example/step": taken[0]} if "example" in shows else {}
    if "decision" in shows:
        out |= {"example/y": np.asarray(test.y[0]), "example/logits": np.asarray(logits[:, 0])}
        if taken[late] > taken[0]:  # else all stop at once, and one picture says so
            out |= {"late/x": np.asarray(test.x[late]), "late/step": taken[late], "late/y": np.asarray(test.y[late])}
            out["late/logits"] = np.asarray(logits[:, 1])
    if exit_rule.stops(setup):
        seen_odds = odds(setup.bayesian, settled.params, np.asarray(logits))
        for place, name in enumerate(name for name in ("example", "late") if f"{name}/logits" in out):
            out |= {f"{name}/stopped": expit(seen_odds[:, place]), f"{name}/quantile": expit(settled.threshold)}
    fires = {group.name for group in setup.sites.neurons}
    for name, (membrane, spikes) in traces.items():
        fired = np.asarray(spikes[:, 0]).reshape(simulator.steps, -1)
        trace = None if membrane is None else np.asarray(membrane[:, 0]).reshape(simulator.steps, -1)
        if isinstance(model, Whole) and name not in fires:
            continue
        if name == model.names[-1]:
            out |= {} if trace is None else {f"membrane/{name}": trace}
            continue
        kept = np.flatnonzero(np.asarray(deployed.gates[name]) > 0) if name in deployed.gates else None
        if kept is not None and len(kept) and fired.shape[1] == len(deployed.gates[name]):
            fired, trace = fired[:, kept], None if trace is None else trace[:, kept]
        busiest = np.argsort(-fired.sum(0))[:SHOWN_NEURONS]
        out[f"raster/{name}"] = fired > 0
        if trace is None:
            continue
        out[f"membrane/{name}"] = trace[:, np.sort(busiest)]
        threshold = getattr(getattr(getattr(model, name, None), "cell", None), "threshold", None)
        if threshold is not None:
            out[f"threshold/{name}"] = np.asarray(threshold, dtype=np.float32).reshape(-1)[:1]
    return out
