"""What a trained network is worth: scores, calibration, where it computes, what that costs, and how fast it is."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import activity, data, energy, evaluate, parameters, rng
from dsnn.bayes.predict import Prediction
from dsnn.deploy import Deployed, compaction_error, deploy, speed
from dsnn.forward import keep_spikes, keep_traces
from dsnn.models import Stack
from dsnn.unroll import unroll
from experiments import assess_beliefs, assess_numbers
from experiments.console import batches

if TYPE_CHECKING:
    from dsnn.assemble import Setup

EVAL_BATCH = 256
MEASURED_EXAMPLES = 512
SHOWN_NEURONS = 8


class Assessed(NamedTuple):
    """Numbers for ``metrics.json``, arrays for ``records.npz``, and gate probabilities for ``gates.npz``."""

    metrics: dict[str, Any]
    records: dict[str, np.ndarray]
    gates: dict[str, np.ndarray]


def assess(setup: "Setup", params: dict[str, Any], predict: Any) -> Assessed:
    """Returns everything that is reported of a trained network."""
    config, split, lifted = setup.config, setup.split, setup.lifted
    if split.task == "regression":
        metrics, records = assess_numbers.assess(setup, params, predict)
        costs = _costs(setup, deploy(lifted, params))
        records |= assess_beliefs.posterior(setup, params, rng.stream(setup.root, "weights", config.train.epochs))
        return Assessed(metrics | costs, records, {})
    key = rng.stream(setup.root, "noise", config.train.epochs)

    def predicted(x: Any, what: str = "compiling the prediction") -> Prediction:
        options = {"samples": config.bayes.samples, "quantile": config.halting.quantile, "batch_size": EVAL_BATCH}
        with batches(what) as progress:
            return predict(params, x, key, progress=progress, **options)

    labels = np.asarray(split.test.y)
    predicted(split.test.x[:EVAL_BATCH])  # compiled before it is timed
    began = time.monotonic()
    test = predicted(split.test.x, "predicting the test part")
    metrics = _scores("test", test.probs, labels)
    metrics["time/predict_us"] = 1e6 * (time.monotonic() - began) / len(labels)
    if len(split.val.x):
        val, val_labels = predicted(split.val.x, "predicting the validation part").probs, np.asarray(split.val.y)
        metrics |= _scores("val", val, val_labels) | _recalibrated(val, val_labels, test.probs, labels)
    total = evaluate.entropy(test.probs)
    metrics |= {
        "test/aurc": evaluate.aurc(total, test.probs.argmax(-1) != labels),
        "test/accuracy_all_steps": evaluate.accuracy(test.full, labels),
        "uncertainty/aleatoric": float(test.aleatoric.mean()),
        "uncertainty/epistemic": float((total - test.aleatoric).mean()),
        "compute/steps_mean": float(test.steps.mean()),
        "compute/steps_total": float(lifted.forward.steps),
    }
    records = {"test/probs": test.probs, "test/y": labels, "test/steps": test.steps}
    for name in config.data.ood:
        other = predicted(data.load(name, root=config.data.root).test.x, f"predicting {name}")
        unsure = evaluate.entropy(other.probs)
        metrics[f"ood/{name}/auroc"] = evaluate.auroc(total, unsure)
        metrics[f"ood/{name}/fpr95"] = evaluate.fpr95(total, unsure)
        metrics[f"ood/{name}/auroc_epistemic"] = evaluate.auroc(total - test.aleatoric, unsure - other.aleatoric)
        records[f"ood/{name}/probs"] = other.probs
    metrics |= assess_beliefs.sources(setup, params, key)
    records |= assess_beliefs.plane(setup, lambda x: predicted(x, "predicting the plane"))
    records |= assess_beliefs.posterior(setup, params, rng.stream(setup.root, "weights", config.train.epochs))
    deployed = deploy(lifted, params, config.halting.quantile)
    metrics |= _deployment(setup, deployed)
    metrics |= _costs(setup, deployed)
    probabilities = {name: np.asarray(p) for name, p in lifted.gate_probabilities(params).items()}
    for name, gates in deployed.gates.items():
        metrics[f"gates/{name}/kept"] = int((np.asarray(gates) > 0).sum())
        metrics[f"gates/{name}/total"] = len(gates)
    if deployed.gates:
        kept = sum(int((np.asarray(g) > 0).sum()) for g in deployed.gates.values())
        every = sum(len(g) for g in deployed.gates.values())
        metrics |= {"gates/kept": kept, "gates/total": every, "gates/kept_fraction": kept / every}
    records |= _example(setup, deployed)
    return Assessed(metrics, records, probabilities)


def _scores(part: str, probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        f"{part}/accuracy": evaluate.accuracy(probs, labels),
        f"{part}/nll": evaluate.nll(probs, labels),
        f"{part}/ece": evaluate.ece(probs, labels),
        f"{part}/brier": evaluate.brier(probs, labels),
    }


def _recalibrated(
    val: np.ndarray, val_labels: np.ndarray, test: np.ndarray, labels: np.ndarray, level: float = 0.9
) -> dict[str, float]:
    """Returns test scores after temperature scaling, and of conformal sets; both are fitted on validation only."""
    tiny = np.finfo(np.float32).tiny
    temperature = evaluate.fit_temperature(np.log(np.maximum(val, tiny)), val_labels)
    scaled = evaluate.with_temperature(np.log(np.maximum(test, tiny)), temperature)
    sets = evaluate.conformal_sets(test, evaluate.conformal_threshold(val, val_labels, level))
    return {
        "calibration/temperature": temperature,
        "calibration/nll": evaluate.nll(scaled, labels),
        "calibration/ece": evaluate.ece(scaled, labels),
        "conformal/level": level,
        "conformal/coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "conformal/size": float(sets.sum(-1).mean()),
    }


def _inputs(setup: "Setup", count: int) -> Any:
    """Returns the first test examples, encoded."""
    forward = setup.lifted.forward
    return forward.encode(jnp.asarray(setup.split.test.x[:count]), rng.stream(setup.root, "data"))


def _deployment(setup: "Setup", deployed: Deployed) -> dict[str, float]:
    """Returns what the decided, compacted, early-stopping network does and saves in wall time."""
    inputs = _inputs(setup, MEASURED_EXAMPLES)
    labels = np.asarray(setup.split.test.y[:MEASURED_EXAMPLES])
    decision = deployed.run(inputs)
    timing = speed(setup.lifted, deployed, inputs)
    small = parameters.split(deployed.small)[1]
    return {
        "deployed/accuracy": evaluate.accuracy(np.asarray(jax.nn.softmax(decision.logits)), labels),
        "deployed/steps_mean": float(decision.steps.mean()),
        "compute/speedup_realised": timing.speedup,
        "compute/full_ms": timing.full_ms,
        "compute/deployed_ms": timing.deployed_ms,
        "compute/compaction_error": compaction_error(setup.lifted, deployed, inputs),
        "compute/parameters": parameters.count(deployed.full),
        "compute/parameters_kept": parameters.count(small),
    }


def _ran(setup: "Setup", model: Stack, inputs: Any, stop: np.ndarray | None) -> list[energy.Record]:
    forward = setup.lifted.forward
    steps = forward.steps if forward.held else None
    spikes = jax.jit(lambda x: unroll(model, x, None, keep_spikes, steps=steps)[2])(inputs)
    analog = next(w.analog for w in setup.sites.wires)
    return activity.records(model, inputs, spikes, stop, held=forward.held, analog=analog)


def _costs(setup: "Setup", deployed: Deployed) -> dict[str, float]:
    """Returns modelled energies of the gated, the ungated and the dense network, per profile and accounting."""
    config = setup.config
    inputs = _inputs(setup, MEASURED_EXAMPLES)
    stop = np.asarray(deployed.run(inputs).steps)
    gated = _ran(setup, deployed.small, inputs, stop)
    ungated = _ran(setup, setup.lifted.forward.template.build(deployed.full), inputs, None)
    metrics = {
        "compute/spike_rate": energy.spike_rate(gated),
        "compute/dense_macs": energy.count(ungated).total.dense_macs,
    }
    steps = setup.lifted.forward.steps
    for name in dict.fromkeys((config.energy.profile, *config.energy.also)):
        profile, stem = energy.profile(name), Path(name).stem
        both = zip(energy.compare(gated, profile, steps), energy.compare(ungated, profile, steps), strict=True)
        for ours, whole in both:
            headline = ours.accounting == config.energy.accounting
            for prefix in [f"energy/{stem}/{ours.accounting}"] + [f"energy/{stem}"] * headline:
                dense = whole.rivals["ann"].total_nj
                metrics |= {
                    f"{prefix}/snn_nj": ours.snn.total_nj,
                    f"{prefix}/ungated_nj": whole.snn.total_nj,
                    f"{prefix}/ann_nj": dense,
                    f"{prefix}/ann_compact_nj": ours.rivals["ann"].total_nj,
                    f"{prefix}/quantised_nj": whole.rivals["quantised"].total_nj,
                    f"{prefix}/ratio": dense / ours.snn.total_nj,
                    f"{prefix}/break_even_rate": ours.rate.break_even,
                }
                # a recurrent network has gated rivals of the same width
                gated_rivals = whole.rivals.keys() & {"LSTM", "GRU"}
                metrics |= {f"{prefix}/{kind.lower()}_nj": whole.rivals[kind].total_nj for kind in gated_rivals}
    return metrics


def _example(setup: "Setup", deployed: Deployed) -> dict[str, np.ndarray]:
    """Returns rasters, membranes and the running decision of the first test example in the gated network."""
    forward = setup.lifted.forward
    model = forward.template.build(deployed.masked)
    inputs = _inputs(setup, 1)
    steps = forward.steps if forward.held else None
    outputs, _, traces = unroll(model, inputs, None, keep_traces, steps=steps)
    decision = deployed.run(inputs)
    out = {
        "example/x": np.asarray(setup.split.test.x[0]),
        "example/y": np.asarray(setup.split.test.y[0]),
        "example/logits": np.asarray(model.logits(outputs)[:, 0]),
        "example/step": np.asarray(decision.steps[0]),
    }
    for name, (membrane, spikes) in traces.items():
        fired = np.asarray(spikes[:, 0]).reshape(forward.steps, -1)
        trace = np.asarray(membrane[:, 0]).reshape(forward.steps, -1)
        if name == model.names[-1]:
            out[f"membrane/{name}"] = trace
            continue
        kept = np.flatnonzero(np.asarray(deployed.gates[name]) > 0) if name in deployed.gates else None
        if kept is not None and len(kept) and fired.shape[1] == len(deployed.gates[name]):
            fired, trace = fired[:, kept], trace[:, kept]
        busiest = np.argsort(-fired.sum(0))[:SHOWN_NEURONS]
        out[f"raster/{name}"] = fired > 0
        out[f"membrane/{name}"] = trace[:, np.sort(busiest)]
        threshold = np.asarray(getattr(model, name).cell.threshold, dtype=np.float32)
        out[f"threshold/{name}"] = threshold.reshape(-1)[:1]
    return out
