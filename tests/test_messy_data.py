"""Small, odd and messy data: what becomes of them, exactly, and the one sentence that is said where nothing can."""

import numpy as np
import pytest
import scipy.sparse as sparse

from dsnn import data
from dsnn.assembly.loading import load_data
from dsnn.config import Config, DataConfig, TrainConfig
from dsnn.data import Arrays, Split, worries
from dsnn.data.split import hold_out, seeded_mask
from dsnn.run import inspect

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.arange(60) % 3


def load(folder, **arrays):
    """Loads an npz of these arrays, with options among them."""
    options = {k: arrays.pop(k) for k in list(arrays) if not k.startswith(("x", "y"))}
    whole = {"x_train": X, "y_train": Y, "x_test": X[:9] + 10, "y_test": Y[:9]} | arrays
    np.savez(folder / "a.npz", **{k: v for k, v in whole.items() if v is not None})
    return data.load("npz", path=folder / "a.npz", **options)


def same(one: Split, other: Split) -> None:
    for part in ("train", "val", "test"):
        for mine, theirs in zip(getattr(one, part), getattr(other, part), strict=True):
            np.testing.assert_array_equal(mine, theirs)


# Labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1, 2], ()),
        ([1, 2, 3], ("1", "2", "3")),
        ([-5, 0, 7], ("-5", "0", "7")),
        ([0.0, 1.0, 2.0], ()),
        ([1.0, 2.0, 3.0], ("1", "2", "3")),
        (["ant", "bee", "cat"], ("ant", "bee", "cat")),
        ([b"ant", b"bee", b"cat"], ("ant", "bee", "cat")),
    ],
)
def test_what_classes_are_called_changes_their_names_only(labels, names, tmp_path):
    plain = load(tmp_path)
    named = np.array(labels)
    split = load(tmp_path, y_train=named[Y], y_test=named[Y[:9]])
    same(split, plain)
    assert (split.classes, split.class_names) == (3, names)
    same(load(tmp_path, y_train=named[Y][:, None], y_test=named[Y[:9]][:, None]), plain)  # [n, 1]


def test_shuffled_names_draw_the_same_parts(tmp_path):
    plain = load(tmp_path, x_test=None, y_test=None, test_fraction=0.25)
    other = np.array(["zoo", "ant", "bee"])  # sorted: 1, 2, 0
    split = load(tmp_path, x_test=None, y_test=None, test_fraction=0.25, y_train=other[Y])
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(getattr(split, part).x, getattr(plain, part).x)
        assert [split.class_names[k] for k in getattr(split, part).y] == other[getattr(plain, part).y].tolist()


def test_names_say_nothing_to_a_terminal(tmp_path):
    named = np.array(["plain", "\x1b[31mred\n", "é"])
    assert load(tmp_path, y_train=named[Y], y_test=named[Y[:9]]).class_names == ("\ufffd[31mred\ufffd", "plain", "é")


def test_gaps_in_the_numbers_are_no_classes(tmp_path):
    split = load(tmp_path, y_train=np.where(Y == 1, 7, 0), y_test=np.where(Y[:9] == 1, 7, 0))
    assert (split.classes, split.class_names) == (2, ("0", "7"))
    assert load(tmp_path, y_train=Y == 1, y_test=Y[:9] == 1).class_names == ("False", "True")
    assert load(tmp_path, classes=5).classes == 5
    assert load(tmp_path, classes=5, y_test=np.full(9, 4)).test.y.tolist() == [4] * 9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y_train": np.ones(60, int)}, "at least two classes, got 48 training labels of 'npz' that are all 1; give"),
        ({"y_train": np.full(60, "a"), "y_test": np.full(9, "a")}, "that are all a; give"),
        ({"y_test": np.full(9, 5)}, r"training part \(0, 1, 2\), got 5 in the test part of 'npz' alone"),
        ({"x_val": X[:2], "y_val": np.array([0, 9])}, "got 9 in the val part of 'npz' alone"),
        ({"y_train": np.array(list("abc"))[Y]}, "got 0, 1, 2 in the test part of 'npz' alone"),
        ({"y_train": np.eye(3)[Y], "y_test": np.eye(3)[Y[:9]]}, "turn one-hot rows into class numbers with argmax"),
        ({"y_train": np.ones((60, 3), int), "y_test": np.ones((9, 3), int)}, r"set data\.options\.task=multilabel"),
        ({"y_train": X, "y_test": X[:9]}, r"labels must be integers or text.*set data\.options\.task=regression"),
        ({"y_train": np.array([{}] * 60)}, "pickled objects in y_train.*with NaN, and names as text"),
        ({"classes": 2}, "class numbers from 0 to 1, got 2 in the train part"),
        ({"y_train": np.array(list("abc"))[Y], "classes": 3}, "class numbers from 0 to 2, got a in the train part"),
        ({"y_train": np.array(list("abc"))[Y], "task": "regression"}, "targets must be numbers with task=regression"),
    ],
)
def test_labels_that_cannot_be_classes_get_one_sentence(changes, said, tmp_path):
    with pytest.raises(data.DataError, match=said) as error:
        load(tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert "argmax" not in str(error.value) or "one-hot" in said


# Values


def test_gaps_hold_the_training_median_of_their_column(tmp_path):
    x, test = X.copy(), X[:9].copy()
    x[5, 1] = x[7, 1] = test[3, 2] = np.nan
    split = load(tmp_path, x_train=x, x_test=test, x_val=X[:2], y_val=Y[:2])
    assert split.train.x[5, 1] == split.train.x[7, 1] == np.float32(np.median(np.delete(x[:, 1], [5, 7])))
    assert split.test.x[3, 2] == np.float32(np.median(x[:, 2]))
    assert split.notes == (
        "3 missing values of x were filled in, those of columns 1, 2 of 4 with its training median.",
    )
    kept = ~np.isnan(x)
    np.testing.assert_array_equal(split.train.x[kept], x.astype(np.float32)[kept])
    nothing = load(tmp_path, x_train=np.where(np.arange(4) == 2, np.nan, X), val_fraction=0.0)
    assert (nothing.train.x[:, 2] == 0).all()
    assert "column 2 of 4, which has no training value, with 0" in nothing.notes[0]
    with pytest.raises(data.DataError, match="finite, got 1 NaN or infinite"):
        load(tmp_path, x_train=np.where(np.arange(240).reshape(60, 4) == 5, np.inf, X))


def test_training_examples_without_a_target_are_left_out(tmp_path):
    y = Y.astype(float)
    y[[3, 11]] = np.nan
    split = load(tmp_path, y_train=y, val_fraction=0.0)
    np.testing.assert_array_equal(split.train.x, np.delete(X, [3, 11], 0).astype(np.float32))
    assert split.train.y.tolist() == np.delete(Y, [3, 11]).tolist()
    assert split.notes == ("2 examples of the train part have no target and were left out.",)
    numbers = load(tmp_path, y_train=np.where(np.arange(60) == 4, np.nan, X[:, 0]), task="regression", val_fraction=0.0)
    assert len(numbers.train.y) == 59
    for task, test in (("classification", np.where(np.arange(9) == 4, np.nan, Y[:9])), ("regression", [np.nan] * 9)):
        with pytest.raises(data.DataError, match=r"every test example needs a target, got \d without one"):
            load(tmp_path, y_train=Y.astype(float), y_test=np.array(test), task=task)


def series(temporal_mean: float = 3.0) -> np.ndarray:
    return RNG.normal(temporal_mean, 2, size=(60, 8, 4))


def test_nan_to_the_end_is_the_end_of_a_series(tmp_path):
    x = series()
    ends = RNG.integers(2, 9, 60)
    x[np.arange(8) >= ends[:, None]] = np.nan
    x[0, 0, 2] = np.nan  # a gap, not an end
    split = load(tmp_path, x_train=x, x_test=series()[:9], temporal=True, val_fraction=0.0)
    np.testing.assert_array_equal(split.extra["train/lengths"], ends)
    np.testing.assert_array_equal(split.extra["test/lengths"], np.full(9, 8))
    assert split.train.x[0, 0, 2] == np.float32(np.nanmedian(x[:, :, 2]))
    scaled = data.standardised(split).train.x
    tail = np.arange(8) >= ends[:, None]
    np.testing.assert_allclose(scaled[tail], 0, atol=1e-6)  # nothing, once it is scaled
    assert np.abs(scaled[~tail]).mean() > 0.5
    assert any(f"series last from {ends.min()} to 8 steps" in note for note in split.notes)
    whole = data.assign_roles(load(tmp_path, x_train=x, x_test=series()[:9], temporal=True), 0)
    assert len(whole.extra["certify/lengths"]) == len(whole.certify.y)
    assert len(whole.extra["val/lengths"]) == len(whole.val.y)
    few = data.limited(whole, 10, np.random.default_rng(0))
    assert len(few.extra["train/lengths"]) == len(few.train.y) == 10


def test_spikes_end_in_silence_and_labels_per_step_may_be_missing(tmp_path):
    spikes = (RNG.random((60, 8, 4)) < 0.3).astype(float)
    spikes[:, 5:] = np.nan
    y = np.where(np.arange(8) < 5, np.arange(8) % 2, np.nan) + np.zeros((60, 1))
    split = load(tmp_path, x_train=spikes, x_test=spikes[:9], y_train=y, y_test=y[:9], temporal=True, val_fraction=0.0)
    assert (split.train.x[:, 5:] == 0).all()
    np.testing.assert_array_equal(split.extra["train/labelled"], ~np.isnan(y))
    np.testing.assert_array_equal(split.train.y[:, :5], y[:60, :5])


def test_what_differs_survives_single_precision(tmp_path):
    """A column of 1e8 ± 1 is eight apart in single precision."""
    far = X.copy()
    far[:, 1] += 1e8
    split = load(tmp_path, x_train=far, x_test=far[:9], val_fraction=0.0)
    np.testing.assert_allclose(split.train.x[:, 1], X[:, 1] - np.median(X[:, 1]), atol=1e-6)
    np.testing.assert_array_equal(split.train.x[:, [0, 2, 3]], X.astype(np.float32)[:, [0, 2, 3]])
    np.testing.assert_array_equal(split.test.x, split.train.x[:9])
    assert "subtracted from column 1 of 4" in split.notes[0]
    seconds = (1_700_000_000 + np.arange(60))[:, None] * np.ones((1, 2), int)
    counted = load(tmp_path, x_train=seconds, x_test=seconds[:9], val_fraction=0.0)
    np.testing.assert_array_equal(counted.train.x[:, 0], np.arange(60) - 29.5)
    constant = load(tmp_path, x_train=np.full((60, 4), 1e8), x_test=np.full((9, 4), 1e8), val_fraction=0.0)
    assert not constant.notes
    assert (data.standardised(constant).train.x == 0).all()


def test_the_unit_of_inputs_changes_nothing(tmp_path):
    plain = data.standardised(load(tmp_path, x_test=X[:9]))
    other = data.standardised(load(tmp_path, x_train=1000 * X + 5, x_test=1000 * X[:9] + 5))
    for part in ("train", "val", "test"):
        np.testing.assert_allclose(getattr(other, part).x, getattr(plain, part).x, atol=1e-5)
    pixels = RNG.integers(0, 256, (60, 6, 6, 1)).astype(np.uint8)
    seen = data.standardised(load(tmp_path, x_train=pixels, x_test=pixels[:9]))
    assert np.sqrt((seen.train.x**2).mean()) == pytest.approx(1, rel=0.02)


# Parts


def test_a_test_part_is_drawn_only_when_asked(tmp_path):
    with pytest.raises(data.DataError, match=r"asked for, got none in .*a\.npz; .*data\.options\.test_fraction=0\.2"):
        load(tmp_path, x_test=None, y_test=None)
    split = load(tmp_path, x_test=None, y_test=None, test_fraction=0.2)
    assert [len(getattr(split, p).y) for p in ("train", "val", "test")] == [38, 10, 12]
    assert np.bincount(split.test.y).tolist() == [4, 4, 4]
    same(split, load(tmp_path, x_train=None, y_train=None, x_test=None, y_test=None, x=X, y=Y, test_fraction=0.2))
    assert not np.array_equal(split.test.x, load(tmp_path, x_test=None, y_test=None, test_fraction=0.2, seed=1).test.x)
    for fraction in (0.0, 1.0, -0.1):
        with pytest.raises(data.DataError, match=r"test_fraction must be in \(0, 1\), got"):
            load(tmp_path, x_test=None, y_test=None, test_fraction=fraction)
    with pytest.raises(data.DataError, match=r"for data without a test part, got 0\.5 and a test part"):
        load(tmp_path, test_fraction=0.5)
    with pytest.raises(
        data.DataError, match=r"two examples and more, got 60 classes among 60 examples .*task=regression"
    ):
        load(tmp_path, y_train=np.arange(60), x_test=None, y_test=None, test_fraction=0.2)
    with pytest.raises(data.DataError, match=r"test part must not be empty, got 0\.001 of 60 examples"):
        load(tmp_path, x_test=None, y_test=None, test_fraction=0.001)


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5, 0.9])
def test_every_class_keeps_a_training_example(fraction, tmp_path):
    y = np.repeat([0, 1, 2, 3], [30, 3, 2, 1])
    for seed in range(5):
        mask = seeded_mask(y, seed, fraction)
        assert (np.bincount(y[~mask], minlength=4) > 0).all()
        assert not mask[y == 3].any()
        assert mask.sum() == min(round(36 * fraction), 32)
    split = load(tmp_path, x_train=X[:36], y_train=y, x_test=None, y_test=None, test_fraction=fraction)
    assert set(split.train.y) == {0, 1, 2, 3}
    assert hold_out(y, 36, np.random.default_rng(0), spare=True).sum() == 32
    assert not hold_out(y[:0], 0, np.random.default_rng(0)).size


def test_an_unbalanced_set_is_divided_in_proportion(tmp_path):
    y = np.repeat([0, 1], [195, 5])
    x = RNG.normal(size=(200, 3))
    split = load(tmp_path, x_train=x, y_train=y, x_test=None, y_test=None, test_fraction=0.2)
    assert [np.bincount(getattr(split, p).y).tolist() for p in ("train", "val", "test")] == [[125, 3], [31, 1], [39, 1]]
    (said,) = [sentence for sentence in worries(split) if "unbalanced" in sentence]
    assert said.startswith("classes are unbalanced, 125 of 0 to 3 of 1: an accuracy of 97.7% takes no learning;")
    assert "train.class_weight=balanced" in said


@pytest.mark.parametrize("count", [2, 3, 5, 20, 64])
def test_small_sets_reach_the_learner(count, tmp_path):
    y = np.arange(count) % 2
    np.savez(tmp_path / "s.npz", x_train=X[:count] if count <= 60 else RNG.normal(size=(count, 4)), y_train=y,
             x_test=X[:2], y_test=[0, 1])  # fmt: skip
    source = DataConfig(name="npz", path=str(tmp_path / "s.npz"), standardise="auto")
    split = load_data(Config(data=source, train=TrainConfig(batch_size=0, epochs=0)))
    assert set(split.train.y) == {0, 1}
    assert data.size(split.train) + data.size(split.val) + data.size(split.certify) == count


# What is odd


def made(x: np.ndarray, y: np.ndarray, task: str = "classification", test: np.ndarray | None = None) -> Split:
    part = Arrays(np.asarray(x, np.float32), y)
    held = Arrays(part.x[:3] + 50 if test is None else np.asarray(test, np.float32), y[:3])
    classes = int(y.max()) + 1 if task == "classification" else y.shape[1]
    return Split(part, part, held, classes, "made", task=task)


def test_sound_data_raise_no_worry():
    assert worries(made(X, Y)) == ()
    assert worries(data.load("digits"))[1:] == ()  # but for pixels of the border that never change


def test_each_oddity_has_its_sentence():
    def only(split: Split) -> str:
        (said,) = worries(split)
        return said

    still = X.copy()
    still[:, [0, 3]] = 7
    assert only(made(still, Y)) == "an input that never changes in training says nothing: columns 0, 3 of 4."
    assert "differ in scale by up to 1e+06 times" in only(made(X * [1, 1, 1, 1e6], Y))
    wide = made(RNG.normal(size=(10, 12)), np.arange(10) % 2)
    assert only(wide).startswith("there are more inputs (12) than training examples (10)")
    assert only(made(X, Y, test=X[10:13])).startswith("3 of 3 test examples are training examples too")
    torn = X.copy()
    torn[1] = torn[0]
    assert only(made(torn, Y)).startswith("2 training examples equal another one that is labelled otherwise")
    assert only(made(X, np.arange(60))).endswith("looks like a regression (data.options.task=regression).")
    assert only(made(X, np.where(Y == 1, 0, Y))) == "a class without a training example cannot be learned: 1 of 3."
    alone = np.where(np.arange(60) == 5, 2, Y % 2)
    single, unbalanced = worries(made(X, alone))
    assert single == "a class with one training example cannot be checked on held-out ones: 2."
    assert unbalanced.startswith("classes are unbalanced, 39 of 0 to 1 of 2: an accuracy of 65.0%")
    assert only(made(X, np.ones((60, 2), np.int32), "multilabel")).endswith("teaches nothing: all 2 columns.")
    assert only(made(X, np.ones((60, 1)), "regression")).endswith("teaches nothing: column 0 of 1.")


def test_missing_labels_that_became_text_are_a_worry(tmp_path):
    y = np.array([["a", "b", np.nan][k] for k in Y])
    (said,) = worries(load(tmp_path, y_train=y, y_test=y[:9]))
    assert said.startswith("a class is called 'nan', as missing labels are")


def test_lengths_that_tell_classes_apart_are_a_worry(tmp_path):
    x = series()
    x[Y == 0, 3:] = np.nan
    split = load(tmp_path, x_train=x, x_test=series()[:9], temporal=True)
    assert any("classes differ in how long their series last, 3 to 8 steps" in said for said in worries(split))


def test_sparse_rows_with_gaps_are_filled_with_nothing(tmp_path):
    rows = sparse.random_array((60, 30), density=0.2, format="csr", rng=np.random.default_rng(0))
    rows.data[3] = np.nan
    fields = {f"x_train_{k}": getattr(rows, k) for k in ("data", "indices", "indptr", "shape")}
    split = load(tmp_path, x_train=None, x_test=np.ones((9, 30)), val_fraction=0.0, **fields)
    np.testing.assert_allclose(split.train.x.toarray(), np.nan_to_num(rows.toarray()))
    assert split.notes == ("1 missing values of sparse rows were set to 0.",)


def test_archives_say_their_size_before_they_are_unpacked(tmp_path, monkeypatch):
    from dsnn.data import npz, own

    monkeypatch.setattr(own, "MAX_VALUES", 100)
    with pytest.raises(data.DataError, match=r"x_train may hold 100 numbers, got shape \(60, 4\)"):
        load(tmp_path)
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    with pytest.raises(data.DataError, match="may unpack to"):
        load(tmp_path)


def test_looking_says_what_is_odd_and_what_a_run_would_do(tmp_path, capsys):
    x = RNG.normal(size=(150, 4))
    y = np.arange(150) % 3
    x[np.arange(150), y] += 3
    x[0, 3] = np.nan
    np.savez(tmp_path / "a.npz", x=x * [1, 1, 1, 1e5], y=np.array(["[ant]", "bee", "cat"])[y])
    asked = ["data=npz", f"data.path={tmp_path}/a.npz", f"picture={tmp_path}/a.png"]
    assert inspect.main(asked) == 1
    assert "data.options.test_fraction=0.2" in capsys.readouterr().err
    assert inspect.main([*asked, "data.options.test_fraction=0.2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for sentence in (
        "[ant]",
        "30 examples were drawn as the test part",
        "1 missing values of x were filled in, those of column 3 of 4",
        "the columns differ in scale",
        "a run can learn this. it would take experiment=own: 96 training, 12 selecting, 12 certifying and 30 test",
        "batches of 8, 209 epochs of 12 updates, 16 time steps.",
        "svi.kl_weight=",
        "every example runs all 16 steps: early answers take 50 certifying examples.",
        "a linear model (logistic regression) has accuracy ",
    ):
        assert sentence in said, sentence
    assert inspect.main([*asked, "data.options.test_fraction=0.2", "train.batch_size=128"]) == 0
    assert "a run cannot learn this: train.batch_size must be at most the 96" in capsys.readouterr().out
