"""What a user with a GPU runs and sends back: a sentence without one, a table, and a dry run of all of it."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("gpu_check")


def test_without_a_gpu_there_is_a_sentence_and_a_failure() -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is one")
    done = subprocess.run(
        ["bash", str(ROOT / "scripts/gpu_check.sh")], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.strip() == (
        "dsnn: gpu_check needs an NVIDIA GPU, got none that nvidia-smi sees; --cpu walks through all of it with tiny "
        "sizes."
    )


def report(**changes: Any) -> dict[str, Any]:
    """What a run finds where all is well."""
    row = {"name": "logistic", "differ": 0.0, "gradient": 1e-7, "scan_ms": 4.0, "fused_ms": 1.5, "ok": True}
    program = {"name": "training", "difference": 1e-6, "calls": [], "ok": True}
    timed = {"machine": {"device": "one"}, "settings": {"repeats": 2}, "workloads": {}, "results": []}
    return {
        "machine": {"device": "one", "jax": "0"},
        "kernels": {"rows": [row]},
        "programs": {"rows": [program]},
        "tests": {"ok": True, "said": "3 passed"},
        "peers": ["spyx"],
        "benchmark": timed,
    } | changes


def test_the_table_holds_every_part_and_every_failure(check: Any) -> None:
    text = check.table(report())
    assert "| logistic | 0 | 1.0e-07 | 4.000 | 1.500 | yes |" in text
    assert "| training | 1.0e-06 | none | yes |" in text
    assert "Frameworks found: spyx." in text
    assert check.problems(report()) == []
    assert "Everything passed." in text
    failed = {"workload": "W1", "implementation": "dsnn", "error": "out of memory"}
    several = report(
        kernels={"error": "no kernel"},
        programs={"rows": [{"name": "deployed", "difference": 0.0, "calls": ["dsnn_decide"], "ok": False}]},
        tests={"ok": False, "said": "1 failed"},
        fused={"machine": {}, "settings": {}, "workloads": {}, "results": [failed]},
    )
    assert check.problems(several) == [
        "kernels: no kernel",
        "programs: deployed",
        "tests: 1 failed",
        "fused: W1 dsnn: out of memory",
    ]
    assert "| deployed | 0.0e+00 | dsnn_decide | NO |" in check.table(several)


def test_peers_are_those_found_those_of_the_environment_and_those_named(
    check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSNN_PEERS", "norse=A spyx=B")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "snntorch" else None)
    assert check.peers({"spyx": "C"}) == {"snntorch": sys.executable, "norse": "A", "spyx": "C"}


@pytest.mark.slow
def test_a_dry_run_walks_through_all_of_it(tmp_path: Path) -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("a dry run is for a machine without an accelerator")
    target = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/gpu_check.py"), "--cpu", "--json", str(target)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(target.read_text())
    assert found["table"] in done.stdout
    assert {row["name"].split(",")[0] for row in found["kernels"]["rows"]} == {"deterministic", "logistic", "gaussian"}
    assert all(row["differ"] == 0 for row in found["kernels"]["rows"])
    assert [row["name"] for row in found["programs"]["rows"]] == ["training", "predictive", "deployed"]
    assert "passed" in found["tests"]["said"]
    assert {r["implementation"] for r in found["benchmark"]["results"]} == {"dsnn", "dsnn:stochastic"}
