"""Tracking: what W&B wrote, read back with W&B's own record type, and that no failure of it reaches training."""

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeping import door, ran

from dsnn.store import track
from dsnn.store.track import Track, open_track

CONFIG = {"model": {"widths": [64, 32]}, "train": {"rate": 1e-3}, "seed": 3}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """No key, no netrc, no server: whatever the machine has, a test sends nothing."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def read_records(path: Path) -> list:
    """The records of a ``.wandb`` file: LevelDB log framing (32 KiB blocks, 7-byte headers) around W&B's protobuf."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, partial, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        partial += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a full record, or the last piece of one
            records.append(wandb_internal_pb2.Record.FromString(partial))
            partial = b""
    return records


def read_offline(directory: Path) -> list[dict]:
    """What each start of a run left behind, oldest first: run, config, history, summary, exit code."""
    starts = []
    for path in sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        start: dict = {"history": [], "summary": {}, "exit": None}
        for record in read_records(path):
            if record.HasField("run"):
                start["run"] = record.run
                start["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for item in record.summary.update:
                start["summary"]["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
            if record.HasField("history"):
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                start["history"].append({key: json.loads(value) for key, value in items.items()})
            if record.HasField("exit"):
                start["exit"] = record.exit.exit_code
        starts.append(start)
    return starts


def test_offline_runs_carry_group_config_summary_and_state_and_resume_under_one_id(tmp_path, capfd):
    finished, failed = tmp_path / "finished", tmp_path / "failed"
    finished.mkdir()
    (finished / "environment.json").write_text('{"git_revision": "abc"}')
    options = {"project": "p", "group": "sweep", "tags": ["a", "b"], "job_type": "train", "config": CONFIG}

    first = open_track(finished, name="one", **options)
    first.log({"train/loss": 0.5}, step=10)
    first.finish(exit_code=1)
    time.sleep(1.1)  # W&B names its folders by the second
    again = open_track(finished, name="one", **options)
    again.log({"train/loss": 0.25}, step=20)
    again.summary({"test/accuracy": 0.97, "carbon/source": "none"})
    again.table("reliability", ["confidence", "accuracy"], [[0.5, 0.4], [0.9, 0.95]])
    again.finish(exit_code=0)
    other = open_track(failed, name="two", **options)
    other.finish(exit_code=1)

    before, after = read_offline(finished)
    assert before["run"].run_id == after["run"].run_id == first.run_id == again.run_id
    assert (after["run"].project, after["run"].run_group, after["run"].job_type) == ("p", "sweep", "train")
    assert (after["run"].display_name, list(after["run"].tags)) == ("one", ["a", "b"])
    assert after["config"]["model"] == {"widths": [64, 32]}
    assert after["config"]["seed"] == 3
    assert after["config"]["environment"] == {"git_revision": "abc"}
    assert [(row["_step"], row["train/loss"]) for row in before["history"]] == [(10, 0.5)]
    assert (after["history"][0]["_step"], after["history"][0]["train/loss"]) == (20, 0.25)
    assert (after["summary"]["test/accuracy"], after["summary"]["carbon/source"]) == (0.97, "none")
    assert after["history"][-1]["reliability/_type"] == "table-file"
    assert (before["exit"], after["exit"], read_offline(failed)[0]["exit"]) == (1, 0, 1)

    assert other.run_id != first.run_id
    assert again.sync_hint == f"wandb sync {finished}/wandb/offline-run-*-{first.run_id}"
    assert len(list(finished.glob(f"wandb/offline-run-*-{first.run_id}"))) == 2
    assert (first.warnings, again.warnings, other.warnings) == ([], [], [])
    assert capfd.readouterr() == ("", "")


def test_opening_and_logging_do_not_wait_for_wandb(tmp_path):
    start = time.perf_counter()
    track = open_track(tmp_path)
    for step in range(100):
        track.log({"x": 1.0}, step)
    assert time.perf_counter() - start < 0.1
    track.finish()
    assert track.warnings == []
    assert len(read_offline(tmp_path)[0]["history"]) == 100


def test_runs_of_one_process_at_the_same_time_keep_apart(tmp_path):
    tracks = [open_track(tmp_path / str(member), name=str(member)) for member in range(3)]
    for member, one in enumerate(tracks):
        one.summary({"member": member})
    for member, one in enumerate(tracks):
        one.finish(exit_code=member)
    for member, one in enumerate(tracks):
        (start,) = read_offline(tmp_path / str(member))
        assert (start["summary"]["member"], start["exit"], one.warnings) == (member, member, [])


def services() -> set[str]:
    """Process ids of the W&B services this process has started and not ended."""
    found = set()
    # by parent: a list of a thread's children misses those of one that has just ended
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, name, parent = re.match(r"(\d+) \((.*)\) \S (\d+)", path.read_text()).groups()
            if "wandb" in name and int(parent) == os.getpid():
                found.add(pid)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in Linux's /proc")
def test_everything_is_on_the_disk_when_the_last_run_has_finished(tmp_path):
    """W&B's service writes behind; only its end makes sure of the records."""
    one, two = open_track(tmp_path / "one"), open_track(tmp_path / "two")
    one.finish()
    assert services()
    two.finish()
    assert not services()


def test_disabled_writes_nothing_and_imports_nothing(tmp_path):
    code = f"""
import sys
from dsnn.store.track import open_track
track = open_track({str(tmp_path / "run")!r}, mode="disabled")
track.log({{"x": 1}}, 1); track.summary({{}}); track.figure("f", "none.png"); track.table("t", [], []); track.finish()
assert track.sync_hint == "" and "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not (tmp_path / "run").exists()


def test_online_without_a_key_is_tracked_offline_and_says_so(tmp_path, capfd):
    track = open_track(tmp_path, mode="online")
    track.summary({"a": 1})
    track.finish()
    assert capfd.readouterr().err.count("\n") == 1
    assert "W&B has no API key (set one with: wandb login); the run is tracked offline" in track.warnings[0]
    assert read_offline(tmp_path)[0]["summary"]["a"] == 1
    assert track.sync_hint


def test_online_without_a_network_is_tracked_offline_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    track = open_track(tmp_path, mode="online")
    track.log({"loss": 1.0}, step=1)
    track.finish()
    assert len(track.warnings) == 1
    assert "W&B cannot be reached (Connection refused); the run is tracked offline" in track.warnings[0]
    assert read_offline(tmp_path)[0]["exit"] == 0


def test_a_folder_that_cannot_be_written_costs_one_sentence(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    track = open_track(tmp_path / "file" / "run")
    for step in range(3):
        track.log({"x": 1.0}, step)
    track.finish()
    assert track.warnings == [
        f"W&B tracking stopped (Not a directory); the run goes on, and its files stay in {tmp_path}/file/run."
    ]
    assert capfd.readouterr().err.count("\n") == 1
    assert track.sync_hint == ""


class BrokenRun:
    """A W&B run that fails from its second record on."""

    def __init__(self):
        self.logged, self.exit_codes = [], []

    def log(self, values, step=None):
        if self.logged:
            raise RuntimeError("service died\ntraceback")
        self.logged.append((values, step))

    def finish(self, exit_code):
        self.exit_codes.append(exit_code)


def test_a_crash_in_the_middle_costs_one_sentence(tmp_path, capfd):
    run = BrokenRun()
    track = Track(tmp_path, "id", lambda warn: run)
    for step in range(5):
        track.log({"x": step}, step)
    track.finish()
    assert run.logged == [({"x": 0}, 0)]
    assert run.exit_codes == [1]
    assert track.warnings == [
        f"W&B tracking stopped (service died); the run goes on, and its files stay in {tmp_path}."
    ]
    assert capfd.readouterr().err == track.warnings[0] + "\n"


def test_finish_does_not_wait_for_ever(tmp_path):
    release = threading.Event()
    track = Track(tmp_path, "id", lambda warn: release.wait(30))
    waiting = next(thread for thread in threading.enumerate() if thread.name == "dsnn-track")
    start = time.perf_counter()
    track.finish(timeout_s=0.1)
    assert time.perf_counter() - start < 5
    assert "has not finished after 0.1 s" in track.warnings[0]
    release.set()
    waiting.join(30)


def test_what_is_logged_is_what_it_was_at_that_moment(tmp_path):
    seen, release = [], threading.Event()

    class Run:
        def log(self, values, step):
            seen.append(values["x"])

        def finish(self, exit_code):
            pass

    track = Track(tmp_path, "id", lambda warn: release.wait(30) and Run())
    metrics = {"x": 1}
    track.log(metrics, 1)
    metrics["x"] = 2
    release.set()
    track.finish()
    assert seen == [1]


def test_wandb_folders_follow_the_run_unless_the_user_chose_others(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "mine"))
    for name in ("one", "two"):
        Track(tmp_path / name, "id", lambda warn: BrokenRun()).finish()
        assert os.environ["WANDB_CACHE_DIR"] == str(tmp_path / "mine")
        assert os.environ["WANDB_DATA_DIR"] == str(tmp_path / name / "wandb" / "data")


def test_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"track.wandb must be one of auto, offline, online, disabled, got 'on'"):
        open_track(tmp_path, mode="on")


def test_unknown_tool_is_refused_and_none_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"track.tool must be one of wandb, tensorboard, none, got 'tensorbord'"):
        open_track(tmp_path, tool="tensorbord")
    track = open_track(tmp_path, tool="none")
    track.log({"x": 1}, 1)
    track.finish()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_numbers_figures_and_how_it_ended(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    def events(path):  # TFRecord: length, checksum, record, checksum
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16

    track = open_track(tmp_path, tool="tensorboard")
    track.log({"val/nll": 0.5, "note": "text"}, step=3)
    track.summary({"test/accuracy": 0.97})
    track.table("reliability", ["confidence", "accuracy"], [[0.5, 0.4]])
    track.finish(exit_code=1)
    assert track.warnings == []
    (file,) = (tmp_path / "tensorboard").iterdir()
    values = {v.tag: (e.step, v.simple_value) for e in events(file) for v in e.summary.value}
    assert values["val/nll"] == (3, 0.5)
    assert values["final/test/accuracy"] == (3, pytest.approx(0.97))
    assert values["exit_code"] == (3, 1.0)


def test_tensorboard_that_is_not_installed_costs_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    track = open_track(tmp_path, tool="tensorboard")
    track.log({"x": 1.0}, 1)
    track.finish()
    assert "TensorBoard tracking stopped (tensorboardX is missing; pip install tensorboardX)" in track.warnings[0]


@pytest.mark.slow
def test_runs_that_finish_fail_and_go_on_are_read_back_from_their_offline_files(tmp_path):
    from dsnn import store

    told = ["track.wandb=offline", "track.checkpoint=true", f"run.root={tmp_path}"]
    stopped = subprocess.Popen(
        door("train.epochs=400", *told, "seed=1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    patience = time.monotonic() + 200
    while not list(tmp_path.glob("*/checkpoints/[1-9]*")):
        assert time.monotonic() < patience
        time.sleep(0.02)
    stopped.terminate()
    assert stopped.wait(120) == 128 + 15
    said = ran("-m", "seed=1,2", "train.epochs=400", *told)
    assert "wandb sync" in said
    ran("train.epochs=2", "optimizer.learning_rate=1e30", *told, code=1)
    runs = {path.name: read_offline(path) for path in tmp_path.glob("digits-*")}
    configs = {name: store.read_config(tmp_path / name) for name in runs}
    resumed = next(name for name, config in configs.items() if config["seed"] == 1)
    finished = next(name for name, config in configs.items() if config["seed"] == 2)
    failed = next(name for name, config in configs.items() if config["seed"] == 0)
    assert [start["exit"] for start in runs[resumed]] == [143, 0]
    assert len({start["run"].run_id for start in runs[resumed]}) == 1
    assert [start["exit"] for start in runs[finished]] == [0]
    assert [start["exit"] for start in runs[failed]] == [1]
    (group,) = (path.stem for path in (tmp_path / "sweeps").glob("*.jsonl"))
    assert runs[resumed][-1]["run"].run_group == runs[finished][0]["run"].run_group == group
    assert runs[finished][0]["config"]["train"]["epochs"] == 400
    assert "git_revision" in runs[finished][0]["config"]["environment"]
    for name in (resumed, finished):
        metrics = store.read_metrics(tmp_path / name)
        assert runs[name][-1]["summary"]["test/nll"] == pytest.approx(metrics["test/nll"])
        tables = {key.split("/")[0] for row in runs[name][-1]["history"] for key in row if "_type" in key}
        assert tables >= {"reliability", "gates"}


@pytest.mark.slow
def test_training_ends_without_a_network_and_says_what_was_not_sent(tmp_path):
    said = ran("track.wandb=online", f"run.dir={tmp_path}/run", WANDB_API_KEY="a" * 40)
    assert "W&B cannot be reached (Connection refused); the run is tracked offline" in said
    assert f"to send it to W&B: wandb sync {tmp_path}/run/wandb/offline-run-*-" in said
    assert (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize(
    ("given", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("auto", {"WANDB_MODE": "dryrun"}, "offline"),
        ("auto", {"WANDB_SWEEP_ID": "abc"}, "online"),
        ("auto", {"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, "disabled"),
        ("offline", {"WANDB_MODE": "online", "WANDB_SWEEP_ID": "abc"}, "offline"),
    ],
)
def test_the_environment_holds_where_the_configuration_is_silent(given, environment, mode, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert track._mode(given) == mode


def test_an_agents_run_and_names_are_taken(tmp_path, monkeypatch):
    seen = {}

    def opened(mode, arguments, *rest):
        seen.update(arguments, mode=mode)
        raise RuntimeError("far enough")

    monkeypatch.setattr(track, "_open", opened)
    for name, value in {
        "WANDB_RUN_ID": "agent7", "WANDB_PROJECT": "theirs", "WANDB_RUN_GROUP": "g", "WANDB_TAGS": "a,b",
        "WANDB_MODE": "offline",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    one = track.open_track(tmp_path, usual_group="usual", tags=["own"])
    one.finish()
    assert one.run_id == seen["id"] == "agent7"
    assert (seen["project"], seen["group"], seen["tags"], seen["mode"]) == ("theirs", "g", ["own", "a", "b"], "offline")
    again = track.open_track(tmp_path, project="mine", group="h", mode="offline")
    again.finish()
    assert (seen["project"], seen["group"]) == ("mine", "h")
