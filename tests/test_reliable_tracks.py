"""W&B beside runs that are killed: what its file lost is logged again, once, and the end of a run reaches it."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_track import read_offline

from dsnn import store
from dsnn.config import Config
from dsnn.run import job, sweep_record, task
from dsnn.store import track
from dsnn.store.track import open_track, settle


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no netrc, no server: whatever the machine has, a test sends nothing."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def learned(directory: Path, steps: range, exit_code: int = 1) -> Path:
    """A start of a run that logs and records some steps; returns W&B's file of it."""
    before = {*directory.glob("wandb/offline-run-*/*.wandb")}
    told = open_track(directory)
    for step in steps:
        store.append_history(directory, {"step": step, "val/nll": 1 / step, "val/ece": float("nan")})
        told.log({"val/nll": 1 / step}, step)
    told.finish(exit_code)
    time.sleep(1.05)  # W&B names its folders by the second
    (file,) = {*directory.glob("wandb/offline-run-*/*.wandb")} - before
    return file


def steps_of(directory: Path) -> list[list[int]]:
    return [[row["_step"] for row in start["history"]] for start in read_offline(directory)]


def test_f17_what_the_first_starts_file_lost_is_logged_again(tmp_path: Path) -> None:
    file = learned(tmp_path, range(1, 4))
    file.write_bytes(file.read_bytes()[:7])
    learned(tmp_path, range(4, 6))
    assert steps_of(tmp_path)[-1] == [1, 2, 3, 4, 5]
    assert read_offline(tmp_path)[-1]["history"][1]["val/nll"] == 0.5
    assert "val/ece" not in read_offline(tmp_path)[-1]["history"][1]


@pytest.mark.parametrize("whole", [0, 1, 2, 3])
def test_f17_steps_are_logged_once_wherever_the_file_was_cut(whole: int, tmp_path: Path) -> None:
    """The file is cut in the middle of a record, and the run goes on from the checkpoint after step 2."""
    file = learned(tmp_path, range(1, 4))
    content = file.read_bytes()
    size = next(n for n in range(7, len(content) + 1) if _steps(file, content[:n]) == set(range(1, whole + 1)))
    file.write_bytes(content[: size + 3])
    assert track.logged_steps(file) == set(range(1, whole + 1))
    lines = (tmp_path / "history.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "history.jsonl").write_text("".join(lines[:2]), encoding="utf-8")
    again = learned(tmp_path, range(3, 6))
    assert track.logged_steps(again) == set(range(1, 6)) - set(range(1, whole + 1))


def _steps(file: Path, content: bytes) -> set[int]:
    file.write_bytes(content)
    return track.logged_steps(file)


@pytest.mark.parametrize("content", [b"", b":W&B", b"\x00" * 5000, b":W&B\xe0\xac\x00" + b"\xff" * 70_000])
def test_f17_a_file_that_is_none_holds_no_steps(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.wandb").write_bytes(content)
    assert track.logged_steps(tmp_path / "x.wandb") == set()
    assert track.logged_steps(tmp_path / "nowhere") == set()


def test_f17_records_longer_than_a_block_are_read(tmp_path: Path) -> None:
    told = open_track(tmp_path)
    for step in (1, 2, 3):
        told.log({f"value/{k}": float(k) for k in range(4000)}, step)
    told.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 4 * 32768
    assert track.logged_steps(file) == {1, 2, 3}


KILLED = """
import os, signal, sys
from dsnn import store
from dsnn.store.track import open_track
told = open_track(sys.argv[1], group="g", tags=["t"], config={"seed": 3})
for step in (1, 2, 3):
    store.append_history(sys.argv[1], {"step": step, "val/nll": 1 / step})
    told.log({"val/nll": 1 / step}, step)
store.write_config(sys.argv[1], {"seed": 3})
store.write_metrics(sys.argv[1], {"test/nll": 0.25})
told.summary({"test/nll": 0.25})
while not os.path.exists(sys.argv[1] + "/wandb/opened.json"):
    pass
store.mark_done(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_f17_reliability_20_a_run_killed_just_after_its_end_is_told_by_the_same_command(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    time.sleep(1.05)
    with store.lock(tmp_path):
        assert settle(tmp_path) is None, "another process is at it"
    assert settle(tmp_path, mode="disabled") is None
    assert settle(tmp_path, tool="tensorboard") is None
    told = settle(tmp_path)
    assert told is not None
    assert told.complete
    last = read_offline(tmp_path)[-1]
    assert last["summary"]["test/nll"] == 0.25
    assert (last["exit"], last["run"].run_group, list(last["run"].tags), last["config"]["seed"]) == (0, "g", ["t"], 3)
    assert sorted(step for start in steps_of(tmp_path) for step in start) == [1, 2, 3]
    assert settle(tmp_path) is None, "once"


def test_reliability_20_what_ended_as_it_should_is_not_told_again(tmp_path: Path) -> None:
    told = open_track(tmp_path)
    told.summary({"test/nll": 1.0})
    store.write_config(tmp_path, {"seed": 3})
    store.mark_done(tmp_path)
    assert store.is_done(tmp_path)
    told.finish()
    assert told.complete
    assert settle(tmp_path) is None
    assert settle(tmp_path / "nowhere") is None
    again = open_track(tmp_path)
    again.finish(1)
    assert not (tmp_path / "wandb" / track.COMPLETE).exists(), "a run that was opened again is not complete"


def test_reliability_20_the_same_command_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    store.write_config(tmp_path, {})
    monkeypatch.setattr(job, "run", lambda config, **_: (store.mark_done(tmp_path), (tmp_path, {"a": 1}))[1])
    monkeypatch.setattr(track, "settle", lambda directory, **how: asked.append((directory, how)))
    config = Config()
    config.run.dir = str(tmp_path)
    assert task.run(config) == (tmp_path, {"a": 1})
    assert asked == [], "this command itself ended the run"
    task.run(config)
    assert asked == [(tmp_path, {"tool": "wandb", "mode": config.track.wandb})]
    config.resume = False
    task.run(config)
    assert len(asked) == 1


def test_reliability_16_a_full_disk_names_the_record_of_a_sweep(tmp_path: Path, monkeypatch, capsys) -> None:
    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(task, "unrecorded", [])
    monkeypatch.setattr(sweep_record.os, "write", full)
    record = tmp_path / "s.jsonl"
    with pytest.raises(OSError, match=r"No space left on device: .*s\.jsonl"):
        sweep_record.add(record, {})
    task._record(record, {"status": "failed: the first error"})
    assert "s.jsonl" in task.unrecorded[0]
    assert "the record of the sweep lacks a line" in capsys.readouterr().out
