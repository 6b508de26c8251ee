"""Which figures a run's page shows, and the numbers behind them: name -> (caption, function that draws it)."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from dsnn import plots
from dsnn.plots import wording

Metrics = Mapping[str, float | int | str]
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]
Drawings = dict[str, tuple[str, Callable[[], Figure]]]
EXAMPLES = {"example": "running_decision", "late": "late_decision"}
"""Recorded examples and the names of their figures."""


def learned(
    metrics: Metrics, history: Sequence[Mapping[str, Any]], records: Arrays, belief: wording.Belief
) -> Drawings:
    """What was learned: curves, calibration, uncertainty."""
    drawings: Drawings = {}
    if plots.has_curves(history):
        drawings["learning_curves"] = ("The course of training.", lambda: plots.learning_curves(history))
    if sum(float(record.get("svi/lam", 0.0)) > 0 for record in history) > 1:
        drawings["prices"] = (
            "What energy was priced at, and how much of it the network was then modelled to spend. A price that is not "
            "given is found: it rises while the network spends more than its budget, which falls to its value.",
            lambda: plots.price_trace(history),
        )
    if not {"test/probs", "test/y"} <= records.keys():
        return drawings
    # Nothing is computed before a figure is drawn: an array of another shape than a run's spoils its own figure only.
    probs, labels = records["test/probs"], records["test/y"]
    ece = metrics.get("test/ece")
    drawings["reliability"] = (
        f"How often it is right when it says it is sure ({belief.predictive}). On the diagonal, confidence can be "
        "taken at its word; strong dots hold many examples.",
        lambda: plots.reliability(*reliability(probs, labels), ece if isinstance(ece, float) else None),
    )
    if outside := under(records, "ood/"):
        foreign = {name.removesuffix("/probs"): p for name, p in outside.items() if name.endswith("/probs")}
        drawings["uncertainty"] = (
            f"How uncertain it is on its own test data and on data it never saw ({belief.predictive}). Well apart is "
            "good.",
            lambda: plots.uncertainty_histogram(
                entropy(probs), {name: entropy(other) for name, other in foreign.items()}
            ),
        )
    drawings["risk_coverage"] = (
        f"The error if it may stay silent on what it is least sure of ({belief.predictive}).",
        lambda: plots.risk_coverage(*risk_coverage(entropy(probs), probs.argmax(axis=-1) != labels)),
    )
    return drawings


def in_time(metrics: Metrics, records: Arrays, belief: wording.Belief) -> Drawings:
    """What is believed at every time step: how sure it may be, how soon a class is called, one sequence."""
    drawings: Drawings = {}
    total = int(metrics.get("compute/steps_total", 1))
    for prefix, whose in (("blocks/", f"the {belief.predictive}"), ("deployed_blocks/", "the deployed network")):
        blocks = under(records, prefix)
        if {"first", "accuracy", "confidence"} <= blocks.keys():
            columns = (blocks["first"], blocks["accuracy"], blocks["confidence"])
            drawings["step_calibration"] = (
                f"How sure {whose} is as time goes on, and how often it is right then. Where they part, confidence is "
                "not to be taken at its word.",
                functools.partial(plots.step_calibration, *columns, total),
            )
    curve = under(records, "detection/")
    if {"threshold", "risk", "miss_rate", "median_delay"} <= curve.keys():
        chosen = {
            name.split("/")[2]: float(value)
            for name, value in metrics.items()
            if name.startswith("test/detection/") and name.endswith("/threshold")
        }
        drawings["detection"] = (
            "How soon a class is called once it has begun, and at what risk, if the network speaks when sure enough."
            + (f" Dashed: chosen on validation for risks of {', '.join(chosen)}." if chosen else ""),
            lambda: plots.detection(
                curve["threshold"], curve["risk"], curve["miss_rate"], curve["median_delay"], list(chosen.values())
            ),
        )
    if sequence := under(records, "sequence/"):
        drawings["believed_sequence"] = (
            "One test sequence: what the network believes after every step, under the true classes.",
            lambda: plots.believed_sequence(
                sequence["probs"][0], sequence["y"][0], [str(name) for name in sequence.get("names", ())]
            ),
        )
    return drawings


def believed(records: Arrays, belief: wording.Belief) -> Drawings:
    """What the posterior believes: parameters, the plane, intervals of numbers."""
    drawings: Drawings = {}
    if {"test/mean", "test/lower", "test/upper", "test/y"} <= records.keys():
        mean, lower, upper, y = (records[f"test/{name}"] for name in ("mean", "lower", "upper", "y"))
        drawings["intervals"] = (
            f"What is promised for each test example, and what came true ({belief.predictive}).",
            lambda: plots.intervals(mean[:, 0], lower[:, 0], upper[:, 0], y[:, 0]),
        )
    if "plane/x" in records:
        drawings["uncertainty_map"] = (
            "Where in the plane the network does not know. Doubt between classes is in the data; doubt far from all "
            "examples has to be epistemic.",
            lambda: plots.uncertainty_map(
                records["plane/x"],
                {"all doubt": records["plane/total"], "epistemic part": records["plane/epistemic"]},
                records["plane/points"],
                records["plane/labels"],
            ),
        )
    if draws := under(records, "posterior/"):
        drawings["posterior"] = (
            f"What is believed of single parameters ({belief.whole}), beside what was believed before.",
            lambda: plots.posterior(draws, under(records, "prior/"), noun=belief.noun),
        )
    return drawings


def running(metrics: Metrics, gates: Arrays, records: Arrays) -> Drawings:
    """Where and when computation runs: gates, one example in time, steps."""
    drawings: Drawings = {}
    example = records.get("example/x")
    stop = _whole(records, "example/step")
    if gates:
        shape = None if example is None else example.shape
        drawings["gate_map"] = (
            "Every square is a place where computation can run, as dark as it is likely to be needed. The input "
            "keeps its picture; neurons are sorted; a time step is as dark as there are examples of the predictive "
            "that still run then. What is switched off costs nothing once the network is compacted. Pale squares are "
            "undecided and, below one half, switched off: blank pixels cost nothing, so nothing decides them.",
            lambda: plots.gate_map(*_gate_map(metrics, gates, records, shape)),
        )
    for name, which in EXAMPLES.items():
        if f"{name}/logits" in records:
            drawings[which] = (
                ("One test example: " if name == "example" else "The test example that took longest, of those shown: ")
                + "what the network believes as the time steps pass, when it stops, and why then.",
                _decision(under(records, f"{name}/")),
            )
    if curves := exit_curves(records):
        total = int(metrics.get("compute/steps_total", 1))
        named = ("deployed/steps_mean", "deployed/accuracy")
        point = (float(metrics[named[0]]), float(metrics[named[1]])) if {*named} <= metrics.keys() else None
        drawings["exits"] = (
            "What answering early costs: each rule stops an example once its own threshold is reached, and lower "
            "thresholds stop earlier. All rules see the same network and the same test examples.",
            lambda: plots.exit_curves(curves, total, point),
        )
    if "test/steps" in records:
        drawings["steps"] = (
            "When the examples were answered; what would come after is not computed.",
            lambda: plots.steps_histogram(
                records["test/steps"], int(metrics.get("compute/steps_total", np.ceil(records["test/steps"].max())))
            ),
        )
    if spikes := under(records, "raster/"):
        drawings["raster"] = (
            "The spikes of that example: a row per neuron, a column per time step.",
            lambda: plots.raster(spikes, stop),
        )
    if traces := under(records, "membrane/"):
        thresholds = under(records, "threshold/")
        drawings["membrane"] = (
            "The membranes of a few neurons; one that reaches its threshold tends to spike and is reset.",
            lambda: plots.membrane_traces(
                traces, {name: float(np.mean(value)) for name, value in thresholds.items()}, stop
            ),
        )
    return drawings


def costing(metrics: Metrics) -> Drawings:
    """What it costs: modelled energies."""
    if not (costs := headline_costs(metrics)):
        return {}
    caption = (
        "Modelled, from counted operations and published energies. Blue is ours; a rival that is cheaper is orange, a "
        "dearer one grey."
    )
    drawings: Drawings = {"energy": (caption, lambda: plots.energy_bars(costs, networks(metrics)))}
    if lines := boundaries(metrics):
        own = float(metrics["map/spikes_a_neuron"])
        drawings["boundary"] = (
            "Where spikes win: below a line this network would cost less than a network of values of its own shape "
            "that skips its zeros. Where on the line of its own spikes it stands is known once that rival is trained.",
            lambda: plots.boundary(lines, own),
        )
    return drawings


def boundaries(metrics: Metrics) -> dict[str, dict[str, tuple[float, float]]]:
    """Lines on which this network and a rival that skips zeros cost alike, by accounting and rival, by their ends."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name in metrics:
        head, *rest = name.split("/")
        if head != "map" or len(rest) != 2 or not rest[1].endswith("_at_none"):
            continue
        rival = rest[1].removesuffix("_at_none")
        ends = [float(metrics[f"map/{rest[0]}/{rival}_{end}"]) for end in ("at_none", "at_all")]
        found.setdefault(rest[0], {})[rival] = (ends[0], ends[1])
    return {accounting: found[accounting] for accounting in ("arithmetic", "updates", "memory") if accounting in found}


# --- From metrics to tables


def networks(metrics: Metrics) -> dict[str, str]:
    """What the energies below ``energy/<profile>/<accounting>/`` are of, in the order in which they are shown."""
    return wording.OURS | {f"rival/{name}_nj": wording.rival(name, metrics) for name in wording.RIVALS}


def headline_costs(metrics: Metrics) -> dict[str, dict[str, float]]:
    """Per hardware profile its energies in the run's own accounting (``energy/<profile>/snn_nj`` and so on)."""
    return {profile: tables[""] for profile, tables in energies(metrics).items() if "" in tables}


def energies(metrics: Metrics) -> dict[str, dict[str, dict[str, float]]]:
    """Energies by profile, accounting ("" for the run's own) and network, under the names of `networks`."""
    known, found = networks(metrics), dict[str, dict[str, dict[str, float]]]()
    for name, value in metrics.items():
        head, *rest = name.split("/")
        if head != "energy" or len(rest) < 2 or not isinstance(value, int | float):
            continue
        profile, *quantity = rest
        accounting = "" if "/".join(quantity) in known else quantity.pop(0)
        if (network := "/".join(quantity)) in known:
            found.setdefault(profile, {}).setdefault(accounting, {})[network] = float(value)
    return found


def site_rows(metrics: Metrics) -> list[tuple[str, int, int]]:
    """Group, sites that run, sites there are: the input first, the sum last."""
    names = [name.split("/")[1] for name in metrics if name.startswith("gates/") and name.endswith("/kept")]
    names = sorted(
        {name for name in names if f"gates/{name}/total" in metrics}, key=lambda name: (name != "input", name)
    )
    rows = [(name, int(metrics[f"gates/{name}/kept"]), int(metrics[f"gates/{name}/total"])) for name in names]
    return [*rows, ("together", sum(row[1] for row in rows), sum(row[2] for row in rows))] if len(rows) > 1 else rows


def bit_rows(metrics: Metrics) -> list[tuple[str, float]]:
    """Layer, mean bits of its weights, in their order; all weights last."""
    own = [(name.split("/")[1], value) for name, value in metrics.items() if name.startswith("bits/")]
    rows = [(name, float(value)) for name, value in own if f"bits/{name}/mean" in metrics]
    return [*rows, ("all weights", float(metrics["bits/mean"]))] if rows and "bits/mean" in metrics else rows


# --- From predictions to curves; held against dsnn.evaluate in the tests, since a report knows files and numbers only


def under(records: Arrays, prefix: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays below a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in records.items() if name.startswith(prefix)}


def entropy(probs: Float[np.ndarray, "batch class"]) -> Float[np.ndarray, "batch"]:
    """Predictive entropy of each example in nats."""
    probs = np.asarray(probs, float)
    return -np.sum(probs * np.log(np.maximum(probs, np.finfo(float).tiny)), axis=-1)


def reliability(
    probs: Float[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"], bins: int = 15
) -> tuple[Float[np.ndarray, "bin"], Float[np.ndarray, "bin"], Shaped[np.ndarray, "bin"]]:
    """Mean confidence, accuracy and number of examples in bins of equal width; NaN where a bin is empty."""
    sure = np.asarray(probs, float).max(axis=-1)
    right = probs.argmax(axis=-1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / counts for values in (sure, right)]
    return means[0], means[1], counts


def risk_coverage(
    uncertainty: Float[np.ndarray, "batch"], wrong: Shaped[np.ndarray, "batch"]
) -> tuple[Float[np.ndarray, "batch"], Float[np.ndarray, "batch"]]:
    """Share of examples answered and the error among them, surest first; equally sure ones share their errors."""
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    errors = np.repeat(np.bincount(group, weights=wrong) / size, size)
    answered = np.arange(1, len(errors) + 1)
    return answered / len(errors), np.cumsum(errors) / answered


def exit_curves(records: Arrays) -> dict[str, tuple[Shaped[np.ndarray, "..."], Shaped[np.ndarray, "..."]]]:
    """Mean steps and accuracy of each stopping rule that was recorded."""
    found = under(records, "exits/")
    names = [name.removesuffix("/steps") for name in found if name.endswith("/steps")]
    return {name: (found[f"{name}/steps"], found[f"{name}/accuracy"]) for name in names if f"{name}/accuracy" in found}


def _decision(example: Arrays) -> Callable[[], Figure]:
    return lambda: plots.running_decision(
        example["logits"],
        _whole(example, "step"),
        _whole(example, "y"),
        picture=example.get("x"),
        stopped=example.get("stopped"),
        quantile=float(example.get("quantile", np.float32(0.5))),
    )


def _whole(arrays: Arrays, name: str) -> int | None:
    """A whole number among the arrays; None where there is none of that name, or it is no number."""
    value = arrays.get(name)
    return int(value) if value is not None and value.size == 1 and value.dtype.kind in "iufb" else None


def _gate_map(
    metrics: Metrics, gates: Arrays, records: Arrays, shape: tuple[int, ...] | None
) -> tuple[dict[str, Shaped[np.ndarray, "..."]], tuple[int, ...] | None, dict[str, int | float]]:
    """The groups of a gate map, the shape of the input's, and how many of each run."""
    groups = _in_network_order(gates)
    kept: dict[str, int | float] = {name: runs for name, runs, _ in site_rows(metrics)}
    if "test/steps" in records and (total := int(metrics.get("compute/steps_total", 1))) > 1:
        taken = np.asarray(records["test/steps"], float)
        needed = np.array([np.clip(taken - step + 1, 0, 1).mean() for step in range(1, total + 1)])
        groups, kept = {**groups, "time steps": needed}, {**kept, "time steps": float(taken.mean())}
    return groups, shape, kept


def _in_network_order(gates: Arrays) -> dict[str, Shaped[np.ndarray, "..."]]:
    return {**{name: gates[name] for name in ("input",) if name in gates}, **gates}
