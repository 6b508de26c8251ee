"""The memory that a training step needs, as it is reckoned, against the program that XLA compiles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import data, learn
from dsnn.assembly.assemble import Setup, build
from dsnn.learn import memory
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import mlp
from dsnn.run import inspect, schema

TOLERANCE = 0.3
"""Share by which activations and draws may differ from what the compiled program sets aside."""

PLAIN = ("gates.enabled=false", "halting.enabled=false")
POINT = (*PLAIN, "learner=map", "model.noise=none")
CASES: dict[str, tuple[tuple[str, ...], tuple[int, ...], int]] = {
    "points, one layer": ((*POINT, "model.hidden=[96]"), (17, 30), 48),
    "points, three layers": ((*POINT, "model.hidden=[200,300,40]"), (12, 64), 16),
    "posterior, two layers": ((*PLAIN, "model.hidden=[150,150]"), (24, 40), 64),
    "posterior, held inputs": ((*PLAIN, "model.hidden=[256,64]", "train.steps=9"), (300,), 32),
    "points, states of few steps": ((*POINT, "model.hidden=[300]", "train.memory=sqrt"), (64, 30), 48),
    "points, states at every third step": ((*POINT, "model.hidden=[100,60]", "train.memory=3"), (40, 20), 96),
}
"""None of these shapes is among those that the model was fitted to."""


def setup_of(overrides: tuple[str, ...], shape: tuple[int, ...], batch: int) -> Setup:
    rng = np.random.default_rng(0)

    def part(n: int) -> data.Arrays:
        return data.Arrays((rng.random((n, *shape)) < 0.3).astype(np.float32), np.arange(n, dtype=np.int32) % 3)

    split = data.Split(part(2 * batch), part(24), part(24), 3, "made", temporal=len(shape) > 1)
    return build(schema.compose([*overrides, f"train.batch_size={batch}"]), split)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (place > 1)) for place, name in enumerate(CASES)]
)
def test_what_is_reckoned_is_what_the_compiled_step_sets_aside(name: str) -> None:
    overrides, shape, batch = CASES[name]
    setup = setup_of(overrides, shape, batch)
    needed = inspect.training_memory(setup)
    assert needed is not None
    state = jax.eval_shape(setup.learner.init)
    one = learn.Batch(jax.ShapeDtypeStruct((batch, *shape), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32))
    program = (
        jax.jit(setup.learner.step, donate_argnums=0, keep_unused=True).lower(state, one).compile().memory_analysis()
    )
    assert program.argument_size_in_bytes == needed.state + needed.batch
    reckoned = needed.weights + needed.activations
    assert abs(reckoned / program.temp_size_in_bytes - 1) < TOLERANCE, (reckoned, program.temp_size_in_bytes)


def test_the_parts_are_counted_by_hand() -> None:
    model = mlp((6,), (9,), 3, key=jax.random.key(0))
    weights = 4 * (6 * 9 + 9 + 9 * 3 + 3)
    state, batch = {"a": jnp.zeros((2, 3)), "key": jax.random.key(0)}, (jnp.zeros((5, 6)), jnp.zeros(5, jnp.int32))
    needed = memory.step_memory(model, state, batch, steps=7, held=True, samples=2)
    assert needed == memory.StepMemory(
        24 + 8, 4 * 30 + 20, 4 * weights, round(4 * 2 * 5 * (6 + 7 * (2.5 * 12 + 3.25 * 9)))
    )
    assert needed is not None
    assert needed.total == sum(needed)
    fewer = memory.step_memory(model, state, batch, steps=7, held=False, memory=2)
    assert fewer == needed._replace(weights=weights, activations=4 * 5 * (6 * 7 + (4 + 2 * 2) * 12))


def test_a_network_without_layers_has_no_estimate() -> None:
    assert memory.step_memory(Dense(3, 2, key=jax.random.key(0)), {}, (jnp.ones((1, 3)),), steps=2, held=True) is None
    assert isinstance(mlp((3,), (2,), 2, key=jax.random.key(0)).hidden0, Layer)


def test_inspect_says_it_in_one_line(capsys: Any) -> None:
    assert inspect.main(["data=two-moons", "train.batch_size=32"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "a training step needs about" in said
    assert "MB of activations (estimated), the rest draws and the batch." in said
