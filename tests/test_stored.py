"""A fitted network saved, loaded elsewhere, pickled, copied and gone on with."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dsnn
from dsnn import resolve
from dsnn.api.fitted import Fitted
from dsnn.cells import LIF

DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(90, 5)).astype(np.float32)
CLASSES = np.array(["ant", "bee", "cat"])[np.arange(90) % 3]
NUMBERS = (X @ np.arange(1.0, 6.0) * 30 + 200).astype(np.float32)
SERIES = DRAW.normal(size=(90, 6, 3)).astype(np.float32)
IMAGES = DRAW.random((90, 16, 16)).astype(np.float32)
QUICK = {"epochs": 2, "batch_size": 32, "steps": 3, "baseline": "none"}

CASES = {
    "classes": (X, CLASSES, {"hidden": [6]}),
    "numbers": (X, NUMBERS, {"hidden": [6]}),
    "labels": (X, (X[:, :2] > 0).astype(int), {"hidden": [6], "task": "multilabel"}),
    "steps": (SERIES, (SERIES[..., 0] > 0).astype(int), {"hidden": [6], "temporal": True}),
    "recurrent": (SERIES, CLASSES, {"hidden": [6], "recurrent": True, "temporal": True}),
    "conv": (IMAGES, CLASSES, {"channels": [2, 3], "architecture": "conv", "hidden": []}),
    "twin": (X, CLASSES, {"hidden": [6], "bayesian": False}),
    **{
        guide: (X, CLASSES, {"hidden": [6], "guide": guide})
        for guide in ("point", "low_rank", "last_layer", "rank1", "dropout", "aot", "ensemble", "laplace")
    },
}

ELSEWHERE = """
import json, sys
import numpy as np, dsnn
fitted = dsnn.load(sys.argv[1])
made = dsnn.predict(fitted, np.load(sys.argv[2]), samples=3)
np.savez(sys.argv[3], **{name: np.asarray(value) for name, value in made._asdict().items() if value is not None})
"""


def fitted_to(case: str) -> tuple[Fitted, np.ndarray]:
    x, y, options = CASES[case]
    return dsnn.fit(x, y, **{**QUICK, **options}), x


SLOW = {
    "point",
    "last_layer",
    "low_rank",
    "rank1",
    "dropout",
    "aot",
    "ensemble",
    "laplace",
    "recurrent",
}  # as the others


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES])
def test_a_network_that_was_saved_predicts_bit_for_bit(case: str, tmp_path: Path) -> None:
    fitted, x = fitted_to(case)
    made = dsnn.predict(fitted, x[:7], samples=3)
    again = dsnn.predict(dsnn.load(fitted.save(tmp_path / "kept")), x[:7], samples=3)
    for name, value in made._asdict().items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(getattr(again, name)), err_msg=name)


@pytest.mark.slow
def test_another_process_predicts_bit_for_bit(tmp_path: Path) -> None:
    for case in ("classes", "numbers"):
        fitted, x = fitted_to(case)
        made = dsnn.predict(fitted, x, samples=3)
        np.save(tmp_path / "x.npy", x)
        place, out = fitted.save(tmp_path / case), tmp_path / f"{case}.npz"
        command = [sys.executable, "-c", ELSEWHERE, str(place), str(tmp_path / "x.npy"), str(out)]
        subprocess.run(command, check=True, env=dict(os.environ))
        with np.load(out) as theirs:
            for name in theirs.files:
                np.testing.assert_array_equal(np.asarray(getattr(made, name)), theirs[name], err_msg=name)


def test_copies_and_pickles_predict_alike_and_own_objects_go_with_cloudpickle() -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    x, y, options = CASES["classes"]

    def own(neurons: int) -> LIF:
        return LIF(0.7, surrogate="atan")

    fitted = dsnn.fit(x, y, cell=own, **{**QUICK, **options})
    made = dsnn.predict(fitted, x[:5], samples=2)
    others = [copy.copy(fitted), copy.deepcopy(fitted), pickle.loads(cloudpickle.dumps(fitted))]
    plain, _ = fitted_to("classes")
    assert pickle.loads(pickle.dumps(plain)).classes == ("ant", "bee", "cat")
    for other in others:
        np.testing.assert_array_equal(dsnn.predict(other, x[:5], samples=2).probs, made.probs)
    with pytest.raises(ValueError, match="is found again by its import path, got local:own_"):
        fitted.save("nowhere")
    assert not Path("nowhere").exists()


@pytest.mark.slow
def test_more_epochs_go_on_from_the_posterior() -> None:
    x, y, options = CASES["classes"]
    once = dsnn.fit(x, y, **{**QUICK, **options, "epochs": 12})
    further = once.more(12)
    assert len(further.losses) == 24
    assert further.losses[:12] == once.losses
    started = dsnn.fit(x, y, start=once, **{**QUICK, **options, "epochs": 1, "learning_rate": 1e-12})
    name = "hidden0.synapse.kernel.loc"
    assert 0 < float(np.abs(further.params[name] - once.params[name]).mean()) < 0.3
    np.testing.assert_allclose(started.params[name], once.params[name], atol=1e-6)
    with pytest.raises(ValueError, match="start must be a fit of the same network"):
        dsnn.fit(x, y, start=once, **{**QUICK, "hidden": [7]})


def test_a_loaded_network_has_no_examples_to_go_on_with(tmp_path: Path) -> None:
    fitted, x = fitted_to("classes")
    loaded = dsnn.load(fitted.save(tmp_path / "kept"))
    with pytest.raises(ValueError, match=r"dsnn\.fit\(x, y, start=fitted\) has"):
        loaded.more(1)
    assert dsnn.fit(x, CLASSES, start=loaded, hidden=[6], **QUICK).losses


def test_what_is_damaged_or_not_trusted_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, _ = fitted_to("classes")
    place = fitted.save(tmp_path / "kept")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("a user's own")
    with pytest.raises(ValueError, match="goes into an empty folder"):
        fitted.save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"without fitted\.json"):
        dsnn.load(tmp_path / "other")
    for name, content, sentence in (
        ("fitted.npz", b"nothing", "is damaged: its digest"),
        ("fitted.json", b"{", "must be what fitted.save wrote"),
        ("fitted.json", b'{"format": 2, "sha256": ""}', "must be of format 1, got 2"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(place, broken)
        (broken / name).write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            dsnn.load(broken)
        shutil.rmtree(broken)
    for change, sentence in (
        (lambda facts: facts.pop("data"), "must be what fitted.save wrote, got KeyError: 'data'"),
        (lambda facts: facts["data"].update(x=[1, 10**13]), "an example may have"),
        (lambda facts: facts.update(config=3), "must hold options by name, got 3"),
        (lambda facts: facts["config"].update(new=1), "new is no option of this version"),
    ):
        facts = json.loads((place / "fitted.json").read_text())
        change(facts)
        broken = tmp_path / "changed"
        shutil.copytree(place, broken)
        (broken / "fitted.json").write_text(json.dumps(facts))
        with pytest.raises(ValueError, match=sentence):
            dsnn.load(broken)
        shutil.rmtree(broken)
    facts = json.loads((place / "fitted.json").read_text())
    facts["config"]["model"]["cell"] = "os:system"
    (place / "fitted.json").write_text(json.dumps(facts))
    called: list[object] = []
    monkeypatch.setattr(os, "system", called.append)
    monkeypatch.setattr(resolve, "_trusted", set())
    monkeypatch.setattr(resolve, "_told", [])
    with pytest.raises(ValueError, match="was not told to run, got 'os:system'"):
        dsnn.load(place)
    assert called == []


@pytest.mark.slow
def test_pieces_are_objects_or_names_and_callbacks_are_heard() -> None:
    x, y, options = CASES["classes"]
    heard = []

    def listen(moment: object) -> bool:
        heard.append((moment.epoch, sorted(moment.metrics)))
        return moment.epoch == 20

    def rows(finished: object) -> dict[str, float]:
        return {"own/rows": float(len(finished.split.train.y))}

    fitted = dsnn.fit(
        x, y, cell="ALIF", guide="low_rank", callbacks=[listen], metrics=[rows], **{**QUICK, **options, "epochs": 40}
    )
    assert heard == [(10, ["train/loss", "val/accuracy", "val/nll"]), (20, ["train/loss", "val/accuracy", "val/nll"])]
    assert len(fitted.losses) == 20
    assert fitted.metrics == {"own/rows": 72.0}
    network = fitted.setup.bayesian.simulator.template.build(fitted.setup.bayesian.weights.initial)
    same = dsnn.fit(x, y, network=network, **QUICK)
    assert same.setup.config.model.architecture.startswith(resolve.LOCAL)
    assert type(same.network().hidden0.cell).__name__ == "ALIF"


@pytest.mark.slow
def test_gaps_names_and_ends_of_series_are_read_as_a_run_reads_them() -> None:
    x = X.copy()
    x[::7, 2] = np.nan
    fitted = dsnn.fit(x, np.where(np.arange(90) % 2, 7, 0), **QUICK, hidden=[4])
    assert fitted.classes == ("0", "7")
    filled = X[:4].copy()
    held = np.asarray(x)[~np.isnan(x[:, 2]), 2]
    filled[0, 2] = np.nan
    made = dsnn.predict(fitted, filled, samples=2).probs
    assert np.isfinite(made).all()
    assert abs(fitted.setup.split.extra["given/fill"][2] - np.median(held)) < 0.3
    series = SERIES.copy()
    series[::2, 4:] = np.nan
    ended = dsnn.fit(series, np.arange(90) % 2, temporal=True, **QUICK, hidden=[4])
    first = dsnn.predict(ended, series[:1], samples=2).probs
    whole = series[:1].copy()
    whole[:, 4:] = np.asarray(dsnn.data.scaling_of(ended.setup.split).shift)
    np.testing.assert_allclose(dsnn.predict(ended, whole, samples=2).probs, first, atol=1e-6)


def test_uncertainty_is_split_by_its_source() -> None:
    fitted, x = fitted_to("classes")
    found = fitted.uncertainty(x[:9])
    parts = found.aleatoric + found.weights + found.gates + found.spikes
    np.testing.assert_allclose(np.asarray(parts), np.asarray(found.total), atol=1e-5)
    with pytest.raises(ValueError, match="one class an example, got numbers"):
        fitted_to("numbers")[0].uncertainty(x)
