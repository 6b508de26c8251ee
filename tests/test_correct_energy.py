"""The prior's energy is the counted energy, whatever is active where and when: by enumeration and by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import data
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import Sites, gate, measure, sites
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.energy import count, price, profile
from dsnn.networks.compact import compact
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import keep_spikes

KEY = jax.random.key(0)
HARDWARE = profile("45nm")


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0}[kind]


def centred(batch: int, side: int, channels: int) -> jax.Array:
    """Images that are bright in their middle alone, so that hardly an event lies at a border."""
    middle = slice(side // 3, side - side // 3)
    values = jax.random.uniform(jax.random.key(1), (batch, side, side, channels))
    return jnp.zeros_like(values).at[:, middle, middle].set(values[:, middle, middle])


def pairs(synapse: Conv, events: np.ndarray, senders: np.ndarray, receivers: np.ndarray) -> float:
    """Counts (event, output) pairs of a convolution one by one, from the definition of its padding."""
    total, (height, width, _) = 0.0, synapse.in_shape
    lows = [
        max((out - 1) * step + window - n, 0) // 2 if synapse.padding == "SAME" else 0
        for n, out, step, window in zip(
            synapse.in_shape[:2], synapse.out_shape[:2], synapse.strides, synapse.window, strict=True
        )
    ]
    for i, j in itertools.product(*map(range, synapse.out_shape[:2])):
        top, left = (at * step - low for at, step, low in zip((i, j), synapse.strides, lows, strict=True))
        for a, b in itertools.product(*map(range, synapse.window)):
            if 0 <= top + a < height and 0 <= left + b < width:
                total += float((events[top + a, left + b] * senders).sum() * receivers.sum())
    return total


def two_convolutions(strides: tuple[int, int], padding: str, pool: bool) -> Stack:
    """Three channels, then four, then a dense readout; the second convolution reads a pooled map if asked."""
    first = Conv((11, 11, 2), 3, key=KEY, window=(4, 3), strides=strides, padding=padding, gain=5.0)
    before = (Pool(first.out_shape),) if pool else ()
    shape = before[0].out_shape if pool else first.out_shape
    second = Conv(shape, 4, key=jax.random.key(2), window=(3, 2), padding=padding, gain=5.0)
    last = Dense(second.out_shape, 3, key=jax.random.key(3))
    return Stack(
        first=Layer(first, LIF(0.8)), second=Layer(second, LIF(0.8), before=before), readout=Layer(last, LI(0.9))
    )


@pytest.mark.parametrize(
    ("padding", "strides", "pool"),
    [("SAME", (1, 1), False), ("VALID", (2, 1), False), ("SAME", (3, 3), False), ("VALID", (1, 1), True)],
)
def test_a9_every_event_before_a_convolution_is_weighed_by_its_own_place(
    padding: str, strides: tuple[int, int], pool: bool
) -> None:
    model, x = two_convolutions(strides, padding, pool), centred(3, 11, 2)
    where = sites(model)
    z = {"input": jnp.asarray([1.0, 0.0]), "first": jnp.asarray([1.0, 0, 1]), "second": jnp.asarray([0.0, 1, 1, 1])}
    template, params = split(model)
    masked = template.build(gate(where, params, z))
    spikes = dsnn.unroll(masked, x, None, keep_spikes, steps=4)[2]
    events = measure(where, masked, x, spikes, held=True)
    ours = expected_energy(where, z, events, Prices(), "arithmetic")
    gates = {name: np.asarray(value) for name, value in z.items()}
    shown = (np.asarray(x) != 0).mean(0)
    sent = np.asarray(spikes["first"]).mean((0, 1))
    if model.second.before:
        pooled = jax.vmap(model.second.before[0])(spikes["first"])
        sent = np.asarray(pooled != 0).mean((0, 1))
    read = (np.asarray(spikes["second"]).mean((0, 1)) * gates["second"]).sum() * 3
    assert min(sent.sum(), read) > 0
    once = 7.0 * pairs(model.first.synapse, shown, gates["input"], gates["first"])
    step = 3.0 * (pairs(model.second.synapse, sent, gates["first"], gates["second"]) + read)
    np.testing.assert_allclose([ours.once_nj, ours.step_nj], [once, step], rtol=1e-5)


def test_a9_a_centred_image_under_hard_gates_costs_what_is_counted() -> None:
    """Two roads to one number: the prior's on the gated network, the count's on what is left of it."""
    model, x = convnet((20, 20, 1), (4, 3), (6,), 3, key=KEY, gain=4.0, window=(5, 5)), centred(4, 20, 1)
    where = sites(model, gate_features=True)
    z = {name: (jnp.arange(size) % 3 < 2) * 1.0 for name, size in where.groups.items()}
    template, params = split(model)
    masked, small = template.build(gate(where, params, z)), compact(model, z)
    spikes = dsnn.unroll(masked, x, None, keep_spikes, steps=5)[2]
    assert min(float(s.mean()) for s in spikes.values()) != 0
    ours = expected_energy(where, z, measure(where, masked, x, spikes, held=True), HARDWARE).total(5.0)
    ran = dsnn.unroll(small, x, None, keep_spikes, steps=5)[2]
    counted = price(count(records(small, x, ran, held=True, analog=True)), HARDWARE, "updates").total_nj
    np.testing.assert_allclose(ours, counted, rtol=1e-5)


def test_a9_spikes_that_move_over_places_are_counted_step_by_step() -> None:
    """A spot that wanders from the border to the middle: what counts is the sum over steps, each at its place."""
    model = convnet((9, 9, 1), (2,), (), 3, key=KEY, gain=6.0, window=(3, 3), padding="VALID")
    xs = jnp.zeros((5, 1, 9, 9, 1)).at[jnp.arange(5), 0, jnp.arange(5), jnp.arange(5), 0].set(1.0)
    where = sites(model, held_input=False, analog_input=False)
    spikes = dsnn.unroll(model, xs, None, keep_spikes)[2]
    events = measure(where, model, xs, spikes, held=False)
    # on the diagonal a pixel is under 1, 4 and then 9 windows, each of two channels
    wire = where.wires[0]
    np.testing.assert_allclose(5 * wire.fan * events["conv0"].sum() * 2, 2 * (1 + 4 + 9 + 9 + 9), rtol=1e-6)


@pytest.mark.data("mnist")
def test_a9_mnist_under_convolutions_costs_what_is_counted() -> None:
    x = jnp.asarray(data.load("mnist").test.x[:64])
    model = convnet((28, 28, 1), (8, 16), (32,), 10, key=KEY, gain=3.0, window=(5, 5))
    where = sites(model)
    spikes = dsnn.unroll(model, x, None, keep_spikes, steps=4)[2]
    everything = {name: jnp.ones(size) for name, size in where.groups.items()}
    ours = expected_energy(where, everything, measure(where, model, x, spikes, held=True), HARDWARE).total(4.0)
    counted = price(count(records(model, x, spikes, held=True, analog=True)), HARDWARE, "updates").total_nj
    np.testing.assert_allclose(ours, counted, rtol=0.01)


def recurrent(blocks: bool = False) -> Stack:
    if not blocks:
        return mlp((3,), (4, 3), 2, key=KEY, gain=3.0, recurrent=True)
    inner = Layer(Dense(4, 4, key=jax.random.key(4), gain=2.0), LIF(0.8), recurrent_key=jax.random.key(5), skip=True)
    outer = {
        "hidden0": Layer(Dense(3, 4, key=KEY, gain=3.0), LIF(0.8), recurrent_key=jax.random.key(6)),
        "block0": inner,
        "readout": Layer(Dense(4, 2, key=jax.random.key(7)), LI(0.9)),
    }
    return Stack(**outer)


def counted_by_hand(
    model: Stack, where: Sites, z: dict[str, np.ndarray], xs: np.ndarray, spikes: dict[str, np.ndarray]
) -> float:
    """Walks over the steps that run, each of which reads its input and the spikes of the one that ran before it."""
    ran = np.flatnonzero(z["time"]) if "time" in z else np.arange(len(xs))
    total, batch = 0.0, xs.shape[1]
    sent, shares = xs, z.get("blocks", np.ones(len(model.blocks)))
    for name, layer in model.layers():
        runs = shares[model.blocks.index(name)] if layer.skip else 1.0
        wires = {wire.name: wire for wire in where.wires}
        pre, post = wires[name].senders, wires[name].receivers
        senders = z[pre[0].group] if pre else np.ones(sent.shape[-1])
        receivers = z[post[0].group] if post else np.ones(layer.out_shape[-1])
        cost = 7.0 if name == "hidden0" or (wires[name].sums and shares.any()) else 3.0
        for before, now in zip((None, *ran[:-1]), ran, strict=True):
            total += runs * cost * ((sent[now] != 0) * senders).sum() / batch * receivers.sum()
            if layer.recurrent is not None and before is not None:
                total += runs * 3.0 * ((spikes[name][before] != 0) * receivers).sum() / batch * receivers.sum()
            total += runs * receivers.sum() * (11.0 if name != "readout" else 13.0)
        sent = sent + runs * spikes[name] if layer.skip else spikes[name]
    return total


@pytest.mark.parametrize(
    ("length", "blocks", "timed"),
    [(1, False, False), (1, True, True), (2, False, False), (6, True, False), (6, True, True)],
)
def test_b2_spikes_of_the_last_step_are_fed_back_to_nobody(length: int, blocks: bool, timed: bool) -> None:
    model, xs = recurrent(blocks), 3 * jax.random.uniform(jax.random.key(1), (length, 5, 3))
    where = sites(model, held_input=False, time_steps=length if timed else 0)
    z = {name: (jnp.arange(size) % 3 != 1) * 1.0 for name, size in where.groups.items()}
    z |= {"blocks": jnp.ones(1)} if blocks else {}
    template, params = split(model)
    masked, runs = template.build({n: v for n, v in gate(where, params, z).items() if n in params}), z.get("time")
    spikes = dsnn.unroll(masked, xs, None, keep_spikes, running=runs)[2]
    events = measure(where, masked, xs, spikes, held=False, running=runs)
    ours = expected_energy(where, z, events, Prices()).total(float(length))
    fired, gates = ({n: np.asarray(v) for n, v in given.items()} for given in (spikes, z))
    np.testing.assert_allclose(ours, counted_by_hand(masked, where, gates, np.asarray(xs), fired), rtol=1e-5)
    # the network that is left, at the steps that are left
    small, kept = compact(model, {n: v for n, v in z.items() if n != "time"}), xs if runs is None else xs[runs > 0]
    ran = dsnn.unroll(small, kept, None, keep_spikes)[2]
    counted = price(count(records(small, kept, ran, held=False, analog=True)), HARDWARE, "updates").total_nj
    np.testing.assert_allclose(expected_energy(where, z, events, HARDWARE).total(float(length)), counted, rtol=1e-5)
    if length > 2:
        assert min(float(spikes[n][:-1].sum()) for n, layer in model.layers() if layer.recurrent is not None) > 0


def test_b2_expected_energy_with_skipped_steps_is_the_mean_over_all_settings() -> None:
    """Of K steps that run K - 1 are read by a later one, and none where none runs."""
    model = mlp((2,), (2,), 2, key=KEY, recurrent=True)
    where = sites(model, held_input=False, analog_input=False, time_steps=4)
    rng = np.random.default_rng(0)
    events = {w.name: rng.uniform(size=w.pre_sites) for w in where.wires}
    p = {n: rng.uniform(size=s) for n, s in where.groups.items()}
    flat, exact = np.concatenate(list(p.values())), 0.0
    for bits in itertools.product((0, 1), repeat=len(flat)):
        z = {n: np.asarray(a) for n, a in where.unflatten(jnp.asarray(bits, float)).items()}
        i, h, ran = z["input"], z["hidden0"], z["time"].sum()
        step = 3.0 * (i * events["hidden0"]).sum() * h.sum() + 3.0 * (h * events["readout"]).sum() * 2
        step += 11.0 * h.sum() + 13.0 * 2
        back = 3.0 * (h * events["hidden0.recurrent"]).sum() * h.sum()
        exact += np.prod(np.where(bits, flat, 1 - flat)) * (ran * step + max(ran - 1, 0) * back)
    given, rates = ({n: jnp.asarray(v) for n, v in values.items()} for values in (p, events))
    np.testing.assert_allclose(expected_energy(where, given, rates, Prices()).total(4.0), exact, rtol=1e-5)


def test_b2_a_mean_number_of_steps_gives_the_mean_energy() -> None:
    """Examples that stop after 1, 2 and 6 steps: 3 steps, and 2 times that spikes are fed back."""
    model = recurrent()
    where = sites(model, held_input=False)
    rates = {w.name: jnp.full(w.pre_sites, 0.5) for w in where.wires}
    everything = {name: jnp.ones(size) for name, size in where.groups.items()}
    energy = expected_energy(where, everything, rates, Prices())
    each = [energy.total(float(n)) for n in (1, 2, 6)]
    np.testing.assert_allclose(energy.total(3.0), np.mean(each), rtol=1e-6)
    back = 3.0 * 0.5 * (4 * 4 + 3 * 3)
    alone = 7.0 * 0.5 * 3 * 4 + 3.0 * 0.5 * (4 * 3 + 3 * 2) + 11.0 * 7 + 13.0 * 2
    np.testing.assert_allclose(each, [n * alone + (n - 1) * back for n in (1, 2, 6)], rtol=1e-6)
    assert math.isfinite(float(energy.unread_nj))
