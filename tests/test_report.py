"""Pages: complete, self-contained, escaped, honest about what is missing; and the command line that makes them."""

import base64
import csv
import io
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from dsnn import evaluate, store
from dsnn.plots import wording
from dsnn.report import figures as run_figures
from dsnn.report import runs as runs_page
from dsnn.report import write_report, write_runs_report
from dsnn.report.page import number
from dsnn.run import report as door
from dsnn.store import RunDirError

STEPS, CLASSES, EXAMPLES = 16, 10, 450


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def make_run(directory: Path, seed: int = 0, budget: float = 0.5, done: bool = True, **metrics) -> Path:
    """A run directory like that of a trained digits network, from random numbers."""
    rng = np.random.default_rng(seed)
    config = {
        "experiment": "digits", "learner": "svi", "seed": seed, "data": {"name": "digits", "root": None},
        "model": {"architecture": "mlp", "hidden": [128, 128], "cell": "LIF"},
        "svi": {"budget": budget, "kl_weight": 0.01}, "bayes": {"guide": "mean_field", "samples": 32},
        "train": {"epochs": 30, "steps": STEPS}, "run": {"dir": str(directory)}, "track": {"wandb": "offline"},
    }  # fmt: skip
    store.claim(directory, config)
    store.write_environment(directory, seed)
    for epoch in range(10, 31, 10):
        store.append_history(directory, {
            "step": epoch, "epoch": float(epoch), "train/loss": 20 / epoch, "val/nll": 5 / epoch,
            "val/accuracy": 1 - 1 / epoch, "gates/kept_fraction": 10 / epoch, "compute/steps_mean": 80 / epoch,
        })  # fmt: skip
    gates = {"hidden0": rng.beta(0.3, 0.5, 128), "hidden1": rng.beta(0.3, 0.5, 128), "input": rng.beta(0.3, 0.5, 64)}
    store.write_arrays(directory, "gates.npz", {name: p.astype(np.float32) for name, p in gates.items()})
    labels = rng.integers(0, CLASSES, EXAMPLES)
    logits = rng.normal(size=(EXAMPLES, CLASSES)) + 6 * np.eye(CLASSES)[labels] * rng.random((EXAMPLES, 1))
    records = {
        "example/x": rng.random((8, 8, 1)).astype(np.float32), "example/y": np.int32(3), "example/step": np.int32(6),
        "example/logits": rng.normal(size=(STEPS, CLASSES)).cumsum(axis=0).astype(np.float32),
        "test/probs": softmax(logits).astype(np.float32), "test/y": labels.astype(np.int32),
        "test/steps": (2 + 6 * rng.random(EXAMPLES)).astype(np.float32),
        "ood/kmnist/probs": softmax(rng.normal(size=(200, CLASSES))).astype(np.float32),
    }  # fmt: skip
    records |= {"example/stopped": np.linspace(0.1, 1, STEPS), "example/quantile": np.float64(0.5)}
    records |= {f"late/{name.split('/')[1]}": value for name, value in records.items() if name.startswith("example/")}
    records |= {"exits/variational/steps": np.array([16.0, 2]), "exits/variational/accuracy": np.array([0.97, 0.9])}
    for layer in ("hidden0", "hidden1"):
        records[f"raster/{layer}"] = rng.random((STEPS, 128)) < 0.1
        records[f"membrane/{layer}"] = rng.random((STEPS, 8)).astype(np.float32)
        records[f"threshold/{layer}"] = np.ones(1, np.float32)
    store.write_arrays(directory, "records.npz", records)
    energies = {
        f"energy/45nm-fp32{accounting}/{network}_nj": scale * nanojoules
        for accounting, scale in (("", 1.0), ("/updates", 1.0), ("/memory", 20.0))
        for network, nanojoules in (
            ("snn", 40 + 10 * seed), ("ungated", 90.0), ("rival/dense", 119.0), ("rival/dense_skipping", 60.0),
            ("rival/pruned", 44.0), ("rival/quantised", 6.0), ("rival/pruned_quantised", 2.0),
        )
    }  # fmt: skip
    energies |= {f"rival/{name}/trained": 0 for name in wording.RIVALS}
    energies |= {f"energy/45nm-fp32/{name}/rival/pruned_break_even_rate": 0.37 for name in ("updates", "memory")}
    energies |= {"rival/quantised/bits": 5, "rival/pruned_quantised/bits": 5, "compute/spike_rate": 0.3}
    energies |= {"rival/dense_skipping/nonzero_inputs": 0.5, "rival/dense_skipping/nonzero_hidden_assumed": 0.5}
    kept = {name: int((p > 0.5).sum()) for name, p in gates.items()}
    store.write_metrics(directory, {
        "experiment": "digits", "seed": seed, "test/accuracy": 0.972 + 0.001 * seed, "test/nll": 0.11,
        "test/ece": 0.012, "test/brier": 0.04, "uncertainty/aleatoric": 0.1,
        "uncertainty/epistemic": 0.02, "ood/kmnist/auroc": 0.95, "deployed/accuracy": 0.965 + 0.001 * seed,
        "deployed/nll": 0.14, "deployed/ece": 0.022, "deployed/steps_mean": 6.1,
        **{f"gates/{name}/kept": count for name, count in kept.items()},
        **{f"gates/{name}/total": len(p) for name, p in gates.items()},
        "gates/kept": sum(kept.values()), "gates/total": 320, "gates/kept_fraction": sum(kept.values()) / 320,
        "compute/steps_mean": 5.3, "compute/steps_total": float(STEPS), "compute/speedup_realised": 3.42,
        "time/train_s": 40.5, "carbon/kwh": 0.0004, "carbon/co2e_g": 0.19, "carbon/source": "estimated: CPU seconds",
        **energies, **metrics,
    })  # fmt: skip
    if done:
        store.mark_done(directory)
    return directory


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "one"))


class Reader(HTMLParser):
    """The text of a page, its attributes, and whether its elements nest."""

    VOID = frozenset({"meta", "br", "input", "link", "img", "hr"})

    def __init__(self, html: str):
        super().__init__()
        self.text, self.attributes, self.tags, self.open = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"] and data.strip():
            self.text.append(" ".join(data.split()))

    def __contains__(self, words: str) -> bool:
        return words in " ".join(self.text).replace("\u202f", " ")


def test_page_tells_what_was_learned_where_computation_runs_and_what_it_costs(page):
    reader = Reader(page.read_text())
    gates = store.read_arrays(page.parent, "gates.npz")
    kept = sum(int((p > 0.5).sum()) for p in gates.values())
    share = f"{100 * kept / 320:.1f} %"
    assert "97.2 % of the test examples are classified right (tempered posterior predictive" in reader
    assert f"The deployed network runs {share} of the compute sites and 6.1 of 16 time steps on average" in reader
    assert "digits · mlp · 128-128 · LIF · svi · 16 steps · seed 0" in reader
    for words in ("Where computation runs", "What was learned", "What it costs", "How it was made", "3.4×", "0.012"):
        assert words in reader
    assert f"together {kept} 320 {share}" in reader
    assert f"{int((gates['input'] > 0.5).sum())} of 64 run" in reader
    assert "this network 40 nJ 800 nJ 96.5 %" in reader
    assert store.read_environment(page.parent)["command"] in reader
    assert "not finished" not in reader


def test_page_shows_every_figure_and_saves_it(page):
    expected = {
        "learning_curves", "reliability", "uncertainty", "risk_coverage", "gate_map", "running_decision", "steps",
        "late_decision", "exits",
        "raster", "membrane", "energy",
    }  # fmt: skip
    assert {path.stem for path in (page.parent / "figures").glob("*.png")} == expected
    html = page.read_text()
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == len(expected)
    for svg in svgs:
        ElementTree.fromstring(svg)
    assert {value for tag, name, value in Reader(html).attributes if (tag, name) == ("figure", "id")} == expected
    assert 'class="note"' not in html


def test_page_shows_what_the_posterior_believes(tmp_path):
    directory = make_run(tmp_path / "run", **{"ood/kmnist/fpr95": 0.123, "conformal/coverage": 0.887})
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 4), np.linspace(0, 1, 3)), -1)
    store.write_arrays(directory, "records.npz", {
        "posterior/hidden0.beta": rng.normal(size=50), "prior/hidden0.beta": rng.normal(size=50),
        "plane/x": grid, "plane/total": grid[..., 0] ** 2, "plane/epistemic": grid[..., 0] ** 2 / 2,
        "plane/points": rng.random((9, 2)), "plane/labels": np.arange(9) % 2,
        "test/mean": np.zeros((8, 1)), "test/lower": -np.ones((8, 1)), "test/upper": np.ones((8, 1)),
        "test/y": np.linspace(-2, 2, 8)[:, None],
    })  # fmt: skip
    store.mark_done(directory)
    html = write_report(directory).read_text()
    ids = {value for tag, name, value in Reader(html).attributes if (tag, name) == ("figure", "id")}
    assert {"posterior", "uncertainty_map", "intervals"} <= ids
    assert "50.0 % of 8 inside" in Reader(html)
    assert "share of kmnist accepted where 95 % of test examples are 0.123" in Reader(html)
    assert "share of labels inside 90 % conformal sets 0.887" in Reader(html)
    assert 'class="note"' not in html


def test_page_is_self_contained(page):
    html = page.read_text()
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)
    assert "script" not in Reader(html).tags
    assert "default-src 'none'" in html
    references = [v for _, name, v in Reader(html).attributes if name in ("src", "href", "xlink:href")]
    assert references
    assert all(value.startswith(("data:", "#")) for value in references)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    ids = set(re.findall(r' id="([^"]+)"', html))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= ids


def test_page_follows_the_theme(page):
    html = page.read_text()
    assert "prefers-color-scheme: dark" in html
    figures = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "var(--ink)" in figures
    assert "#1b2027" not in figures
    assert "<style" not in figures


def test_all_text_is_escaped(tmp_path):
    bad = "<script>alert(1)</script>&\"'"
    directory = make_run(tmp_path / "<b>run</b>", **{"carbon/source": bad, "gates/<i>x/kept": 1, "gates/<i>x/total": 2})
    config = store.read_config(directory)
    store.write_config(directory, {**config, "experiment": bad})
    store.mark_done(directory)
    for html in (write_report(directory).read_text(), write_runs_report(tmp_path).read_text()):
        assert "<script>alert" not in html
        assert "<i>x" not in html
        assert "<b>run" not in html
    assert bad in Reader(write_report(directory).read_text())


@pytest.mark.parametrize(
    "left", [(), ("config.yaml",), ("metrics.json",), ("history.jsonl",), ("gates.npz",), ("records.npz",)]
)
def test_what_a_run_does_not_have_is_left_out(tmp_path, left):
    directory = make_run(tmp_path / "run", done=False)
    for path in list(directory.iterdir()):
        if path.name not in left:
            path.unlink()
    html = write_report(directory).read_text()
    reader = Reader(html)
    assert ("has not finished" in reader) == (left != ("metrics.json",))
    assert ("Where computation runs" in reader) == (left in [("metrics.json",), ("gates.npz",), ("records.npz",)])
    assert ("What it costs" in reader) == (left == ("metrics.json",))
    assert len(re.findall("<svg", html)) == {
        (): 0, ("config.yaml",): 0, ("metrics.json",): 1, ("history.jsonl",): 1, ("gates.npz",): 1, ("records.npz",): 9,
    }[left]  # fmt: skip


def test_a_figure_that_cannot_be_drawn_is_told_in_its_place(tmp_path):
    directory = make_run(tmp_path / "run")
    records = store.read_arrays(directory, "records.npz")
    store.write_arrays(directory, "records.npz", {**records, "example/logits": np.float32(3)})
    store.mark_done(directory)
    html = write_report(directory).read_text()
    assert "running_decision could not be drawn" in Reader(html)
    assert html.count("<svg") == 11


def test_a_damaged_file_is_one_sentence(tmp_path):
    directory = make_run(tmp_path / "run")
    (directory / "gates.npz").write_bytes(b"PK torn")
    with pytest.raises(RunDirError, match=r"gates.npz is damaged"):
        write_report(directory)


def test_a_page_takes_seconds(tmp_path):
    """Inside the first run's 90 s; about 2 s on two cores, and the bound leaves room for a busy machine."""
    directory = make_run(tmp_path / "run")
    start = time.process_time()
    write_report(directory)
    assert time.process_time() - start < 6


def test_reliability_and_risk_are_those_of_the_metrics():
    rng = np.random.default_rng(1)
    probs = softmax(np.round(3 * rng.normal(size=(300, 4)), 1))
    probs[:3] = np.eye(4)[:3]
    labels = rng.integers(0, 4, 300)
    for ours, theirs in zip(run_figures.reliability(probs, labels), evaluate.reliability(probs, labels), strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert np.allclose(run_figures.entropy(probs), evaluate.entropy(probs))
    score, wrong = np.round(run_figures.entropy(probs), 1), probs.argmax(axis=-1) != labels
    theirs = evaluate.risk_coverage(score, wrong.astype(float))
    for ours, their in zip(run_figures.risk_coverage(score, wrong), theirs, strict=True):
        np.testing.assert_allclose(ours, their)


@pytest.mark.parametrize(
    ("value", "said"), [(3, "3"), (16.0, "16"), (12345, "12 345"), (0.123456, "0.1235"), (1e-9, "1e-09"), ("x", "x")]
)
def test_numbers_are_said_shortly(value, said):
    assert number(value).replace("\u202f", " ") == said


# --- Many runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    for index, budget in enumerate((0.2, 0.4)):
        for seed in (0, 1):
            make_run(root / f"run{index}{seed}", seed, budget)
    make_run(root / "deep" / "stopped", 0, 0.9, done=False)
    (root / "run00" / "wandb" / "files").mkdir(parents=True)
    (root / "run00" / "wandb" / "files" / "config.yaml").write_text("x: 1\n")
    return root


def test_page_over_runs_has_a_row_for_each_and_the_settings_that_differ(sweep):
    html = write_runs_report(sweep).read_text()
    reader = Reader(html)
    assert "5 runs" in reader
    assert "4 done, 1 unfinished" in reader
    rows = re.findall(r"<tr>\s*<td data-key.*?</tr>", html, re.DOTALL)
    names = ["deep/stopped", "run00", "run01", "run10", "run11"]
    assert [re.search(r'data-key="([^"]*)"', row)[1] for row in rows] == 2 * names, "deployed networks, predictives"
    titles = [value for tag, name, value in reader.attributes if (tag, name) == ("button", "title")]
    assert titles[:4] == ["run", "status", "svi.budget", "seed"]
    assert "energy/45nm-fp32/snn_nj" in titles
    assert html.count("<svg") == 3
    assert {path.stem for path in (sweep / "figures").glob("*.png")} == {"runs_front", "runs_curves", "runs_parallel"}


def test_page_over_runs_sorts_by_numbers_without_anything_from_outside(sweep):
    html = write_runs_report(sweep).read_text()
    assert html.count("<script") == 1
    assert not re.search(r"https?://(?!www\.w3\.org/)", html)
    keys = [value for tag, name, value in Reader(html).attributes if (tag, name) == ("td", "data-key")]
    assert "0.972" in keys


def test_means_over_seeds():
    runs = [
        runs_page.Run(f"r{seed}{rate}", "done", {"rate": rate, "seed": seed}, {"test/accuracy": 0.9 + 0.02 * seed}, [])
        for rate in (0.1, 0.2)
        for seed in (0, 1, 2)
    ]
    runs.append(runs[0]._replace(status="failed", metrics={"test/accuracy": 0.0}))
    table = runs_page.over_seeds(runs, runs_page.varying(runs), ["test/accuracy", "test/ece"])
    assert table["headings"] == ["rate", "seeds", "accuracy", "ECE"]
    said = [[cell.replace("\u202f", " ") for cell in row] for row in table["rows"]]
    assert said == [["0.1", "3", "92.0 ± 2.0 %", "–"], ["0.2", "3", "92.0 ± 2.0 %", "–"]]
    assert runs_page.over_seeds(runs[:1], ["rate"], ["test/accuracy"]) == {}


def test_download_holds_every_metric_of_every_run(sweep):
    html = write_runs_report(sweep).read_text()
    data = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]*)"', html)[1]
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(data).decode())))
    assert len(rows) == 5
    row = next(row for row in rows if row["run"] == "run11")
    metrics = store.read_metrics(sweep / "run11")
    assert {key: row[key] for key in metrics} == {key: str(value) for key, value in metrics.items()}
    assert (row["status"], row["svi.budget"], row["seed"]) == ("done", "0.4", "1")


def test_download_holds_no_formulas():
    run = runs_page.Run("=cmd()", "done", {"note": "@x"}, {"a": -1.5, "b": "+1"}, [])
    assert runs_page.to_csv([run], ["note"]).splitlines()[1] == "'=cmd(),done,'@x,-1.5,'+1"


def test_a_damaged_run_does_not_hide_the_others(tmp_path):
    make_run(tmp_path / "good")
    make_run(tmp_path / "torn")
    (tmp_path / "torn" / "metrics.json").write_text("{")
    assert "1 done, 1 damaged" in Reader(write_runs_report(tmp_path).read_text())
    with pytest.raises(RunDirError, match="no run directories below"):
        write_runs_report(tmp_path / "good" / "figures")


# --- The command line


def test_door_makes_pages(sweep, capsys):
    assert door.main([f"runs={sweep}"]) == 0
    assert door.main([f"run={sweep / 'run00'}"]) == 0
    out = capsys.readouterr().out
    assert str(sweep / "report.html") in out
    assert str(sweep / "run00" / "report.html") in out
    assert 'href="run00/report.html"' in write_runs_report(sweep).read_text()


def test_door_prints_the_ledger(sweep, tmp_path, capsys):
    (sweep / "deep" / "old").mkdir(exist_ok=True)
    store.write_metrics(sweep / "deep" / "old", {"test/accuracy": 0.5})
    assert door.main([f"ledger={sweep}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What 5 runs used" in out
    assert "0.002" in out
    assert "0.95" in out
    assert "estimated: 5 of 5 runs" in out
    assert "1 runs have not recorded what they used: deep/old" in out
    (sweep / "deep" / "old" / "metrics.json").unlink()
    (sweep / "deep" / "old").rmdir()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["runz=x"], 2, "the options are run, runs, ledger, got 'runz'; did you mean 'run'?"),
        (["x"], 2, "name=DIR, got 'x'"),
        (["runs="], 2, "name=DIR, got 'runs='"),
        (["runs=/does/not/exist"], 2, "must name a folder that exists, got '/does/not/exist'"),
        (["runs={empty}"], 1, "no run directories below"),
        (["ledger={empty}"], 1, "at least one run, got none"),
        (["run={empty}"], 2, "is not a run directory (it has no config.yaml)"),
    ],
)
def test_door_says_what_is_wrong_in_a_sentence(tmp_path, capsys, arguments, status, words):
    assert door.main([argument.format(empty=tmp_path) for argument in arguments]) == status
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_door_helps(capsys):
    assert door.main(["--help"]) == 0
    assert door.main([]) == 2
    assert "runs=DIR" in capsys.readouterr().out
