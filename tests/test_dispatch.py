"""What runs in C is chosen where a program is lowered, so that a process on a CPU exports for any device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.cells import ALIF, BRF, LIF
from dsnn.native import products
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.parameters import Params, split

pytestmark = pytest.mark.skipif(products.problem() is not None, reason=f"nothing in C: {products.problem()}")
KEY = jax.random.key(0)
CELLS = {
    "lif": lambda n: LIF(jnp.linspace(0.5, 0.9, n), threshold=0.4, learnable=("beta", "threshold")),
    "lif next": lambda n: LIF(tau=4.0, threshold=0.25, reset_timing="next", input_scale="decay", learnable=("tau",)),
    "alif": lambda n: ALIF(0.8, tau_adp=jnp.linspace(5.0, 9.0, n), threshold=0.2, learnable=("tau_adp", "strength")),
    "alif next": lambda n: ALIF(0.8, threshold=0.2, reset_timing="next", learnable=("beta", "threshold")),
    "brf": lambda n: BRF(jnp.linspace(3.0, 8.0, n), 0.5, dt=0.1, threshold=0.05, learnable=("omega", "damping")),
}


def network(name: str) -> Stack:
    """One that runs as a loop in C, one whose products go by events, and one of images."""
    match name:
        case "loop":
            return mlp((6,), (9,), 3, key=KEY, gain=3.0, recurrent=True, cell=CELLS["alif"])
        case "events":
            return mlp((1024,), (64,), 3, key=KEY, gain=3.0, cell=lambda n: LIF(0.9, reset="zero"))
        case _:
            return convnet((8, 8, 1), (3,), (5,), 3, key=KEY, gain=3.0, window=(3, 3))


def functions(name: str) -> dict[str, tuple[Callable[..., jax.Array | Params], tuple[Params, jax.Array]]]:
    """The forward pass, its gradient, and the gradient mapped over networks inside of a scan."""
    model = network(name)
    template, params = split(model)
    xs = (jax.random.uniform(jax.random.key(1), (4, 65, *model.in_shape)) < 0.1) * 1.0

    def forward(params: Params, xs: jax.Array) -> jax.Array:
        return dsnn.unroll(template.build(params), xs)[0]

    def loss(params: Params, xs: jax.Array) -> jax.Array:
        return (forward(params, xs) ** 2).sum()

    def scanned(params: Params, xs: jax.Array) -> Params:
        both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
        return jax.lax.scan(lambda c, _: (jax.vmap(jax.grad(loss), (0, None))(c, xs), None), both, length=2)[0]

    return {each.__name__: (each, (params, xs)) for each in (forward, scanned)} | {
        "back": (jax.grad(loss), (params, xs))
    }


@pytest.mark.parametrize("name", ["loop", "events", "conv"])
@pytest.mark.parametrize("what", ["forward", "back", "scanned"])
def test_b12_a_process_on_a_cpu_exports_for_accelerators(name: str, what: str) -> None:
    function, operands = functions(name)[what]
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(jax.jit(function), platforms=[platform])(*operands)
        assert exported.platforms == (platform,)
        assert "dsnn_" not in exported.mlir_module()
    here = jax.jit(function).lower(*operands).as_text()
    assert {"loop": "dsnn_loops_adaptive", "events": "dsnn_events_", "conv": "dsnn_convolve"}[name] in here


def exported(function: Callable[..., Any], *operands: Any) -> Any:
    """Returns what another device gives: an exported program holds nothing that this process has compiled."""
    program = jax.export.export(jax.jit(function), platforms=["cpu"])(*operands)
    assert "dsnn_" not in program.mlir_module()
    return program.call(*operands)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_b12_other_devices_get_the_numbers_of_the_loops_in_c(cell: str, recurrent: bool) -> None:
    back = jax.random.key(3) if recurrent else None
    layer = Layer(Dense(4, 5, key=KEY, gain=3.0), CELLS[cell](5), recurrent_key=back)
    layer.reads = "membrane" if cell in ("lif next", "brf") else "spikes"
    model = Stack("last", hidden=layer)
    template, params = split(model)
    # on a grid sums are exact in any order
    params = {n: jnp.round(p * 256) / 256 if n.endswith(("kernel", "recurrent")) else p for n, p in params.items()}
    xs = (jax.random.uniform(jax.random.key(1), (15, 3, 4)) < 0.4) * 1.0
    target = jax.random.normal(jax.random.key(2), (15, 3, 5))

    def loss(params: Params, xs: jax.Array) -> tuple[jax.Array, tuple]:
        outputs, final, _ = dsnn.unroll(template.build(params), xs)
        more = sum((leaf * target[k]).sum() for k, leaf in enumerate(jax.tree.leaves(final)))
        return ((outputs - target) ** 2).sum() + more, (outputs, final)

    (_, in_c), expected = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, xs)
    flat = exported(lambda *given: jax.tree.leaves(jax.value_and_grad(loss, (0, 1), has_aux=True)(*given)), params, xs)
    structure = jax.tree.structure(((jnp.zeros(()), in_c), expected))
    (_, ours), grads = jax.tree.unflatten(structure, flat)
    assert float((in_c[0] != 0).mean()) > 0.02
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, in_c)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_b12_other_devices_multiply_densely() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-3, 4, (70, 1024)) * (rng.random((70, 1024)) < 0.05), jnp.float32)
    weights = jnp.asarray(rng.integers(-3, 4, (1024, 64)), jnp.float32)
    for product in (products.product, products.drive):

        def both(x: jax.Array, weights: jax.Array, product: Any = product) -> Any:
            out, pullback = jax.vjp(product, x, weights)
            return out, pullback(out)[1]

        out, by_weights = exported(both, x, weights)
        np.testing.assert_array_equal(out, x @ weights)
        np.testing.assert_array_equal(by_weights, x.T @ out)
    index, value = jnp.asarray([[0, 5], [7, 7]]), jnp.asarray([[1.0, 2.0], [3.0, 0.0]])
    rows = np.asarray(weights)
    np.testing.assert_array_equal(
        exported(products.gather, index, value, weights), [rows[0] + 2 * rows[5], 3 * rows[7]]
    )
