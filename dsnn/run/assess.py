"""What a trained network is worth: scores, calibration, where it computes, what that costs, and how fast it is.

All of it reads one decided network that ran once (`Measured`), and is one file.
"""

import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from dsnn import data, energy, evaluate, parameters, rng, tasks
from dsnn.assembly.bayesian import reads_values
from dsnn.bayes.bayesian import Draw
from dsnn.bayes.sites import Sites
from dsnn.cells import kind
from dsnn.deploy import activity, exit_calibration
from dsnn.deploy.decided import (
    Deployed,
    Ran,
    at_kept_steps,
    compacted,
    compaction_error,
    deploy,
    on_grid,
    ran,
    running_ahead,
    speed,
)
from dsnn.deploy.decided import running as running_logits
from dsnn.deploy.exit_calibration import Calibrated, odds
from dsnn.native.programs import Program
from dsnn.networks.compact import kept as kept_sites
from dsnn.networks.plan import NEURONS
from dsnn.networks.shrink import compacts
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import described_by, priced
from dsnn.run import assess_beliefs, assess_energy, assess_integer, exit_rule
from dsnn.run.console import batches
from dsnn.simulate.early_exit import Decision
from dsnn.simulate.simulator import keep_spikes, keep_traces
from dsnn.simulate.unroll import unroll

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

MEASURED_EXAMPLES, FEWEST_EXAMPLES, MEASURED_BYTES = 512, 16, 1 << 29
"""Test examples on which activity is measured: at most, at least, and the bytes that their spikes may take."""

SHOWN_NEURONS = 8
PLACEMENT_DRAWS = 8
PLANTED = {"channels": "input", "pixels": "input", "steps": "time"}
"""Group of gates that must find each planted truth."""


# members are measured side by side, and NumPyro's handlers stand on one stack for all threads
_DRAWING = threading.Lock()


class Measured(NamedTuple):
    """What the decided network did with the test examples that are measured.

    Attributes:
        deployed: the network.
        inputs: the examples, encoded.
        decision: where each of them stopped, and with which logits.
    """

    deployed: Deployed
    inputs: Any
    decision: Decision


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
    inputs = _inputs(setup)
    seen = Measured(deployed, inputs, deployed.run(inputs))
    costs, error = _costs(setup, seen)
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
    metrics |= _found(setup.split.truth, probabilities) | _placement(setup, params, seen)
    precise, widths = assess_integer.widths(setup, params, deployed)
    metrics |= precise | assess_integer.assessed(setup, deployed, inputs)
    example = _example(setup, seen, settled)
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
        _placing(setup).ahead(assess_beliefs.guide_only(params), gates, _inputs(setup), key, np.int32(0))


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


def _placement(setup: "Setup", params: dict[str, Any], seen: Measured) -> dict[str, float]:
    """Returns where each layer of the decided network should run, over draws of weights and firing noise."""
    config, bayesian, deployed = setup.config.energy, setup.bayesian, seen.deployed
    if isinstance(deployed.small, Whole) or deployed.fixed is not None:  # engines are of the profile's width
        return {}
    core, engine = energy.profile(config.profile), energy.profile(config.engine or config.profile)
    inputs, stop = at_kept_steps(seen.inputs, deployed.kept_steps), deployed.executed(seen.decision.steps)
    analog, draws = reads_analog(setup), []
    for number in range(PLACEMENT_DRAWS):
        with _DRAWING:
            masked, fired = _placing(setup)(
                assess_beliefs.guide_only(params),
                deployed.gates,
                seen.inputs,
                rng.stream(setup.root, "noise", number),
                np.int32(number),
            )
        small = compacted(bayesian, masked, deployed.gates)
        spikes = _of_kept(setup.sites, small, fired, deployed)
        draws.append(activity.records(small, inputs, spikes, stop, held=bayesian.simulator.held, analog=analog))
    metrics: dict[str, float] = {}
    # without prices of memory the trade cannot be seen, but what there is can be compared
    placed = energy.place(draws, core, engine, "memory" if all(map(_prices_memory, (core, engine))) else "updates")
    for layer in placed:
        metrics |= {
            f"placement/{layer.name}/p_events": layer.probability,
            f"placement/{layer.name}/events_nj": layer.event_nj.mean,
            f"placement/{layer.name}/dense_nj": layer.dense_nj.mean,
            f"placement/{layer.name}/rate": layer.rate.mean,
            f"placement/{layer.name}/rate_low": layer.rate.low,
            f"placement/{layer.name}/rate_high": layer.rate.high,
            f"placement/{layer.name}/break_even_rate": min(layer.break_even_rate, 1e6),
        }
    return metrics | {
        "placement/best_nj": sum(layer.best_nj for layer in placed),
        "placement/events_nj": sum(layer.event_nj.mean for layer in placed),
        "placement/dense_nj": sum(layer.dense_nj.mean for layer in placed),
    }


def _placing(setup: "Setup") -> Program:
    """Returns ``(params, gates, inputs, key, number) -> (gated parameters, spikes)`` of one draw of the weights.

    The whole network runs, not the compacted one, whose shape is another for every seed and every run.
    """
    bayesian, simulator = setup.bayesian, setup.bayesian.simulator

    def drawn(params: Any, gates: Any, inputs: Any, key: Any, number: Any) -> tuple[Any, Any]:
        weights = bayesian.draw(params, rng.stream(key, "weights"), number).weights
        masked = on_grid(simulator.template.fold(bayesian.network(Draw(weights, gates or None))))
        model, running = simulator.built(masked)
        steps = simulator.steps if simulator.held else None
        return masked, unroll(model, inputs, key, keep_spikes, steps=steps, running=running)[2]

    return setup.programs.setdefault("placing", Program(drawn))


def sent_by(setup: "Setup", deployed: Deployed, inputs: Any, masked: Ran) -> Any:
    """Returns what the compacted network sends at each of its steps.

    Args:
        setup: of the run.
        deployed: the decided network.
        inputs: encoded, those of the steps that it keeps.
        masked: what its masked form did with them, whose spikes are the same for a stack.
    """
    if isinstance(deployed.small, Whole):
        return ran(setup.bayesian.simulator, deployed.small, inputs).kept
    return _of_kept(setup.sites, deployed.small, masked.kept, deployed)


def records(
    setup: "Setup",
    deployed: Deployed,
    model: Runnable,
    inputs: Any,
    spikes: dict[str, Any],
    stop: np.ndarray | None = None,
) -> list[energy.Record]:
    """Returns what a network of a run did, with the widths of its weights and membranes where these are decided.

    Args:
        setup: of the run.
        deployed: the decided network, whose sites and widths these are.
        model: the network that ran: the decided one compacted, or it with all sites.
        inputs: that it was given, encoded.
        spikes: that it sent, see `sent_by`.
        stop: step after which an example ran no more; None is all steps.
    """
    counted = activity.records(
        model, inputs, spikes, stop, held=setup.bayesian.simulator.held, analog=reads_analog(setup)
    )
    bits = setup.bayesian.bits
    if bits is None:
        return counted
    wires = tuple(wire.said for wire in setup.sites.wires)
    return activity.with_widths(counted, wires, deployed, inputs=bits.inputs, membrane=bits.membrane)


def _of_kept(whole: Sites, small: Runnable, fired: Any, deployed: Deployed) -> dict[str, Any]:
    """Returns the spikes of the compacted network: those of the sites and steps of the whole that are kept."""
    spikes = {name: np.asarray(fired[name]) for name in small.names}
    if deployed.kept_steps is not None:
        spikes = {name: values[np.asarray(deployed.kept_steps)] for name, values in spikes.items()}
    for group in whole.neurons:
        name = group.name.removesuffix(NEURONS)
        if name in spikes and group.sites is not None and group.sites.group in deployed.gates:
            stay = np.isin(group.sites.index, kept_sites(deployed.gates[group.sites.group]))
            spikes[name] = spikes[name][..., stay]
    return {name: jnp.asarray(values) for name, values in spikes.items()}


def _prices_memory(profile: energy.Profile) -> bool:
    return profile.memory_included or profile.weight_pj_per_bit is not None


def _measured_examples(setup: "Setup") -> int:
    """Returns how many examples are measured: fewer of a network whose spikes of all steps would fill the memory."""
    model, _ = setup.bayesian.simulator.built(setup.bayesian.weights.initial)
    each = 4 * setup.bayesian.simulator.steps * sum(group.count for group in described_by(model).neurons)
    return max(min(MEASURED_EXAMPLES, MEASURED_BYTES // max(each, 1)), FEWEST_EXAMPLES)


def _measured_on(setup: "Setup") -> data.Arrays:
    """Returns the test examples on which activity and costs are measured."""
    return data.sample(setup.split.test, _measured_examples(setup))


def _inputs(setup: "Setup") -> Any:
    """Returns the test examples that are measured, encoded."""
    examples = jnp.asarray(_measured_on(setup).x)
    return setup.bayesian.simulator.encode(examples, rng.stream(setup.root, "data"))


def _costs(setup: "Setup", seen: Measured) -> tuple[dict[str, Any], float]:
    """Returns modelled energies of the gated network, the ungated one and rivals, and the error of compaction."""
    config, simulator, deployed = setup.config, setup.bayesian.simulator, seen.deployed
    model, running = deployed.simulator.built(deployed.masked)
    masked, kept = ran(simulator, model, seen.inputs, running=running), at_kept_steps(seen.inputs, deployed.kept_steps)
    error = compaction_error(masked, ran(simulator, deployed.padded, kept, None), deployed.kept_steps)
    if not setup.sites.wires:
        return {"energy/uncounted": "the network has no wiring()"}, error
    spikes = sent_by(setup, deployed, kept, masked)
    gated = records(setup, deployed, deployed.small, kept, spikes, deployed.executed(seen.decision.steps))
    full = deployed.simulator.template.build(deployed.full)
    ungated = records(setup, deployed, full, seen.inputs, ran(simulator, full, seen.inputs).kept)
    metrics: dict[str, Any] = {
        **({} if compacts(model) else {"compute/uncompacted": "it has no shrink()"}),
        "compute/spike_rate": energy.spike_rate(gated),
        "compute/events_per_inference": sum(r.total_spikes for r in gated if isinstance(r, energy.NeuronRecord)),
        "compute/dense_macs": energy.count(ungated).total.dense_macs,
    }
    if setup.bayesian.energy is not None:  # of the objective: whether its price reached the spikes
        metrics["energy/events"] = config.energy.events
    if config.svi.rate_penalty:
        metrics["svi/rate_penalty"] = config.svi.rate_penalty
    # what an encoder made of the data says nothing of their zeros
    drawn = simulator.encoding in ("rate", "latency")
    seen_x, axes = (_measured_on(setup).x, 1) if drawn else (seen.inputs, 1 if simulator.held else 2)
    scaled = data.scaling_of(setup.split)
    seen_x = seen_x if scaled is None else scaled.undone(np.asarray(seen_x))  # a rival reads data as they come
    nonzero = assess_energy.nonzero_inputs(full, jnp.asarray(seen_x), axes)
    sequence = simulator.encoding in ("temporal", "scan")
    metrics |= assess_energy.costs(config.energy, gated, ungated, simulator.steps, nonzero, sequence=sequence)
    skipped = assess_energy.nonzero_inputs(deployed.small, jnp.asarray(seen_x), axes)
    metrics |= assess_energy.standing(config.energy, gated, simulator.steps, skipped, sequence=sequence)
    cells = [(cell, kind(cell)) for cell in _cells(full)]
    if unknown := sorted({name for cell, name in cells if not energy.has_cost(cell, name)}):
        metrics["energy/priced_as_lif"] = ", ".join(unknown)
    return metrics, error


def _cells(model: Any) -> list[Any]:
    """Returns the cells of a network."""
    return [priced(group) for group in described_by(model).neurons]


def reads_analog(setup: "Setup") -> bool:
    """Returns whether inputs carry values and not spikes."""
    return reads_values(setup.bayesian.simulator, setup.split)


def _example(setup: "Setup", seen: Measured, settled: Calibrated) -> dict[str, np.ndarray]:
    """Returns rasters, membranes and running decisions in the gated network: the first test example, and a late one."""
    simulator, deployed, test = setup.bayesian.simulator, seen.deployed, _measured_on(setup)
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
