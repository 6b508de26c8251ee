"""Networks that learn by programs in C have every derivative that JAX knows: forward, backward, twice, mapped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.cells import ALIF, BRF, LIF
from dsnn.native import products
from dsnn.native.derivatives import both_ways
from dsnn.networks import convolve
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, convnet
from dsnn.parameters import Params, split
from dsnn.simulate import fused

KEY = jax.random.key(0)
CELLS = {
    "lif": lambda: LIF(0.8, threshold=0.4, learnable=("beta", "threshold")),
    "lif next": lambda: LIF(0.8, threshold=0.4, reset_timing="next", learnable=("beta",)),
    "alif": lambda: ALIF(0.8, threshold=0.2, learnable=("strength",)),
    "brf": lambda: BRF(4.0, 0.5, dt=0.1, threshold=0.05, learnable=("omega", "damping")),
}


def flat(function: Callable[..., Any], params: Params) -> tuple[Callable[[jax.Array], Any], jax.Array]:
    """Returns a function of parameters as one of a vector, and the vector."""
    vector, rebuild = jax.flatten_util.ravel_pytree(params)
    return lambda v: function(rebuild(v)), vector


def network(cell: str, recurrent: bool) -> tuple[Callable[[Params], jax.Array], Params]:
    back = jax.random.key(3) if recurrent else None
    layer = Layer(Dense(3, 4, key=KEY, gain=3.0), CELLS[cell](), recurrent_key=back)
    template, params = split(Stack("last", hidden=layer))
    xs = (jax.random.uniform(jax.random.key(1), (9, 2, 3)) < 0.5) * 1.0
    target = jax.random.normal(jax.random.key(2), (9, 2, 4))
    return lambda params: ((dsnn.unroll(template.build(params), xs)[0] - target) ** 2).sum(), params


SLOW = pytest.mark.slow  # ten seconds each, nearly all compiling: one of each kind is enough for every day
EVERY_DAY = (("lif", True), ("alif", False), ("brf", True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "recurrent"),
    [
        pytest.param(cell, recurrent, marks=[] if (cell, recurrent) in EVERY_DAY else [SLOW])
        for cell in CELLS
        for recurrent in (True, False)
    ],
)
def test_f15_forward_and_second_derivatives_are_those_of_the_scan(
    cell: str, recurrent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if products.problem() is not None:
        pytest.skip(f"nothing in C: {products.problem()}")
    loss, at = flat(*network(cell, recurrent))
    along = jax.random.normal(jax.random.key(5), at.shape)

    def all_of() -> Any:
        return (
            jax.jit(jax.grad(loss))(at),
            jax.jit(lambda v: jax.jvp(loss, (at,), (v,)))(along)[1],
            jax.jit(jax.jacfwd(loss))(at),
            jax.jit(lambda v: jax.jvp(jax.grad(loss), (at,), (v,)))(along)[1],
            jax.jit(jax.hessian(loss))(at),
            jax.jit(jax.vmap(jax.grad(loss)))(jnp.stack([at, at])),
            jax.jit(jax.jacrev(jax.grad(loss)))(at),
        )

    calls = str(jax.jit(jax.grad(loss)).lower(at).as_text())
    assert "dsnn_loops_" in calls
    ours = all_of()
    monkeypatch.setattr(fused, "supports", lambda layer, currents: False)
    jax.clear_caches()
    plain = all_of()
    for k, (one, other) in enumerate(zip(ours, plain, strict=True)):
        scale = float(jnp.abs(other).max())
        assert scale > 0.1, k
        np.testing.assert_allclose(one, other, atol=2e-4 * scale, err_msg=str(k))


def test_f15_a_convolutional_network_and_products_by_events_have_a_jvp_and_a_hessian() -> None:
    template, params = split(convnet((6, 6, 1), (2,), (), 3, key=KEY))
    xs = jax.random.uniform(jax.random.key(1), (4, 2, 6, 6, 1))
    loss, at = flat(lambda params: (dsnn.unroll(template.build(params), xs)[0] ** 2).sum(), params)
    along = jax.random.normal(jax.random.key(5), at.shape)
    _, forward = jax.jvp(loss, (at,), (along,))
    np.testing.assert_allclose(forward, jax.grad(loss)(at) @ along, rtol=1e-4)
    assert jax.jit(lambda v: jax.jvp(jax.grad(loss), (at,), (v,))[1])(along).shape == at.shape

    x = (jax.random.uniform(KEY, (70, 1024)) < 0.05) * 1.0
    weights = jax.random.normal(jax.random.key(1), (1024, 64))
    x_dot, w_dot = jax.random.normal(jax.random.key(2), x.shape), jax.random.normal(jax.random.key(3), weights.shape)
    for product in (products.product, products.drive) if products.problem() is None else (products.product,):
        _, tangent = jax.jvp(product, (x, weights), (x_dot, w_dot))
        np.testing.assert_allclose(tangent, x_dot @ weights + x @ w_dot, rtol=1e-4, atol=1e-3)


def test_f15_a_gathered_product_has_a_jvp() -> None:
    index, value = jnp.asarray([[0, 5], [7, 7]]), jnp.asarray([[1.0, 2.0], [3.0, 0.5]])
    weights = jax.random.normal(KEY, (9, 4))
    dense = jnp.zeros((2, 9)).at[0, 0].set(1.0).at[0, 5].set(2.0).at[1, 7].set(3.5)
    _, tangent = jax.jvp(lambda w: products.gather(index, value, w), (weights,), (weights + 1,))
    np.testing.assert_allclose(tangent, dense @ (weights + 1), rtol=1e-6)
    _, tangent = jax.jvp(lambda v: products.gather(index, v, weights), (value,), (jnp.ones_like(value),))
    np.testing.assert_allclose(tangent, [weights[0] + weights[5], 2 * weights[7]], rtol=1e-6)


def test_convolutions_have_the_derivatives_of_the_plain_one() -> None:
    x, kernel = jax.random.normal(KEY, (2, 5, 5, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 3))

    def loss(convolution: Callable[..., jax.Array], kernel: jax.Array) -> jax.Array:
        return jnp.tanh(convolution(x, kernel)).sum()

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    ours, expected = (jax.hessian(lambda kernel, c=c: loss(c, kernel))(kernel) for c in (convolve.convolve, plain))
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_both_ways_holds_in_any_order_for_a_function_known_exactly() -> None:
    def forward(x: jax.Array, n: jax.Array) -> tuple[jax.Array, Any]:
        return x**3 * n, (x, n)

    def backward(kept: Any, change: jax.Array) -> tuple[jax.Array, None]:
        x, n = kept
        return 3 * jax.lax.stop_gradient(x) ** 2 * n * change, None  # its own derivative is wrong: nothing may use it

    def run(x: jax.Array, n: jax.Array) -> jax.Array:
        return x**3 * n

    cube = both_ways(forward, backward, run)
    x, n = jnp.float32(2.0), jnp.int32(5)
    of = lambda x: cube(x, n)  # noqa: E731
    assert of(x) == 40
    for first in (jax.grad, jax.jacfwd):
        assert first(of)(x) == 60
        for second in (jax.grad, jax.jacfwd):
            assert second(first(of))(x) == 60
            assert jax.jit(second(second(first(of))))(x) == 30
    assert (jax.vmap(jax.grad(of))(jnp.asarray([1.0, 2.0])) == jnp.asarray([15.0, 60.0])).all()
    assert (jax.vmap(jax.grad(cube), (None, 0))(x, jnp.asarray([1, 2])) == jnp.asarray([12.0, 24.0])).all()
    assert jax.grad(jax.checkpoint(lambda x: jnp.sin(of(x))))(x) == pytest.approx(60 * np.cos(40), rel=1e-4)
    assert jax.linear_transpose(lambda t: jax.jvp(of, (x,), (t,))[1], x)(jnp.float32(1.0))[0] == 60


@pytest.mark.parametrize("noise", [None, escape.Logistic(0.3)])
def test_second_derivatives_of_spikes_in_a_scan_are_those_of_the_loop_written_out(noise: Any) -> None:
    cell, key = LIF(0.8, threshold=0.4, noise=noise), None if noise is None else KEY
    xs, target = jax.random.normal(KEY, (4, 2)), jax.random.normal(jax.random.key(1), (4, 2))

    def scanned(xs: jax.Array) -> jax.Array:
        return ((dsnn.unroll(cell, xs, key)[0] - target) ** 2).sum()

    def written_out(xs: jax.Array) -> jax.Array:
        state, total = cell.init((2,)), 0.0
        for t, x in enumerate(xs):
            state, spikes = cell.step(state, x, None if key is None else jax.random.fold_in(key, t))
            total = total + ((spikes - target[t]) ** 2).sum()
        return total

    ours, expected = (jax.hessian(function)(xs) for function in (scanned, written_out))
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_gradients_have_the_dtype_of_what_they_are_of_and_leak_nothing() -> None:
    from dsnn.networks.layers import multiply

    x, kernel = jax.random.normal(KEY, (4, 6), jnp.bfloat16), jax.random.normal(KEY, (6, 5), jnp.bfloat16)
    for dtype in ("bfloat16", None):
        grads = jax.jit(jax.grad(lambda x, k, d=dtype: multiply(x, k, "dense", d).sum(), (0, 1)))(x, kernel)
        assert {g.dtype for g in grads} == {jnp.dtype("bfloat16")}
    wide = jax.random.normal(KEY, (70, 1024)), jax.random.normal(KEY, (1024, 64))
    layer = Layer(Dense(3, 4, key=KEY), LIF(0.8), recurrent_key=KEY)
    template, params = split(Stack("last", hidden=layer))
    with jax.checking_leaks():
        jax.grad(lambda x, w: products.product(x, w).sum(), (0, 1))(*wide)
        jax.grad(lambda p: dsnn.unroll(template.build(p), jnp.ones((4, 2, 3)))[0].sum())(params)


def test_a_spike_is_differentiated_on_a_row_of_devices() -> None:
    from jax.sharding import Mesh, PartitionSpec

    from dsnn.surrogate import heaviside

    u = jnp.asarray([-1.0, 0.5])
    row = Mesh(np.asarray(jax.devices()[:1]), ("d",))
    spec = PartitionSpec("d")
    along = jax.shard_map(lambda u: jax.grad(lambda u: heaviside(u).sum())(u), mesh=row, in_specs=spec, out_specs=spec)
    np.testing.assert_allclose(along(u), jax.grad(lambda u: heaviside(u).sum())(u))
