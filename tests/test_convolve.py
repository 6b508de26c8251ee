"""Gradients of convolutions as matrix products: XLA's own gradients, and no convolution left in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn.networks import convolve as module
from dsnn.networks.convolve import convolve

X = jax.random.normal(jax.random.key(0), (5, 9, 8, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 4, 3, 6))


def by_xla(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("patch_bytes", [2**24, 12000, 1])  # all examples at once, a few, one by one
def test_gradients_are_those_of_xla(monkeypatch, strides, padding, patch_bytes):
    monkeypatch.setattr(module, "PATCH_BYTES", patch_bytes)
    weight = jax.random.normal(jax.random.key(2), by_xla(X, KERNEL, strides, padding).shape)

    def gradients(function):
        return jax.grad(lambda x, k: (weight * function(x, k, strides, padding) ** 2).sum(), (0, 1))(X, KERNEL)

    np.testing.assert_array_equal(convolve(X, KERNEL, strides, padding), by_xla(X, KERNEL, strides, padding))
    for ours, theirs in zip(gradients(convolve), gradients(by_xla), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="patches are for CPUs")
def test_no_convolution_is_left_in_a_gradient():
    def count(function):
        gradient = jax.jit(jax.grad(lambda k: function(X, k, (1, 1), "SAME").sum()))
        return gradient.lower(KERNEL).as_text().count("stablehlo.convolution")

    assert count(by_xla) > 0
    assert count(convolve) == 0
