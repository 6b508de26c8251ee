"""Checks this repository on a GPU and writes what a person sends back: one table and one JSON file.

    bash scripts/gpu_check.sh                                    # on a machine with an NVIDIA GPU; about half an hour
    bash scripts/gpu_check.sh --peer spikingjelly=ENV/bin/python
    bash scripts/gpu_check.sh --cpu                              # walks through all of it with tiny sizes

In turn, each in processes of its own: the fused kernels against the scan on the device (spikes, gradients, time);
training, prediction and the deployed network on the device against the CPU, and that nothing of the CPU is in their
programs; the tests of lowering and of the kernels; the benchmark, W1 to W6, against the frameworks that are installed
beside JAX here, that ``DSNN_PEERS`` names ("spyx=PYTHON ...") or that ``--peer`` names; and that of the kernels.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import benchmark
from benchmark_turns import child

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FEED_FORWARD = ("W1", "W2-512", "W2-4096", "W4")
FUSED = (
    "dsnn:schedule=layer",
    "dsnn:schedule=fused",
    "dsnn:stochastic,schedule=layer",
    "dsnn:stochastic,schedule=fused",
)
TESTS = ("tests/test_lowering.py", "tests/test_fused_lif.py")
FEW = "stands_on_this_machine or another_device"


def environment(cpu: bool) -> dict[str, str]:
    """Returns the variables of every worker: this checkout, on this kind of device."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return {**os.environ, "JAX_PLATFORMS": "cpu" if cpu else "cuda,cpu", "PYTHONPATH": paths}


def peers(named: dict[str, str]) -> dict[str, str]:
    """Returns the interpreter of each framework that is found, those named by hand first."""
    listed = dict(item.split("=", 1) for item in os.environ.get("DSNN_PEERS", "").split())
    here = {name: sys.executable for name in benchmark.PEERS if importlib.util.find_spec(name) is not None}
    return here | listed | named


def tests(cpu: bool, timeout_s: float) -> dict[str, Any]:
    """Returns whether the tests pass on the device, and how pytest put it."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *(["-k", FEW] if cpu else [])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(cpu), capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "said": f"more than {timeout_s:.0f} s"}
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"ok": done.returncode == 0, "said": lines[-1], "failed": failed}


def timed(
    options: argparse.Namespace, workloads: Sequence[str], variants: Sequence[str], found: dict
) -> dict[str, Any]:
    """Returns what the benchmark measures of workloads, ours by variants (none: each workload's own) and of peers."""
    given = ["--device", "cpu" if options.cpu else "cuda", "--repeats", str(2 if options.cpu else options.repeats)]
    given += ["--timeout", str(options.timeout), "--workloads", *workloads]
    given += ["--variants", *variants] if variants else []
    for name, python in found.items():
        given += ["--peer", f"{name}={python}"]
    return benchmark.run(benchmark.parse(given))


def checked(options: argparse.Namespace) -> dict[str, Any]:
    """Returns everything that was found."""
    size, found = "tiny" if options.cpu else "whole", peers(dict(options.peers))

    def worker(what: str) -> dict[str, Any]:
        print(f"gpu_check: {what}", file=sys.stderr, flush=True)
        command = [sys.executable, str(HERE / "gpu_check_device.py"), what, size]
        return child(command, environment(options.cpu), options.timeout)

    report: dict[str, Any] = {"machine": worker("machine")}
    if not options.cpu and report["machine"].get("platform") != "gpu":
        seen = report["machine"].get("error") or report["machine"]["platform"]
        sys.exit(f"gpu_check needs an NVIDIA GPU that JAX sees, got {seen}; install dsnn[cuda], or dry-run with --cpu.")
    report |= {"kernels": worker("kernels"), "programs": worker("programs")}
    report["tests"] = tests(options.cpu, options.timeout)
    workloads = ("W0",) if options.cpu else options.workloads
    report["peers"] = sorted(found)
    report["benchmark"] = timed(options, workloads, (), {} if options.cpu else found)
    fused = [name for name in workloads if name in FEED_FORWARD]
    if fused:
        report["fused"] = timed(options, fused, FUSED, {})
    return report


def problems(report: dict[str, Any]) -> list[str]:
    """Returns what failed, a line each."""
    found = [f"{part}: {report[part]['error']}" for part in ("kernels", "programs") if "error" in report[part]]
    for part in ("kernels", "programs"):
        found += [f"{part}: {row['name']}" for row in report[part].get("rows", []) if not row["ok"]]
    found += [] if report["tests"]["ok"] else [f"tests: {report['tests']['said']}"]
    for part in ("benchmark", "fused"):
        results = report.get(part, {}).get("results", [])
        found += [f"{part}: {r['workload']} {r['implementation']}: {r['error']}" for r in results if "error" in r]
    return found


def table(report: dict[str, Any]) -> str:
    """Returns the report as text to read and to send."""
    lines = ["## Machine", "", ", ".join(f"{key} {value}" for key, value in report["machine"].items()), ""]
    lines += ["## Kernels against the scan", "", "| case | spikes that differ | gradients | scan ms | fused ms | ok |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for row in report["kernels"].get("rows", []):
        lines.append(
            f"| {row['name']} | {row['differ']:.2g} | {row['gradient']:.1e} | {row['scan_ms']:.3f} | "
            f"{row['fused_ms']:.3f} | {_word(row['ok'])} |"
        )
    lines += ["", "## Programs on the device and on the CPU", "", "| program | difference | calls | ok |"]
    lines += ["| --- | --- | --- | --- |"]
    for row in report["programs"].get("rows", []):
        calls = " ".join(row["calls"]) or "none"
        lines.append(f"| {row['name']} | {row['difference']:.1e} | {calls} | {_word(row['ok'])} |")
    lines += ["", f"## Tests: {report['tests']['said']}", "", "## Benchmark", ""]
    lines.append(f"Frameworks found: {', '.join(report['peers']) or 'none'}.\n")
    lines.append(benchmark.markdown(report["benchmark"]))
    if "fused" in report:
        lines += ["## Benchmark of the kernels", "", benchmark.markdown(report["fused"])]
    failed = problems(report)
    lines += ["## Outcome", "", *([f"- {line}" for line in failed] or ["Everything passed."])]
    return "\n".join(lines) + "\n"


def _word(ok: bool) -> str:
    return "yes" if ok else "NO"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of a command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="a dry run without a GPU, with tiny sizes")
    parser.add_argument(
        "--peer", action="append", type=benchmark.named_peer, default=[], dest="peers", metavar="NAME=PYTHON"
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=benchmark.WORKLOADS, default=benchmark.DEFAULT, metavar="NAME"
    )
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of each part (20)")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take (1800)")
    parser.add_argument("--json", type=Path, default=Path("outputs/gpu_check.json"), help="where everything is written")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if anything failed, else 0."""
    options = parse(arguments)
    report = checked(options)
    text = table(report)
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report | {"table": text}, indent=1) + "\n")
    print(f"Send this table and {options.json} back.")
    return int(bool(problems(report)))


if __name__ == "__main__":
    sys.exit(main())
