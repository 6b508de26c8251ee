"""Crops and flips of training images against those by hand, inside the compiled epoch; events in bytes as in floats."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import data, learn, rng
from dsnn.assembly.assemble import build
from dsnn.config import Config, GatesConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.data import augment

RNG = np.random.default_rng(0)


def by_hand(x, starts, mirrored):
    """Images cut out of their padded copies and mirrored, one after another."""
    made = np.zeros_like(x)
    for n, (top, left) in enumerate(starts):
        around = np.zeros((*x.shape[1:-3], x.shape[-3] + 8, x.shape[-2] + 8, x.shape[-1]), x.dtype)
        around[..., 4:-4, 4:-4, :] = x[n]
        cut = around[..., top : top + x.shape[-3], left : left + x.shape[-2], :]
        made[n] = cut[..., ::-1, :] if mirrored[n] else cut
    return made


def draws(key, count):
    moved, mirrored = jax.random.split(key)
    return jax.random.randint(moved, (count, 2), 0, 9), jax.random.bernoulli(mirrored, 0.5, (count,))


@pytest.mark.parametrize("shape", [(6, 9, 7, 3), (6, 2, 9, 7, 3)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_crops_and_flips_are_those_by_hand_and_all_steps_of_an_example_change_alike(shape, dtype):
    x = np.arange(1, np.prod(shape) + 1).reshape(shape).astype(dtype)
    key = jax.random.key(2)
    starts, mirrored = (np.asarray(values) for values in draws(key, 6))
    assert len({*map(tuple, starts)}) > 3
    assert 0 < mirrored.sum() < 6
    found = jax.jit(augment.crop_flip)(jnp.asarray(x), key)
    assert found.dtype == x.dtype
    assert np.array_equal(found, by_hand(x, starts, mirrored))


def test_every_move_within_the_padding_and_either_side_is_as_likely():
    n = 8100
    starts, mirrored = (np.asarray(values) for values in draws(jax.random.key(0), n))
    x = jnp.zeros((n, 9, 9, 1)).at[:, 4, 4].set(1)
    moved, _ = jax.random.split(jax.random.key(0))
    places = np.argwhere(np.asarray(augment.crop(x, moved)))[:, 1:3]
    assert np.array_equal(places, 8 - starts)
    counts = np.bincount(places[:, 0] * 9 + places[:, 1], minlength=81)
    assert len(counts) == 81
    assert ((counts - 100) ** 2 / 100).sum() < 140  # 99.99 % of chi squared with 80 degrees of freedom
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_what_is_no_image_gets_a_sentence():
    with pytest.raises(data.DataError, match=r"needs images \[batch, height, width, channels\].*got shape \(3, 64\)"):
        augment.crop_flip(jnp.zeros((3, 64)), jax.random.key(0))


class _Seen(NamedTuple):
    loss: Any
    x: Any


def epochs(transform, root, start=0):
    """What a learner sees of the batches of two epochs, from ``start`` on."""
    x = jnp.arange(1, 10 * 5 * 5 + 1, dtype=jnp.float32).reshape(10, 5, 5, 1)
    batch = learn.Batch(x, jnp.zeros(10, jnp.int32))
    learner = learn.Learner(lambda: jnp.zeros(()), lambda state, one: (state, _Seen(state, one.x)))
    zero = jnp.zeros(())
    settings = learn.Settings(root, zero, zero, zero, zero)
    run = learn.compiled(learn.epoch_program(lambda _: learner, 4, transform=transform))
    seen = list(learn.fit_program(run, settings, learner.init(), batch, epochs=2, start=start))
    return x, [np.asarray(epoch.info.x) for epoch in seen]


def test_an_epoch_is_changed_by_its_seed_its_number_and_its_step_alone():
    root = rng.root(3)
    x, (first, second) = epochs(data.TRANSFORMS["crop_flip"], root)
    for epoch, seen in enumerate((first, second)):
        order = data.epoch_permutation(rng.stream(root, "data", epoch), 10, 4)
        for step in range(2):
            key = rng.stream(rng.stream(root, "augment", epoch), "augment", step)
            starts, mirrored = (np.asarray(values) for values in draws(key, 4))
            assert np.array_equal(seen[step], by_hand(np.asarray(x)[order[step]], starts, mirrored))
    _, (again,) = epochs(data.TRANSFORMS["crop_flip"], root, start=1)  # a run that went on from the first epoch
    assert np.array_equal(again, second)
    _, (other, _) = epochs(data.TRANSFORMS["crop_flip"], rng.root(4))
    assert not np.array_equal(other, first)
    _, (plain, _) = epochs(None, root)
    assert np.array_equal(plain, np.asarray(x)[data.epoch_permutation(rng.stream(root, "data", 0), 10, 4)])


def network_of(split, **train):
    config = Config(
        learner="map",
        model=ModelConfig(architecture="conv", channels=[2], hidden=[], noise="none"),
        train=TrainConfig(steps=2, epochs=1, batch_size=4, **train),
        gates=GatesConfig(enabled=False),
        halting=HaltingConfig(enabled=False),
    )
    return build(config, split)


def split_of(x, temporal):
    y = np.arange(len(x), dtype=np.int32) % 2
    return data.check(data.Split(*[data.Arrays(x, y)] * 3, 2, "made", temporal=temporal))


def learned(setup):
    """The parameters after one epoch, and the answers of a network of them."""
    run = learn.compiled(learn.epoch_program(setup.family, 4, transform=setup.transform))
    batch = learn.Batch(jnp.asarray(setup.split.train.x), jnp.asarray(setup.split.train.y))
    begin = jax.jit(lambda settings: setup.family(settings).init())(setup.settings)
    (epoch,) = learn.fit_program(run, setup.settings, begin, batch, epochs=1)
    params = setup.params(epoch.state)
    return params, setup.bayesian.simulator.logits(params, batch.x)


def test_a_convolution_learns_from_events_in_bytes_as_from_those_in_single_precision():
    x = RNG.integers(0, 3, (8, 2, 8, 8, 2)).astype(np.uint8)
    found = [learned(network_of(split_of(made, temporal=True))) for made in (x, x.astype(np.float32))]
    for bytes_, singles in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.array_equal(bytes_, singles)


def test_a_run_names_its_augmentation_and_has_none_by_default():
    split = split_of(RNG.random((8, 8, 8, 1), np.float32), temporal=False)
    assert network_of(split).transform is None
    setup = network_of(split, transform="crop_flip")
    assert setup.transform is augment.crop_flip
    plain, changed = (learned(one)[0] for one in (network_of(split), setup))
    assert any(not np.array_equal(plain[name], changed[name]) for name in plain)
    with pytest.raises(
        ValueError, match=r"train.transform must be one of crop, crop_flip, flip, got 'crop_flp'; did you"
    ):
        TrainConfig(transform="crop_flp")
