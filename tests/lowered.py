"""Programs lowered for accelerators by a process that has none, and what of a CPU they call."""

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import learn
from dsnn.assembly.assemble import Setup
from dsnn.data.rows import on_device
from dsnn.deploy.decided import deploy
from dsnn.tasks import Predictor

PLATFORMS = ("cuda", "rocm", "tpu")
CALL = re.compile(r"custom_call @([\w.$]+)|call_target_name = \"([\w.$]+)\"")
HOST = re.compile(r"stablehlo\.(send|recv|infeed|outfeed)\b")
OF_DEVICES = re.compile(
    r"Sharding|(cu|hip)\w+|LuDecomposition|Qr|Eigh|mhlo\.\w+|mosaic_gpu\w*|tpu_custom_call|xla\.sdy\.\w+|ApproxTopK|TopK"
)
"""Calls that an accelerator's own runtime answers; whatever else is called stands on the process that traced it."""


def lowered(function: Callable[..., Any], *operands: Any, platforms: tuple[str, ...] = PLATFORMS) -> str:
    """Returns the text of one program for all these platforms; operands may be shapes."""
    jitted = function if hasattr(function, "lower") else jax.jit(function)
    exported = jax.export.export(jitted, platforms=platforms)(*operands)
    assert exported.platforms == platforms
    return exported.mlir_module()


def calls(module: str) -> set[str]:
    """Returns what a program calls that no accelerator answers: our C programs, Python on the host, LAPACK."""
    named = {one or other for one, other in CALL.findall(module)}
    return {name for name in named if not OF_DEVICES.fullmatch(name)} | set(HOST.findall(module))


def shapes(tree: Any) -> Any:
    """Returns the shapes of arrays, which are all that lowering needs."""
    return jax.eval_shape(lambda tree: tree, tree)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), jnp.asarray(leaf).dtype)


def training(setup: Setup) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns all updates of an epoch, the program that a run calls, and its operands."""
    batch_size = setup.config.train.batch_size
    program = learn.compiled(learn.epoch_program(setup.family, batch_size, transform=setup.transform))
    state = jax.eval_shape(learn.beginning(setup.family), setup.settings)
    arrays = learn.Batch(*jax.tree.map(_shape, tuple(on_device(setup.split).train)))
    return program.jitted, (shapes(setup.settings), state, arrays, jax.ShapeDtypeStruct((), jnp.int32))


def params_of(setup: Setup) -> dict[str, Any]:
    """Returns a guide's parameters before learning, with those that are fitted after it."""
    state = learn.beginning(setup.family)(setup.settings)
    params = setup.params(state)
    return setup.bayesian.unfitted() | params


def batch_of(setup: Setup, rows: int = 6) -> Any:
    """Returns a few inputs of the part that tests, dense."""
    x = setup.split.train.x[:rows]
    return jnp.asarray(x.toarray() if hasattr(x, "toarray") else np.asarray(x))


def predictive(setup: Setup, params: dict[str, Any], monkeypatch: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns the task's predictive of one batch, as its predictor calls it, and operands."""
    found: list[tuple[Any, ...]] = []
    predict, x = setup.task.predictor(setup.bayesian), np.asarray(batch_of(setup))

    def seen(*arguments: Any, **_: Any) -> Any:
        found.append(arguments)
        raise _Seen

    if isinstance(predict, Predictor):
        program = predict._program
        monkeypatch.setattr(predict, "_program", seen)
    else:
        monkeypatch.setattr(sys.modules[predict.__module__], "in_batches", seen)
    with contextlib.suppress(_Seen):
        predict(params, x, jax.random.key(0), samples=2, **setup.task.beside(setup.split.train.y[: len(x)]))
    monkeypatch.undo()
    if isinstance(predict, Predictor):
        return program.jitted, found[0]
    run, batch, *_ = found[0]
    beside = [jnp.asarray(y) for y in setup.task.beside(setup.split.train.y[: len(x)]).values()]
    return run, (jnp.asarray(batch), *beside)


class _Seen(Exception):
    """The operands of a program are known."""


def deployed(setup: Setup, params: dict[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Returns the decided, compacted network with its stopping rule, and encoded inputs."""
    threshold = 0.0 if setup.bayesian.halting is not None else float("inf")
    decided = deploy(setup.bayesian, params, threshold)
    inputs = setup.bayesian.simulator.encode(batch_of(setup), jax.random.key(1))
    return decided.run, (inputs,)
