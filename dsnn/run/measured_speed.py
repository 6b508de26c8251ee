"""What a finished run saves in wall time: ``python -m experiments.realised run=DIR [json=FILE] [repeats=15]``.

The decided network is timed in four forms, in turn and on the same test examples, so that a busy moment of the machine
falls on all of them. "Full" is the ungated network over all T steps: the fastest of three general programs at each
batch size, and once more in the program that runs the deployed network, which may be C
(`dsnn.deploy.fused_inference`). "Compacted" lacks its closed sites and runs all steps, "early" has all sites and stops
early, "deployed" is compacted and stops early. At batch 1 examples run one after another, each until its own stop.
Inputs lie on the device, and a call ends
when its result is there.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import parameters, rng, store
from dsnn.deploy.decided import deploy, never, stopping
from dsnn.run.finished import Finished, finished, options
from dsnn.simulate.early_exit import anytime
from dsnn.simulate.unroll import unroll

EXAMPLES = {1: 256, 32: 1024, 256: 2048}
"""Test examples timed at each batch size; a batch that the test part does not fill is not timed."""
FULL = ("full, by layers", "full, by steps", "full, one loop")
SAME = "full, as deployed"
"""The ungated network over all steps in the program that runs the deployed one (in C where that takes it)."""
KNOWN = {"run": "", "json": "", "repeats": "15", "trust": "false"}

Program = Callable[..., Any]


def programs(run: Finished) -> dict[str, Program]:
    """Returns the compiled forms of a run's network by name; each takes encoded inputs."""
    bayesian, settled = run.setup.bayesian, run.settled
    simulator = bayesian.simulator
    deployed = deploy(bayesian, settled.params, settled.threshold)
    full, masked = (deployed.simulator.template.build(own) for own in (deployed.full, deployed.masked))
    steps, head = simulator.steps if simulator.held else None, None
    if bayesian.halting is not None and not math.isinf(settled.threshold):
        head = bayesian.halting.head(settled.params)

    def scanned(schedule: str) -> Program:
        return jax.jit(lambda x: full.logits(unroll(full, x, schedule=schedule, steps=steps)[0])[-1])

    def loop(model: Any, rule: Any) -> Program:
        return jax.jit(anytime(model, rule, simulator.steps, held=simulator.held))

    def own(model: Any, head: Any = None) -> Program:
        """What a deployed network runs, in C where that takes it."""
        return stopping(bayesian, model, head, settled.threshold)

    return {
        FULL[0]: scanned("layer"),
        FULL[1]: scanned("step"),
        FULL[2]: loop(full, never()),
        SAME: own(full),
        "compacted": own(deployed.padded),
        "early": own(masked, head),
        "deployed": own(deployed.padded, head),
    }


def time_batch(run: Finished, forms: dict[str, Program], batch: int, repeats: int) -> dict[str, float]:
    """Returns microseconds per example of every form, medians over passes through the same test examples."""
    count = min(EXAMPLES[batch], len(run.setup.split.test.x) // batch * batch)
    x = jnp.asarray(run.setup.split.test.x[:count])
    simulator = run.setup.bayesian.simulator
    pieces = [simulator.encode(x[i : i + batch], rng.stream(run.setup.root, "data")) for i in range(0, count, batch)]
    jax.block_until_ready(pieces)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            for piece in pieces:
                jax.block_until_ready(form(piece))
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return {name: 1e6 * statistics.median(values) / count for name, values in seconds.items()}


def sizes(run: Finished) -> dict[str, Any]:
    """Returns parameters and bytes of the full and the deployed network, kept sites, and how it decides."""
    bayesian, settled, test = run.setup.bayesian, run.settled, run.setup.split.test
    deployed = deploy(bayesian, settled.params, settled.threshold)
    forms = programs(run)
    labels, stops, right, full_right = np.asarray(test.y), [], [], []
    for i in range(0, len(labels), 1000):
        inputs = bayesian.simulator.encode(jnp.asarray(test.x[i : i + 1000]), rng.stream(run.setup.root, "data"))
        decision = forms["deployed"](inputs)
        stops.append(np.asarray(decision.steps))
        right.append(np.asarray(decision.logits).argmax(-1) == labels[i : i + 1000])
        full_right.append(np.asarray(forms[FULL[0]](inputs)).argmax(-1) == labels[i : i + 1000])
    small, full = parameters.split(deployed.small)[1], deployed.full

    def size(params: dict[str, Any]) -> int:
        return sum(int(leaf.nbytes) for leaf in jax.tree.leaves(params))

    selected = sum(int((np.asarray(z) > 0).sum()) for name, z in deployed.gates.items() if name == "input")
    return {
        "parameters_full": parameters.count(full),
        "parameters_deployed": parameters.count(small),
        "bytes_full": size(full),
        "bytes_deployed": size(small) + 4 * selected,
        "kept": {name: int((np.asarray(z) > 0).sum()) for name, z in deployed.gates.items()},
        "sites": {name: len(z) for name, z in deployed.gates.items()},
        "steps_total": bayesian.simulator.steps,
        "steps_mean": float(np.concatenate(stops).mean()),
        "accuracy_deployed": float(np.concatenate(right).mean()),
        "accuracy_ungated_all_steps": float(np.concatenate(full_right).mean()),
    }


def measured(run: Finished, repeats: int) -> dict[str, Any]:
    """Returns everything that is measured of one run."""
    forms, table = programs(run), {"run": run.directory.name, **sizes(run)}
    for batch in _filled(run):
        us = time_batch(run, forms, batch, repeats)
        full = min(us[name] for name in FULL)
        ratios = {name: full / us[name] for name in ("compacted", "early", "deployed")}
        same = us[SAME] / us["deployed"]
        table[f"batch {batch}"] = {"us_per_example": us, "times_as_fast": ratios, "same_program": same}
    return table


def _filled(run: Finished) -> list[int]:
    """Returns the batch sizes that a run's test part fills at least once."""
    return [batch for batch in EXAMPLES if batch <= len(run.setup.split.test.x)]


def markdown(tables: list[dict[str, Any]]) -> str:
    """Returns the measurements as a table, a line per run and batch size."""
    lines = [
        "| run | batch | full µs | full, as deployed µs | compacted | early stop | both | both, same program | steps | "
        "parameters | bytes |",
        "|" + " --- |" * 11,
    ]
    for table in tables:
        for batch in (size for size in EXAMPLES if f"batch {size}" in table):
            us, ratio = table[f"batch {batch}"]["us_per_example"], table[f"batch {batch}"]["times_as_fast"]
            best = min(FULL, key=us.__getitem__)
            times = [f"{us[name]:.1f} ({ratio[name]:.1f} ×)" for name in ("compacted", "early", "deployed")]
            cells = [
                table["run"],
                str(batch),
                f"{us[best]:.1f} ({best.removeprefix('full, ')})",
                f"{us[SAME]:.1f}",
                *times,
                f"{table[f'batch {batch}']['same_program']:.1f} ×",
                f"{table['steps_mean']:.2f} of {table['steps_total']}",
                f"{table['parameters_deployed']} of {table['parameters_full']}",
                f"{table['bytes_deployed']} of {table['bytes_full']}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; returns 2 when the call cannot be meant."""
    try:
        chosen = options(sys.argv[1:] if arguments is None else arguments, KNOWN)
        runs = [finished(directory) for directory in chosen["run"].split(",")]
        tables = [measured(run, int(chosen["repeats"])) for run in runs]
    except (ValueError, store.RunDirError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(tables))
    if chosen["json"]:
        Path(chosen["json"]).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
