"""Compositions of deep networks that went wrong once: each is one sentence, or right."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.bayes.sites import magnitudes, sites
from dsnn.cells import LI, LIF
from dsnn.deploy import fused_inference
from dsnn.networks import AdaptivePool, BatchNorm, Chain, Conv, Dense, Layer, Pool, Residual, Stack, TokenExit, Whole
from dsnn.networks.compact import compact
from dsnn.networks.narrow import outermost
from dsnn.networks.tokens import tokens_left
from dsnn.parameters import split

KEY = jax.random.key(0)
SHAPE = (4, 4, 3)


def layer(shape: tuple[int, int, int] = SHAPE, seed: int = 1) -> Layer:
    conv = Conv(shape, 3, key=jax.random.key(seed), window=(1, 1), gain=3.0)
    return Layer(conv, LIF(beta=0.9, surrogate="atan"))


def answered(body: Any) -> Chain:
    readout = Layer(Dense(SHAPE, 2, key=KEY), LI(beta=0.9))
    return Chain(stem=layer(), part=body, readout=readout)


def test_a_window_that_sees_padding_alone_is_not_for_the_fused_program() -> None:
    first = Layer(Conv((5, 4, 2), 3, key=KEY, window=1), LIF(beta=0.9))
    second = Layer(Conv((5, 4, 3), 3, key=KEY, window=1, padding=2), LIF(beta=0.9))
    hidden, readout = Layer(Dense((9, 8, 3), 7, key=KEY), LIF(beta=0.9)), Layer(Dense(7, 2, key=KEY), LI(beta=0.9))
    assert not fused_inference.supports(Stack(first=first, second=second, hidden=hidden, readout=readout))


def test_tokens_that_rejoin_in_a_block_share_its_channels() -> None:
    exit_ = TokenExit(SHAPE, Residual(layer(tokens_left(SHAPE, 0.5))), key=KEY, rejoin=True)
    network = answered(Residual(Chain(x=layer(seed=2), leave=exit_)))
    model = Whole(network)
    z = {group: jnp.ones(size) for group, size in sites(model).groups.items()}
    z["stem"] = z["stem"].at[1].set(0.0)
    x = jax.random.uniform(KEY, (5, *SHAPE))
    small = compact(model, z)
    assert dsnn.unroll(small, x, steps=3)[0].shape == (3, 5, 2)
    assert "stem" not in Chain(stem=layer(), leave=exit_).wiring().groups, "what answers cannot be spared"


def test_a_block_within_one_that_leaves_leaves_with_it() -> None:
    outer = Residual(Chain(inner=Residual(layer(seed=2)), last=layer(seed=3)))
    model = Whole(answered(Chain(first=outer, second=Residual(layer(seed=4)))))
    for stays, found in (([0, 1, 1], [0, 0, 1]), ([1, 0, 1], [1, 0, 1]), ([1, 1, 0], [1, 1, 0])):
        assert outermost(model, "residual", np.asarray(stays, bool)).tolist() == [bool(one) for one in found]


def test_the_magnitude_of_a_block_is_that_of_its_weights() -> None:
    model = Whole(answered(Chain(first=Residual(layer(seed=2)), second=Residual(layer(seed=3)))))
    where, params = sites(model), split(model)[1]
    heavy = "network.part.second.body.synapse.kernel"
    params = params | {heavy: 5 * params[heavy]}
    events = {wire.name: jnp.full(wire.pre_sites, 0.25) for wire in where.wires}
    scores = magnitudes(where, params, events)["residual"]
    exact = [
        0.5 * float(jnp.sqrt((params[f"network.part.{name}.body.synapse.kernel"] ** 2).sum()))
        for name in ("first", "second")
    ]
    np.testing.assert_allclose(scores, exact, rtol=1e-6)


def test_statistics_of_skipped_steps_are_those_of_the_steps_that_ran() -> None:
    norm, x = BatchNorm(2), jax.random.normal(KEY, (4, 3, 2))
    some = norm.trained(x, jnp.asarray([1.0, 0.0, 1.0, 0.0])).statistics
    alone = norm.trained(x[jnp.asarray([0, 2])]).statistics
    for name, value in alone.items():
        np.testing.assert_allclose(some[name], value, rtol=1e-5)
    none = norm.trained(x, jnp.zeros(4)).statistics
    np.testing.assert_array_equal(none["variance"], norm.variance[...])


def test_numbers_are_taken_for_both_axes_as_in_pytorch() -> None:
    conv = Conv((8, 8, 1), 2, key=KEY, window=3, strides=2, padding=1, dilation=1)
    assert (conv.out_shape, conv.window, conv.strides) == ((4, 4, 2), (3, 3), (2, 2))
    assert Pool((8, 8, 2), 2).out_shape == (4, 4, 2)
    assert AdaptivePool((8, 8, 2), 1).out_shape == (1, 1, 2)
    assert tokens_left((7, 7, 2), 1e-9)[0] == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Conv((8, 8, 1), 2, key=KEY, window=(3, 3, 3)), "window must be a positive integer, or two"),
        (lambda: Conv((8, 8, 1), 2, key=KEY, padding=True), "padding must be"),
        (lambda: Conv((8, 8, 1), 2, key=KEY, padding=(1, None)), "padding must be"),
        (lambda: Pool((4, 4), 2), "in_shape must be"),
        (lambda: TokenExit((4, 4), layer(), key=KEY), "tokens are the places of a feature map"),
        (lambda: Residual(None), "a part must be a Layer"),
        (lambda: dsnn.networks.zoo.spikformer_4_256((8, 8, 1), 2, key=KEY, width=8, token_share="half"), "token_share"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def test_norms_of_the_zoo_go_by_name_with_their_options() -> None:
    make = dsnn.networks.zoo.csnn
    network = make((8, 8, 1), 2, key=KEY, width=2, norm={"name": "tebn", "steps": 4})
    assert network.conv0.norm.steps == 4
    with pytest.raises(ValueError, match="needs the options steps"):
        make((8, 8, 1), 2, key=KEY, width=2, norm="bntt")
