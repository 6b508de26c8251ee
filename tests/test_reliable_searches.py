"""Searches that hold: journals torn, zeroed and garbled, full disks, trials that die or kill."""

import random
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from dsnn import store
from dsnn.run import job, journal, sweep
from dsnn.run.search import Objective, Range, Search

WANTED = Search([Objective("val/accuracy", "maximize")], {"svi.lam": Range(0.01, 0.1, log=True)}, trials=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search with three trials that are done and one at work."""
    study = sweep.opened(tmp_path, WANTED)
    for number in range(4):
        trial, held = sweep._next(study, WANTED, tmp_path)
        WANTED.suggest(trial)
        if number < 3:
            study.tell(trial, 0.1 * number)
        held.close()
    return tmp_path


def lines(folder: Path) -> list[bytes]:
    return (folder / "journal.log").read_bytes().split(b"\n")[:-1]


def goes_on(folder: Path) -> optuna.Study:
    """Opens the search, runs a trial of it, and returns the study as another process reads it."""
    study = sweep.opened(folder, WANTED)
    trial, held = sweep._next(study, WANTED, folder)
    WANTED.suggest(trial)
    study.tell(trial, 0.9)
    held.close()
    read = sweep.opened(folder, WANTED)
    assert 0.9 in [trial.value for trial in read.get_trials()]
    return read


@pytest.mark.parametrize("cut", [1, 2, 25, 120, 400, 1500, 10**6])
def test_f16_reliability_9_a_journal_that_was_cut_goes_on(cut: int, folder: Path, capsys) -> None:
    journal_file = folder / "journal.log"
    before = journal_file.read_bytes()
    left = before[: max(0, len(before) - cut)]
    journal_file.write_bytes(left)
    journal.Journal(journal_file)
    whole, torn = left[: left.rfind(b"\n") + 1], left[left.rfind(b"\n") + 1 :]
    said, aside = capsys.readouterr().out, folder / "journal.log.damaged"
    if cut == 1:  # the newline alone
        assert journal_file.read_bytes() == before
        assert not aside.exists()
        assert not said
    elif torn:
        assert journal_file.read_bytes() == whole
        assert aside.read_bytes() == torn
        assert f"{len(torn)} bytes are put aside in journal.log.damaged" in " ".join(said.split())
    study = sweep.opened(folder, WANTED)
    assert [t.value for t in study.get_trials() if t.state == TrialState.COMPLETE] == [0.0, 0.1, 0.2][: len(
        [line for line in whole.split(b"\n") if b'"op_code":6' in line])]  # fmt: skip
    goes_on(folder)


@pytest.mark.parametrize("how", ["zeroed", "garbled", "garbled with newlines", "no entries"])
@pytest.mark.parametrize("size", [1, 30, 700])
def test_f16_reliability_9_a_journal_with_a_bad_end_goes_on(how: str, size: int, folder: Path, capsys) -> None:
    journal_file = folder / "journal.log"
    before = journal_file.read_bytes()
    bad = {
        "zeroed": bytes(size),
        "garbled": random.Random(0).randbytes(size).replace(b"\n", b"\xff"),
        "garbled with newlines": (random.Random(1).randbytes(size) + b"\n") * 3,
        "no entries": b'{"op_code": 77, "worker_id": "x"}\n[1]\n5\n',
    }[how]
    journal_file.write_bytes((before if how == "no entries" else before[:-size]) + bad)
    journal.Journal(journal_file)
    assert (folder / "journal.log.damaged").read_bytes().endswith(bad)
    kept = journal_file.read_bytes()
    assert before.startswith(kept)
    assert kept.count(b"\n") >= before[: len(before) - size].count(b"\n")
    assert "is damaged" in capsys.readouterr().out
    goes_on(folder)
    journal_file.write_bytes(journal_file.read_bytes()[:-4])
    sweep.opened(folder, WANTED)
    assert (folder / "journal.log.damaged.1").exists(), "nothing that was put aside is overwritten"


def test_f16_a_torn_entry_of_another_process_is_put_aside_before_the_next(folder: Path) -> None:
    study = sweep.opened(folder, WANTED)
    with (folder / "journal.log").open("ab") as file:
        file.write(b'{"op_code":8,"wor')
    study.set_user_attr("after", 1)
    assert sweep.opened(folder, WANTED).user_attrs["after"] == 1


def test_reliability_9_a_full_disk_takes_back_what_it_did_not_hold(folder: Path, monkeypatch) -> None:
    study, before = sweep.opened(folder, WANTED), (folder / "journal.log").read_bytes()
    write = journal.os.write

    def full(file: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(28, "No space left on device")
        return write(file, content[: len(content) - 10])

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        study.set_user_attr("x", 1)
    assert (folder / "journal.log").read_bytes() == before
    monkeypatch.undo()
    goes_on(folder)


@pytest.mark.parametrize("bad", [b"\x00" * 40, b'{"op_code":8,"wor', b"[1]", b'{"op_code":4,"worker_id":"a"}'])
def test_reliability_9_damage_in_the_middle_is_one_sentence_and_nothing_is_touched(
    bad: bytes, folder: Path, capsys, monkeypatch
) -> None:
    whole = lines(folder)
    torn = b"\n".join([*whole[:4], bad, *whole[5:], b""])
    (folder / "journal.log").write_bytes(torn)
    with pytest.raises(ValueError, match=r"got damage in line 5 of \d+ before entries that are whole; put back"):
        sweep.opened(folder, WANTED)
    assert (folder / "journal.log").read_bytes() == torn
    monkeypatch.setattr(sweep, "_parsed", lambda arguments: (folder.name, {"root": str(folder.parent)}, []))
    monkeypatch.setattr(sweep, "read_search", lambda path, overrides: WANTED)
    monkeypatch.setattr(sweep.places, "file", lambda *words: folder)
    assert sweep.main([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "damage in line 5" in said
    (folder / "journal.log").write_bytes(b"".join(line + b"\n" for line in whole[:4]))
    sweep.opened(folder, WANTED)


def test_a_page_that_cannot_be_written_is_one_sentence(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sweep, "_parsed", lambda arguments: (folder.name, {"root": str(folder.parent)}, []))
    monkeypatch.setattr(sweep, "read_search", lambda path, overrides: WANTED)
    monkeypatch.setattr(sweep.places, "file", lambda *words: folder)
    monkeypatch.setattr(sweep, "_next", lambda *study: None)
    study = sweep.opened(folder, WANTED)
    study.tell(3, state=TrialState.FAIL)
    store.claim(folder / "runs" / "run", {"seed": 0})
    store.write_metrics(folder / "runs" / "run", {"test/accuracy": 0.5})
    (folder / "runs" / "report.html").mkdir()
    assert sweep.main([]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: cannot write")
    assert said.err.count("\n") == 1
    assert "The best trial" in said.out


@pytest.mark.parametrize("death", [ZeroDivisionError("division by zero"), AssertionError(), SystemExit(3)])
def test_f2_a_trial_that_dies_of_anything_fails_and_the_search_goes_on(death, folder: Path, monkeypatch) -> None:
    def dies(*_: object, **__: object) -> None:
        raise death

    monkeypatch.setattr(job, "run", dies)
    study = sweep.opened(folder, WANTED)
    trial, held = sweep._next(study, WANTED, folder)
    sweep._run(study, trial, WANTED, folder)
    held.close()
    dead = study.get_trials()[trial.number]
    assert dead.state == TrialState.FAIL
    assert dead.user_attrs["failure"].startswith(type(death).__name__)
    following, held = sweep._next(study, WANTED, folder)
    assert following.number != trial.number
    held.close()


def test_reliability_9_a_trial_that_kills_twice_where_it_stands_is_given_up(folder: Path, monkeypatch) -> None:
    """A killed process says nothing: what the search knows is that it was begun. A trial that gets further goes on."""
    study, reached = sweep.opened(folder, WANTED), SimpleNamespace(steps=[])
    monkeypatch.setattr(sweep.checkpoint, "steps", lambda directory: reached.steps)

    def killed(*_: object, **__: object) -> None:
        raise GeneratorExit  # passes every handler, as nothing after a SIGKILL runs

    def begun(number: int) -> None:
        trial, held = sweep._next(study, WANTED, folder)
        assert trial.number == number
        with pytest.raises(GeneratorExit):
            sweep._run(study, trial, WANTED, folder)
        held.close()

    monkeypatch.setattr(job, "run", killed)
    begun(3)
    reached.steps = [4]
    begun(3)
    begun(3)
    begun(4)
    assert study.get_trials()[3].state == TrialState.FAIL


def test_a_trial_that_was_told_to_stop_is_not_given_up(folder: Path, monkeypatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise job.Interrupted("stopped", 15)

    monkeypatch.setattr(job, "run", stopped)
    study = sweep.opened(folder, WANTED)
    for _ in range(4):
        trial, held = sweep._next(study, WANTED, folder)
        assert trial.number == 3
        with pytest.raises(job.Interrupted):
            sweep._run(study, trial, WANTED, folder)
        held.close()
