"""Times spiking networks: ours, other frameworks given by their interpreters, and the matrix products alone.

    python scripts/benchmark.py --workloads W1 W3 --peer spyx=ENV/bin/python --peer snntorch=ENV/bin/python
    python scripts/benchmark.py --workloads W2-4096 --device cuda --json table.json --markdown table.md

Every implementation runs in a process of its own, and all take turns at every repeat, so that a slow minute of the
machine falls on all of them alike. They run on the same input spikes and the same weights, with leaky neurons of
decay 0.95, threshold 1 and reset by subtraction, each in its framework's own step order; the spike rate of every layer
is reported, since only networks that fire alike do the same work. Times are medians over ``--repeats`` calls, each
waited for. The floor is the matrix products of the workload without any neuron, each in its fastest form, timed in
turn with our own steps; a ratio of 1 would mean that neurons, loss and optimiser cost nothing.
"""

import argparse
import dataclasses
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_turns import child, take_turns

HERE = Path(__file__).resolve().parent
PEERS = ("snntorch", "spikingjelly", "norse", "spyx")
BETA = 0.95


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network, its input and what one training step is.

    Attributes:
        sizes: neurons of the input and of every layer.
        batch: examples per step.
        steps: time steps.
        rate: probability of an input spike.
        gain: standard deviation of a weight times sqrt(fan in).
        objective: "adam" is cross-entropy of the spike counts and an Adam update; "sum" is the gradient of the sum of
            all output spikes, without update; "posterior" is "adam" on mean and scale of every weight, one draw each.
        recurrent: wires every hidden layer to itself.
        variants: our own implementations, as `benchmark_ours` reads them.
        peers: whether other frameworks are asked to run it.
        channels: of the two convolutions (3 x 3, "SAME") that the first two layers are, each followed by 2 x 2 max
            pooling; 0 has dense layers alone. The input is square images then, held for all steps, of which the share
            ``rate`` of the pixels is not zero.
    """

    sizes: tuple[int, ...]
    batch: int
    steps: int
    rate: float
    gain: float = 2.0
    objective: str = "adam"
    recurrent: bool = False
    variants: tuple[str, ...] = ("dsnn",)
    peers: bool = True
    channels: int = 0


WORKLOADS = {
    "W0": Workload((20, 16, 5), batch=4, steps=12, rate=0.2, variants=("dsnn", "dsnn:stochastic")),
    "W1": Workload(
        (700, 512, 512, 20),
        batch=128,
        steps=100,
        rate=0.03,
        variants=("dsnn", "dsnn:stochastic", "dsnn:schedule=layer", "dsnn:product=dense"),
    ),
    "W2-512": Workload((512, 512), batch=16, steps=500, rate=0.1, gain=1.0, objective="sum"),
    "W2-4096": Workload((4096, 4096), batch=16, steps=500, rate=0.1, gain=1.0, objective="sum"),
    "W2-16384": Workload((16384, 16384), batch=16, steps=500, rate=0.1, gain=1.0, objective="sum"),
    "W3": Workload((4, 36, 6), batch=64, steps=1300, rate=0.2, recurrent=True),
    "W4": Workload(
        (64, 256, 256, 10), batch=32, steps=2000, rate=0.1, variants=("dsnn", "dsnn:memory=sqrt"), peers=False
    ),
    "W5": Workload(
        (700, 512, 512, 20),
        batch=128,
        steps=25,
        rate=0.03,
        objective="posterior",
        variants=("dsnn", "dsnn:samples=8,map=map", "dsnn:samples=8"),
        peers=False,
    ),
}
for _channels in (32, 128):
    _sizes = (28 * 28, 28 * 28 * _channels, 14 * 14 * _channels, 4 * _channels, 10)
    WORKLOADS[f"W6-{_channels}"] = Workload(_sizes, batch=64, steps=4, rate=0.2, channels=_channels)
DEFAULT = ("W1", "W2-512", "W2-4096", "W3", "W4", "W5", "W6-32", "W6-128")


def arrays(workload: Workload, seed: int) -> dict[str, np.ndarray]:
    """Returns input spikes ``x [time, batch, features]``, labels ``y``, kernels ``w0 ...`` and recurrent ``r0 ...``.

    Images have no time.
    """
    if workload.channels:
        return _image_arrays(workload, seed)
    rng = np.random.default_rng(seed)
    shape = (workload.steps, workload.batch, workload.sizes[0])
    out = {
        "x": (rng.random(shape, np.float32) < workload.rate).astype(np.uint8),
        "y": rng.integers(workload.sizes[-1], size=workload.batch).astype(np.int32),
    }
    last = len(workload.sizes) - 2
    for i, (n_in, n_out) in enumerate(itertools.pairwise(workload.sizes)):
        out[f"w{i}"] = workload.gain / n_in**0.5 * rng.standard_normal((n_in, n_out), np.float32)
        if workload.recurrent and i < last:
            out[f"r{i}"] = 0.5 / n_out**0.5 * rng.standard_normal((n_out, n_out), np.float32)
    return out


def _image_arrays(workload: Workload, seed: int) -> dict[str, np.ndarray]:
    """Returns images ``x [batch, height, width, 1]``, labels and kernels, of which the first two are convolutions'."""
    rng = np.random.default_rng(seed)
    side = round(workload.sizes[0] ** 0.5)
    shape = (workload.batch, side, side, 1)
    out = {
        "x": rng.random(shape, np.float32) * (rng.random(shape, np.float32) < workload.rate),
        "y": rng.integers(workload.sizes[-1], size=workload.batch).astype(np.int32),
    }
    channels = workload.channels
    flat = workload.sizes[2] // 4  # what is left by the second pooling
    shapes = [(3, 3, 1, channels), (3, 3, channels, channels), (flat, workload.sizes[3]), workload.sizes[3:]]
    for i, kernel in enumerate(shapes):
        fan = np.prod(kernel[:-1])
        out[f"w{i}"] = (workload.gain / fan**0.5 * rng.standard_normal(kernel, np.float32)).astype(np.float32)
    return out


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the machine, the settings and one record per workload and implementation."""
    theirs = {**os.environ, "JAX_PLATFORMS": "cpu" if options.device == "cpu" else "cuda,cpu", "PYTHONPATH": ""}
    environment = {**theirs, "PYTHONPATH": str(HERE.parent)}  # this very checkout, whatever is installed
    ours = [sys.executable, str(HERE / "benchmark_ours.py")]
    machine = child([*ours, "machine", options.device], environment, options.timeout)
    if "error" in machine:
        sys.exit(f"The machine could not be probed on {options.device}: {machine['error']}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.workloads:
            workload = dataclasses.replace(WORKLOADS[name], **({"steps": options.steps} if options.steps else {}))
            data = Path(folder) / f"{name}.npz"
            np.savez(data, **arrays(workload, options.seed))
            spec = {**dataclasses.asdict(workload), "data": str(data), "device": options.device}
            spec |= {"repeats": options.repeats, "dtype": options.dtype}
            wanted = [(v, [*ours, v], environment) for v in options.variants or workload.variants]
            if workload.peers:
                script = str(HERE / "benchmark_peers.py")
                wanted += [(peer, [python, script, peer], theirs) for peer, python in options.peers.items()]
            commands = [([*command, json.dumps(spec)], variables) for _, command, variables in wanted]
            found = take_turns(commands, options.timeout)
            for (implementation, *_), record in zip(wanted, found, strict=True):
                results.append({"workload": name, "implementation": implementation, **record})
                print(_progress(results[-1]), file=sys.stderr, flush=True)
            data.unlink()
    _compare(results)
    settings = {"repeats": options.repeats, "seed": options.seed, "dtype": options.dtype, "device": options.device}
    shapes = {name: dataclasses.asdict(WORKLOADS[name]) for name in options.workloads}
    return {"machine": machine, "settings": settings, "workloads": shapes, "results": results}


def _compare(results: list[dict[str, Any]]) -> None:
    """Adds each record's ratios to the floor and to our first variant of the same workload."""
    for record in results:
        if "error" in record:
            continue
        same = [r for r in results if r["workload"] == record["workload"] and "error" not in r]
        floor = record if "floor_step_s" in record else next((r for r in same if "floor_step_s" in r), None)
        first = next((r for r in same if r["implementation"].startswith("dsnn")), None)
        for part in ("forward", "step"):
            if floor is not None:
                record[f"{part}_over_floor"] = record[part]["median_s"] / floor[f"floor_{part}_s"]
            if first is not None:
                record[f"{part}_over_dsnn"] = record[part]["median_s"] / first[part]["median_s"]


def _progress(record: dict[str, Any]) -> str:
    outcome = record.get("error") or f"{1e3 * record['step']['median_s']:.1f} ms a training step"
    return f"{record['workload']} {record['implementation']}: {outcome}"


COLUMNS = (
    "implementation",
    "version",
    "compile s",
    "forward ms",
    "step ms",
    "step quartiles",
    "step CPU ms",
    "peak MB",
    "program MB",
    "spike rate by layer",
    "forward / floor",
    "step / floor",
    "step / dsnn",
)


def markdown(table: dict[str, Any]) -> str:
    """Returns the results as one table per workload, under a line on the machine."""
    machine = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in table["machine"].items())
    settings = ", ".join(f"{key} {value}" for key, value in table["settings"].items())
    lines = [f"Machine: {machine}.", "", f"Settings: {settings}; medians.", ""]
    for name, shape in table["workloads"].items():
        kind = "recurrent " if shape["recurrent"] else ""
        lines += [
            f"### {name}: {kind}{'-'.join(map(str, shape['sizes']))}, batch {shape['batch']}, {shape['steps']} steps, "
            f"input rate {shape['rate']}, objective {shape['objective']}",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|" + " --- |" * len(COLUMNS),
        ]
        lines += [_row(record) for record in table["results"] if record["workload"] == name]
        lines.append("")
    return "\n".join(lines)


def _row(record: dict[str, Any]) -> str:
    if "error" in record:
        cells = [record["implementation"], f"failed: {record['error'].replace('|', '/')}", *[""] * (len(COLUMNS) - 2)]
        return "| " + " | ".join(cells) + " |"
    step = record["step"]

    def number(key: str, digits: int = 2) -> str:
        return f"{record[key]:.{digits}f}" if key in record else ""

    cells = [
        record["implementation"],
        record["version"],
        number("compile_s"),
        f"{1e3 * record['forward']['median_s']:.2f}",
        f"{1e3 * step['median_s']:.2f}",
        f"{1e3 * step['q1_s']:.2f} to {1e3 * step['q3_s']:.2f}",
        f"{1e3 * step['cpu_s']:.2f}" if "cpu_s" in step else "",
        number("peak_mb", 0),
        number("program_mb", 0),
        " ".join(f"{rate:.3f}" for rate in record["spike_rates"]),
        number("forward_over_floor"),
        number("step_over_floor"),
        number("step_over_dsnn"),
    ]
    return "| " + " | ".join(cells) + " |"


def named_peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"must be NAME=INTERPRETER with NAME one of {', '.join(PEERS)}, got {text!r}.")
    return name, python


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, default=DEFAULT, metavar="NAME", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--peer", action="append", type=named_peer, default=[], dest="peers", metavar="NAME=INTERPRETER"
    )
    parser.add_argument("--variants", nargs="+", help="our implementations, such as dsnn:schedule=step,memory=sqrt")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the matrix products")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each part (20)")
    parser.add_argument("--steps", type=int, help="time steps in place of the workload's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take (1800)")
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--markdown", type=Path, help="where to write the table; it is printed in any case")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}.")
    options.peers = dict(options.peers)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if any implementation failed, else 0."""
    options = parse(arguments)
    table = run(options)
    table["machine"]["python"] = platform.python_version()
    text = markdown(table)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)
    return int(any("error" in record for record in table["results"]))


if __name__ == "__main__":
    sys.exit(main())
