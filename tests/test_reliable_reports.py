"""Reports over runs that are damaged or hostile: each is told in its place, and hides nothing of the others."""

import csv
import html
import io
import json
import os
import re
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from dsnn import store
from dsnn.report import files, write_report, write_runs_report
from dsnn.report import runs as runs_page
from dsnn.run import report as door


def made(directory: Path, seed: int = 0, done: bool = True) -> Path:
    store.claim(directory, {"experiment": "digits", "learner": "svi", "seed": seed, "svi": {"lam": 0.1 * seed}})
    store.append_history(directory, {"step": 1, "epoch": 1.0, "train/loss": 2.0, "val/accuracy": 0.5})
    store.write_metrics(directory, {
        "test/accuracy": 0.9, "deployed/accuracy": 0.8, "energy/45nm/snn_nj": 10.0 + seed,
        "carbon/kwh": 1e-3, "carbon/co2e_g": 0.5, "carbon/source": "estimated: CPU seconds",
    })  # fmt: skip
    if done:
        store.mark_done(directory)
    return directory


HUGE = "9" * 5000
DAMAGE = {
    "metrics.json": [
        "[1,2]", "5", "null", "{", "\x00\x00", '{"test/accuracy": null}', '{"test/accuracy": "high"}', "[" * 100_000,
        '{"test/accuracy": [1]}', '{"test/accuracy": NaN}', '{"test/accuracy": Infinity}', '{"test/accuracy": 1e999}',
        f'{{"test/accuracy": {HUGE}}}', '{"test/accuracy": true}', f'{{"mine": 1{"0" * 400}}}', '{"mine": {"a": 1}}',
    ],
    "history.jsonl": ["[1]\n", "5\n", '"x"\n{}\n', '{"step": 1\n{"step": 2}\n', "[" * 100_000 + "\n"],
    "config.yaml": [
        "a: &a {b: *a}", "[1]", "5", "a: [", "- !!python/object/apply:os.system [true]", "\xff", "a: " + "[" * 5000,
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", f"seed: {HUGE}", f"seed: 0x{'f' * 5000}", "svi: {kl_weight: much}",
        "bayes: {samples: [1]}",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in DAMAGE.items() for text in texts])
def test_reliability_10_a_damaged_run_is_told_and_hides_nothing(name: str, text: str, tmp_path: Path, capsys) -> None:
    made(tmp_path / "good", 1)
    made(tmp_path / "bad", 2)
    (tmp_path / "bad" / name).write_bytes(text.encode("latin-1"))
    bad, good = runs_page.read_runs(tmp_path)
    assert (good.name, good.status, good.metrics["test/accuracy"]) == ("good", "done", 0.9)
    assert (bad.name, bad.status) == ("bad", "damaged")
    assert bad.reason.startswith(f"{name} is damaged (")
    assert len(bad.reason) < 400
    page = html.unescape(write_runs_report(tmp_path).read_text(encoding="utf-8"))
    assert "1 done, 1 damaged" in page
    assert f"damaged: {name} is damaged (" in page
    assert door.main([f"run={tmp_path / 'bad'}"]) == 1
    said = capsys.readouterr().err
    assert f"{name} is damaged (" in said
    assert said.count("\n") == 1
    door.main([f"ledger={tmp_path}"])
    assert "What 1 runs used" in (said := capsys.readouterr().out) or "What 2 runs used" in said
    assert "Traceback" not in said


def test_the_ledger_takes_no_number_from_a_damaged_run(tmp_path: Path, capsys) -> None:
    made(tmp_path / "good", 1)
    bad = made(tmp_path / "bad", 2) / "metrics.json"
    bad.write_text(
        bad.read_text(encoding="utf-8").replace('"carbon/kwh": 0.001', '"carbon/kwh": 7.0'), encoding="utf-8"
    )
    assert door.main([f"ledger={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "metrics.json is not what the run wrote" in said
    assert "What 1 runs used" in said
    assert "0.001" in said
    assert " 7 " not in said


def test_the_ledger_tells_a_finished_run_whose_metrics_are_gone(tmp_path: Path, capsys) -> None:
    made(tmp_path / "good", 1)
    (made(tmp_path / "bad", 2) / "metrics.json").unlink()
    assert door.main([f"ledger={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "bad: " in said
    assert "metrics.json" in said
    assert "What 1 runs used" in said


def test_reliability_10_what_is_no_plain_file_or_is_missing_is_told(tmp_path: Path) -> None:
    for k, name in enumerate(("dangling", "folder", "pipe", "no_metrics", "no_config", "good")):
        made(tmp_path / name, k)
    for name in ("dangling", "folder", "pipe", "no_metrics"):
        (tmp_path / name / "metrics.json").unlink()
    (tmp_path / "dangling" / "metrics.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder" / "metrics.json").mkdir()
    os.mkfifo(tmp_path / "pipe" / "metrics.json")
    (tmp_path / "no_config" / "config.yaml").unlink()
    found = {run.name: run for run in runs_page.read_runs(tmp_path)}
    assert {name: run.status for name, run in found.items()} == dict.fromkeys(found, "damaged") | {"good": "done"}
    assert len(found) == 6
    assert found["no_metrics"].reason.startswith("metrics.json is missing")
    assert found["no_config"].reason.startswith("config.yaml is missing")
    assert "plain file" in found["pipe"].reason
    write_runs_report(tmp_path)


def test_reliability_10_nested_aliases_do_not_hang(tmp_path: Path) -> None:
    made(tmp_path / "good", 1)
    levels = "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(12))
    (made(tmp_path / "bad") / "config.yaml").write_text(f"a0: &a0 [x]\n{levels}", encoding="utf-8")
    assert "without aliases" in next(run for run in runs_page.read_runs(tmp_path) if run.name == "bad").reason


def test_reliability_10_history_keeps_what_can_be_drawn(tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    lines = [
        '{"step": 1, "val/accuracy": null, "svi/lam": null, "epoch": "x"}',
        '{"step": 2, "val/accuracy": NaN, "train/loss": 1e999, "x": {"y": 1}, "kept": 0.5}',
        '{"step": 3, "val/accu',
    ]
    (directory / "history.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert files.history(directory) == [{"step": 1, "epoch": "x"}, {"step": 2, "kept": 0.5}]
    store.mark_done(directory)
    assert "could not be drawn" not in write_report(directory).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("test/probs", np.array("text")), ("example/step", np.arange(3)), ("test/steps", np.array(["a", "b"])),
        ("threshold/hidden0", np.array(["x"])), ("sequence/names", np.float32(1)), ("plane/x", np.zeros(2)),
        ("detection/risk", np.array("x")), ("exits/x/steps", np.zeros(2)),
    ],
)  # fmt: skip
def test_reliability_10_an_array_of_another_shape_spoils_its_own_figure_only(name, array, tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    rng = np.random.default_rng(0)
    records = {
        "test/probs": rng.dirichlet(np.ones(3), 20), "test/y": rng.integers(0, 3, 20), "test/steps": np.full(20, 2.0),
        "example/x": rng.random((4, 4, 1)), "example/step": np.int32(2), "example/y": np.int32(1),
        "example/logits": rng.normal(size=(4, 3)), "raster/hidden0": rng.random((4, 5)) < 0.3,
        "membrane/hidden0": rng.random((4, 5)), "threshold/hidden0": np.ones(1), "ood/x/probs": rng.random((5, 3)),
        "test/mean": np.zeros((3, 1)), "test/lower": np.zeros((3, 1)), "test/upper": np.ones((3, 1)),
    }  # fmt: skip
    store.write_arrays(directory, "records.npz", records | {name: array})
    store.mark_done(directory)
    page = write_report(directory).read_text(encoding="utf-8")
    assert '<figure class="card" id="learning_curves">' in page
    assert page.count("<svg") >= 5
    assert len(re.findall("could not be drawn", page)) <= 4, re.findall("[a-z_]+ could not be drawn[^<]*", page)


@pytest.mark.parametrize("name", ["gates.npz", "records.npz"])
@pytest.mark.parametrize("content", [b"", b"PK torn", b"\x93NUMPY\x01\x00", b"\x80\x04N."])
def test_reliability_10_damaged_arrays_are_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    directory = made(tmp_path / "run")
    (directory / name).write_bytes(content)
    with pytest.raises(store.RunDirError, match=rf"{name} is damaged \("):
        write_report(directory)
    np.savez(directory / name, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(store.RunDirError, match="pickled objects"):
        write_report(directory)


@pytest.mark.parametrize(
    "name",
    ["javascript:alert(1)", "a#b", "a?b=c", "100%", "%41", "a b", "ü", 'q"uote', "a&b", "//evil.example", "\udcff"],
)
def test_reliability_17_links_are_relative_and_quoted(name: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    directory = made(root / name.strip("/"))
    (directory / "report.html").write_text("a page", encoding="utf-8")
    page = write_runs_report(root).read_text(encoding="utf-8")
    (link,) = {html.unescape(found) for found in re.findall(r'<a href="([^"]*)"', page)}
    base = "https://host/runs/report.html"
    told = urllib.parse.urlsplit(urllib.parse.urljoin(base, link))
    assert (told.scheme, told.netloc, told.query, told.fragment) == ("https", "host", "", "")
    place = os.fsdecode(urllib.parse.unquote_to_bytes(told.path.removeprefix("/runs/")))
    assert (root / place).read_text(encoding="utf-8") == "a page"


def test_reliability_18_cells_that_a_spreadsheet_would_run_are_quoted() -> None:
    bad = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "-cmd|' /C calc'!A0"]
    good = ["-0.5", "-1e-3", "text", "a=b", "1-2", "", "[-1, 2]"]
    for text in bad:
        assert runs_page._no_formula(text) == f"'{text}", text
    for value in [*good, -1, -0.5, float("-inf"), 3]:
        assert runs_page._no_formula(value) == value
    run = runs_page.Run("=x", "done", {"=HYPERLINK(1)": "\tx"}, {"=HYPERLINK(2)": -2.5, "+a": 1, "ok": "\ud800"}, [])
    rows = list(csv.reader(io.StringIO(runs_page.to_csv([run], ["=HYPERLINK(1)"]))))
    assert rows[0] == ["run", "status", "'=HYPERLINK(1)", "'+a", "'=HYPERLINK(2)", "ok"]
    assert rows[1][:5] == ["'=x", "done", "'\tx", "1", "-2.5"]


def test_half_characters_and_markup_stay_text(tmp_path: Path, capsys) -> None:
    directory = made(tmp_path / "[/b]")
    metrics = {**store.read_metrics(directory), "mine": "\ud800 $\\frac$", "carbon/source": "[/x] estimated"}
    (directory / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    store.mark_done(directory)
    write_report(directory)
    write_runs_report(tmp_path)
    assert door.main([f"ledger={tmp_path}"]) == 0
    assert "[/b]" in capsys.readouterr().out
