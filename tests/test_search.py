"""Searches: spaces are typed and checked, and many processes share one study that survives their deaths."""

import subprocess
import time
from pathlib import Path

import optuna
import pytest
import yaml
from sweeping import TINY, door, ran

from dsnn import store
from dsnn.run import search, sweep
from dsnn.run.search import Objective, Range, Search, read_search
from dsnn.store import places

SPACE = {"svi.lam": Range(0.01, 0.1, log=True)}
ACCURACY = Objective("val/accuracy", "maximize")


@pytest.mark.parametrize("name", search.searches())
def test_every_search_is_checked_and_states_command_time_and_result(name: str) -> None:
    assert read_search(places.CONF / "search" / f"{name}.yaml", []).space
    text = (places.CONF / "search" / f"{name}.yaml").read_text()
    assert all(f"#   {part}:" in text for part in ("command", "time", "expected"))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"svi.lamb": Range(0.1, 1)}, "'svi.lamb' is no option; did you mean 'svi.lam'"),
        ({"svi.lam": Range(1.0, 0.1)}, "must have low below high"),
        ({"svi.lam": Range(0.0, 0.1, log=True)}, "must begin above 0 to be logarithmic"),
        ({"svi.lam": Range(0.1)}, "must have low and high, or choices"),
        ({"train.epochs": Range(1.5, 3)}, "whole numbers as bounds, got 1.5"),
        ({"svi.lam": Range("1e-3", 1)}, "numbers as bounds, got '1e-3'; write 0.001"),
        ({"model.cell": Range(1, 2)}, "is no number"),
        ({"model.cell": Range(choices=["LIF", "LIFE"])}, "model.cell must be one of"),
        ({"model.beta": Range(0.5, 1.5)}, "model.beta must be in"),
    ],
)
def test_a_space_that_cannot_be_meant_gets_a_sentence(space: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search([ACCURACY], space)


def test_a_search_selects_on_validation_and_prunes_one_objective_only() -> None:
    with pytest.raises(ValueError, match="selects on validation, got test/accuracy; take val/accuracy"):
        Objective("test/accuracy", "maximize")
    for metric in ("halting/accuracy", "converted/accuracy_8", "test/detection/0.05/median_delay", "uncertainty/total"):
        with pytest.raises(ValueError, match="selects on validation"):
            Objective(metric, "minimize")
    Objective("val/nll", "minimize")
    with pytest.raises(ValueError, match="prune_after needs a single objective, got 2"):
        Search([ACCURACY, Objective("energy/45nm/snn_nj", "minimize")], SPACE, prune_after=3)


def test_values_keep_the_type_of_their_option() -> None:
    class Trial:
        def suggest_int(self, name: str, low: int, high: int, **_: object) -> int:
            return high

        def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
            return low

        def suggest_categorical(self, name: str, choices: list) -> object:
            return choices[-1]

    space = {"train.epochs": Range(2, 9), **SPACE, "model.hidden": Range(choices=[[4], [8, 8]])}
    assert Search([ACCURACY], space).suggest(Trial()) == ["train.epochs=9", "svi.lam=0.01", "model.hidden=[8,8]"]


def test_a_study_of_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    sweep.opened(tmp_path, Search([ACCURACY], SPACE))
    sweep.opened(tmp_path, Search([ACCURACY], SPACE, trials=99))
    study = sweep.opened(tmp_path, Search([ACCURACY], SPACE))
    earlier = {name: value for name, value in study.user_attrs["search"].items() if name != "reads"}
    study.set_user_attr("search", earlier)  # as an earlier version wrote it, of data that nobody can change
    sweep.opened(tmp_path, Search([ACCURACY], SPACE))
    with pytest.raises(ValueError, match="holds another search, it differs in space"):
        sweep.opened(tmp_path, Search([ACCURACY], {"svi.lam": Range(0.01, 0.2)}))


def test_a_trial_that_was_left_behind_goes_on_and_no_other_is_asked_twice(tmp_path: Path) -> None:
    wanted = Search([ACCURACY], SPACE, trials=2)
    study = sweep.opened(tmp_path, wanted)
    first, held = sweep._next(study, wanted, tmp_path)
    value = wanted.suggest(first)
    second, other = sweep._next(study, wanted, tmp_path)
    with other:
        assert (first.number, second.number) == (0, 1)
        assert sweep._next(study, wanted, tmp_path) is None
        held.close()  # what the system does for a process that dies
        again, held = sweep._next(study, wanted, tmp_path)
        assert again.number == 0
        assert wanted.suggest(again) == value
        held.close()


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_with_distinct_trials_and_a_front(tmp_path: Path) -> None:
    told = ["search=digits_energy", "trials=40", f"root={tmp_path}", *TINY]
    command = [*door(module="experiments.sweep")[:3], *told]

    def two() -> list[subprocess.Popen]:
        return [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"]

    folder, patience, both = tmp_path / "digits_energy", time.monotonic() + 600, two()
    while len(list(folder.glob("runs/*/DONE"))) < 12:
        assert time.monotonic() < patience
        time.sleep(0.1)
    for process in both:
        process.kill()
        process.communicate()
    begun = {path.parent: path.stat().st_mtime_ns for path in folder.glob("runs/*/DONE")}
    assert len(begun) < 36
    both = two()
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert any("40 trials: 40 done, 0 pruned, 0 failed" in one for one in said), said
    assert len(list(folder.glob("runs/*/DONE"))) == 40
    assert all((path / "DONE").stat().st_mtime_ns == when for path, when in begun.items())
    configs = [store.read_config(path.parent) for path in folder.glob("runs/*/DONE")]
    assert len({config["svi"]["lam"] for config in configs}) == 40
    study = sweep.opened(folder, read_search(places.CONF / "search" / "digits_energy.yaml", TINY))
    assert len(study.best_trials) >= 5
    print(sorted(trial.values for trial in study.best_trials))
    assert (folder / "front.png").stat().st_size > 5000
    assert (folder / "runs" / "report.html").exists()
    assert yaml.safe_load((folder / "runs").glob("*/config.yaml").__next__().read_text())["track"]["tags"] == ["search"]


def test_the_door_of_searches_says_one_sentence(tmp_path: Path) -> None:
    said = ran("search=digits_energ", module="experiments.sweep", code=2)
    assert "did you mean 'digits_energy'?" in said
    said = ran("search=digits_energy", "train.epoch=2", f"root={tmp_path}", module="experiments.sweep", code=2)
    assert "did you mean 'train.epochs'" in said


def test_a_trial_far_behind_stops_where_there_are_several_objectives() -> None:
    """Of eight trials with 1 to 8 at epoch 20, three quarters are at 6 or below."""
    search = Search(
        [Objective("val/nll", "minimize"), Objective("energy/45nm/snn_nj", "minimize")],
        {"svi.lam": Range(0.1, 1.0)},
        prune_after=20,
        prune_on="val/nll",
    )
    study = optuna.create_study(directions=["minimize", "minimize"])
    stopped = []
    for value in range(1, 9):
        trial = study.ask()
        stopped.append(sweep.behind(trial, search)(20, {"val/nll": float(value)}))
        study.tell(trial, [0.0, 0.0])
    assert stopped == [False] * 5 + [True] * 3, "five have nobody to be behind"
    for value, epoch, expected in ((6.5, 20, True), (5.5, 20, False), (100.0, 10, False)):
        assert sweep.behind(study.ask(), search)(epoch, {"val/nll": value}) is expected
    assert sweep.behind(study.ask(), search)(20, {"val/accuracy": 0.1}) is False


def test_several_objectives_are_pruned_by_a_record_of_validation() -> None:
    objectives = [Objective("val/nll", "minimize"), Objective("energy/45nm/snn_nj", "minimize")]
    with pytest.raises(ValueError, match="prune_on"):
        Search(objectives, {"svi.lam": Range(0.1, 1.0)}, prune_after=20)
    with pytest.raises(ValueError, match="selects on validation"):
        Search(objectives, {"svi.lam": Range(0.1, 1.0)}, prune_after=20, prune_on="test/nll")
