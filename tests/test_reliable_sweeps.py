"""Sweeps that hold: killed workers, jobs at fault, signals, a parent that is gone, records with mistakes in them."""

import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweeping import TINY, door, finished, ran

from dsnn.run import job, launcher, schema, sweep_record, workers

JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
PLAIN = ["learner=map", "baseline=none", "halting.enabled=false"]
"""What makes a run quicker, and has no part in a sweep."""


def call(code: str) -> bytes:
    """Returns a job that runs a few lines."""
    return pickle.dumps(functools.partial(exec, f"import os, signal, time\n{code}"))


def noted(folder: Path, name: str, then: str = "") -> bytes:
    return call(f"open({str(folder / name)!r}, 'a').write('x')\n{then}")


def killed(signal_name: str = "SIGKILL") -> str:
    return f"os.kill(os.getpid(), signal.{signal_name})"


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(true, seconds: float) -> None:
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_reliability_8_a_killed_workers_job_is_run_again_once_and_no_other(tmp_path: Path) -> None:
    again = []
    first = f"if os.path.getsize({str(tmp_path / '2')!r}) == 1: {killed()}"
    jobs = [noted(tmp_path, str(k), first if k == 2 else "time.sleep(0.2)") for k in range(6)]
    ended = workers.work_through(jobs, 2, lambda number, how: again.append((number, how)))
    assert [one.trouble for one in ended] == [""] * 6
    assert again == [(2, "killed by SIGKILL")]
    assert [(tmp_path / str(k)).read_text() for k in range(6)] == ["x", "x", "xx", "x", "x", "x"]


def test_reliability_8_a_job_that_kills_twice_is_given_up_and_said(tmp_path: Path) -> None:
    again = []
    codes = ["", killed(), "raise ValueError('its own')", "os._exit(3)", ""]
    jobs = [noted(tmp_path, str(k), code) for k, code in enumerate(codes)]
    ended = workers.work_through(jobs, 2, lambda number, how: again.append(number))
    assert sorted(again) == [1, 3]
    assert "2 times without a word (killed by SIGKILL)" in ended[1].trouble
    assert "2 times without a word (exit status 3)" in ended[3].trouble
    assert [ended[k].trouble for k in (0, 2, 4)] == ["", "its own", ""]
    assert [(tmp_path / str(k)).read_text() for k in range(5)] == ["x", "xx", "x", "xx", "x"]


STUBBORN = "signal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
PARENT = """
import signal, sys
from dsnn.run import workers
workers.GRACE_S = 2.0
calls = [bytes.fromhex(word) for word in sys.argv[1:]]
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    workers.work_through(calls, len(calls), print)
except workers.Stopped as stop:
    sys.exit(128 + stop.args[0])
"""


@pytest.mark.parametrize("tell", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_reliability_8_no_worker_outlives_its_parent(tell: str, tmp_path: Path) -> None:
    pid = f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\n"
    words = [call(pid + code).hex() for code in (STUBBORN, "time.sleep(60)", "")]
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *words])
    until(lambda: len(list(tmp_path.iterdir())) == 3, 60)
    numbers = [int(path.name) for path in tmp_path.iterdir()]
    began = time.monotonic()
    assert workers.GRACE_S < 8
    parent.send_signal(getattr(signal, tell))
    status = parent.wait(10)
    until(lambda: not any(alive(number) for number in numbers), 10 - (time.monotonic() - began))
    assert status == (-9 if tell == "SIGKILL" else 128 + getattr(signal, tell))


def test_reliability_8_being_told_twice_ends_at_once(tmp_path: Path) -> None:
    words = [call(f"open({str(tmp_path / 'begun')!r}, 'w').close()\n{STUBBORN}").hex()]
    parent = subprocess.Popen([sys.executable, "-c", PARENT.replace("GRACE_S = 2.0", "GRACE_S = 50.0"), *words])
    until((tmp_path / "begun").exists, 60)
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    time.sleep(0.3)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(5) == 130  # a tenth of the grace


def test_reliability_8_so_many_processes_as_joblib_would_take() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [launcher.processes(n) for n in (3, -1, -cores - 5)] == [3, cores, 1]
    with pytest.raises(ValueError, match="n_jobs must be above 0, or -1"):
        launcher.processes(0)


def kill_a_worker(root: Path, process: subprocess.Popen) -> None:
    """Kills a worker that is at a job, once there is a checkpoint."""
    until(lambda: list(root.glob("*/checkpoints/[1-9]*")) or process.poll() is not None, 240)
    for path in root.glob("*/.lock"):
        if not (path.parent / "DONE").exists() and (number := path.read_text()).isdigit() and alive(int(number)):
            os.kill(int(number), signal.SIGKILL)
            return
    raise AssertionError("no worker was at work")


def check_sweep(grid: list[str], count: int, last: list[str], root: Path) -> None:
    """A sweep with a worker killed and a job at fault says so; once the fault is gone, it goes on to its end."""
    place = job.directory_of(schema.compose([*TINY, *PLAIN, *last, f"run.root={root}"]))
    root.mkdir()
    place.write_text("a file where the directory of the last job should be")
    told = ["-m", *grid, *PLAIN, *JOBLIB, f"run.root={root}"]
    process = subprocess.Popen(door(*told), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    kill_a_worker(root, process)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 1, said
    assert said.count("the job is run again") == 1
    assert f"{count - 1} of {count} jobs are done" in said
    assert f"\n{' '.join(last)} failed: {place} must be a directory, got a file" in said
    done = {path: (path / "metrics.json").stat().st_mtime_ns for path in finished(root)}
    assert len(done) == count - 1
    place.unlink()
    assert f"{count} of {count} jobs are done" in ran(*told)
    assert {path: (path / "metrics.json").stat().st_mtime_ns for path in done} == done
    assert len(finished(root)) == count


@pytest.mark.slow
def test_reliability_8_a_sweep_with_a_killed_worker_and_a_job_at_fault(tmp_path: Path) -> None:
    check_sweep(["seed=0,1,2"], 3, ["seed=2"], tmp_path / "root")


@pytest.mark.slow
def test_reliability_8_twenty_four_jobs_with_a_killed_worker_and_a_job_at_fault(tmp_path: Path) -> None:
    grid = ["seed=0,1,2,3,4,5,6,7", "optimizer.learning_rate=0.001,0.003,0.01"]
    check_sweep(grid, 24, ["seed=7", "optimizer.learning_rate=0.01"], tmp_path / "root")


@pytest.mark.slow
def test_f6_a_corrected_sweep_forgets_the_mistake(tmp_path: Path) -> None:
    told = ["-m", "seed=7,8", *PLAIN, f"run.root={tmp_path}"]
    assert "0 of 2 jobs are done" in ran(*told, "compute.split=bogus", code=1)
    assert "2 of 2 jobs are done" in ran(*told)
    said = ran(*told, "track.project=mine")
    assert "2 of 2 jobs are done" in said
    assert "2 runs: predictives" in said


def entry(command: str, number: int, status: str, **more: object) -> dict:
    return {
        "command": command,
        "job": number,
        "dir": f"d{number}",
        "overrides": f"seed={number}",
        "status": status,
    } | more


def test_f6_a_record_says_what_the_last_command_said_of_each_run(tmp_path: Path) -> None:
    record = tmp_path / "sweeps" / "s.jsonl"
    first = sweep_record.begin(record)
    sweep_record.add(record, entry(first, 0, "failed: wrong", dir="", overrides="seed=0 compute.split=bogus"))
    second = sweep_record.begin(record)
    sweep_record.add(record, entry(second, 0, "running"))
    sweep_record.add(record, entry(second, 0, "done", overrides="seed=0 track.project=mine"))
    sweep_record.add(record, entry(second, 1, "running"))
    sweep_record.fail(record, second, 1, "seed=1", "killed twice")
    sweep_record.fail(record, second, 2, "seed=2", "killed before it could say a word")
    jobs = sweep_record.jobs(record)
    assert [job["status"] for job in jobs] == [
        "done", "failed: killed twice", "failed: killed before it could say a word",
    ]  # fmt: skip
    assert [job["dir"] for job in jobs] == ["d0", "d1", ""]
    assert [job["status"] for job in sweep_record.jobs(record, first)] == ["failed: wrong"]


def test_reliability_24_lines_that_are_no_entries_are_dropped_and_counted(tmp_path: Path) -> None:
    record = tmp_path / "s.jsonl"
    command = sweep_record.begin(record)
    sweep_record.add(record, entry(command, 0, "done", metrics={"test/accuracy": 0.5}))
    bad = [
        "[1]",
        "5",
        "null",
        '"text"',
        "{}",
        '{"overrides": 3, "dir": "", "status": "done"}',
        "[" * 100_000,
        "\x00\x00",
    ]
    with record.open("ab") as file:
        file.write("".join(f"{line}\n" for line in bad).encode() + b"\xff\xfe\n" + b'{"overr')
    sweep_record.add(record, entry(command, 1, "done", metrics={"a": None, "b": [1], "c": 2.0}))
    jobs = sweep_record.jobs(record)
    assert [(job["status"], job["metrics"]) for job in jobs] == [("done", {"test/accuracy": 0.5}), ("done", {"c": 2.0})]
    assert sweep_record.damaged(record) == len(bad) + 2
    assert json.loads(record.read_bytes().splitlines()[-1])["job"] == 1
