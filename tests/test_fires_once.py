"""Neurons that fire at most once (refractory=inf): a loop in Python, schedules, compaction, programs that refuse."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.bayes.sites import gate, sites
from dsnn.cells import ALIF, LIF, CuBaLIF
from dsnn.deploy.fused_inference import supports as fuses
from dsnn.networks.compact import compact
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.stack import Stack, mlp
from dsnn.parameters import split
from dsnn.simulate import associative, fused, fused_images
from dsnn.simulate.simulator import keep_spikes

KEY = jax.random.key(0)
ONCE = math.inf


def loop(xs: np.ndarray, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Returns membranes and spikes by the equations, neuron by neuron: a membrane that nothing resets."""
    membranes, spikes = np.zeros(xs.shape), np.zeros(xs.shape)
    for place in np.ndindex(xs.shape[1:]):
        u = i = a = 0.0
        fired = False
        for t, x in enumerate(xs[(slice(None), *place)]):
            i = 0.8 * i + x if kind is CuBaLIF else x
            threshold = 1.0 + (1.8 * a if kind is ALIF else 0.0)
            u = 0.9 * u + i
            s = float(u > threshold and not fired)
            fired = fired or s > 0
            a = 0.97 * a + 0.03 * s
            membranes[(t, *place)], spikes[(t, *place)] = u, s
    return membranes, spikes


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("kind", [LIF, ALIF, CuBaLIF])
def test_the_first_spike_is_the_only_one(kind: Any, timing: str) -> None:
    xs = np.random.default_rng(0).normal(0.0, 0.3, (20, 3, 7)).astype(np.float32)
    cell = kind(refractory=ONCE, reset_timing=timing)
    spikes, _, membranes = dsnn.unroll(cell, jnp.asarray(xs), record=lambda state, s: state.membrane)
    truth_u, truth_s = loop(np.float64(xs), kind)
    assert 0.1 < truth_s.sum(0).mean() < 1
    np.testing.assert_array_equal(spikes, truth_s)
    np.testing.assert_allclose(membranes, truth_u, atol=1e-5)


def cell(neurons: int, **options: Any) -> LIF:
    return LIF(0.9, refractory=ONCE, **{"noise": escape.Logistic(0.3), **options})


def test_every_schedule_and_memory_gives_the_same_spikes_and_none_twice() -> None:
    model = mlp((3,), (6, 5), 2, key=KEY, gain=3.0, cell=cell, recurrent=(True, False))
    xs = jax.random.uniform(jax.random.key(1), (9, 4, 3))
    first = dsnn.unroll(model, xs, KEY, keep_spikes, "layer")[2]
    for options in ({"schedule": "step"}, {"memory": 2}, {"schedule": "associative"}):
        found = dsnn.unroll(model, xs, KEY, keep_spikes, **options)[2]
        for name in ("hidden0", "hidden1"):
            np.testing.assert_array_equal(found[name], first[name])
    for name in ("hidden0", "hidden1"):
        count = np.asarray(first[name]).sum(0)
        assert count.max() == 1
        assert 0 < count.mean() < 1
    # in two pieces: the state remembers who has fired
    state, pieces = None, []
    for part in (xs[:4], xs[4:]):
        out, state, _ = dsnn.unroll(model, part, None, None, "step", state=state)
        pieces.append(out)
    np.testing.assert_allclose(jnp.concatenate(pieces), dsnn.unroll(model, xs)[0], rtol=1e-6)


def test_skipped_steps_leave_it_ready_to_fire() -> None:
    running, xs = jnp.asarray([0.0, 0.5, 1.0, 0.0, 1.0, 1.0]), 2 * jax.random.uniform(KEY, (6, 4, 3))
    model = mlp((3,), (6,), 2, key=KEY, gain=2.0, cell=lambda n: cell(n, noise=None))
    for schedule in ("layer", "step"):
        sent = dsnn.unroll(model, xs, None, keep_spikes, schedule, running=running)[2]["hidden0"]
        assert np.isfinite(sent).all()
        assert float((sent != 0).sum(0).max()) == 1
        whole = dsnn.unroll(model, xs[running == 1], None, keep_spikes, schedule)[2]["hidden0"]
        alone = dsnn.unroll(model, xs, None, keep_spikes, schedule, running=(running == 1) * 1.0)[2]["hidden0"]
        np.testing.assert_array_equal(alone[np.flatnonzero(running == 1)], whole)


def test_programs_in_c_leave_it_to_the_scans() -> None:
    dense = Layer(Dense(3, 4, key=KEY), LIF(0.9, refractory=ONCE))
    images = Layer(Conv((4, 4, 1), 2, key=KEY), LIF(0.9, refractory=ONCE))
    assert not fused.supports(dense, jnp.zeros((2, 1, 4)))
    assert not fused_images.supports(images)
    assert not associative.reset_free(LIF(0.9, refractory=ONCE, reset="none"))
    stack = Stack(hidden0=dense, readout=Layer(Dense(4, 2, key=KEY), dsnn.cells.LI(0.9)))
    assert not fuses(stack)


def test_compaction_keeps_thresholds_of_their_neurons_and_single_spikes() -> None:
    def learned(neurons: int) -> LIF:
        thresholds = np.linspace(0.6, 1.4, neurons)
        return LIF(0.9, refractory=ONCE, threshold=thresholds, learnable=("threshold",))

    model, x = mlp((3,), (6, 5), 2, key=KEY, gain=4.0, cell=learned), jax.random.uniform(jax.random.key(1), (4, 3))
    where = sites(model)
    z = {name: (jnp.arange(size) % 3 != 1) * 1.0 for name, size in where.groups.items()}
    template, params = split(model)
    masked, small = template.build(gate(where, params, z)), compact(model, z)
    assert small.hidden0.cell.threshold.shape == (4,)
    ours = dsnn.unroll(small, x, None, keep_spikes, steps=8)
    theirs = dsnn.unroll(masked, x, None, keep_spikes, steps=8)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    assert float(ours[2]["hidden1"].sum(0).max()) == 1


def test_the_time_must_be_a_multiple_or_infinite() -> None:
    with pytest.raises(ValueError, match=r"or infinite, got 0\.5"):
        LIF(refractory=0.5)
    with pytest.raises(ValueError, match="got nan"):
        LIF(refractory=math.nan)
    with pytest.raises(ValueError, match='needs reset_timing="same"'):
        LIF(refractory=2.0, reset_timing="next")
