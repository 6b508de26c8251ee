"""The command line holds: Hydra's own options beside overrides, homes, options given twice, and narrow terminals."""

import ast
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dsnn import store
from dsnn.run import schema, sweep_record, usage
from dsnn.run.signals import Interrupted

ROOT = Path(__file__).parents[1]


SERVER = """
import json, os, sys, traceback
from dsnn.run import cli, job, main
for number, words in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        os.environ["DSNN_CONFIG_DIR"] = ""
        for name, file in (("out", 1), ("err", 2)):
            os.dup2(os.open(f"{sys.argv[2]}/{number}.{name}", os.O_WRONLY | os.O_CREAT), file)
        sys.argv = ["dsnn", *words]
        try:
            status = main.main()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        os._exit(int(status or 0))
    open(f"{sys.argv[2]}/{number}.status", "w").write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""
STAND_IN = """
import json, os
from dsnn.run import job
def run(config, **options):
    place = [os.getcwd(), config.data.path, config.run.root]
    return job.directory_of(config), {f"test/{name}": value for name, value in zip("abc", place)}
job.run = run
"""


def told(commands: list[list[str]], folder: Path, prelude: str = "") -> list[tuple[int, str, str]]:
    """Gives commands in a folder, and returns the status, the output and the complaints of each.

    Each has a process of its own, since Hydra closes what a process logs to; they share their imports.
    """
    kept = folder.parent / f"{folder.name} said"
    kept.mkdir()
    code = [sys.executable, "-W", "ignore", "-c", prelude + SERVER, json.dumps(commands), str(kept)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run(code, cwd=folder, env=environment, check=True)
    texts = [[(kept / f"{k}.{n}").read_text(encoding="utf-8") for n in ("out", "err")] for k in range(len(commands))]
    return [(int((kept / f"{k}.status").read_text()), *texts[k]) for k in range(len(commands))]


def own(folder: Path) -> Path:
    (folder / "experiment").mkdir(parents=True)
    text = "# @package _global_\n# Mine.\nexperiment: mine\ntrain: {epochs: 7}\n"
    (folder / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


SHOWN = [
    (["--cfg", "job", "seed=3"], "\nseed: 3\n"),
    (["seed=3", "-c", "job"], "\nseed: 3\n"),
    (["seed=3", "--cfg=job", "--resolve"], "\nseed: 3\n"),
    (["--cfg", "job", "-p", "train", "train.epochs=9"], "# @package train\nepochs: 9\n"),
    (["--cfg", "hydra", "seed=3"], "hydra:\n"),
    (["--cfg", "all", "seed=3"], "\nseed: 3\n"),
    (["--info", "searchpath", "seed=3"], "Config search path"),
    (["seed=3", "-i", "defaults-tree"], "experiment: digits"),
    (["--info", "seed=3"], "seed: 3"),
    (["seed=3", "--info", "plugins"], "Installed Hydra Plugins"),
    (["seed=3", "--hydra-help"], "Hydra (1."),
    (["-m", "seed=3,4", "--hydra-help"], "Hydra (1."),
    (["seed=3", "-sc", "install=bash"], "hydra_bash_completion"),
    (["seed=3", "--help"], "Options"),
    (["-h"], "Options"),
    (["seed=3", "--version"], "Hydra 1."),
    (["--seed=3", "--cfg", "job", "train.epochs=9"], "\nseed: 3\n"),
    *[(["seed=3", *flag, "experiment=mine", "-c", "job"], "epochs: 7") for flag in (
        ["-cd", "own"], ["--config-dir", "own"], ["--config-dir=own"], ["-cd=own"])],
]  # fmt: skip
"""Words of a command that only shows something, and some of what it shows."""

WRONG = [
    (["--cfg", "jop"], "--cfg must be one of job, hydra, all, got 'jop'; did you mean 'job'?"),
    (["--info=serchpath"], "--info must be one of all, config,"),
    (["-cd", "nowhere"], "a configuration folder must exist"),
    (["--versoin"], "'--versoin' is no flag; did you mean '--version'?"),
    (["experiment=mine"], "experiment must be one of"),
]


@pytest.mark.slow
def test_f5_hydras_own_options_stand_beside_overrides(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    own(folder / "own")
    answers = told([["run", *words] for words, _ in SHOWN] + [["sweep", "--cfg", "job", "seed=3"]], folder)
    for (words, said), (status, out, err) in zip([*SHOWN, (["sweep"], "\nseed: 3\n")], answers, strict=True):
        assert (status, err) == (0, ""), words
        assert said in out, words
    assert [path.name for path in folder.iterdir()] == ["own"], "nothing is run, and nothing recorded"


def test_f5_a_flag_that_cannot_be_meant_is_one_sentence(tmp_path: Path) -> None:
    answers = told([["run", "seed=3", *words] for words, _ in WRONG], tmp_path)
    for (words, sentence), (status, _, err) in zip(WRONG, answers, strict=True):
        assert status == 1, words
        assert sentence in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("quoted", ["~/out", '"~/out"', "'~/out'"])
def test_f14_a_home_is_expanded(quoted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "it's"))
    home = str(tmp_path / "it's" / "out")
    read = usage.read([f"run.root={quoted}", f"--compute.cache={quoted}", f"+run.dir={quoted}"]).overrides
    usage.check([word.lstrip("+") for word in read])
    config = schema.compose(["data=npz", *(f"{name}={quoted}" for name in schema.PATHS if name != "model.compacted")])
    assert [config.run.root, config.run.dir, config.data.path, config.data.root] == [home] * 4
    assert [config.compute.cache, config.export.nir] == [home] * 2
    assert schema.root(read[:1]) == Path(home)


def test_f14_what_is_no_path_or_no_home_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    for word in ("seed=~/x", "run.root=a~b", "compute.cache=none", "data.path='a~'"):
        assert schema.at_home(word) == word
    assert schema.at_home("data.path=~/a,b,~/c") == "data.path='/h/a','b','/h/c'"
    assert schema.compose(["compute.cache=none"]).compute.cache == "none"
    assert schema.compose([]).run.dir is None


def test_f14_an_option_given_twice_is_what_it_was_last() -> None:
    words = [
        "seed=1",
        "model.hidden=[3]",
        "seed=2,3",
        "experiment=digits",
        "+seed=5",
        "experiment=two_moons",
        "not one",
    ]
    assert schema.last(words) == ["model.hidden=[3]", "+seed=5", "experiment=two_moons", "not one"]
    config = schema.compose(["experiment=digits", "seed=1", "experiment=two_moons", "seed=2"])
    assert (config.experiment, config.seed) == ("two_moons", 2)


@pytest.mark.slow
def test_f14_a_sweeps_record_is_where_its_runs_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted, in one's home, given twice, from an experiment's file: the record and the runs are in one folder."""
    folder = tmp_path / "here"
    monkeypatch.setenv("HOME", str(folder / "home"))
    file = own(folder / "own") / "experiment" / "mine.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "run: {root: ~/theirs}\n", encoding="utf-8")
    given = [
        (["run.root='a b'"], folder / "a b"),
        (["run.root='~/out'"], folder / "home" / "out"),
        (["run.root=~/again"], folder / "home" / "again"),
        (["run.root=x", "run.root=y"], folder / "y"),
        (["experiment=mine", "-cd", "own"], folder / "home" / "theirs"),
    ]
    answers = told([["run", "-m", "seed=1", "seed=7,8", *words] for words, _ in given], folder, STAND_IN)
    for (words, root), (status, out, err) in zip(given, answers, strict=True):
        assert status == 0, (words, out, err)
        assert "2 of 2 jobs are done" in " ".join(out.split())
        (record,) = (root / "sweeps").glob("*.jsonl")
        assert {(folder / found["dir"]).parent for found in sweep_record.jobs(record)} == {root}
    assert {path.name for path in folder.iterdir()} - {".cache"} == {"a b", "home", "own", "y"}


DRAWS = """
from pathlib import Path
from dsnn.run import job
def run(config, **options):
    for record in Path(config.run.root, "sweeps").glob("*.jsonl"):
        record.with_suffix(".png").mkdir(exist_ok=True)
    return job.directory_of(config), {"deployed/accuracy": 0.5, "energy/45nm/snn_nj": 1.0 + config.seed}
job.run = run
"""


def test_a_sweep_whose_picture_cannot_be_drawn_ends_with_its_table(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    ((status, out, err),) = told([["run", "-m", "seed=1,2"]], folder, DRAWS)
    assert status == 0, err
    said = " ".join(out.split())
    assert "accuracy over energy could not be drawn: [Errno 21] Is a directory" in said
    assert "2 of 2 jobs are done" in said


def test_f18_relative_paths_are_those_of_the_folder_where_the_command_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    np.savez(folder / "own.npz", x_train=np.zeros((4, 2)), y_train=[0, 1, 0, 1])
    words = ["run", "-m", "seed=1,2", "data=npz", "data.path=own.npz", "hydra.job.chdir=true"]
    ((status, out, _),) = told([words], folder, STAND_IN)
    assert status == 0, out
    (record,) = folder.glob("outputs/sweeps/*.jsonl")
    seen = [found["metrics"] for found in sweep_record.jobs(record)]
    assert len(seen) == 2
    for place in seen:
        assert Path(place["test/a"]).parent == folder / "outputs" / "sweeps", "Hydra has changed into a sweep's folder"
        assert (place["test/b"], place["test/c"]) == (str(folder / "own.npz"), str(folder / "outputs"))


def test_f18_interrupted_survives_pickling() -> None:
    stop = Interrupted("stopped after epoch 3", 15)
    for again in (pickle.loads(pickle.dumps(stop, protocol)) for protocol in range(2, 6)):
        assert (str(again), again.signal_number, again.exit_code) == (str(stop), 15, 143)


def test_reliability_23_a_locale_without_letters_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    file = own(folder / "own") / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\n# Größe, R².\nexperiment: größe\ntrack: {tags: [größe]}\n", encoding="utf-8")
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    commands = [
        ["run", "--help", "-cd", "own"],
        ["run", "-cd", "own", "experiment=mine", "-c", "job"],
        ["run", "-cd", "own", "experiment=mine", "-m", "seed=1,2"],
        ["run", "experiment=größe"],
        ["search", "--help"],
        ["report", "runs=runs"],
        ["report", "ledger=runs"],
    ]
    for k in range(2):
        run = folder / "runs" / f"r{k}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(f"experiment: größe\nseed: {k}\n", encoding="utf-8")
        metrics = {"test/accuracy": 0.5, "carbon/kwh": 1e-3, "carbon/co2e_g": 0.5, "carbon/source": "geschätzt"}
        (run / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")
        store.mark_done(run)
    answers = told(commands, folder, STAND_IN)
    assert [status for status, _, _ in answers] == [0, 0, 0, 1, 0, 0, 0], answers
    assert all("codec" not in out + err for _, out, err in answers)
    assert "Gr??e, R?." in answers[0][1]
    assert "2 of 2 jobs are done" in " ".join(answers[2][1].split())
    assert "gesch?tzt" in answers[6][1]


BINARY = ("archive", "gzip", "Image", "os", "tarfile", "wave")
"""Whose open() gives bytes or pictures, or is handed flags."""


def without_encoding(file: Path) -> list[int]:
    """Returns the lines that read or write text and leave its encoding to the locale."""
    found = []
    for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(call, ast.Call) or any(word.arg == "encoding" for word in call.keywords):
            continue
        words = {word.arg: word.value for word in call.keywords}
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = call.args[1:] if owner is None else call.args
        mode = words.get("mode", given[0] if given else None)
        opens = name in ("open", "fdopen") and getattr(owner, "id", "") not in BINARY
        binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
        reads = name == "read_text" and not call.args
        writes = name == "write_text" and len(call.args) < 2 and "directory" not in words
        decodes = name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & words.keys()
        if (opens and not binary) or reads or writes or decodes:
            found.append(call.lineno)
    return found


def test_reliability_23_whoever_reads_or_writes_text_names_its_encoding(tmp_path: Path) -> None:
    files = [*ROOT.glob("dsnn/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    assert len(files) > 150
    found = {str(file.relative_to(ROOT)): without_encoding(file) for file in files}
    assert {name: lines for name, lines in found.items() if lines} == {}
    (tmp_path / "x.py").write_text(
        'open(p)\nopen(p, "rb")\np.open("w")\np.open(mode="wb")\np.read_text()\np.read_text("utf-8")\n'
        'p.write_text(t)\np.write_text(t, encoding="utf-8")\nsubprocess.run(c, text=True)\ngzip.open(p)\n',
        encoding="utf-8",
    )
    assert without_encoding(tmp_path / "x.py") == [1, 3, 5, 7, 9]


def test_f5_flags_for_hydra_may_be_none_at_all() -> None:
    assert usage.for_hydra([]) == []
    assert usage.for_hydra(["-m"]) == ["-m"]
    assert usage.for_hydra(["--info"]) == ["--info=all"]
    assert usage.for_hydra(["--info", "searchpath", "-m"]) == ["--info", "searchpath", "-m"]
