"""The benchmark: the same work for everyone, honest medians, and a floor made of exactly the products it names."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts/benchmark.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("benchmark")


@pytest.fixture
def ours(bench):
    return importlib.import_module("benchmark_ours")


def firing_rates(data, beta, order):
    """Mean spikes of each layer by an independent recurrence, in the step order of one framework."""
    signal, rates, layer = data["x"].astype(np.float64), [], 0
    while f"w{layer}" in data:
        recurrent = data.get(f"r{layer}", np.zeros((data[f"w{layer}"].shape[1],) * 2))
        membrane = np.zeros((signal.shape[1], data[f"w{layer}"].shape[1]))
        last, out = np.zeros_like(membrane), []
        for x in signal:
            current = x @ data[f"w{layer}"]
            if order == "same":  # charge, fire, reset
                membrane = beta * membrane + current + last @ recurrent
                last = (membrane > 1).astype(float)
                membrane = membrane - last
            elif order == "next":  # the reset of the last spike comes with this step's charge
                membrane = beta * membrane + current + last @ recurrent - last
                last = (membrane > 1).astype(float)
            else:  # "before": fires on the membrane of the step before
                last = (membrane > 1).astype(float)
                membrane = beta * membrane + current + last @ recurrent - last
            out.append(last)
        signal = np.stack(out)
        rates.append(signal.mean())
        layer += 1
    return rates


def test_inputs_have_the_stated_rate_and_hang_on_the_seed_alone(bench):
    workload = bench.WORKLOADS["W1"]
    data = bench.arrays(workload, 0)
    n = data["x"].size
    assert set(np.unique(data["x"])) == {0, 1}
    assert abs(data["x"].mean() - workload.rate) < 5 * (workload.rate * (1 - workload.rate) / n) ** 0.5
    again, other = bench.arrays(workload, 0), bench.arrays(workload, 1)
    assert all((data[name] == again[name]).all() for name in data)
    assert not any((data[name] == other[name]).all() for name in data)


@pytest.fixture
def turns(bench):
    return importlib.import_module("benchmark_turns")


def test_measure_takes_turns_and_gives_the_median(turns, monkeypatch):
    clock, log = iter(np.cumsum([0, 1, 0, 5, 0, 3, 0, 7, 0, 2, 0, 6]).tolist()), []
    monkeypatch.setattr(turns.time, "perf_counter", lambda: next(clock))
    computed = iter(np.cumsum([0, 2, 0, 10, 0, 6, 0, 14, 0, 4, 0, 12]).tolist())  # on two cores
    monkeypatch.setattr(turns.time, "process_time", lambda: next(computed))
    timed = turns.measure({"a": lambda: log.append("a"), "b": lambda: log.append("b")}, repeats=3, warmups=2)
    assert log == ["a", "b"] * 5
    assert timed["a"] == {"median_s": 2, "q1_s": 1.5, "q3_s": 2.5, "min_s": 1, "n": 3, "cpu_s": 4}
    assert timed["b"]["median_s"] == 6


WORKER = """
import json, sys, time
sys.path.insert(0, {scripts!r})
from benchmark_turns import measure, wait_for_turn
def work():
    with open({log!r}, "a") as log:
        log.write({name!r})
        log.flush()
        time.sleep(0.01)
        log.write({name!r})
measure({{"": work}}, {repeats}, warmups=1, turn=wait_for_turn)
print("a framework's own greeting")
print(json.dumps({{"name": {name!r}}}))
"""


def test_workers_take_turns_at_every_repeat(turns, tmp_path):
    def command(name, repeats):
        text = WORKER.format(scripts=str(ROOT / "scripts"), log=str(tmp_path / "log"), name=name, repeats=repeats)
        return [sys.executable, "-c", text]

    failing = [sys.executable, "-c", "raise SystemExit('no such layer')"]
    commands = [command("a", 3), failing, command("b", 2), ["no/python"]]
    found = turns.take_turns([(one, dict(os.environ)) for one in commands], 60)
    assert (tmp_path / "log").read_text() == "aabb" + "aabb" + "aabb" + "aa"
    assert found == [
        {"name": "a"},
        {"error": "no such layer"},
        {"name": "b"},
        {"error": "could not start no/python: No such file or directory"},
    ]
    stuck = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert turns.take_turns([(stuck, dict(os.environ))], 0.2) == [{"error": "took longer than 0 s"}]


@pytest.mark.parametrize("name", ["W0", "W3"])
def test_floor_is_made_of_the_products_that_a_step_needs(bench, ours, name):
    workload = bench.WORKLOADS[name]
    steps = 7
    spec = {"sizes": workload.sizes, "batch": workload.batch, "steps": steps, "dtype": "float32"}
    data = bench.arrays(bench.dataclasses.replace(workload, steps=steps), 0)
    found = ours.products(spec, data)
    operations = {"forward": 0, "backward": 0}
    for part, forms, (left, right) in found:
        results = [np.asarray(jax.jit(form)(left, right)) for form in forms]
        flat = np.float64(left).reshape(-1, left.shape[-1])
        if right.ndim == 3:  # a weight gradient, or its transpose
            full = flat.T @ np.float64(right).reshape(-1, right.shape[-1])
            same = [results[0], results[1].T]
        else:  # of all time steps, or of the last where earlier ones are used up in the loop
            full = flat @ (np.float64(right).T if part == "backward" else np.float64(right))
            same = [result.reshape(-1, full.shape[1]) for result in results]
            assert {len(result) for result in same} == {len(full), workload.batch}
        for result in same:
            np.testing.assert_allclose(result, full[-len(result) :], rtol=1e-4, atol=1e-4)
        rows = left.size // left.shape[-1]
        operations[part] += (
            2 * rows * left.shape[-1] * (right.shape[-1] if right.ndim == 3 else right.size // left.shape[-1])
        )
    n_in, n_hidden, n_out = workload.sizes
    rows = steps * workload.batch
    forward = n_in * n_hidden + n_hidden * n_out + workload.recurrent * n_hidden**2
    backward = n_in * n_hidden + 2 * n_hidden * n_out + workload.recurrent * 2 * n_hidden**2  # no gradient of the input
    assert operations == {"forward": 2 * rows * forward, "backward": 2 * rows * backward}


def test_variant_with_an_unknown_option_is_refused(ours):
    with pytest.raises(ValueError, match=r"a variant's options are stochastic, .* got 'schedul'"):
        ours.parse_variant("dsnn:schedul=step")


@pytest.mark.slow
def test_whole_command_reports_what_was_asked(tmp_path, bench):
    table_path, text_path = tmp_path / "table.json", tmp_path / "table.md"
    command = [sys.executable, str(SCRIPT), "--workloads", "W0", "--repeats", "3", "--seed", "3"]
    command += ["--peer", f"spyx={tmp_path}/no/python", "--json", str(table_path), "--markdown", str(text_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # one implementation failed, and the exit code says so
    table = json.loads(table_path.read_text())
    plain, stochastic, spyx = table["results"]
    assert [r["implementation"] for r in table["results"]] == ["dsnn", "dsnn:stochastic", "spyx"]
    assert spyx["error"] == f"could not start {tmp_path}/no/python: No such file or directory"
    expected = firing_rates(bench.arrays(bench.WORKLOADS["W0"], 3), bench.BETA, "same")
    np.testing.assert_allclose(plain["spike_rates"], expected, atol=1e-6)
    assert stochastic["spike_rates"] != plain["spike_rates"]
    for record in (plain, stochastic):
        assert record["finite"]
        assert min(record["forward"]["median_s"], record["step"]["median_s"], record["compile_s"]) > 0
        assert record["step_over_floor"] == record["step"]["median_s"] / record["floor_step_s"]
        assert record["floor_step_s"] > 0
        assert record["step_over_dsnn"] == record["step"]["median_s"] / plain["step"]["median_s"]
    text = text_path.read_text()
    assert text in done.stdout
    assert f"| dsnn:stochastic | {stochastic['version']} |" in text
    assert "| spyx | failed: could not start" in text


def test_posterior_step_draws_its_samples_and_learns_both_parameters(bench, ours):
    workload = bench.dataclasses.replace(bench.WORKLOADS["W0"], objective="posterior")
    data, options = bench.arrays(workload, 0), ours.parse_variant("dsnn:samples=3")
    spec = {**bench.dataclasses.asdict(workload), "dtype": "float32"}
    _, _, step, (params, opt_state) = ours.programs(spec, data, options)
    x = jax.numpy.asarray(data["x"], "float32")
    keys = jax.random.split(jax.random.key(0))
    one, two = (jax.jit(step)((params, opt_state), x, data["y"], key)[0] for key in keys)
    for part in ("mean", "log_scale"):
        for name in params[part]:
            assert not np.array_equal(one[part][name], params[part][name]), (part, name)
            assert not np.array_equal(one[part][name], two[part][name]), (part, name)


@pytest.mark.parametrize("given", ["keras=python3", "spyx", "spyx="])
def test_unknown_peer_is_refused_with_the_names(bench, capsys, given):
    with pytest.raises(SystemExit):
        bench.parse(["--peer", given])
    assert "one of snntorch, spikingjelly, norse, spyx, got" in capsys.readouterr().err


ORDERS = {"snntorch": "next", "spikingjelly": "same", "norse": "same", "spyx": "before"}


@pytest.mark.peers
@pytest.mark.parametrize("peer", ORDERS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_every_framework_runs_the_same_network(tmp_path, bench, turns, peer, recurrent):
    """DSNN_PEERS="snntorch=PYTHON spyx=PYTHON ..." names the interpreters."""
    interpreters = dict(item.split("=", 1) for item in os.environ.get("DSNN_PEERS", "").split())
    if peer not in interpreters:
        pytest.skip(f"DSNN_PEERS names no interpreter of {peer}")
    workload = bench.dataclasses.replace(bench.WORKLOADS["W0"], recurrent=recurrent)
    data = bench.arrays(workload, 0)
    np.savez(tmp_path / "data.npz", **data)
    spec = {**bench.dataclasses.asdict(workload), "data": str(tmp_path / "data.npz")}
    spec |= {"device": "cpu", "dtype": "float32", "repeats": 1}
    command = [interpreters[peer], str(ROOT / "scripts/benchmark_peers.py"), peer, json.dumps(spec)]
    record = turns.child(command, {**os.environ, "JAX_PLATFORMS": "cpu"}, 120)
    assert "error" not in record, record
    np.testing.assert_allclose(record["spike_rates"], firing_rates(data, bench.BETA, ORDERS[peer]), atol=1e-6)


def test_images_fire_as_an_independent_recurrence_says(bench, ours):
    sizes = (8 * 8, 8 * 8 * 3, 4 * 4 * 3, 12, 5)
    small = bench.Workload(sizes, batch=6, steps=4, rate=0.3, channels=3)
    data = bench.arrays(small, 0)
    assert data["x"].shape == (6, 8, 8, 1)
    assert data["w2"].shape == (2 * 2 * 3, 12)

    def convolved(x, w):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        return sum(padded[:, i : i + height, j : j + width] @ w[i, j] for i in range(3) for j in range(3))

    def fired(currents):
        membrane, out = np.zeros(currents[0].shape), []
        for current in currents:
            membrane = bench.BETA * membrane + current
            out.append((membrane > 1).astype(float))
            membrane = membrane - out[-1]
        return np.stack(out)

    def pooled(spikes):
        return spikes.reshape(*spikes.shape[:2], -(-spikes.shape[2] // 2), 2, -(-spikes.shape[3] // 2), 2, 3).max(
            (3, 5)
        )

    wide = {name: np.asarray(value, np.float64) for name, value in data.items()}
    one = fired([convolved(wide["x"], wide["w0"])] * 4)
    two = fired([convolved(x, wide["w1"]) for x in pooled(one)])
    three = fired(pooled(two).reshape(4, 6, -1) @ wide["w2"])
    four = fired(three @ wide["w3"])
    spec = {**dataclasses.asdict(small), "dtype": "float32"}
    _, rates, *_ = ours.programs(spec, data, ours.parse_variant("dsnn"))
    _, params = ours.network(spec, data, False)
    found = rates(params, jax.numpy.asarray(data["x"]), jax.random.key(0))
    np.testing.assert_allclose(found, [spikes.mean() for spikes in (one, two, three, four)], atol=2e-3)
