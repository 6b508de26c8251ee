"""Other precisions than float32, other kinds of keys, stricter rules of JAX, and batches of nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_contracts import AT_ONCE, CELLS

import dsnn
from dsnn import escape
from dsnn.cells import LIF
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, convnet, mlp

KEY = jax.random.key(0)
STEPPING = [name for name in CELLS if name not in AT_ONCE]


def cast(module: Any, dtype: Any) -> Any:
    """Returns a module with its numbers in another dtype, as users cast whole networks."""
    graph, state = nnx.split(module)
    return nnx.merge(
        graph, jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, state)
    )


def loss_and_gradient(network: Any, xs: Any, key: Any) -> tuple[Any, Any]:
    graph, state = nnx.split(network)
    return jax.value_and_grad(lambda state: (dsnn.unroll(nnx.merge(graph, state), xs, key)[0] ** 2).sum())(state)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STEPPING)
def test_f3_every_cell_learns_in_other_precisions(name: str, dtype: str) -> None:
    build, current, noisy = CELLS[name]
    with jax.enable_x64(dtype == "float64"):
        layer = Layer(Dense(4, 5, key=KEY), build(), recurrent_key=KEY)
        network = cast(Stack("mean", hidden=layer), dtype)
        xs = jnp.full((4, 2, 4), current, dtype)
        loss, grads = jax.jit(loss_and_gradient, static_argnums=())(network, xs, KEY if noisy else None)
        assert jnp.isfinite(loss)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
        wanted = {
            leaf.dtype for leaf in jax.tree.leaves(nnx.state(network)) if jnp.issubdtype(leaf.dtype, jnp.floating)
        }
        assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == wanted == {jnp.dtype(dtype)}
        out = dsnn.unroll(cast(build(), dtype), jnp.full((4, 2, 5), current, dtype), KEY if noisy else None)[0]
        assert jnp.isfinite(out).all()


@pytest.mark.parametrize("recurrent", [True, False])
def test_f3_float64_gives_the_spikes_of_float32_where_both_are_exact(recurrent: bool) -> None:
    with jax.enable_x64(True):
        layer = Layer(Dense(4, 5, key=KEY), LIF(0.5, threshold=0.25), recurrent_key=KEY if recurrent else None)
        graph, state = nnx.split(Stack("last", hidden=layer))
        on_grid = jax.tree.map(lambda a: jnp.round(a * 16) / 16, state)
        xs = jnp.round(jax.random.normal(KEY, (8, 3, 4), jnp.float32) * 4) / 4
        each = [
            dsnn.unroll(nnx.merge(graph, jax.tree.map(lambda a, d=d: a.astype(d), on_grid)), xs.astype(d))[0]
            for d in (jnp.float32, jnp.float64)
        ]
    assert each[0].dtype == jnp.float32
    assert each[1].dtype == jnp.float64
    assert 0.05 < each[0].mean() < 0.95
    np.testing.assert_array_equal(*each)


def test_f3_a_float32_network_with_x64_on_is_as_without() -> None:
    network = mlp((4,), (5,), 3, key=KEY)
    xs = jax.random.normal(KEY, (6, 2, 4))
    expected = jax.device_get(loss_and_gradient(network, xs, None))
    with jax.enable_x64(True):
        ours = jax.device_get(loss_and_gradient(network, xs, None))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(ours), jax.tree.leaves(expected))


@pytest.mark.parametrize("noise", [escape.Logistic(0.3), escape.Gaussian(0.3), escape.ThresholdJitter(0.5)])
def test_f15_a_key_of_either_kind_draws_the_same_spikes(noise: Any) -> None:
    xs = jnp.full((9, 3, 5), 0.4)
    cell = LIF(0.9, noise=noise)
    typed, raw = (dsnn.unroll(cell, xs, make(2))[0] for make in (jax.random.key, jax.random.PRNGKey))
    assert 0 < typed.mean() < 1
    np.testing.assert_array_equal(typed, raw)


def test_f15_inputs_in_another_order_of_bytes_are_the_same_numbers() -> None:
    network = mlp((4,), (5,), 3, key=KEY)
    xs = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    for shape in ({}, {"steps": 3}):
        given = xs[0] if shape else xs
        np.testing.assert_array_equal(
            dsnn.unroll(network, given.astype(">f4"), **shape)[0], dsnn.unroll(network, jnp.asarray(given), **shape)[0]
        )


@pytest.mark.parametrize("schedule", ["layer", "step", "associative"])
def test_f15_a_batch_of_nothing_gives_nothing(schedule: str) -> None:
    for network, shape in ((mlp((4,), (5,), 3, key=KEY), (4,)), (convnet((6, 6, 1), (2,), (), 3, key=KEY), (6, 6, 1))):
        xs = jnp.zeros((5, 0, *shape))
        assert dsnn.unroll(network, xs, schedule=schedule)[0].shape == (5, 0, 3)
        assert dsnn.unroll(network, xs[0], steps=5, schedule=schedule)[0].shape == (5, 0, 3)
        graph, state = nnx.split(network)
        grads = jax.grad(lambda s, g=graph, xs=xs: dsnn.unroll(nnx.merge(g, s), xs, schedule=schedule)[0].sum())(state)
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
    assert dsnn.unroll(LIF(0.9), jnp.zeros((5, 0, 3)))[0].shape == (5, 0, 3)


@pytest.mark.parametrize("name", STEPPING)
def test_f15_ranks_are_not_promoted(name: str) -> None:
    build, current, noisy = CELLS[name]
    with jax.numpy_rank_promotion("raise"):
        network = Stack("mean", hidden=Layer(Dense(4, 5, key=KEY), build(), recurrent_key=KEY))
        loss, _ = loss_and_gradient(network, jnp.full((4, 2, 4), current), KEY if noisy else None)
    assert jnp.isfinite(loss)
