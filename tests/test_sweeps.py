"""Sweeps: every launcher, what is finished is not run again, what fails is said, and killed sweeps go on."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeping import TINY, door, finished, ran, timeless

from dsnn import store
from dsnn.run import job, schema, sweep_record

SLURM = pytest.mark.slurm
GRID = ["-m", "seed=0,1,2", "train.batch_size=32,64,2000,128"]  # a batch of 2000 is more than there are examples


def test_a_sweep_is_named_by_what_it_computes(tmp_path: Path) -> None:
    name = sweep_record.record_file(
        tmp_path, ["-m", "seed=0,1", "experiment=digits", "run.root=a", "hydra/launcher=joblib"]
    )
    assert name == sweep_record.record_file(tmp_path, ["experiment=digits", "seed=0,1", "track.wandb=disabled", "-m"])
    assert name.name.startswith("digits-")
    assert name != sweep_record.record_file(tmp_path, ["-m", "seed=0,1,2", "experiment=digits"])


def test_the_last_word_about_a_job_counts_and_silence_is_a_failure(tmp_path: Path) -> None:
    record = tmp_path / "s.jsonl"
    for overrides, status in (("a", "running"), ("b", "running"), ("a", "failed: x"), ("a", "running"), ("a", "done")):
        sweep_record.add(record, {"overrides": overrides, "dir": "", "status": status})
    with record.open("a") as file:
        file.write('{"overr')
    assert [job["status"] for job in sweep_record.jobs(record)] == ["done", sweep_record.LOST]


def check_grid(root: Path, said: str) -> dict[Path, int]:
    """Nine of twelve jobs are done, and three have their reason in the record; returns when each was done."""
    (record,) = (root / "sweeps").glob("*.jsonl")
    jobs = sweep_record.jobs(record)
    reasons = [job["status"] for job in jobs if job["status"] != "done"]
    assert len(jobs) == 12
    assert len(reasons) == 3
    assert all("train.batch_size must be at most the" in reason for reason in reasons)
    assert "9 of 12 jobs are done" in said
    assert "Traceback" in next(job["traceback"] for job in jobs if job["status"] != "done")
    assert len(finished(root)) == 9
    return {path: (path / "metrics.json").stat().st_mtime_ns for path in finished(root)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], ["hydra/launcher=submitit_local"]]
)
def test_a_grid_with_failures_ends_and_is_not_run_again(launcher: list[str], tmp_path: Path) -> None:
    told = [*GRID, f"run.root={tmp_path}", *launcher]
    before = check_grid(tmp_path, ran(*told, code=1))
    assert check_grid(tmp_path, ran(*told, code=1)) == before


def written(paths: list[Path]) -> dict[Path, int]:
    """Returns when each run wrote its metrics."""
    return {path: (path / "metrics.json").stat().st_mtime_ns for path in paths}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    grid = ["-m", "seed=0,1,2,3,4,5,6,7", "optimizer.learning_rate=0.001,0.003,0.01"]
    parallel = [*grid, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", f"run.root={tmp_path / 'killed'}"]
    process = subprocess.Popen(door(*parallel), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    patience = time.monotonic() + 600
    while len(finished(tmp_path / "killed")) < 9:
        assert time.monotonic() < patience
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = written(finished(tmp_path / "killed"))
    assert len(done) < 20
    last = schema.compose([*TINY, "seed=7", "optimizer.learning_rate=0.01", f"run.root={tmp_path / 'killed'}"])
    place = job.directory_of(last)
    place.write_text("a file where the directory of the last job should be")
    said = ran(*parallel, code=1)
    assert "23 of 24 jobs are done" in said
    assert f"seed=7 optimizer.learning_rate=0.01 failed: cannot write {place}" in said
    assert written(list(done)) == done
    done = written(finished(tmp_path / "killed"))
    assert len(done) == 23
    place.unlink()
    assert "24 of 24 jobs are done" in ran(*parallel)
    assert written(list(done)) == done
    ran(*grid, f"run.root={tmp_path / 'whole'}")
    assert len(finished(tmp_path / "whole")) == 24
    for path in finished(tmp_path / "whole"):
        assert timeless(tmp_path / "killed" / path.name) == timeless(path)


def told_to_stop(root: Path, tell: str) -> None:
    """Waits for a job's first checkpoint, then sends what a preempted job is sent."""
    patience = time.monotonic() + 240
    while not list(root.glob("*/checkpoints/[1-9]*")):
        assert time.monotonic() < patience
        time.sleep(0.02)
    if tell == "local":
        holder = next(path for path in root.glob("*/.lock") if path.read_text())
        os.kill(int(holder.read_text()), signal.SIGUSR2)
    else:
        number = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%i"], capture_output=True, text=True, check=True)
        subprocess.run(["scancel", "--signal=USR2", number.stdout.split()[0]], check=True)


@pytest.mark.parametrize("cluster", [pytest.param("local", marks=pytest.mark.slow), pytest.param("slurm", marks=SLURM)])
def test_a_job_told_to_stop_checkpoints_requeues_and_ends_as_if_never_stopped(cluster: str, tmp_path: Path) -> None:
    root, whole = tmp_path / "stopped", tmp_path / "whole"
    one = ["train.epochs=200", "train.eval_every=50"]
    launcher = [f"hydra/launcher=submitit_{cluster}", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60"]
    process = subprocess.Popen(
        door("-m", *one, "seed=0,1", f"run.root={root}", *launcher), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told_to_stop(root, cluster)
    said = process.communicate(timeout=500)[0].decode()
    assert process.returncode == 0, said
    log = "".join(path.read_text() for path in root.glob("sweeps/*/.submitit/*/*log.*"))
    assert "going on after epoch" in log
    record = next((root / "sweeps").glob("*.jsonl")).read_text()
    assert [json.loads(line)["status"].split(":")[0] for line in record.splitlines()].count("stopped") == 1
    ran(*one, "seed=0", f"run.root={whole}")
    (path,) = finished(whole)
    assert timeless(root / path.name) == timeless(path)


@SLURM
def test_four_jobs_of_a_slurm_sweep_end(tmp_path: Path) -> None:
    said = ran(
        "-m", "seed=0,1,2,3", f"run.root={tmp_path}", "hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"
    )
    assert "4 of 4 jobs are done" in said
    assert len(finished(tmp_path)) == 4


def test_two_processes_share_a_run_by_waiting(tmp_path: Path) -> None:
    code = f"from dsnn import store\nwith store.lock({str(tmp_path)!r}, wait=True): print('in')"
    with store.lock(tmp_path):
        waiting = subprocess.Popen(
            [*door()[:1], "-c", code],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert f"is in use by process {os.getpid()}; waiting" in waiting.stderr.readline()
    assert waiting.communicate(timeout=30)[0] == "in\n"


DEVICES = """
import os, sys
from dsnn.run import devices
devices.claim(float(sys.argv[1]))
print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", ""), flush=True)
sys.stdin.read()
"""


def claiming(share: str, folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "3,5", "TMPDIR": str(folder)}
    environment.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*door()[:1], "-c", DEVICES, share], env=environment, text=True, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("share", "seen"),
    [
        ("1", ["3 ", "5 "]),
        ("2", ["3,5 "]),
        ("0.5", ["3 0.450", "5 0.450", "3 0.450", "5 0.450"]),
    ],
)
def test_jobs_take_different_accelerators_and_their_share_of_memory(
    share: str, seen: list[str], tmp_path: Path
) -> None:
    jobs = []
    for expected in seen:
        jobs.append(claiming(share, tmp_path))
        assert jobs[-1].stdout.readline() == f"{expected}\n"
    late = claiming(share, tmp_path).communicate()[1]
    assert "finds no free accelerator among 3, 5; run at most" in late
    jobs[0].communicate()  # its end frees what it held
    assert claiming(share, tmp_path).communicate()[0] == f"{seen[0]}\n"
    for other in jobs[1:]:
        other.communicate()
