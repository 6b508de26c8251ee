"""A limited run draws its examples by the seed and by class, in whatever order they lie, with what is known of each."""

import numpy as np
import pytest
import scipy.sparse as sparse

from dsnn import data
from dsnn.assembly.loading import load_data, open_data
from dsnn.bayes.likelihood import UNLABELLED
from dsnn.config import Config, DataConfig, TrainConfig
from dsnn.data import assign_roles


def sorted_npz(folder, counts: tuple[int, ...]) -> str:
    """As a folder per class gives them: one class after another; the first feature is the row's number."""
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.stack([np.arange(len(y)), y], 1).astype(np.float32)
    parts = {"x_train": x, "y_train": y, "x_val": x, "y_val": y, "x_test": x, "y_test": y}
    np.savez(folder / "sorted.npz", **parts)
    return str(folder / "sorted.npz")


def config(path: str, limit: int, seed: int = 0) -> Config:
    return Config(seed=seed, data=DataConfig(name="npz", path=path, limit=limit), train=TrainConfig(batch_size=4))


def test_a8_a_limit_takes_every_class_in_proportion(tmp_path) -> None:
    path = sorted_npz(tmp_path, (35, 35, 36))
    split = load_data(config(path, 40))
    # shares 13.2, 13.2 and 13.6
    assert np.bincount(split.train.y).tolist() == [13, 13, 14]
    np.testing.assert_array_equal(split.train.x[:, 1], split.train.y)
    assert len(set(split.train.x[:, 0].tolist())) == 40
    whole = assign_roles(open_data(config(path, 40)), 0)
    for part in ("val", "certify", "test"):
        np.testing.assert_array_equal(getattr(split, part).x, getattr(whole, part).x)


def test_a8_the_seed_draws_and_no_class_is_left_out(tmp_path) -> None:
    path = sorted_npz(tmp_path, (90, 7, 2, 1))
    rows = {seed: load_data(config(path, 5, seed)).train.x[:, 0].tolist() for seed in (0, 0, 1, 2)}
    assert len({tuple(drawn) for drawn in rows.values()}) == 3
    assert rows[0] == load_data(config(path, 5, 0)).train.x[:, 0].tolist()
    # 4.5, 0.35, 0.1 and 0.05 would be 5 of the first
    assert np.bincount(load_data(config(path, 5)).train.y).tolist() == [2, 1, 1, 1]
    assert np.bincount(load_data(config(path, 50)).train.y, minlength=4).tolist() == [45, 3, 1, 1]
    with pytest.raises(ValueError, match=r"batch_size must be at most the 3"):
        load_data(config(path, 3))
    for limit in (0, 100, 1000):
        np.testing.assert_array_equal(load_data(config(path, limit)).train.x[:, 0], np.arange(100))


def with_side_information(y: np.ndarray, task: str = "classification") -> data.Split:
    x = np.arange(len(y), dtype=np.float32)[:, None, None] * np.ones((1, 3, 1), np.float32)
    part = data.Arrays(x, y)
    side = {"train/labelled": (x[..., 0] % 3 == 0), "test/labelled": (x[..., 0] % 2 == 0), "words": np.arange(len(y))}
    truth = {"train/difficulty": np.arange(len(y)), "val/difficulty": np.arange(7)}
    return data.Split(part, part, part, 2, "own", temporal=True, task=task, extra=side, truth=truth)


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (np.zeros((30, 3), np.int32), "classification"),
        (np.zeros((30, 2), np.int32), "multilabel"),
        (np.zeros((30, 2), np.float32), "regression"),
        (np.repeat([0, 1], 15), "classification"),
    ],
)
def test_a8_side_information_stays_with_its_examples(y: np.ndarray, task: str) -> None:
    whole = with_side_information(y, task)
    split = data.limited(whole, 10, np.random.default_rng(3))
    rows = split.train.x[:, 0, 0].astype(int)
    assert len(rows) == len(set(rows.tolist())) == 10
    assert rows.max() >= 15, "the first rows alone would be no draw"
    np.testing.assert_array_equal(split.train.y, y[rows])
    np.testing.assert_array_equal(split.extra["train/labelled"], np.repeat(rows[:, None] % 3 == 0, 3, 1))
    np.testing.assert_array_equal(split.truth["train/difficulty"], rows)
    for name in ("test/labelled", "words"):
        np.testing.assert_array_equal(split.extra[name], whole.extra[name])
    np.testing.assert_array_equal(split.truth["val/difficulty"], np.arange(7))


def test_a8_labels_that_no_step_has_are_masked_on_the_rows_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_side_information(np.ones((30, 3), np.int32))
    monkeypatch.setattr("dsnn.assembly.loading.check_trainable", lambda split, config: whole)
    monkeypatch.setattr("dsnn.assembly.loading.open_data", lambda config: whole)
    split = load_data(Config(data=DataConfig(limit=10), train=TrainConfig(batch_size=4)))
    rows = split.train.x[:, 0, 0].astype(int)
    np.testing.assert_array_equal(split.train.y, np.where(rows % 3 == 0, 1, UNLABELLED)[:, None] * np.ones(3, int))


def test_a8_sparse_rows_are_drawn_as_they_are() -> None:
    y = np.repeat([0, 1], [20, 10])
    part = data.Arrays(sparse.csr_array(np.eye(30, dtype=np.float32)), y)
    split = data.limited(data.Split(part, part, part, 2, "own"), 6, np.random.default_rng(0))
    assert isinstance(split.train.x, sparse.csr_array)
    np.testing.assert_array_equal(y[split.train.x.toarray().argmax(1)], split.train.y)
    assert np.bincount(split.train.y).tolist() == [4, 2]


def test_a8_what_is_measured_on_some_examples_is_measured_on_every_class() -> None:
    sorted_by_class = data.Arrays(np.arange(300.0)[:, None], np.repeat(np.arange(3), 100))
    some = data.sample(sorted_by_class, 60)
    assert (np.bincount(some.y, minlength=3) >= 10).all()
    np.testing.assert_array_equal(some.x[:, 0] // 100, some.y)
    assert (np.diff(some.x[:, 0]) > 0).all(), "in their order, each once"
    np.testing.assert_array_equal(data.sample(sorted_by_class, 60).x, some.x)
    assert data.sample(sorted_by_class, 300) is sorted_by_class
