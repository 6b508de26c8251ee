"""Names of before 0.2.0: each is answered with today's, and nothing here uses them."""

import ast
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import dsnn
from dsnn.suggest import MOVED

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("old", sorted(MOVED))
def test_an_old_module_is_todays_with_a_warning_that_names_it(old: str) -> None:
    """In a process of its own order: what is imported under an old name is taken out again."""
    before, own = set(sys.modules), dict(vars(dsnn))
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            module = importlib.import_module(f"dsnn.{old}")
        new = f"dsnn.{MOVED[old]}"
        said = f"dsnn.{old} is {new} since dsnn 0.2.0, and the old name goes with 0.3.0; import {new}."
        assert said in [str(one.message) for one in told if one.category is DeprecationWarning]
        today = importlib.import_module(f"dsnn.{MOVED[old]}")
        assert all(getattr(module, name) is value for name, value in vars(today).items() if not name.startswith("__"))
        assert today.__spec__ is not None
        assert today.__spec__.name == f"dsnn.{MOVED[old]}"
    finally:
        for name in {name for name in sys.modules if name.removeprefix("dsnn.") in MOVED} - before:
            del sys.modules[name]
        for name, value in own.items():
            setattr(dsnn, name, value)


def test_a_function_of_the_package_stays_one_when_its_old_module_is_imported() -> None:
    program = """
import jax
import jax.numpy as jnp
import dsnn
from dsnn.unroll import SCHEDULES, unroll
from dsnn.anytime import Decision
from dsnn.compact import kept
from dsnn.layers import Dense
assert unroll is not dsnn.unroll and dsnn.unroll(dsnn.cells.LIF(beta=0.9), jnp.ones((3, 1, 2)))[0].shape == (3, 1, 2)
assert dsnn.anytime(dsnn.networks.mlp((2,), (), 2, key=jax.random.key(0)), Decision, 2)
assert callable(dsnn.compact)
assert dsnn.models.Stack is dsnn.networks.Stack
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_network_of_fifteen_fields_is_told_its_parts() -> None:
    with pytest.raises(ImportError, match="Lifted, a network with 15 fields, is Bayesian"):
        from dsnn.bayes.bayesian import Lifted  # type: ignore[attr-defined]  # noqa: F401


def test_nothing_here_uses_an_old_name() -> None:
    old = {f"dsnn.{name}" for name in MOVED} - {f"dsnn.{name}" for name in dsnn.__all__}
    found = []
    for room in ("dsnn", "experiments", "scripts", "tests"):
        for path in ROOT.glob(f"{room}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                names += (
                    [f"{names[0]}.{one.name}" for one in node.names]
                    if isinstance(node, ast.ImportFrom) and names
                    else []
                )
                names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
                found += [f"{path.name}:{node.lineno} {name}" for name in names if name in old]
    assert [one for one in found if "test_old_names" not in one] == []


@pytest.mark.parametrize("statement", ["from dsnn.events import library", "from dsnn.loops import scans"])
def test_what_was_in_a_room_is_found_in_it(statement: str) -> None:
    done = subprocess.run([sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_gone_says_what_there_is() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"dsnn\.bidirectional is gone since dsnn 0\.2\.0; put two chains"):
        importlib.import_module("dsnn.bidirectional")
    with pytest.raises(ImportError, match="Forward is Simulator since dsnn 0"):
        from dsnn.simulate.simulator import Forward  # type: ignore[attr-defined]  # noqa: F401
