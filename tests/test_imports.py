"""Imports point one way, and `import dsnn` does nothing that a user would have to wait or pay for."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

FIRST = {"types", "rng", "suggest", "store", "resolve", "parameters", "native"}
CELLS = FIRST | {"surrogate", "escape", "cells"}
RECORDS = {"data", "energy"}
NETWORKS = CELLS | RECORDS | {"protocols", "networks"}
LEARN = NETWORKS | {"simulate", "bayes", "learn"}
DEPLOY = LEARN | {"evaluate", "tasks", "deploy"}
ASSEMBLY = DEPLOY | {"convert", "config", "assembly"}

# What each room of dsnn may import from dsnn, in an order in which none sees a later one.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "rng": {"types"},
    "suggest": set(),  # names that somebody may have meant
    "store": {"types", "suggest"},  # files, whoever wrote them; knows no model
    "resolve": {"suggest"},  # a piece of the user's by its name
    "parameters": {"types"},  # a module as a function of named arrays; knows no cell
    "native": {"types", "store"},  # programs of the machine; knows none that it runs
    "surrogate": {"types", "suggest", "native"},
    "escape": {"types", "rng", "suggest", "parameters", "native", "surrogate"},
    "cells": {"types", "rng", "suggest", "parameters", "native", "surrogate", "escape", "energy"},  # what updates cost
    # arrays, records and files only
    "data": {"types", "rng", "suggest", "store"},
    "evaluate": {"types"},
    "energy": {"types", "suggest", "store"},
    "plots": {"store"},
    "report": {"store", "plots"},
    "protocols": {"types", "parameters", "data"},
    "networks": CELLS | {"energy", "protocols"},
    "simulate": NETWORKS - RECORDS,
    "bayes": NETWORKS | {"simulate"},
    "learn": NETWORKS | {"simulate", "bayes"},
    "tasks": LEARN | {"evaluate", "plots"},
    "deploy": LEARN | {"evaluate", "tasks"},
    "convert": LEARN | {"evaluate", "tasks"},
    "nir": CELLS | {"networks", "simulate"},
    "config": DEPLOY | {"convert"},
    "assembly": DEPLOY | {"convert", "config"},
    "api": ASSEMBLY | {"plots"},  # inference in fifteen lines, without a run directory
    "run": ASSEMBLY | {"plots", "report", "nir", "api"},
    "__main__": {"run"},
}
ALLOWED["__init__"] = set(ALLOWED)

NAMED_ONLY = {"dsnn.protocols", "dsnn.config.rules"}

# Libraries that stay behind one door each: where in the repository they may be imported.
DOORS: dict[str, set[str]] = {
    "hydra": {"dsnn.run"},
    "omegaconf": {"dsnn.run"},
    "optuna": {"dsnn.run"},
    "joblib": {"dsnn.run"},
    "submitit": {"dsnn.run"},
    "ray": {"dsnn.run"},
    "experiments": {"experiments"},
    "wandb": {"dsnn.store.track"},
    "tensorboardX": {"dsnn.store.tensorboard"},
    "orbax": {"dsnn.store"},
    "numpyro": {"dsnn.bayes", "dsnn.learn", "experiments.recorded_lif"},
    "nir": {"dsnn.nir"},
    "arviz": {"dsnn.api.inference_data"},
    "codecarbon": {"dsnn.energy"},
    "matplotlib": {"dsnn.plots", "dsnn.report"},
    "sklearn": {"dsnn.data", "dsnn.assembly.linear"},
    "torch": set(),
}


def imported(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of everything a file imports, at its top or in a function, relative names resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def violations(path: str, source: str) -> list[str]:
    """Returns a sentence for every import that the tables forbid, of the file at ``path`` in the repository."""
    parts = list(Path(path).with_suffix("").parts)
    here = ".".join(parts)
    found = []
    tree = ast.parse(source)
    for line, name in imported(tree, parts[:-1]):
        top, _, rest = name.partition(".")
        if top in DOORS and not any(f"{here}.".startswith(f"{door}.") for door in DOORS[top]):
            found.append(f"{path}:{line} imports {top}; only {', '.join(sorted(DOORS[top])) or 'nobody'} may.")
        if top == "dsnn" and parts[0] == "dsnn":
            target = rest.split(".")[0] or "__init__"
            target = target if target in ALLOWED else "__init__"  # a name of the package itself, not a module
            if target != parts[1] and target not in ALLOWED[parts[1]]:
                found.append(f"{path}:{line} imports dsnn.{target}; it may import {sorted(ALLOWED[parts[1]])}.")
    return found


def sources() -> list[str]:
    files = [*ROOT.glob("dsnn/**/*.py"), *ROOT.glob("experiments/**/*.py")]
    return sorted(str(file.relative_to(ROOT)) for file in files)


@pytest.mark.parametrize("path", sources())
def test_imports_point_one_way(path):
    parts = Path(path).with_suffix("").parts
    assert parts[0] != "dsnn" or parts[1] in ALLOWED, f"{path} has no row in ALLOWED: say what it may import."
    assert violations(path, (ROOT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dsnn/cells.py", "import dsnn.networks.stack"),
        ("dsnn/cells.py", "from dsnn.simulate.unroll import unroll"),
        ("dsnn/cells/lif.py", "from dsnn import networks"),
        ("dsnn/cells/lif.py", "from .. import networks"),
        ("dsnn/cells/lif.py", "from ..networks import Dense"),
        ("dsnn/energy/count.py", "def f():\n    from dsnn.networks.stack import Stack"),
        ("dsnn/energy/count.py", "import importlib\nimportlib.import_module('dsnn.cells')"),
        ("dsnn/learn/fit.py", "if TYPE_CHECKING:\n    import dsnn.config"),
        ("dsnn/networks/layers.py", "import dsnn"),
        ("dsnn/networks/layers.py", "from dsnn import Stack"),
        ("dsnn/learn/fit.py", "import wandb"),
        ("dsnn/learn/fit.py", "from dsnn.run.schema import Run"),
        ("dsnn/networks/stack.py", "import numpyro.distributions as dist"),
        ("dsnn/config/config.py", "from omegaconf import OmegaConf"),
        ("dsnn/learn/fit.py", "import experiments.run"),
        ("dsnn/cells/lif.py", "import torch"),
        ("dsnn/run/cli.py", "import wandb"),
        ("dsnn/run/cli.py", "from orbax import checkpoint"),
    ],
)
def test_checker_sees_a_planted_violation(path, source):
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("dsnn/__init__.py", "from dsnn.networks.stack import Stack"),
        ("dsnn/cells/lif.py", "from dsnn.cells import base\nfrom . import state\nfrom dsnn.escape import Logistic"),
        ("dsnn/bayes/gates.py", "import numpyro\nfrom dsnn import energy"),
        ("dsnn/nir/load.py", "import nir"),
        ("dsnn/simulate/unroll.py", "import jax.numpy as jnp\nfrom dsnn.networks.stack import Stack"),
        ("dsnn/run/cli.py", "from dsnn import config, learn\nimport hydra"),
        ("experiments/run.py", "import dsnn\nfrom dsnn.run.cli import main"),
    ],
)
def test_checker_lets_the_design_through(path, source):
    assert violations(path, source) == []


def test_imports_form_no_cycle():
    """The table itself must be an order, or the direction would mean nothing."""
    placed: set[str] = set()
    remaining = {name: allowed - {name} for name, allowed in ALLOWED.items() if name != "__init__"}
    while remaining:
        ready = {name for name, allowed in remaining.items() if allowed <= placed}
        assert ready, f"these modules may import each other in a circle: {sorted(remaining)}"
        placed |= ready
        remaining = {name: allowed for name, allowed in remaining.items() if name not in ready}


# JAX's manual writes primitives with three modules of its interpreters; the others are its own business
PRIVATE = re.compile(r"jax(lib)?(\.\w+)*\.(_(?!_)\w*|interpreters\.(?!(ad|batching|mlir)\b)\w+)(\.\w+)*")


def dotted(node: ast.expr, bound: dict[str, str]) -> str:
    """Returns the full name of an attribute of something imported, "" of anything else."""
    if isinstance(node, ast.Name):
        return bound.get(node.id, "")
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, bound)):
        return f"{base}.{node.attr}"
    return ""


def private_names(source: str) -> set[str]:
    """Returns the names inside JAX that a source imports, reaches by attributes or spells out for somebody to patch."""
    if "jax" not in source:
        return set()
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    names = {name for _, name in imported(tree, [])}
    bound = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            bound |= {alias.asname: alias.name for alias in node.names if alias.asname}
            bound |= {top: top for alias in node.names if not alias.asname for top in [alias.name.split(".")[0]]}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.add(dotted(node, bound))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return {name for name in names if PRIVATE.fullmatch(name)}


def test_no_private_name_of_jax_is_used():
    """What is inside JAX moves with every version, and two of them are supported at once."""
    files = [path for room in ("dsnn", "experiments", "scripts", "tests") for path in ROOT.glob(f"{room}/**/*.py")]
    assert len(files) > 300
    assert {str(path): names for path in files if (names := private_names(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import jax._src.core",
        "from jax._src import core",
        "from jax import _src",
        "from jax.interpreters import pxla",
        "import jax\njax.interpreters.partial_eval",
        "import jax.numpy as jnp\njnp._inside(3)",
        "from jax import lax as l\nl.slicing._gather(3).x",
        "import importlib\nimportlib.import_module('jax._src.core')",
        "monkeypatch.setattr('jax._src.core.f', None)",
        "import jaxlib\njaxlib._jax",
    ],
)
def test_private_names_of_jax_are_seen(source):
    assert private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "import jax\njax.__version__",
        "import jax\njax.lax.scan(f)._x",
        "from jax.interpreters import ad, batching, mlir\nad.Zero",
        "from mine import _src",
        "a = 'see jax._src here'",
    ],
)
def test_other_names_are_not_taken_for_private_ones_of_jax(source):
    assert private_names(source) == set()


def undeclared(names: set[str]) -> set[str]:
    """Returns the libraries among these import names that pyproject.toml does not ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    declared = {canonicalize_name(Requirement(text).name) for text in wanted}
    distributions = {"pynvml": ["nvidia-ml-py"], **importlib.metadata.packages_distributions()}
    foreign = names - set(sys.stdlib_module_names) - {"dsnn", "experiments", "hydra_plugins"}
    return {name for name in foreign if not declared & {canonicalize_name(d) for d in distributions.get(name, [name])}}


def test_every_imported_library_is_declared():
    """A library that only a dependency asks for may leave with that dependency's next version."""
    names = set()
    for path in sources():
        names |= {
            name.split(".")[0] for _, name in imported(ast.parse((ROOT / path).read_text()), list(Path(path).parts))
        }
    assert undeclared(names - {""}) == set()


def test_declaration_check_sees_a_planted_library():
    assert undeclared({"os", "yaml", "jax", "orbax", "hydra", "tqdm", "no_such_library"}) == {"tqdm", "no_such_library"}


def test_annotations_are_checked_while_tests_run():
    import jaxtyping

    from dsnn.networks.stack import running_logits

    with pytest.raises(jaxtyping.TypeCheckError):
        running_logits(np.zeros((3, 4)), "mean")


# With a platform that does not exist, the first array, key or question about devices raises.
PROBE = """
import sys
import jax, flax.nnx, numpyro, optax
jax.config.update("jax_platforms", "no_such_platform")
{statement}
heavy = {{"hydra", "matplotlib", "sklearn", "torch", "wandb"}} & set(sys.modules)
assert not heavy, f"import dsnn pulled in {{sorted(heavy)}}"
"""


def probe(statement: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", PROBE.format(statement=statement)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "COVERAGE"))}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_import_starts_no_device_makes_no_array_and_takes_no_key():
    outcome = probe("import dsnn")
    assert outcome.returncode == 0, outcome.stderr[-2000:]


def test_no_module_starts_a_device_when_imported():
    """Lazily imported modules keep the same promise: an array at module level would hold memory on every device."""
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in sources()]
    code = "\n".join(f"import {module}" for module in modules)
    command = [sys.executable, "-c", 'import jax; jax.config.update("jax_platforms", "no_such_platform")\n' + code]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]


def test_import_leaves_no_live_array():
    code = "import dsnn, jax; assert jax.live_arrays() == [], jax.live_arrays()"
    outcome = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr[-2000:]


@pytest.mark.parametrize(
    "statement",
    ["jax.numpy.zeros(3)", "jax.random.key(0)", "jax.random.PRNGKey(0)", "jax.devices()", "import matplotlib"],
)
def test_probe_sees_a_planted_violation(statement):
    assert probe(statement).returncode != 0
