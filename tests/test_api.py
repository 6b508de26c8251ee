"""The notebook door: fit, predict, where, summaries."""

import dataclasses

import jax
import numpy as np
import pytest
from matplotlib.text import Text

import dsnn
from dsnn import parameters
from dsnn.data import load
from dsnn.networks.stack import mlp


@pytest.fixture(scope="module")
def fitted():
    split = load("digits")
    return split, dsnn.fit(split.train.x, split.train.y, hidden=[32], epochs=30, steps=8, lam=0.05, baseline="none")


def test_fit_learns_and_predict_says_how_sure_it_is(fitted):
    split, network = fitted
    found = dsnn.predict(network, split.test.x, samples=8)
    assert (found.probs.argmax(1) == split.test.y).mean() > 0.93
    np.testing.assert_allclose(found.probs.sum(1), 1, rtol=1e-5)
    assert 1 <= found.steps.min() <= found.steps.max() <= 8
    again = dsnn.predict(network, split.test.x, samples=8)
    assert np.array_equal(found.probs, again.probs)
    assert not np.array_equal(found.probs, dsnn.predict(network, split.test.x, samples=8, seed=1).probs)


def test_where_draws_every_group_of_sites(fitted):
    figure = dsnn.where(fitted[1])
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "input" in words
    assert "hidden0" in words


def test_summaries_count_what_there_is(fitted):
    network = fitted[1].network()
    count = parameters.count(parameters.split(network)[1])
    assert f"parameters kept: {count} of {64 * 32 + 32 + 32 * 10 + 10}" in repr(fitted[1])
    network = mlp((8, 8, 1), (5,), 3, key=jax.random.key(0), recurrent=True)
    text = dsnn.summary(network)
    assert text == repr(network) == str(network)
    assert [line.split()[-2:] for line in text.splitlines()[1:3]] == [
        [str(64 * 5 + 5 + 25), str(64 * 5 + 25)],
        [str(5 * 3 + 3), "15"],
    ]


def test_the_deterministic_twin_has_no_map():
    rng = np.random.default_rng(0)
    x = rng.random((40, 6, 5)).astype(np.float32)
    y = (x.mean((1, 2)) > 0.5).astype(int)
    network = dsnn.fit(x, y, temporal=True, bayesian=False, epochs=2, hidden=[4], baseline="none")
    assert dsnn.predict(network, x).steps.tolist() == [6] * 40
    with pytest.raises(ValueError, match="has none"):
        dsnn.where(network)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": np.zeros(10)}, r"y.astype\(int\) is classes"),
        ({"y": np.full(10, 0.5), "task": "classification"}, "integers or text, got 0.5"),
        ({"task": "clustering"}, "auto, classification, multilabel or regression"),
        ({"baseline": "best"}, "none, linear or full"),
        ({"y": np.zeros(9, int)}, "one target for each of 10"),
        ({"x": np.full((10, 4), np.nan)}, "finite"),
        ({"x": np.zeros(10)}, "features"),
        ({"hiden": [3]}, "'hiden'"),
        ({"steps": -1}, "train.steps"),
        ({"batch_size": 20}, "at most the 8 examples that train, of 10"),
        ({"y": np.full(10, -1)}, "at least two classes"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(change, words):
    given = {"x": np.zeros((10, 4)), "y": np.arange(10) % 2, **change}
    with pytest.raises(ValueError, match=words):
        dsnn.fit(given.pop("x"), given.pop("y"), **given)


def test_predict_says_what_shape_it_wants(fitted):
    with pytest.raises(ValueError, match=r"x must be \[n, "):
        dsnn.predict(fitted[1], np.zeros((3, 5)))


def test_a_configuration_changes_what_it_says_and_nothing_else():
    x, y = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32), np.arange(60) % 2
    plain = dsnn.fit(x, y, epochs=1, hidden=[4], baseline="none").setup.config
    config = dsnn.config.Config(model=dsnn.config.ModelConfig(hidden=[4]))
    given = dsnn.fit(x, y, epochs=1, config=config, baseline="none").setup.config
    assert given == plain
    mapped = dsnn.config.Config(optimizer=dataclasses.replace(plain.optimizer, learning_rate=0.02))
    changed = dsnn.fit(x, y, epochs=1, hidden=[4], config=mapped, baseline="none").setup.config
    assert changed == dataclasses.replace(plain, optimizer=mapped.optimizer)
