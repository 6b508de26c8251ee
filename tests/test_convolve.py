"""Convolutions and gradients: a sum in double precision, and patches where nothing in C does them."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn.native import convolutions
from dsnn.native.library import problem
from dsnn.networks import convolve as module
from dsnn.networks.convolve import convolve

X = jax.random.normal(jax.random.key(0), (5, 9, 8, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 4, 3, 6))
in_c = pytest.mark.skipif(problem() is not None, reason=f"nothing in C: {problem()}")


def by_xla(x, kernel, strides=(1, 1), padding="SAME"):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def all_of(function, x, kernel, grad, strides=(1, 1), padding="SAME"):
    """The convolution and both gradients."""
    out, pullback = jax.vjp(lambda x, k: function(x, k, strides, padding), x, kernel)
    return out, *pullback(grad)


def by_hand(x, kernel, grad, strides, padding):
    """The same, tap by tap in double precision."""
    x, kernel, grad = (np.asarray(a, np.float64) for a in (x, kernel, grad))
    rows, columns = kernel.shape[:2]
    sizes = grad.shape[1:3]
    around = [(0, 0), (0, 0)]
    if padding == "SAME":
        for axis, (out, s, k) in enumerate(zip(sizes, strides, (rows, columns), strict=True)):
            total = max((out - 1) * s + k - x.shape[1 + axis], 0)
            around[axis] = (total // 2, total - total // 2)
    padded = np.pad(x, ((0, 0), *around, (0, 0)))
    out, to_padded, to_kernel = np.zeros(grad.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for r in range(rows):
        for c in range(columns):
            at = (slice(None), slice(r, r + (sizes[0] - 1) * strides[0] + 1, strides[0]))
            at += (slice(c, c + (sizes[1] - 1) * strides[1] + 1, strides[1]),)
            out += padded[at] @ kernel[r, c]
            to_padded[at] += grad @ kernel[r, c].T
            to_kernel[r, c] = np.einsum("bijc,bijf->cf", padded[at], grad)
    (top, _), (left, _) = around
    return out, to_padded[:, top : top + x.shape[1], left : left + x.shape[2]], to_kernel


SHAPES = [  # batch, height, width, channels, window, features, strides
    (2, 6, 7, 1, (3, 3), 9, (1, 1)),
    (1, 12, 12, 20, (5, 5), 50, (1, 1)),
    (3, 9, 8, 3, (3, 4), 17, (2, 1)),
    (5, 5, 7, 9, (2, 2), 33, (2, 3)),
    (2, 4, 4, 16, (1, 1), 16, (1, 1)),
    (4, 5, 5, 17, (1, 1), 3, (2, 2)),
    (2, 8, 3, 33, (3, 3), 1, (3, 3)),
    (1, 3, 3, 2, (3, 3), 70, (1, 1)),
    (40, 4, 5, 2, (2, 3), 3, (1, 2)),
    (2, 3, 4, 200, (3, 3), 130, (1, 1)),
    (1, 40, 1, 3, (7, 1), 2, (1, 1)),
]


@in_c
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_are_those_of_double_precision(shape, padding):
    batch, height, width, channels, window, features, strides = shape
    rng = np.random.default_rng(0)

    def checked(draw, **tolerance):
        x, kernel = draw((batch, height, width, channels)), draw((*window, channels, features))
        out = jax.eval_shape(lambda x, k: by_xla(x, k, strides, padding), x, kernel)
        grad = draw(out.shape)
        found = jax.jit(lambda *given: all_of(convolve, *given, strides, padding))(x, kernel, grad)
        for ours, exact in zip(found, by_hand(x, kernel, grad, strides, padding), strict=True):
            np.testing.assert_allclose(ours, exact, **tolerance)

    checked(
        lambda shape: jnp.asarray(rng.integers(-4, 5, shape), jnp.float32), rtol=0, atol=0
    )  # whole numbers are exact
    checked(lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32), rtol=1e-4, atol=1e-4)


@in_c
def test_programs_hold_the_c_program_and_the_gradient_no_convolution():
    gradients = jax.jit(jax.grad(lambda x, k: (convolve(x, k) ** 2).sum(), (0, 1))).lower(X, KERNEL).as_text()
    assert gradients.count("dsnn_convolve_kernel") == 1
    assert gradients.count("stablehlo.convolution") == 0


@in_c
def test_mapped_scanned_and_differentiated_both_ways():
    kernels, grad = jnp.stack([KERNEL, -2 * KERNEL]), jnp.cos(jnp.arange(5.0 * 9 * 8 * 6)).reshape(5, 9, 8, 6)

    def loss(function, kernel, x):
        return (grad * jnp.tanh(function(x, kernel))).sum()

    def mapped(function):
        one = jax.grad(lambda kernel, x: loss(function, kernel, x), (0, 1))
        both = jax.vmap(one, (0, None))(kernels, X)
        inside = jax.lax.scan(lambda c, k: (c + one(k, X)[0], None), jnp.zeros_like(KERNEL), kernels)[0]
        forward = jax.jvp(lambda k: loss(function, k, X), (KERNEL,), (jnp.ones_like(KERNEL),))[1]
        curvature = jax.jvp(jax.grad(lambda k: loss(function, k, X)), (KERNEL,), (KERNEL,))[1]
        return both, inside, forward, curvature

    for ours, theirs in zip(jax.tree.leaves(mapped(convolve)), jax.tree.leaves(mapped(by_xla)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-4 * float(jnp.abs(theirs).max()))


@in_c
def test_what_is_not_finite_reaches_the_windows_that_see_it_and_no_others():
    x = X.at[2, 4, 4, 1].set(jnp.nan).at[3, 0, 0, 0].set(jnp.inf)
    ours, theirs = convolve(x, KERNEL), by_xla(x, KERNEL)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))
    assert 0 < np.isnan(ours).sum() == 3 * 4 * 6


@in_c
def test_an_empty_batch_gives_no_images_and_a_gradient_of_zero():
    out, to_x, to_kernel = all_of(convolve, X[:0], KERNEL, jnp.zeros((0, 9, 8, 6)))
    assert out.shape == (0, 9, 8, 6)
    assert to_x.shape == (0, 9, 8, 3)
    np.testing.assert_array_equal(to_kernel, jnp.zeros_like(KERNEL))


PROCESS = """
import hashlib, os, resource, sys
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))
import jax, jax.numpy as jnp
from dsnn.networks.convolve import convolve

def gradients(x, k):
    out, pullback = jax.vjp(convolve, x, k)
    return out, *pullback(out)  # no sum of XLA's, which goes by threads

for shape, kernel in (((37, 9, 10, 5), (3, 3, 5, 19)), ((1, 12, 12, 20), (5, 5, 20, 50))):
    given = (jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), kernel))
    out = jax.jit(gradients)(*given)
    print(hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(jax.device_get(out)))).hexdigest())
x, k = jnp.ones((4096, 28, 28, 8)), jnp.ones((5, 5, 8, 8))
jax.block_until_ready(jax.jit(gradients)(x[:1], k))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jax.block_until_ready(jax.jit(gradients)(x, k))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / x.nbytes)
"""


@in_c
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are counted by affinity")
def test_results_do_not_depend_on_threads_and_a_large_batch_needs_no_patches():
    def told(threads):
        command = [sys.executable, "-c", PROCESS, str(threads)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()

    one, many = told(1), told(len(os.sched_getaffinity(0)))
    assert one[:2] == many[:2]
    # patches would be 25 times as large as the images; output and gradients are as large as these
    assert float(one[2]) < 8


@pytest.fixture
def in_jax(monkeypatch):
    monkeypatch.setattr(convolutions, "worthwhile", lambda *_: False)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("patch_bytes", [2**24, 12000, 1])  # all examples at once, a few, one by one
@pytest.mark.usefixtures("in_jax")
def test_gradients_by_patches_are_those_of_xla(monkeypatch, strides, padding, patch_bytes):
    monkeypatch.setattr(module, "PATCH_BYTES", patch_bytes)
    weight = jax.random.normal(jax.random.key(2), by_xla(X, KERNEL, strides, padding).shape)

    def gradients(function):
        return jax.grad(lambda x, k: (weight * function(x, k, strides, padding) ** 2).sum(), (0, 1))(X, KERNEL)

    np.testing.assert_array_equal(convolve(X, KERNEL, strides, padding), by_xla(X, KERNEL, strides, padding))
    for ours, theirs in zip(gradients(convolve), gradients(by_xla), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="patches are for CPUs")
@pytest.mark.usefixtures("in_jax")
def test_no_convolution_is_left_in_a_gradient_by_patches():
    def count(function):
        gradient = jax.jit(jax.grad(lambda k: function(X, k, (1, 1), "SAME").sum()))
        return gradient.lower(KERNEL).as_text().count("stablehlo.convolution")

    assert count(by_xla) > 0
    assert count(convolve) == 0


def test_other_dtypes_are_left_to_xla():
    x, kernel = X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)
    np.testing.assert_array_equal(convolve(x, kernel), by_xla(x, kernel))
