"""The command line: its parts told apart, W&B's form of options, folders of one's own, and the command ``dsnn``."""

import sys
import tomllib
from pathlib import Path

import pytest

from dsnn.run import main, schema, usage
from dsnn.store import places


@pytest.mark.parametrize(
    ("given", "flags", "overrides", "folders", "packages"),
    [
        (["seed=1", "-m"], ["-m"], ["seed=1"], [], []),
        (["--seed=1", "--optimizer.learning_rate=0.1"], [], ["seed=1", "optimizer.learning_rate=0.1"], [], []),
        (["--config-dir", "mine", "seed=1"], [], ["seed=1"], ["mine"], []),
        (["--config-dir=mine", "-cd", "other"], [], [], ["mine", "other"], []),
        (["--cfg", "job", "seed=1"], ["--cfg", "job"], ["seed=1"], [], []),
        (["--cfg=job", "--resolve"], ["--cfg", "job", "--resolve"], [], [], []),
        (["--info", "searchpath", "seed=1"], ["--info", "searchpath"], ["seed=1"], [], []),
        (["--info", "seed=1"], ["--info"], ["seed=1"], [], []),
        (["hydra.searchpath=[file:///a,pkg://b.c,d]"], [], [], ["/a", "d"], ["pkg://b.c"]),
        (["--hydra-help"], ["--hydra-help"], [], [], []),
    ],
)
def test_a_command_line_is_told_apart(given, flags, overrides, folders, packages) -> None:
    assert usage.read(given) == (flags, overrides, folders, packages)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--multirn"], "'--multirn' is no flag; did you mean '--multirun'?"),
        (["--cfg"], "--cfg takes a value, got none"),
        (["--config-dir"], "--config-dir takes a value, got none"),
    ],
)
def test_a_flag_that_cannot_be_meant_gets_a_sentence(given, sentence) -> None:
    with pytest.raises(usage.UsageError) as caught:
        usage.read(given)
    assert sentence in str(caught.value)


def test_files_of_ones_own_stand_beside_dsnns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, "")
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# Mine.\nexperiment: mine\ntrain: {epochs: 7}\n"
    )
    places.add([tmp_path])
    assert {"mine", "digits"} <= places.files("experiment").keys()
    assert usage.experiments()["mine"]["title"] == "Mine."
    usage.check(["experiment=mine"])
    assert schema.compose(["experiment=mine"]).train.epochs == 7
    with pytest.raises(ValueError, match=r"paper must be one of .* got 'mine'"):
        places.file("paper", "mine")


def test_one_piece_in_place_of_a_list_of_them_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"metrics must be a list, got 'a:b'; write 'metrics=\[a:b\]'"):
        schema.compose(["metrics=a:b"])


def test_a_wheel_holds_one_package_with_its_configurations() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["dsnn"]
    assert wheel["force-include"] == {"conf": "dsnn/conf"}
    assert project["project"]["scripts"] == {"dsnn": "dsnn.run.main:main"}
    assert (places.ROOT / "py.typed").exists()


def test_the_command_names_its_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["dsnn", *words])
        return main.main()

    assert told("--help") == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in main.COMMANDS)
    assert told() == 2
    capsys.readouterr()
    assert told("rum") == 2
    assert "a command must be one of run, sweep" in (wrong := capsys.readouterr().err)
    assert "did you mean 'run'?" in wrong
    assert told("report", "--help") == 0
    assert "draws the page of one run anew" in capsys.readouterr().out
    assert told("--version") == 0
    assert capsys.readouterr().out.startswith("dsnn ")
    for module, _ in main.COMMANDS.values():
        assert (Path(main.__file__).parent / f"{module}.py").is_file()
