"""Grouped, depthwise, dilated and padded convolutions and pooling: by hand, gated, counted and cut."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import gate, magnitudes, measure, sites
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.energy import count
from dsnn.networks import AdaptivePool, Chain, Conv, Dense, Layer, Pool, Stack, Whole
from dsnn.networks.compact import compact
from dsnn.networks.convolve import convolve
from dsnn.networks.reach import reach
from dsnn.parameters import split
from dsnn.simulate.simulator import keep_spikes

KEY = jax.random.key(0)
PADDINGS = ("SAME", "VALID", 1, (0, 2), ((0, 1), (2, 0)))


def by_hand(x: np.ndarray, conv: Conv) -> np.ndarray:
    """A convolution place by place, with PyTorch's rules of padding where it is given in numbers."""
    kernel, (height, width, features) = np.asarray(conv.kernel[...], np.float64), conv.out_shape
    ends = edges(conv)
    x = np.pad(x.astype(np.float64), ((0, 0), *ends, (0, 0)))
    out = np.zeros((len(x), height, width, features))
    each, mine = kernel.shape[2], features // conv.groups
    for i, j, f, a, b in itertools.product(*map(range, (height, width, features, *conv.window))):
        row, column = i * conv.strides[0] + a * conv.dilation[0], j * conv.strides[1] + b * conv.dilation[1]
        channels = slice(f // mine * each, (f // mine + 1) * each)
        out[:, i, j, f] += x[:, row, column, channels] @ kernel[a, b, :, f]
    return out


def edges(conv: Conv) -> list[tuple[int, int]]:
    if not isinstance(conv.padding, str):
        return [tuple(pair) for pair in conv.padding]
    ends = []
    for n, out, w, s, d in zip(conv.in_shape, conv.out_shape, conv.window, conv.strides, conv.dilation, strict=False):
        total = max((out - 1) * s + (w - 1) * d + 1 - n, 0) if conv.padding == "SAME" else 0
        ends.append((total // 2, total - total // 2))
    return ends


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(
    ("groups", "dilation", "strides"), [(1, (2, 1), (2, 2)), (2, (1, 2), (1, 1)), (4, (1, 1), (2, 1))]
)
def test_a_convolution_is_what_a_hand_computes(padding: Any, groups: int, dilation: Any, strides: Any) -> None:
    conv = Conv((8, 7, 4), 8, key=KEY, groups=groups, dilation=dilation, strides=strides, padding=padding, bias=False)
    assert conv.kernel.shape == (3, 3, 4 // groups, 8)
    x = np.random.default_rng(0).normal(size=(2, 8, 7, 4)).astype(np.float32)
    expected = by_hand(x, conv)
    np.testing.assert_allclose(conv(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)
    # gradients, also inside a scan, by a plain convolution
    weights = jax.random.normal(jax.random.key(1), expected.shape)

    def loss(kernel: Any, x: Any) -> Any:
        return (convolve(x, kernel, strides, conv.padding, groups=groups, dilation=dilation) * weights).sum()

    def scanned(kernel: Any, x: Any) -> Any:
        return jax.lax.scan(lambda c, one: (c + loss(kernel, one), None), 0.0, x[None])[0]

    slope = np.asarray(jax.grad(scanned, 1)(conv.kernel[...], jnp.asarray(x)))
    place = (1, 3, 4, 2)  # the loss is linear in the image
    one = np.zeros_like(x)
    one[place] = 1.0
    np.testing.assert_allclose(slope[place], (by_hand(one, conv) * np.asarray(weights)).sum(), rtol=1e-4, atol=1e-4)
    by_kernel = np.asarray(jax.grad(scanned)(conv.kernel[...], jnp.asarray(x)))
    picked, kernel = conv.kernel[...], np.zeros(conv.kernel.shape, np.float32)
    kernel[1, 2, 0, 5] = 1.0
    conv.kernel[...] = jnp.asarray(kernel)
    np.testing.assert_allclose(by_kernel[1, 2, 0, 5], (by_hand(x, conv) * np.asarray(weights)).sum(), rtol=1e-4)
    conv.kernel[...] = picked


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize(("dilation", "strides"), [((1, 1), (2, 3)), ((2, 1), (1, 2)), ((2, 2), (2, 2))])
def test_reach_is_counted_window_by_window(padding: Any, dilation: Any, strides: Any) -> None:
    conv = Conv((8, 7, 2), 2, key=KEY, dilation=dilation, strides=strides, padding=padding)
    counted, ends = np.zeros((8, 7)), edges(conv)
    for i, j, a, b in itertools.product(*map(range, (*conv.out_shape[:2], *conv.window))):
        row = i * strides[0] + a * dilation[0] - ends[0][0]
        column = j * strides[1] + b * dilation[1] - ends[1][0]
        if 0 <= row < 8 and 0 <= column < 7:
            counted[row, column] += 1
    np.testing.assert_array_equal(reach(conv), counted)


def test_bad_convolutions_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="groups must divide channels and features, 4 and 6, got groups=4"):
        Conv((5, 5, 4), 6, key=KEY, groups=4)
    with pytest.raises(ValueError, match='padding must be "SAME", "VALID", a number'):
        Conv((5, 5, 4), 6, key=KEY, padding="FULL")
    with pytest.raises(ValueError, match=r"got \(1, 2, 3\)"):
        Conv((5, 5, 4), 6, key=KEY, padding=(1, 2, 3))
    with pytest.raises(ValueError, match=r"dilation must be a positive integer, or two .* got \(1, 0\)"):
        Conv((5, 5, 4), 6, key=KEY, dilation=(1, 0))
    with pytest.raises(ValueError, match="out_height must be a positive integer"):
        Conv((5, 5, 4), 6, key=KEY, dilation=(3, 1), padding="VALID")


# --- Pooling


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize(
    ("window", "strides", "padding"), [((3, 3), (2, 2), 1), ((3, 2), (1, 2), "SAME"), ((2, 2), None, 1)]
)
def test_pooling_is_what_a_hand_computes(kind: str, window: Any, strides: Any, padding: Any) -> None:
    pool = Pool((8, 7, 3), window, kind, strides, padding)
    x = np.random.default_rng(0).normal(size=(2, 8, 7, 3)).astype(np.float32)
    down, across = strides or window
    tops = [max((n - 1) * s + w - m, 0) // 2 if padding == "SAME" else padding
            for n, s, w, m in zip(pool.out_shape, (down, across), window, (8, 7), strict=False)]  # fmt: skip
    found = np.asarray(pool(jnp.asarray(x)))
    for i, j in itertools.product(*map(range, pool.out_shape[:2])):
        rows = [i * down + a - tops[0] for a in range(window[0])]
        columns = [j * across + b - tops[1] for b in range(window[1])]
        seen = [x[:, r, c] for r in rows for c in columns if 0 <= r < 8 and 0 <= c < 7]
        expected = np.max(seen, 0) if kind == "max" else np.sum(seen, 0) / np.prod(window)
        np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 7)])
def test_adaptive_pooling_is_pytorchs(kind: str, size: tuple[int, int]) -> None:
    pool, x = AdaptivePool((8, 7, 3), size, kind), np.random.default_rng(0).normal(size=(2, 8, 7, 3))
    found = np.asarray(pool(jnp.asarray(x, jnp.float32)))
    assert found.shape == (2, *pool.out_shape) == (2, *size, 3)
    for i, j in itertools.product(*map(range, size)):
        cell = x[:, i * 8 // size[0] : -(-(i + 1) * 8 // size[0]), j * 7 // size[1] : -(-(j + 1) * 7 // size[1])]
        expected = cell.max((1, 2)) if kind == "max" else cell.mean((1, 2))
        np.testing.assert_allclose(found[:, i, j], expected, rtol=1e-5, atol=1e-6)


def test_bad_pools_get_a_sentence() -> None:
    with pytest.raises(ValueError, match='kind must be "max" or "mean"'):
        AdaptivePool((4, 4, 1), (1, 1), "sum")
    with pytest.raises(ValueError, match=r"size must be from 1 to height and width, \(4, 4\), got \(5, 1\)"):
        AdaptivePool((4, 4, 1), (5, 1))
    with pytest.raises(ValueError, match="padding must be at most half the window"):
        Pool((4, 4, 1), (3, 3), "max", (2, 2), 2)
    with pytest.raises(ValueError, match="strides must be a positive integer, or two"):
        Pool((4, 4, 1), (3, 3), "max", (2, 0))
    with pytest.raises(ValueError, match="window must fit"):
        Pool((4, 4, 1), (5, 5))


# --- Networks


def layers(multiplier: int = 1) -> dict[str, Layer]:
    """A stem, a grouped, a depthwise, and a dilated convolution, then global pooling and a readout."""
    keys = jax.random.split(KEY, 6)
    stem = Conv((8, 8, 2), 6, key=keys[0], gain=3.0, padding=1, strides=(2, 2))
    grouped = Conv((4, 4, 6), 8, key=keys[1], gain=4.0, groups=2)
    pool = Pool(grouped.out_shape, (3, 3), "max", (2, 2), 1)
    depth = Conv(pool.out_shape, 8 * multiplier, key=keys[2], gain=5.0, groups=8)
    wide = Conv(depth.out_shape, 5, key=keys[3], gain=5.0, dilation=(2, 1), padding=(2, 1))
    last = AdaptivePool(wide.out_shape)
    return {
        "stem": Layer(stem, LIF(0.9)),
        "grouped": Layer(grouped, LIF(0.9)),
        "depth": Layer(depth, LIF(0.9), before=(pool,)),
        "wide": Layer(wide, LIF(0.9)),
        "readout": Layer(Dense(last.out_shape, 3, key=keys[4]), LI(0.9), before=(last,)),
    }


def stack(multiplier: int = 1) -> Stack:
    return Stack("mean", **layers(multiplier))


def chain(multiplier: int = 1) -> Whole:
    return Whole(Chain(**layers(multiplier)))


SETTINGS: dict[str, dict[str, list[int]]] = {
    "a whole group": {"stem": [1, 1, 1, 0, 0, 0], "grouped": [1, 0, 1, 1, 0, 0, 0, 0]},
    "uneven": {"stem": [1, 0, 1, 0, 0, 1], "grouped": [1, 1, 1, 0, 0, 0, 1, 0], "wide": [1, 0, 1, 1, 1]},
    "one side of a group": {"stem": [1, 1, 1, 0, 0, 0], "grouped": [0, 0, 1, 1, 1, 1, 0, 1]},
    "inputs": {"input": [0, 1], "grouped": [1, 0, 0, 0, 0, 0, 0, 1]},
}


def gates(setting: str, groups: dict[str, int]) -> dict[str, Any]:
    chosen = SETTINGS[setting]
    return {name: jnp.asarray(chosen.get(name, [1] * size), jnp.float32) for name, size in groups.items()}


@pytest.mark.parametrize("make", [stack, chain])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_channel_is_one_site_in_and_out(make: Any, multiplier: int) -> None:
    assert make(multiplier).wiring().groups == {"input": 2, "stem": 6, "grouped": 8, "wide": 5}


@pytest.mark.parametrize("make", [stack, chain])
@pytest.mark.parametrize(
    ("setting", "multiplier"), [("a whole group", 1), ("uneven", 2), ("one side of a group", 1), ("inputs", 1)]
)
def test_compacted_is_masked_bit_for_bit(make: Any, setting: str, multiplier: int) -> None:
    model = make(multiplier)
    template, params = split(model)
    params = {name: jnp.round(value * 2**10) / 2**10 for name, value in params.items()}
    model = template.build(params)
    where = sites(model, held_input=False, analog_input=False)
    z = gates(setting, where.groups)
    masked, small = template.build(gate(where, params, z)), compact(model, z)
    spikes = (jax.random.uniform(jax.random.key(2), (4, 16, 8, 8, 2)) < 0.5).astype(jnp.float32)
    expected = dsnn.unroll(masked, spikes)[0]
    assert np.abs(expected).max() > 0.05
    np.testing.assert_array_equal(dsnn.unroll(small, spikes)[0], expected)
    inner = small.network if isinstance(small, Whole) else small
    shapes = (
        {name: layer.synapse.kernel.shape[2:] for name, layer in inner.layers() if name in ("grouped", "depth")}
        if make is stack
        else {}
    )
    wanted = {
        "a whole group": {"grouped": (3, 3), "depth": (1, 3)},
        "uneven": {"grouped": (2, 6), "depth": (1, 12)},  # three of a group stay in both, and a closed one with them
        "one side of a group": {"grouped": (3, 6), "depth": (1, 6)},  # the second group's channels are closed and stay
        "inputs": {"grouped": (3, 2), "depth": (1, 2)},
    }
    if make is stack:
        assert shapes == wanted[setting]
        assert inner.depth.synapse.groups == inner.depth.synapse.in_shape[-1]


class Prices:
    """One for each event at each target."""

    def event_nj(self, source: str, accounting: str) -> float:
        return 1.0

    def update_nj(self, kind: str, accounting: str) -> float:
        return 0.0


def pairs(conv: Conv, rate: np.ndarray, senders: np.ndarray, receivers: np.ndarray) -> float:
    """Events at targets, counted one by one."""
    total, each, mine, ends = 0.0, conv.kernel.shape[2], conv.out_shape[2] // conv.groups, edges(conv)
    places = itertools.product(*map(range, (*conv.out_shape[:2], *conv.window)))
    for i, j, a, b in places:
        row = i * conv.strides[0] + a * conv.dilation[0] - ends[0][0]
        column = j * conv.strides[1] + b * conv.dilation[1] - ends[1][0]
        if not (0 <= row < conv.in_shape[0] and 0 <= column < conv.in_shape[1]):
            continue
        for f in range(conv.out_shape[2]):
            own = slice(f // mine * each, (f // mine + 1) * each)
            total += receivers[f] * (rate[row, column, own] * senders[own]).sum()
    return total


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("setting", ["uneven", "one side of a group"])
def test_energy_is_the_count_of_every_event_at_every_target(setting: str, multiplier: int) -> None:
    model, x = stack(multiplier), (jax.random.uniform(jax.random.key(2), (4, 8, 8, 8, 2)) < 0.5).astype(jnp.float32)
    where = sites(model, held_input=False, analog_input=False)
    z = gates(setting, where.groups)
    template, params = split(model)
    masked = template.build(gate(where, params, z))
    spikes = dsnn.unroll(masked, x, None, keep_spikes)[2]
    events = measure(where, masked, x, spikes, held=False)
    ours = expected_energy(where, z, events, Prices(), "arithmetic")
    of = {name: np.asarray(z[name]) for name in z}
    depth = np.repeat(of["grouped"], multiplier)

    def mean(signal: Any) -> np.ndarray:
        return np.asarray(signal != 0, np.float64).mean((0, 1))

    pooled = jax.vmap(model.depth.before[0])(spikes["grouped"])
    averaged = jax.vmap(model.readout.before[0])(spikes["wide"])
    by_layer = [
        pairs(model.stem.synapse, mean(x), of["input"], of["stem"]),
        pairs(model.grouped.synapse, mean(spikes["stem"]), of["stem"], of["grouped"]),
        pairs(model.depth.synapse, mean(pooled), of["grouped"], depth),
        pairs(model.wide.synapse, mean(spikes["depth"]), depth, of["wide"]),
        float((mean(averaged) * of["wide"]).sum() * 3),
    ]
    assert min(by_layer) > 0
    np.testing.assert_allclose(ours.step_nj, sum(by_layer), rtol=1e-5)
    # and what is counted where it runs, zero weights left out, is the same
    counted = count(records(masked, x, spikes, held=False, analog=False))
    done = {layer.name: layer.effective_acs + layer.effective_macs for layer in counted.layers if layer.weights}
    gated = [4 * total for total in by_layer]
    # receivers whose columns are not zero are counted there, since gates scale rows alone
    whole = pairs(model.grouped.synapse, mean(spikes["stem"]), of["stem"], np.ones(8))
    np.testing.assert_allclose(done["grouped"], 4 * whole, rtol=1e-5)
    np.testing.assert_allclose(done["depth"], gated[2], rtol=1e-5)
    assert done["readout"] == pytest.approx(gated[4], rel=1e-5)


def test_expected_energy_of_independent_gates_is_the_mean_over_all_settings() -> None:
    keys = jax.random.split(KEY, 4)
    model = Stack(
        stem=Layer(Conv((3, 3, 1), 4, key=keys[0]), LIF(0.9)),
        grouped=Layer(Conv((3, 3, 4), 4, key=keys[1], groups=2), LIF(0.9)),
        depth=Layer(Conv((3, 3, 4), 4, key=keys[3], groups=4), LIF(0.9)),
        readout=Layer(Dense(36, 2, key=keys[2]), LI(0.9)),
    )
    where = sites(model, held_input=False, analog_input=False)
    rng = np.random.default_rng(0)
    p = {name: jnp.asarray(rng.uniform(0.2, 0.9, size), jnp.float32) for name, size in where.groups.items()}
    events = {wire.name: jnp.asarray(rng.uniform(0.1, 0.5, wire.pre_sites), jnp.float32) for wire in where.wires}
    flat = np.concatenate([np.asarray(p[name]) for name in where.groups])
    mean = 0.0
    run = jax.jit(lambda z: expected_energy(where, where.unflatten(z), events, Prices(), "arithmetic").step_nj)
    for bits in itertools.product((0.0, 1.0), repeat=len(flat)):
        z = np.asarray(bits, np.float32)
        mean += float(np.prod(np.where(z > 0, flat, 1 - flat))) * float(run(jnp.asarray(z)))
    np.testing.assert_allclose(expected_energy(where, p, events, Prices(), "arithmetic").step_nj, mean, rtol=1e-4)


def test_a_senders_magnitude_is_the_norm_of_the_weights_that_read_it() -> None:
    model = stack()
    where, (_, params) = sites(model), split(model)
    ones = {wire.name: jnp.ones(wire.pre_sites) for wire in where.wires}
    found = magnitudes(where, params, ones)
    kernel = np.asarray(params["grouped.synapse.kernel"])  # [3, 3, 3, 8]
    expected = [np.sqrt((kernel[:, :, c % 3, c // 3 * 4 : c // 3 * 4 + 4] ** 2).sum()) for c in range(6)]
    np.testing.assert_allclose(found["stem"], expected, rtol=1e-5)
