"""Every block of README and CONTRIBUTING: Python runs, commands are composed and checked, YAML is read."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dsnn.config import Config
from dsnn.run import schema, usage
from dsnn.run.main import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "CONTRIBUTING.md")


def blocks(text: str, language: str) -> list[str]:
    every = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / text).read_text(), re.M | re.S)
    return [body for kind, body in every if kind == language]


@pytest.mark.parametrize("text", TEXTS)
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
        if not read.folders:
            usage.check(read.overrides)
    elif words[0] == "bash" or (words[0] == "python" and words[1].endswith(".py")):
        assert (ROOT / words[1]).is_file()
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()
    else:
        assert words[0].startswith(("python3", "/tmp/clean/"))


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_blocks_are_yaml(text):
    for block in blocks(text, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
