"""The script that damages runs: a few of its cases, and that it notices what it is there to notice."""

import contextlib
import importlib
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from dsnn.store import rundir

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def damage() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        patch.setattr(sys, "argv", sys.argv)  # the commands of the script have their own
        yield importlib.import_module("damage")


@pytest.fixture(scope="module")
def made(damage: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Returns a finished run, and a fitted network in a folder, as they are before anything is damaged."""
    folder = tmp_path_factory.mktemp("damage")
    (begun := folder / "begun").mkdir()
    with contextlib.chdir(begun):
        damage.prepare()
    return {name: damage.whole(damage.KINDS[name], begun, folder / "work", folder / name) for name in ("map", "fitted")}


def tried(damage: ModuleType, made: dict, case: tuple, folder: Path) -> str:
    """Returns the verdict of one case."""
    kind = damage.KINDS[case[0]]
    shutil.copytree(made[case[0]].folder, folder / "work")
    with contextlib.chdir(folder / "work"):
        return damage.judged(damage.Case(*case), kind, made[case[0]], random.Random(0))


@pytest.mark.slow
def test_a_dozen_cases_of_damage(damage: ModuleType, made: dict, tmp_path: Path) -> None:
    verdicts = {}
    for number, case in enumerate(damage.drawn(made, 12, 0)):
        verdicts[case] = tried(damage, made, case, tmp_path / str(number)), ""
    assert len(verdicts) == 12
    shown = damage.table(verdicts)
    assert shown.splitlines()[0] == "12 cases: noticed/remade/harmless/FAILED"
    assert shown.splitlines()[-1].endswith("/0 |")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "way", "verdict"),
    [
        pytest.param("metrics.json", "another's", "remade", marks=pytest.mark.slow),
        ("config.yaml", "emptied", "noticed"),
        (".lock", "deleted", "harmless"),
    ],
)
def test_a_case_is_called_what_it_is(file, way, verdict, damage: ModuleType, made: dict, tmp_path: Path) -> None:
    assert tried(damage, made, ("map", f"run/{file}", way), tmp_path) == verdict


def test_a_number_from_a_damaged_file_fails(damage: ModuleType, made: dict, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rundir, "_damage", lambda directory: "")
    with pytest.raises(damage.Failed, match="another answer than the undamaged run's"):
        tried(damage, made, ("map", "run/metrics.json", "another's"), tmp_path)


def test_what_the_user_wrote_and_is_gone_fails(damage: ModuleType, made: dict, tmp_path: Path, monkeypatch) -> None:
    loses = damage.KINDS["fitted"]._replace(readers={"loses": lambda: Path("fitted/mine.txt").unlink() or "x"})
    monkeypatch.setitem(damage.KINDS, "fitted", loses)
    whole = made["fitted"]._replace(read={"loses": "x"})
    with pytest.raises(damage.Failed, match="what the user wrote is lost"):
        tried(damage, {"fitted": whole}, ("fitted", "fitted/fitted.json", "a file added"), tmp_path)


def test_a_traceback_fails(damage: ModuleType, made: dict, tmp_path: Path, monkeypatch) -> None:
    def crashes() -> str:
        raise damage.Crash("Traceback (most recent call last):\nZeroDivisionError: division by zero")

    monkeypatch.setitem(damage.KINDS, "fitted", damage.KINDS["fitted"]._replace(readers={"load": crashes}))
    with pytest.raises(damage.Failed, match="load: ZeroDivisionError: division by zero"):
        tried(damage, made, ("fitted", "fitted/fitted.json", "deleted"), tmp_path)
