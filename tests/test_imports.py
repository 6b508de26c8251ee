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

CELLS = {"types", "rng", "parameters", "surrogate", "escape", "cells", "initial", "derivatives"}
NETWORKS = CELLS | {"lowering", "events", "layers", "models", "describe"}
LOOP = NETWORKS | {"networks", "unroll", "gradients"}
BAYES = LOOP | {"programs", "data", "address", "encode", "sequences", "forward", "anytime", "energy", "bayes"}
BAYES |= {"protocols"}  # what a network says of itself

# What each module of dsnn may import from dsnn. A package stands for everything in it.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "nearest": set(),
    "rules": set(),  # rules across the parts of a configuration
    "resolve": set(),  # a piece of the user's by its name
    "protocols": {"types"},  # and whatever type checkers need, see `NAMED_ONLY`
    "places": set(),  # where configuration files are
    "allocator": set(),
    "private_folder": set(),  # where what is run may lie
    "kept_programs": {"private_folder"},
    "programs": {"kept_programs"},  # how functions are compiled; knows none of them
    "rng": {"types"},
    "parameters": {"types"},  # a module as a function of named arrays; knows no cell
    "derivatives": {"types"},  # derivatives of programs that JAX cannot differentiate; knows none of them
    "lowering": {"types"},  # which of two programs runs where
    "surrogate": {"types", "derivatives"},
    "escape": {"types", "rng", "surrogate", "derivatives"},
    "cells": CELLS,
    "initial": {"types"},
    "events": {"types", "private_folder", "derivatives", "lowering"},
    "convolve": {"types", "derivatives"},
    "layers": CELLS | {"events", "convolve"},
    "describe": set(),
    "models": CELLS | {"layers", "describe", "protocols", "networks"},  # see `ROOM`
    "networks": NETWORKS | {"protocols", "energy"},  # blocks, and networks that describe themselves
    "unroll": NETWORKS | {"loops", "networks"},
    "loops": NETWORKS,  # whole time loops in C
    "bidirectional": NETWORKS | {"unroll"},
    "gradients": NETWORKS | {"unroll"},
    "sequences": {"types", "encode"},
    "forward": LOOP | {"encode", "sequences"},
    "anytime": LOOP,  # a stopping rule is an argument; the guide over time steps is one such rule
    "bayes": BAYES,
    "mesh": {"types"},  # devices and where arrays stand; knows no model
    "learn": BAYES | {"protocols"},  # learners, and the loop that runs any of them
    "optimize": {"types", "parameters"},
    "sampling": BAYES | {"learn"},  # draws of the exact posterior
    "online": BAYES | {"learn", "rules"},  # rules that update within a sequence
    # gates decided: a smaller network, what it did, and the two put to use
    "compact": LOOP | {"protocols"},
    "activity": LOOP | {"energy", "protocols"},
    "decide": LOOP | {"anytime"},  # a decided network as one call into C
    "tasks": BAYES | {"evaluate"},  # what is learned: likelihood, prediction and scores of each
    "deploy": BAYES | {"compact", "activity", "decide", "tasks"},
    "convert": LOOP | {"address", "convolve", "encode", "energy", "forward"},
    "deep": BAYES | {"convert", "evaluate", "learn", "store", "tasks"},  # how a deep network learns
    "fold": NETWORKS | {"networks", "data"},  # what learning saw of the inputs' scale, in the first weights
    "nir": LOOP | {"compact", "untrusted"},
    "data": {"types", "rng", "untrusted"},
    "address": {"types"},  # a vector as a distribution over the rows of a matrix
    "encode": {"types", "rng", "data", "address"},
    # arrays and records only
    "evaluate": {"types"},
    "energy": {"types", "places", "untrusted"},
    # files and numbers only
    "untrusted": set(),
    "version": set(),
    "store": {"types", "untrusted"},
    "offline": {"untrusted"},
    "track": {"store", "tensorboard", "offline", "untrusted"},
    "tensorboard": set(),
    "wording": set(),
    "plots": {"store", "wording"},
    "report": {"store", "plots", "wording", "untrusted"},
    # assembles the parts; nothing in dsnn imports it
    # inference in fifteen lines, without a run directory
    "api": set(),
    "start": set(),
    "automatic": set(),
    "identity": set(),
    "guard": set(),
    "linear": set(),
    "inference_data": set(),  # draws in the form of another library
    "exit_calibration": set(),
    "assemble": set(),
    "build": set(),
    "loading": set(),
    "config": BAYES
    | {"learn", "online", "sampling", "optimize", "evaluate", "compact", "activity", "deploy", "convert", "track"},
}
ALLOWED["build"] = ALLOWED["config"] | {"config"}
ALLOWED["loading"] = ALLOWED["config"] | {"config", "tasks"}
ALLOWED["identity"] = ALLOWED["config"] | {"config", "store", "version"}
ALLOWED["start"] = ALLOWED["config"] | {"config", "store"}
ALLOWED["automatic"] = ALLOWED["exit_calibration"] = ALLOWED["config"] | {"config", "tasks"}
ALLOWED["assemble"] = ALLOWED["start"] | {"start", "mesh", "build", "loading", "automatic", "tasks"}
ALLOWED["guard"] = ALLOWED["assemble"] | {"assemble"}
ALLOWED["linear"] = {"data", "evaluate", "tasks"}
_held = {"guard", "linear"}
ALLOWED["inference_data"] = ALLOWED["assemble"] | {"assemble"}
ALLOWED["api"] = (
    ALLOWED["assemble"] | {"assemble", "plots", "exit_calibration", "fold", "store", "inference_data"} | _held
)
for _one in (ALLOWED[name] for name in ("assemble", "api")):
    _one |= {"protocols"}
for _one in ALLOWED.values():  # a misspelt name is answered alike everywhere, and pieces are found alike
    _one |= {"nearest", "resolve", "untrusted"}
ALLOWED["nearest"] = ALLOWED["untrusted"] = set()  # "untrusted" reads what somebody else may have written
ALLOWED["typed"] = set()  # values of the kinds that a configuration names
for _one in (ALLOWED[name] for name in ("config", "assemble", "api")):
    _one |= {"typed"}
ALLOWED["config"].add("rules")
ALLOWED["run"] = set(ALLOWED)  # the runner, which nothing else imports
ALLOWED["__main__"] = {"run"}
ALLOWED["__init__"] = set(ALLOWED)

NAMED_ONLY = {"dsnn.protocols", "dsnn.rules"}

# A module that lies beside the room whose part it is: a stack and what is said of stacks know each other.
ROOM = {"models": "networks"}

# Libraries that stay behind one door each: where in the repository they may be imported.
DOORS: dict[str, set[str]] = {
    "hydra": {"dsnn.run"},
    "omegaconf": {"dsnn.run"},
    "optuna": {"dsnn.run"},
    "joblib": {"dsnn.run"},
    "submitit": {"dsnn.run"},
    "experiments": {"experiments"},
    "wandb": {"dsnn.track"},
    "tensorboardX": {"dsnn.tensorboard"},
    "orbax": {"dsnn.store"},
    "numpyro": {"dsnn.bayes", "dsnn.learn"},
    "nir": {"dsnn.nir"},
    "arviz": {"dsnn.inference_data"},
    "codecarbon": {"dsnn.energy"},
    "matplotlib": {"dsnn.plots", "dsnn.report"},
    "sklearn": {"dsnn.data", "dsnn.linear"},
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
    here = ".".join(parts[:2])
    found = []
    tree = ast.parse(source)
    if here in NAMED_ONLY:  # its types are those of every room, which a type checker alone has to find
        tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node))]
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
        ("dsnn/cells.py", "import dsnn.models"),
        ("dsnn/cells.py", "from dsnn.unroll import unroll"),
        ("dsnn/cells/lif.py", "from dsnn import layers"),
        ("dsnn/cells/lif.py", "from .. import layers"),
        ("dsnn/cells/lif.py", "from ..layers import Dense"),
        ("dsnn/energy/count.py", "def f():\n    from dsnn.models import Stack"),
        ("dsnn/energy/count.py", "import importlib\nimportlib.import_module('dsnn.cells')"),
        ("dsnn/learn/fit.py", "if TYPE_CHECKING:\n    import dsnn.config"),
        ("dsnn/layers.py", "import dsnn"),
        ("dsnn/layers.py", "from dsnn import Stack"),
        ("dsnn/learn/fit.py", "import wandb"),
        ("dsnn/learn/fit.py", "from dsnn.run.schema import Run"),
        ("dsnn/models.py", "import numpyro.distributions as dist"),
        ("dsnn/config.py", "from omegaconf import OmegaConf"),
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
        ("dsnn/__init__.py", "from dsnn.models import Stack"),
        ("dsnn/cells/lif.py", "from dsnn.cells import base\nfrom . import state\nfrom dsnn.escape import Logistic"),
        ("dsnn/bayes/gates.py", "import numpyro\nfrom dsnn import energy"),
        ("dsnn/nir.py", "import nir"),
        ("dsnn/unroll.py", "import jax.numpy as jnp\nfrom dsnn.models import Stack"),
        ("dsnn/run/cli.py", "from dsnn import config, learn\nimport hydra"),
        ("experiments/run.py", "import dsnn\nfrom dsnn.run.cli import main"),
    ],
)
def test_checker_lets_the_design_through(path, source):
    assert violations(path, source) == []


def test_imports_form_no_cycle():
    """The table itself must be an order, or the direction would mean nothing."""
    placed: set[str] = set()
    remaining: dict[str, set[str]] = {}
    for name, allowed in ALLOWED.items():
        room = ROOM.get(name, name)
        if room != "__init__":
            remaining[room] = remaining.get(room, set()) | {ROOM.get(other, other) for other in allowed} - {room}
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

    from dsnn.models import running_logits

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
