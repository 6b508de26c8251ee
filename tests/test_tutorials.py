"""Every block of README, CONTRIBUTING and cookbook: Python runs, commands are composed and checked, YAML is read."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from dsnn import resolve
from dsnn.assembly.assemble import build
from dsnn.config import Config
from dsnn.run import frontier_plan, job, schema, usage
from dsnn.run.main import COMMANDS
from dsnn.run.search import read_search
from dsnn.store import places

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "CONTRIBUTING.md")
COOKBOOK = "experiments/cookbook.md"
NAMED = re.compile(r"# (\S+\.(?:py|yaml))\n")
"""First line of a block of the cookbook that is the content of a file."""


def blocks(text: str, language: str) -> list[str]:
    every = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / text).read_text(), re.M | re.S)
    return [body for kind, body in every if kind == language]


@pytest.mark.parametrize("text", [*TEXTS, COOKBOOK])
def test_every_block_says_its_language(text):
    fences = re.findall(r"^```(.*)$", (ROOT / text).read_text(), re.M)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= {"python", "bash", "yaml", ""}


@pytest.mark.parametrize("text", TEXTS)
def test_python_blocks_run_in_order(text, tmp_path):
    (tmp_path / "outputs").mkdir()
    (tmp_path / "all.py").write_text("\n\n".join(blocks(text, "python")))
    command = [sys.executable, "all.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MPLBACKEND": "Agg"}
    environment |= {name: os.environ[name] for name in ("XLA_FLAGS", "DSNN_CACHE") if name in os.environ}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    if text == "README.md":
        accuracy, steps = map(float, re.search(r"^(0\.\d+) ([\d.]+)$", done.stdout, re.M).groups())
        assert accuracy > 0.9
        assert 1 <= steps <= 8
        assert (tmp_path / "outputs" / "net.nir").exists()


def commands() -> list[str]:
    found = []
    for text in TEXTS:
        for block in (*blocks(text, "bash"), *blocks(text, "")):
            found += [line.split("#")[0].strip() for line in block.splitlines() if line.split("#")[0].strip()]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("command", commands())
def test_commands_are_what_the_doors_take(command, tmp_path):
    words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
    if words[0] == "srun":  # whose own options begin with dashes
        words = words[next(k for k, word in enumerate(words) if k and not word.startswith("-")) :]
    words[0] = words[0].removeprefix(".venv/bin/")
    if words[:2] == ["bash", "scripts/run.sh"] or words[:3] in (
        ["python", "-m", "experiments.run"],
        ["python", "-m", "experiments.inspect"],
    ):
        options = [w for w in words[2:] if "=" in w]
        usage.check(options)
        if "-m" not in words[2:] or "inspect" in command:
            assert isinstance(schema.compose(options), Config)
    elif words[0] == "dsnn":
        assert words[1] in COMMANDS
        read = usage.read(words[2:])
        own = frontier_plan.OWN if words[1] == "frontier" else ()
        if not read.folders:
            usage.check([word for word in read.overrides if word.partition("=")[0] not in own])
    elif words[0] == "bash" or (words[0] == "python" and words[1].endswith(".py")):
        assert (ROOT / words[1]).is_file()
    elif words[:3] == ["kubectl", "apply", "-f"]:
        assert (ROOT / words[3]).is_file()
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()
    else:
        raise AssertionError(f"no door takes {command}")


@pytest.mark.parametrize("text", [*TEXTS, COOKBOOK])
def test_yaml_blocks_are_yaml(text):
    for block in blocks(text, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


# --- The cookbook: files of its own, one session, commands in its folder


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that blocks of the cookbook are."""
    folder = tmp_path_factory.mktemp("kitchen")
    for language in ("python", "yaml"):
        for block in blocks(COOKBOOK, language):
            if match := NAMED.match(block):
                (folder / match[1]).parent.mkdir(parents=True, exist_ok=True)
                (folder / match[1]).write_text(block[match.end() :])
    return folder


@pytest.fixture
def cook(kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as this process's own, whose names it may run."""
    monkeypatch.chdir(kitchen)
    monkeypatch.syspath_prepend(str(kitchen))
    monkeypatch.setenv(places.VARIABLE, "")
    return kitchen


@pytest.mark.slow
def test_the_cookbooks_python_runs_in_order_and_gives_what_it_says(kitchen: Path) -> None:
    session = [block for block in blocks(COOKBOOK, "python") if not NAMED.match(block)]
    (kitchen / "session.py").write_text("\n\n".join(session))
    np.savez(kitchen / "csnn.npz", **of_pytorch())  # what export.py writes where PyTorch is
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(kitchen)}
    command = [sys.executable, "session.py"]
    done = subprocess.run(command, cwd=kitchen, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    said = done.stdout
    whole, decided = (float(nj) for nj in re.findall(r"([\d.]+) nJ in 8 steps", said))
    assert decided < 0.5 * whole
    right, steps = map(float, re.search(r"right ([\d.]+) after ([\d.]+) steps", said).groups())
    assert right > 0.9
    assert 1 <= steps < 8
    assert float(re.search(r"weights alone: right ([\d.]+)", said)[1]) > 0.9
    inputs, neurons = map(int, re.search(r"gates alone: (\d+) of 6 inputs, (\d+) of 16 neurons", said).groups())
    assert 2 <= inputs < 6, "two of them decide, and the others say nothing"
    assert 1 <= neurons < 16
    assert 1 <= float(re.search(r"halting alone: ([\d.]+) of 8 steps", said)[1]) < 8
    closed = dict(re.findall(r"'(input|hidden0)': ([\d.]+)", said[said.index("energy alone") :]))
    assert float(closed["hidden0"]) < float(closed["input"]) < 0.5
    means = re.findall(r"^(tau|width): ([\d.]+), 90 % within ([\d.]+) and ([\d.]+)$", said, re.M)
    truth = {"tau": 6.0, "width": 0.15}
    assert [name for name, *_ in means] == list(truth)
    for name, mean, low, high in means:
        assert float(low) < float(mean) < float(high), name
        assert float(low) - 0.1 * truth[name] < truth[name] < float(high) + 0.1 * truth[name], name
    assert "wide 12 of 12" in said
    assert "'mylab/mean_scale': 0.0" in said
    assert "2 epochs" in said
    assert "theirs: (4, 2, 10)" in said
    assert re.search(r"^True$", said, re.M), "a network that was loaded predicts bit for bit"
    reached, constant = map(float, re.search(r"^deviance ([\d.]+) of ([\d.]+)$", said, re.M).groups())
    assert reached < 0.7 * constant, "a task of one's own learns"
    assert int(re.search(r"^(\d+) of \d+ epochs$", said, re.M)[1]) < int(re.search(r"of (\d+) epochs$", said, re.M)[1])


def of_pytorch() -> dict[str, np.ndarray]:
    """The state of SpikingJelly's CSNN of eight channels, by its names."""
    shapes: dict[str, tuple[int, ...]] = {
        "0.weight": (8, 1, 3, 3), "4.weight": (8, 8, 3, 3), "9.weight": (128, 8 * 49), "11.weight": (10, 128)
    }  # fmt: skip
    shapes |= {f"{n}.{name}": (8,) for n in (1, 5) for name in ("weight", "bias", "running_mean", "running_var")}
    return {f"conv_fc.{name}": np.ones(shape, np.float32) for name, shape in shapes.items()}


def cooked() -> list[str]:
    return [line for block in blocks(COOKBOOK, "bash") for line in block.splitlines()]


@pytest.mark.parametrize("command", cooked())
def test_the_cookbooks_commands_are_built(command: str, cook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, name, *arguments = shlex.split(command)
    if folder := re.match(rf"{places.VARIABLE}=(.*)", program):
        monkeypatch.setenv(places.VARIABLE, str(cook / folder[1]))
        program, name, *arguments = name, *arguments
    assert program == "dsnn"
    if name == "search":
        words = usage.read(arguments)
        places.add(words.folders)
        (chosen,) = (word.removeprefix("search=") for word in words.overrides)
        read_search(places.file("search", chosen), [])
        return
    words = usage.read([argument for argument in arguments if argument != "--help"])
    places.add(words.folders)
    usage.check(words.overrides)
    single = [word if "[" in word else word.split(",")[0] for word in words.overrides]
    config = schema.compose(single if name == "sweep" else words.overrides)
    for piece in (*config.metrics, *config.callbacks, *filter(None, [config.train.transform])):
        assert callable(resolve.piece("a piece", piece))
    assert jax.eval_shape(build(config).learner.init)


@pytest.mark.slow
def test_the_cookbooks_run_lands_in_metrics_report_and_wandb(
    cook: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metric ends in metrics.json, the report and W&B's summary, its callback ends learning."""
    from test_track import read_offline

    monkeypatch.setenv(places.VARIABLE, str(cook / "lab"))
    own = ["metrics=[mylab.watch:spikes_per_hit]", "callbacks=[mylab.watch:good_enough]", "run.dir=cooked"]
    directory, found = job.run(schema.compose(["experiment=clouds", "bayes.samples=4", *own]))
    assert "wandb sync" in capsys.readouterr().out
    assert found == json.loads((directory / "metrics.json").read_text())
    assert found["mylab/spikes_per_hit"] == pytest.approx(found["compute/spike_rate"] / found["test/accuracy"])
    assert "energy/labchip/updates/snn_nj" in found
    assert "mylab/spikes_per_hit" in (directory / "report.html").read_text()
    (tracked,) = read_offline(directory)
    assert tracked["summary"]["mylab/spikes_per_hit"] == pytest.approx(found["mylab/spikes_per_hit"])
    assert not any("mylab/spikes_per_hit" in row for row in tracked["history"])
    assert len((directory / "history.jsonl").read_text().splitlines()) < 20, "the callback ended learning"


def test_the_cookbooks_sweep_gives_options_as_an_agent_writes_them(cook: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load((cook / "sweep.yaml").read_text())
    first = {name: {"value": value.get("values", [value.get("min")])[0]} for name, value in sweep["parameters"].items()}
    given = create_sweep_command_args({"args": first})["args"]
    assert given[0] == "--optimizer.learning_rate=0.001"
    program, name, *fixed = sweep["command"]
    assert (program, name, fixed.pop()) == ("dsnn", "run", "${args}")
    words = usage.read([*fixed, *given])
    places.add(words.folders)
    config = schema.compose(words.overrides)
    assert (config.optimizer.learning_rate, config.model.hidden, config.seed) == (0.001, [8], 0)
