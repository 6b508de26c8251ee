"""A run of two processes of which one is killed: the other ends with a sentence, and the same command goes on."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeping import door, ran
from test_mesh import POINTS, joined

from dsnn import store
from dsnn.run import peers

SAME = (*POINTS, "train.epochs=400", "train.checkpoint_s=3600", "baseline=none", "compute.split=data")


def until_lost(directory: Path, victim: int, stopped: bool = False) -> tuple[int, str]:
    """Runs two processes, ends one of them after some epochs, and returns how the other ended and what it said."""
    logs = [directory.with_suffix(f".{k}") for k in range(2)]
    started = []
    for log, words in zip(logs, joined(2), strict=True):
        with log.open("w") as file:
            command = door(*SAME, f"run.dir={directory}", *words)
            started.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
    while "epoch 4/" not in logs[0].read_text():
        assert [process.poll() for process in started] == [None, None], logs[0].read_text()
        time.sleep(0.05)
    started[victim].send_signal(signal.SIGSTOP if stopped else signal.SIGKILL)
    try:
        status = started[1 - victim].wait(200 if stopped else 60)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return status, logs[1 - victim].read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [False, True])
def test_the_first_process_writes_a_checkpoint_when_the_other_is_lost(stopped: bool, tmp_path: Path) -> None:
    status, said = until_lost(tmp_path / "run", victim=1, stopped=stopped)
    assert status == 128 + signal.SIGHUP, said
    assert "another process of this run is gone; the last checkpoint is after epoch" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / store.FAILED).exists()
    ran(*SAME[:-1], f"run.dir={tmp_path / 'run'}")  # one process, which may go on just as well
    ran(*SAME[:-1], f"run.dir={tmp_path / 'never'}")
    one, two = ([r["train/loss"] for r in store.read_history(tmp_path / name)] for name in ("run", "never"))
    assert len(one) == 200
    kept = int(re.findall(r"the last checkpoint is after epoch (\d+)", said)[-1])
    assert kept < 50  # so that what came after it is compared
    assert one[:30] == pytest.approx(two[:30], abs=1e-4)  # sums in another order drift apart, in time


@pytest.mark.slow
def test_the_others_end_with_a_sentence_when_the_first_is_lost(tmp_path: Path) -> None:
    status, said = until_lost(tmp_path / "run", victim=0)
    assert status == 128 + signal.SIGHUP, said
    assert "another process of this run is gone; there is no checkpoint yet" in said


def test_an_error_of_ones_own_is_not_taken_for_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"^a rule$"), peers.watched(lambda: "never"):
        raise ValueError("a rule")
    lost = pytest.raises(peers.PeerLost, match="process of this run is gone; all is kept, and the same")
    with lost, peers.watched(lambda: "all is kept"):
        raise ValueError("Gloo all-reduce failed: Connection closed by peer [127.0.0.1]")
