"""What a run directory is: whose it is, that nothing of the user's is moved, that no damaged file gives a number."""

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sweeping import timeless

from dsnn import store
from dsnn.assembly.identity import directory_of, reads
from dsnn.config import Config
from dsnn.plots import wording
from dsnn.report import write_report
from dsnn.run import cli, job, schema, signals, sweep
from dsnn.run.console import at_once
from dsnn.run.finished import finished
from dsnn.store import RunDirError, checkpoint

CONFIG = {"seed": 0, "data": {"name": "digits"}, "resume": False}
QUICK = ["train.epochs=2", "model.hidden=[4]", "train.steps=2", "baseline=none", "run.report=false", "track.tool=none"]


def sealed(place: Path) -> Path:
    """Returns the directory of a finished run, as far as a reader sees."""
    store.claim(place, CONFIG, {})
    store.write_metrics(place, {"test/accuracy": 0.5})
    store.append_history(place, {"step": 1, "train/loss": 1.0})
    store.write_arrays(place, "records.npz", {"x": np.arange(3)})
    store.write_text(place, "report.html", "<p>0.5</p>")
    store.mark_done(place)
    return place


def test_a_directory_is_absent_foreign_claimed_working_done_or_damaged(tmp_path):
    place = tmp_path / "run"
    assert store.state(place).kind == "absent"
    foreign = tmp_path / "precious"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    assert store.state(foreign).kind == "foreign"
    store.claim(place, CONFIG, {})
    assert store.state(place).kind == "claimed"
    with store.lock(place):
        assert store.state(place).kind == "working"
    sealed(tmp_path / "done")
    assert store.state(tmp_path / "done").kind == "done"
    (tmp_path / "done" / "metrics.json").write_text('{"test/accuracy": 0.9}')
    assert store.state(tmp_path / "done") == store.State(
        "damaged",
        f"{tmp_path / 'done'} is damaged: metrics.json is not what the run wrote; the command that made it makes it "
        "anew, and resume=false sets it aside and begins again.",
    )


@pytest.mark.parametrize(
    "name", ["config.yaml", "identity.json", "metrics.json", "history.jsonl", "records.npz", "DONE"]
)
@pytest.mark.parametrize("damage", ["cut", "zeroed", "garbled", "deleted", "other"])
def test_r6_no_file_of_a_finished_run_is_damaged_unseen(tmp_path, name, damage):
    place = sealed(tmp_path / "run")
    path = place / name
    whole = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        damaged = {
            "cut": whole[: len(whole) // 2],
            "zeroed": bytes(len(whole)),
            "garbled": whole[:-4] + bytes(b ^ 1 for b in whole[-4:]),
            "other": b"{}",
        }[damage]
        path.write_bytes(damaged)
    with pytest.raises(RunDirError):
        store.whole(place)
    assert not store.is_done(place)


def test_a_finished_run_of_which_a_file_is_damaged_is_an_interrupted_one_again(tmp_path, capsys):
    place = sealed(tmp_path / "run")
    assert store.claim(place, CONFIG, {}) == "done"
    (place / "records.npz").write_bytes(b"PK")
    assert store.claim(place, CONFIG, {}) == "interrupted"
    assert "records.npz is not what the run wrote" in capsys.readouterr().err
    assert not (place / "DONE").exists()


def test_pictures_are_drawn_again_and_make_no_damage(tmp_path):
    place = sealed(tmp_path / "run")
    (place / "report.html").write_text("<p>0.9</p>")
    assert store.is_done(place)
    assert not store.pictures_whole(place)
    store.reseal(place)
    assert store.pictures_whole(place)


def test_a_report_of_a_damaged_run_shows_no_numbers(tmp_path):
    place = sealed(tmp_path / "run")
    (place / "metrics.json").write_text('{"test/accuracy": 0.9}')
    with pytest.raises(RunDirError, match=r"metrics.json is not what the run wrote"):
        write_report(place)


def test_r2_a_running_run_keeps_its_directory(tmp_path):
    place = tmp_path / "run"
    store.claim(place, CONFIG, {})
    code = (
        "import sys, time\nfrom dsnn import store\n"
        f"with store.lock({str(place)!r}):\n    print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with (
            pytest.raises(RunDirError, match=f"in use by process {other.pid}"),
            store.held(place, CONFIG, {}, resume=False),
        ):
            pass
        other.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_r2_nothing_that_no_run_wrote_is_moved(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(RunDirError, match=r"holds thesis.tex"), store.held(precious, CONFIG, {}, resume=False):
        pass
    place = sealed(tmp_path / "run")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"also holds notes.txt"), store.held(place, CONFIG, {}, resume=False):
        pass
    (place / "notes.txt").unlink()
    monkeypatch.chdir(place)
    with pytest.raises(RunDirError, match="holds the current folder"), store.held(".", CONFIG, {}, resume=False):
        pass
    monkeypatch.chdir(tmp_path)
    with store.held("run", CONFIG, {}, resume=False) as claim:
        assert claim == "fresh"
        assert store.state("run").kind == "working"
    assert store.state("run.1").kind == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "run", "run.1"]


@pytest.mark.parametrize("name", ["DONE", "parameters.npz", "config.yaml", ".lock"])
@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_where_a_run_writes_a_file_is_refused_and_stays(tmp_path, name, resume):
    place = sealed(tmp_path / "run")
    (place / name).unlink(missing_ok=True)
    (place / name).mkdir()
    (place / name / "mine.txt").write_text("mine")
    said = rf"{re.escape(name)} must be a file, got a folder, which no run wrote; take it elsewhere"
    with pytest.raises(RunDirError, match=said), store.held(place, CONFIG, {}, resume=resume):
        pass
    with pytest.raises(RunDirError, match=said):
        store.claim(place, CONFIG, {})
    assert (place / name / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_r22_a_cut_configuration_is_damaged_and_not_another_one(tmp_path):
    place = tmp_path / "run"
    store.claim(place, {"a": 1, "b": 2, "c": 3}, {})
    (place / "config.yaml").write_text("a: 1\n")
    with pytest.raises(RunDirError, match=r"config.yaml is damaged: it ends before b and 1 more"):
        store.claim(place, {"a": 1, "b": 2, "c": 3}, {})


def test_r21_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / ".gates.npz.99999999.tmp").write_text("")
    (place / "mine.tmp").write_text("")
    with store.held(place, CONFIG, {}):
        pass
    assert not (place / ".gates.npz.99999999.tmp").exists()
    assert (place / "mine.tmp").exists()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "12.partial").write_text("not a folder")
    checkpoint.save(folder, 1, {"a": np.ones(2)})
    assert (folder / "12.partial").read_text() == "not a folder"


def test_a_checkpoint_brings_back_the_files_beside_it(tmp_path):
    store.append_history(tmp_path, {"step": 1})
    checkpoint.save(tmp_path / "checkpoints", 1, {"a": np.ones(2)}, [tmp_path / "history.jsonl"])
    store.append_history(tmp_path, {"step": 2})
    (tmp_path / "ENDED").write_text("2")
    checkpoint.put_back(tmp_path / "checkpoints", 1, tmp_path, ("history.jsonl", "ENDED"))
    assert store.read_history(tmp_path) == [{"step": 1}]
    assert not (tmp_path / "ENDED").exists()
    (tmp_path / "history.jsonl").unlink()
    checkpoint.put_back(tmp_path / "checkpoints", 1, tmp_path, ("history.jsonl", "ENDED"))
    assert store.read_history(tmp_path) == [{"step": 1}]


def own(path: Path) -> Config:
    """Returns the configuration of a run on one's own data."""
    return schema.compose(["data=npz", f"data.path='{path}'", "model.hidden=[4]"])


def write_data(path: Path, seed: int) -> None:
    """Writes a small data set of two classes."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(60, 3)).astype(np.float32)
    np.savez(path, x_train=x, y_train=np.arange(60) % 2, x_test=x[:20], y_test=np.arange(20) % 2)


def test_r12_changed_data_are_another_run_named_after_the_data(tmp_path):
    path = tmp_path / "my data.npz"
    write_data(path, 0)
    first, again = directory_of(own(path)), directory_of(own(path))
    assert first == again
    assert first.name.startswith("own-my_data-")
    write_data(path, 1)
    assert directory_of(own(path)) != first


def test_r12_changed_code_of_ones_own_is_another_run(tmp_path, monkeypatch):
    package = tmp_path / "lab_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "cells.py").write_text("from lab_of_mine.parts import A\n\ndef mine(neurons): ...\n")
    (package / "parts.py").write_text("A = 1\n")
    monkeypatch.chdir(tmp_path)
    config = schema.compose(["model.cell=lab_of_mine.cells:mine"])
    before = reads(config)
    assert set(before) == {"dsnn", "module lab_of_mine.cells"}
    assert reads(config) == before
    (package / "parts.py").write_text("A = 22\n")
    assert reads(config) != before


def test_r12_a_directory_of_ones_own_refuses_data_that_changed(tmp_path):
    place = tmp_path / "run"
    store.claim(place, CONFIG, {"data.path": "a"})
    with pytest.raises(RunDirError, match=r"read something else: data.path changed since"):
        store.claim(place, CONFIG, {"data.path": "b"})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Returns the directory of a small finished run that kept the epoch that was best."""
    place = tmp_path_factory.mktemp("runs") / "run"
    job.run(schema.compose([*QUICK, "train.select=nll", f"run.dir={place}"]))
    return place


def again(place: Path) -> dict:
    """Returns the metrics after the same command, without times and what the process used."""
    job.run(schema.compose([*QUICK, "train.select=nll", f"run.dir={place}"]))
    return timeless(place)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "metrics.json",
        "selected.npz",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("records.npz", "history.jsonl", "parameters.npz")),
    ],
)
def test_r5_r6_the_same_command_makes_anew_what_is_damaged(run, name):
    before, history = again(run), (run / "history.jsonl").read_bytes()
    (run / name).write_bytes((run / name).read_bytes()[:30])
    assert again(run) == before
    assert (run / "history.jsonl").read_bytes() == history
    assert store.is_done(run)


@pytest.mark.parametrize("part", ["build", "train"])
def test_r16_a_full_disk_does_not_hide_why_a_run_failed(part, tmp_path, monkeypatch):
    replace, tried = os.replace, []

    def full(old, new):
        if Path(new).name == store.FAILED:
            tried.append(new)
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    def fails(*_, **__):
        raise ValueError("the reason")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(job, part, fails)
    with pytest.raises(ValueError, match=r"^the reason$"):
        job.run(schema.compose([*QUICK, f"run.dir={tmp_path / 'run'}"]))
    assert len(tried) == 1
    assert not (tmp_path / "run" / store.FAILED).exists()


def test_r4_a_run_without_an_array_is_not_assessed(run, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(run, place)
    arrays = store.read_arrays(place, "parameters.npz")
    name = next(name for name in arrays if name.endswith(".loc"))
    store.write_arrays(place, "parameters.npz", {k: v for k, v in arrays.items() if k != name})
    with pytest.raises(RunDirError, match=r"parameters.npz is not what the run wrote"):
        finished(place)
    store.mark_done(place)  # as a hostile hand would
    with pytest.raises(ValueError, match=f"got none named {name}"):
        finished(place)
    store.write_arrays(place, "parameters.npz", arrays | {name: arrays[name] * np.nan})
    store.mark_done(place)
    with pytest.raises(ValueError, match=f"got NaN in {name}"):
        finished(place)


def test_r15_a_network_that_goes_on_from_itself_is_one_sentence(run, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(run, place)
    config = store.read_config(place)
    config["model"] |= {"compacted": str(place)}
    config["gates"] |= {"enabled": False}
    store.write_config(place, config)
    store.mark_done(place)
    with pytest.raises(ValueError, match="goes on from itself"):
        finished(place)


def test_r13_a_signal_whose_exception_was_lost_is_heeded_later():
    before = signal.getsignal(signal.SIGINT)
    with signals.heard():
        with contextlib.suppress(KeyboardInterrupt):  # as Python does in a callback of the garbage collector
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signals.heed()
        with pytest.raises(KeyboardInterrupt), signals.after_this_epoch(print):
            pass
    signals.heed()
    assert signal.getsignal(signal.SIGINT) is before


def test_r13_a_line_that_a_signal_interrupts_is_said_once(capfd):
    class Interrupting(io.TextIOWrapper):
        def flush(self):
            super().flush()
            if not asked:
                signal.raise_signal(signal.SIGINT)

    with signals.after_this_epoch(at_once) as asked, Interrupting(os.fdopen(os.dup(1), "wb")) as stream:
        Console(file=stream).print("epoch 4/40")
    assert capfd.readouterr().out == "epoch 4/40\nstopping after this epoch; once more stops at once\n"


def test_r13_the_commands_that_learn_hear_signals(monkeypatch):
    heard = []
    monkeypatch.setattr(cli.usage, "wants_help", lambda: heard.append(signal.getsignal(signal.SIGINT)) or True)
    monkeypatch.setattr(sys, "argv", ["dsnn run", "--help"])
    assert cli.main() == 0
    monkeypatch.setattr(sweep, "searches", lambda: heard.append(signal.getsignal(signal.SIGINT)) or [])
    assert sweep.main(["--help"]) == 0
    assert heard == [signals._told] * 2


def test_done_lists_the_digests_of_every_other_file(run):
    listed = json.loads((run / "DONE").read_text())["sha256"]
    present = {path.name for path in run.iterdir() if path.is_file()} - {"DONE", ".lock"}
    assert present == {name for name in listed if "/" not in name}


def test_f2_what_makes_figures_say_little_is_said():
    kept = {"gates/total": 72, "gates/kept": 5, "compute/spike_rate": 0.1}
    mlp = {"model": {"hidden": [8], "architecture": "mlp"}}
    assert wording.degenerate(mlp, kept) == ""
    assert "Every compute site is closed" in wording.degenerate(mlp, kept | {"gates/kept": 0})
    assert "No hidden neuron fired" in wording.degenerate(mlp, kept | {"compute/spike_rate": 0.0})
    assert "no hidden neurons" in wording.degenerate({"model": {"hidden": []}}, kept | {"compute/spike_rate": 0.0})


def test_f2_r1_a_network_that_closes_every_site_ends_with_metrics(tmp_path, capsys):
    _, metrics = job.run(schema.compose([*QUICK, "svi.lam=1e3", "train.epochs=12", f"run.dir={tmp_path / 'run'}"]))
    assert (metrics["gates/kept"], metrics["compute/spike_rate"]) == (0, 0)
    assert store.is_done(tmp_path / "run")
    assert "Every compute site is closed" in capsys.readouterr().out


@pytest.mark.slow
def test_f2_r1_inputs_of_zeros_and_no_hidden_layer_end_with_metrics(tmp_path):
    labels = np.arange(60) % 2
    zeros = np.zeros((60, 3), np.float32)
    np.savez(tmp_path / "zeros.npz", x_train=zeros, y_train=labels, x_test=zeros[:20], y_test=labels[:20])
    own = ["data=npz", f"data.path={tmp_path / 'zeros.npz'}"]
    for k, options in enumerate((own, ["model.hidden=[]"])):
        job.run(schema.compose([*QUICK, *options, f"run.dir={tmp_path / str(k)}"]))
        assert store.is_done(tmp_path / str(k))
