"""Event-driven products are the dense ones, forward and backward, and nobody has to have a compiler."""

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import parameters
from dsnn.cells import LIF
from dsnn.native import library, products
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack

HERE = pytest.mark.skipif(products.problem() is not None, reason=f"event-driven products: {products.problem()}")
KEY = jax.random.key(0)


def sparse(shape: tuple[int, ...], density: float, seed: int = 0, binary: bool = False) -> jax.Array:
    rng = np.random.default_rng(seed)
    values = np.ones(shape) if binary else rng.standard_normal(shape)
    return jnp.asarray(values * (rng.random(shape) < density), jnp.float32)


def whole(shape: tuple[int, ...], seed: int) -> jax.Array:
    """Small integers: their products and sums are exact in float32 in any order."""
    return jnp.asarray(np.random.default_rng(seed).integers(-8, 9, shape), jnp.float32)


# tiles of 64 columns, groups of 16 inputs, parts of 32 rows and blocks of 2048: below, at and beyond each
SHAPES = list(itertools.product((1, 31, 33, 2049), (1, 16, 37), (1, 64, 67, 130)))


@HERE
@pytest.mark.parametrize(("rows", "inputs", "neurons"), SHAPES)
def test_product_and_weight_gradient_are_the_dense_ones_to_the_bit(rows: int, inputs: int, neurons: int) -> None:
    x = whole((rows, inputs), 1) * sparse((rows, inputs), 0.3, 2, binary=True)
    weights, grad = whole((inputs, neurons), 3), whole((rows, neurons), 4)
    out, pullback = jax.vjp(products.drive, x, weights)
    to_x, to_weights = pullback(grad)
    np.testing.assert_array_equal(out, np.float64(x) @ np.float64(weights))
    np.testing.assert_array_equal(to_x, np.float64(grad) @ np.float64(weights).T)
    np.testing.assert_array_equal(to_weights, np.float64(x).T @ np.float64(grad))


@HERE
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_no_event_and_nothing_but_events(density: float) -> None:
    x, weights = whole((40, 20), 1) * density, whole((20, 70), 2)
    np.testing.assert_array_equal(products.drive(x, weights), np.float64(x) @ np.float64(weights))


@HERE
def test_minus_zero_is_no_event_and_nan_is_one() -> None:
    weights = jnp.full((20, 64), jnp.inf)
    assert not products.drive(jnp.full((2, 20), -0.0), weights).any()
    assert jnp.isnan(products.drive(jnp.full((1, 20), jnp.nan), jnp.ones((20, 64)))).all()


NOT_FINITE = (jnp.nan, jnp.inf, -jnp.inf)


@HERE
@pytest.mark.parametrize("value", NOT_FINITE)
def test_b9_no_input_that_is_not_finite_is_lost(value: float) -> None:
    """As an event, alone in its row or beside others, it reaches the outputs and the weights' gradient."""
    x = sparse((96, 1024), 0.02).at[5, 1023].set(value)
    weights = sparse((1024, 64), 1.0, 1)
    for product in (products.drive, products.product):
        out, pullback = jax.vjp(product, x, weights)
        np.testing.assert_array_equal(jnp.isnan(out), jnp.isnan(x @ weights))
        np.testing.assert_array_equal(jnp.isinf(out), jnp.isinf(x @ weights))
        assert not jnp.isfinite(out[5]).any()
        assert jnp.isfinite(jnp.delete(out, 5, 0)).all()
        to_weights = pullback(jnp.ones_like(out))[1]
        assert not jnp.isfinite(to_weights[1023]).any()
        assert jnp.isfinite(to_weights[:1023]).all()
    row = products.gather(jnp.asarray([[3, 7]]), jnp.asarray([[1.0, value]]), weights)
    assert not jnp.isfinite(row).any()


@HERE
@pytest.mark.parametrize("value", NOT_FINITE)
def test_b9_what_is_not_finite_and_meets_no_event_is_not_read(value: float) -> None:
    """0 times it is NaN in a dense product; by events it is 0, in the output and in the gradient of the weights."""
    x = sparse((96, 1024), 0.02).at[:, 7].set(0.0).at[5].set(0.0)
    weights = sparse((1024, 64), 1.0, 1).at[7].set(value)
    grad = jnp.ones((96, 64)).at[5].set(value)
    assert jnp.isnan(x @ weights).all()
    assert jnp.isnan(x.T @ grad).all()
    without = jnp.where(jnp.arange(1024)[:, None] == 7, 0.0, weights)
    for product in (products.drive, products.product):
        out, pullback = jax.vjp(product, x, weights)
        np.testing.assert_allclose(out, x @ without, atol=2e-4)
        np.testing.assert_allclose(pullback(grad)[1], x.T @ jnp.ones_like(grad), atol=2e-3)


@HERE
@pytest.mark.parametrize("compiled", [True, False])
def test_b9_an_event_of_value_zero_is_none_with_and_without_the_library(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(products, "problem", lambda: "no compiler")
    weights = jnp.ones((4, 64)).at[2].set(jnp.inf)
    index, values = jnp.asarray([[1, 2], [2, 0]]), jnp.asarray([[3.0, 0.0], [-0.0, 2.0]])
    out, pullback = jax.vjp(lambda w: products.gather(index, values, w), weights)
    np.testing.assert_array_equal(out, [[3.0] * 64, [2.0] * 64])
    np.testing.assert_array_equal(pullback(jnp.full((2, 64), jnp.inf))[0][2], 0.0)


@HERE
@pytest.mark.parametrize("density", [0.02, 0.6])
def test_the_choice_at_run_time_changes_no_number(density: float) -> None:
    x, weights = sparse((96, 1024), density), sparse((1024, 64), 1.0, 1)
    dense, dense_back = jax.vjp(lambda x, w: x @ w, x, weights)
    chosen, chosen_back = jax.vjp(jax.jit(products.product), x, weights)
    np.testing.assert_allclose(chosen, dense, atol=2e-4)
    for ours, theirs in zip(chosen_back(dense), dense_back(dense), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


@HERE
def test_the_choice_follows_the_density() -> None:
    """One nonfinite weight that no event selects tells which product ran: 0 * inf is nan in a dense one."""
    weights = jnp.ones((1024, 64)).at[7].set(jnp.inf)
    for density, ran_events in ((products.BREAK_EVEN / 2, True), (2 * products.BREAK_EVEN, False)):
        x = sparse((64, 1024), density, 5).at[:, 7].set(0.0)
        assert bool(jnp.isfinite(products.product(x, weights)).all()) == ran_events, density


@HERE
def test_a_narrow_layer_compiles_to_the_dense_product_and_nothing_else() -> None:
    x = jnp.ones((8, 2048))
    narrow, wide = (jax.jit(products.product).lower(x, jnp.ones((2048, n))).as_text() for n in (32, 64))
    assert "dsnn_events" not in narrow
    assert narrow.count("dot_general") == 1
    assert "dsnn_events" in wide


@HERE
def test_mapped_weights_and_mapped_inputs() -> None:
    x, weights = whole((3, 5, 33), 1), whole((3, 33, 70), 2)
    exact = np.einsum("sri,sin->srn", np.float64(x), np.float64(weights))
    np.testing.assert_array_equal(jax.vmap(products.drive)(x, weights), exact)
    shared = jax.vmap(products.drive, (None, 0))(x[0], weights)
    np.testing.assert_array_equal(shared, np.einsum("ri,sin->srn", np.float64(x[0]), np.float64(weights)))


@HERE
def test_a_network_learns_the_same_with_either_product() -> None:
    def gradient(product: str) -> dict[str, jax.Array]:
        layers = {
            name: Layer(Dense(n, m, key=jax.random.fold_in(KEY, n), gain=3.0, product=product), LIF(beta=0.9))
            for name, n, m in (("first", 40, 70), ("last", 70, 5))
        }
        template, params = parameters.split(Stack(**layers))
        xs = sparse((12, 8, 40), 0.1, binary=True)
        return jax.grad(lambda p: (dsnn.unroll(template.build(p), xs)[0] * jnp.arange(5.0)).sum())(params)

    dense, sparse_ = gradient("dense"), gradient("events")
    assert jnp.abs(dense["first.synapse.kernel"]).max() > 1
    for name in dense:
        np.testing.assert_allclose(sparse_[name], dense[name], rtol=1e-4, atol=1e-4)


def test_a_machine_without_a_compiler_keeps_the_dense_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    reason = library._problem.__wrapped__()
    assert reason is not None
    assert "compiler" in reason
    monkeypatch.setattr(products, "problem", lambda: reason)
    assert not products.worthwhile(jnp.ones((1024, 1024)))
    x, weights = whole((64, 1024), 1), whole((1024, 64), 2)
    assert "ffi_call" not in str(jax.make_jaxpr(jax.grad(lambda w: products.product(x, w).sum()))(weights))
    np.testing.assert_array_equal(products.product(x, weights), np.float64(x) @ np.float64(weights))
    with pytest.raises(RuntimeError, match=r'install gcc or clang.*product="dense"'):
        Dense(4, 3, key=KEY, product="events")(jnp.ones((2, 4)))


@HERE
def test_a_compiler_that_fails_gives_its_first_line(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such header" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "no such header" in str(library._problem.__wrapped__())
    assert not list((tmp_path / "dsnn").iterdir())


@HERE
def test_a_folder_that_others_can_write_to_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "dsnn").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for mode, trusted in ((0o777, False), (0o700, True)):
        (tmp_path / "dsnn").chmod(mode)
        with library._folder() as folder:
            assert (folder == tmp_path / "dsnn") == trusted
            assert folder.is_dir()
        assert folder.exists() == trusted, "a folder of this process alone must not be left behind"


PROGRAM = """
import jax, jax.numpy as jnp, os, pathlib
from dsnn.native import products
x, w = jnp.eye(128, 1024), jnp.ones((1024, 64)).at[200].set(jnp.inf)
print(products.problem(), bool(jnp.isfinite(jax.jit(products.product)(x, w)).all()))
"""


@pytest.mark.slow
@HERE
def test_processes_that_compile_at_the_same_time_leave_one_library_of_each(tmp_path) -> None:  # type: ignore[no-untyped-def]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    options = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", PROGRAM], **options) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert out == "None True\n", err
    kinds = ["convolutions", "decide", "events", "loops", "membranes"]
    assert sorted(file.name.split("-")[0] for file in (tmp_path / "dsnn").iterdir()) == kinds


@HERE
def test_every_transformation_gives_the_dense_numbers() -> None:
    x, weights = whole((3, 70, 1024), 1) * sparse((3, 70, 1024), 0.05, 2, binary=True), whole((1024, 64), 3)
    exact = np.einsum("sri,in->srn", np.float64(x), np.float64(weights))
    to_weights = np.einsum("sri,srn->in", np.float64(x), exact)

    def loss(weights: jax.Array, x: jax.Array) -> jax.Array:
        return (products.product(x, weights) ** 2 / 2).sum()

    def scanned(weights: jax.Array) -> jax.Array:
        body = jax.checkpoint(lambda total, x: (total + loss(weights, x), None))
        return jax.lax.scan(body, 0.0, x)[0]

    np.testing.assert_array_equal(jax.jit(jax.vmap(products.product, (0, None)))(x, weights), exact)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(weights, x).sum(0), to_weights)
    np.testing.assert_array_equal(jax.jit(jax.grad(scanned))(weights), to_weights)
    nested = jax.vmap(jax.vmap(products.product, (0, None)), (None, 0))
    np.testing.assert_array_equal(nested(x[:2, :5], jnp.stack([weights, 2 * weights]))[1], 2 * exact[:2, :5])


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from dsnn.native import products
x = jnp.asarray(np.random.default_rng(0).random((128, 1024)) < 0.05, jnp.float32)
w = jnp.asarray(np.random.default_rng(1).integers(-4, 5, (1024, 64)), jnp.float32)
exact = np.asarray(x) @ np.asarray(w)
mesh = Mesh(np.array(jax.devices()), ("batch",))
loss = lambda w, x: (products.product(x, w) ** 2 / 2).sum()
split = jax.device_put(x, NamedSharding(mesh, P("batch")))
assert np.array_equal(jax.jit(products.product)(split, w), exact)
assert np.array_equal(jax.jit(jax.grad(loss))(w, split), np.asarray(x).T @ exact)
parts = jax.pmap(products.product, in_axes=(0, None))(x.reshape(2, 64, 1024), w)
assert np.array_equal(parts.reshape(exact.shape), exact)
print(len(jax.devices()))
"""


@HERE
def test_arrays_that_are_spread_over_devices() -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr


@HERE
@pytest.mark.parametrize("source", [library.SOURCE, library.LOOPS, library.DECIDE], ids=lambda path: path.name)
@pytest.mark.parametrize("flags", [[], ["-O3", "-march=native"]], ids=["plain", "native"])
def test_the_sources_compile_without_a_warning(source, flags, tmp_path) -> None:  # type: ignore[no-untyped-def]
    command = ["cc", *flags, "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", "-o", str(tmp_path / "a.o"), str(source)]
    headers = ["-I", str(library.HERE), "-isystem", jax.ffi.include_dir()]
    subprocess.run([*command, *headers], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"product": "sparse"}, "product must be one of auto, dense, events, got 'sparse'"),
        ({"product": "events", "dtype": "bfloat16"}, "computes in float32, got dtype='bfloat16'"),
    ],
)
def test_misfits_get_a_sentence(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dense(4, 3, key=KEY, **options)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86")
def test_processors_with_narrower_vectors_give_the_same_numbers() -> None:
    """What tests say of the C programs holds where registers are narrower, since the code is another one there."""
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("decide", "events", "recurrence")]
    compiler = os.environ.get("CC", "cc")
    for flags in ("-mno-avx512f", "-mno-avx512f -mno-avx"):
        environment = {**os.environ, "CC": f"{compiler} {flags}"}
        built = "from dsnn.native.products import library; raise SystemExit(library.problem())"
        done = subprocess.run(
            [sys.executable, "-c", built], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr  # tests of what could not be built are skipped
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
