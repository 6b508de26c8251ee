"""What `dsnn.fit` and `dsnn.predict` are given: taken as a file of data takes it, or refused in a sentence."""

import numpy as np
import pytest
import scipy.sparse as sparse

import dsnn
from dsnn.api import given

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
QUICK = {"epochs": 1, "hidden": [6], "baseline": "none", "halting": False, "steps": 2, "progress": False}


def fit(x=X, y=Y, **options):
    return dsnn.fit(x, y, **{**QUICK, **options})


def split(x=X, y=Y, task="auto"):
    return given.split_of(x, y, task, False, 0.2, 0)


@pytest.fixture(scope="module")
def fitted():
    return fit()


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (Y > 0, ("False", "True")),
        (list(map(bool, Y)), ("False", "True")),
        (Y * 1.0, ()),
        ((Y * 1.0).astype(np.float16), ()),
        (Y[:, None], ()),
        (Y[:, None] * 1.0, ()),
        ((Y > 0)[:, None], ("False", "True")),
        (np.array(["no", "yes"])[Y], ("no", "yes")),
        (np.array(["no", "yes"])[Y][:, None], ("no", "yes")),
        (np.array(["no", "yes"], object)[Y], ("no", "yes")),
        (np.array([False, True], object)[Y], ("False", "True")),
        (np.array([0, 1], object)[Y], ()),
        (sparse.csr_array(Y[:, None]), ()),
        (Y + 3.0, ("3", "4")),
    ],
)
def test_f13_labels_of_many_kinds_are_classes(y, names):
    made = split(y=y)
    assert (made.task, made.classes, made.class_names) == ("classification", 2, names)
    assert np.array_equal(np.sort(made.test.y), np.sort(Y))


@pytest.mark.slow
def test_f13_bool_and_float_labels_learn_as_whole_ones_do():
    probs = [dsnn.predict(fit(y=y), X, samples=2).probs for y in (Y, Y > 0, Y * 1.0, Y[:, None])]
    assert all(np.array_equal(one, probs[0]) for one in probs)


def test_f13_whole_numbers_in_floating_point_are_classes_while_they_are_few():
    assert "whole numbers, which are classes" in split(y=Y * 1.0).notes[0]
    assert split(y=Y * 1.0, task="regression").task == "regression"
    assert split(y=Y + 0.5).task == "regression"
    with pytest.raises(ValueError, match=r"got 60 whole numbers as float64; y.astype\(int\) is classes\.$"):
        split(y=np.arange(60.0))


@pytest.mark.parametrize("y", [np.where(np.arange(60) % 6, Y, np.nan), np.array([None, *Y[1:]], object), Y + 0.5])
def test_f13_examples_without_a_target_are_left_out(y):
    y = np.array(y, object if y.dtype == object else float)
    y[::6] = None if y.dtype == object else np.nan
    made = split(y=y)
    assert len(made.test.y) == 50
    assert "10 examples have no target and were left out." in made.notes


@pytest.mark.parametrize("hidden", [6, np.int64(6), 6.0, (6,), np.array([6]), [6.0]])
def test_f13_one_layer_is_a_number(hidden, fitted):
    made = fit(hidden=hidden)
    assert made.setup.config.model.hidden == [6]
    assert np.array_equal(dsnn.predict(made, X, samples=2).probs, dsnn.predict(fitted, X, samples=2).probs)


SPARSE = np.where(X > 0.5, X, 0)


@pytest.mark.parametrize(
    "kind", ["csr_array", "csr_matrix", "coo_array", "csc_matrix", "lil_array", "dok_array", "dia_array"]
)
def test_f13_sparse_inputs_of_every_kind(kind):
    rows = getattr(sparse, kind)(SPARSE)
    made = fit(rows)
    assert np.array_equal(dsnn.predict(made, rows, samples=2).probs, dsnn.predict(made, SPARSE, samples=2).probs)
    with pytest.raises(ValueError, match=r"sparse x must be .* real numbers, got complex"):
        fit(rows.astype(complex))


def test_f13_masked_values_are_gaps():
    hidden = np.zeros(X.shape, bool)
    hidden[3, 1] = True
    made = split(np.ma.array(X, mask=hidden))
    assert "missing values of x were filled in, those of column 1 of 4" in made.notes[-1]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (X + 1j, "x must hold real numbers, got dtype complex"),
        (X.astype(str), "x must hold real numbers, got dtype <U"),
        (X.astype(int).astype("M8[s]"), "x must hold real numbers, got dtype datetime64"),
        ([[1.0, 2.0], [1.0]] * 30, "series of unequal length are filled up"),
        (np.array([[1, "a", 2, 3]] * 60, object), "must hold numbers of one kind, got 'a'"),
        (X.astype(np.float64) * 1e300, "finite"),
    ],
)
def test_f13_what_is_no_input_gets_a_sentence_in_fit_and_in_predict(x, words, fitted):
    for call in (lambda: fit(x), lambda: dsnn.predict(fitted, x)):
        with pytest.raises(ValueError, match=words) as said:
            call()
        assert str(said.value).isprintable()
        assert str(said.value).endswith(".")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_f13_gaps_in_predict_get_a_sentence(value, fitted):
    x = X.copy()
    x[3, 1] = value
    with pytest.raises(ValueError, match=r"values must be finite, got 1 .* first at index \(3, 1\)"):
        dsnn.predict(fitted, x)


@pytest.mark.parametrize(
    "options",
    [{"samples": s} for s in (2.5, 0, -1, True, 2**40)] + [{"seed": 1.5}, {"seed": -1}, {"level": 2.0}],
)
def test_f13_options_of_predict_get_a_sentence(options, fitted):
    (name,) = options
    with pytest.raises(ValueError, match=name) as said:
        dsnn.predict(fitted, X, **options)
    assert str(said.value).endswith(".")


def test_f13_whole_samples_in_floating_point(fitted):
    one, two = (dsnn.predict(fitted, X, samples=samples).probs for samples in (4, 4.0))
    assert np.array_equal(one, two)


def test_f13_a_configuration_of_ones_own():
    assert fit(config=dsnn.config.Config()).setup.config == fit().setup.config


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": 8.5}, {"hidden": "8"}, {"hidden": True}, {"hidden": None}, {"hidden": 0}, {"hidden": [[8]]},
        {"hidden": 2**31}, {"epochs": 1.5}, {"steps": "a"}, {"batch_size": True}, {"learning_rate": "x"}, {"lam": None},
        {"beta": 10**400}, {"held_out": float("nan")},
        {"seed": 1.5}, {"seed": 2**70},
        {"encoding": 3}, {"patience": "a"}, {"optimizer_options": 3}, {"cell_options": [1]}, {"channels": "a"},
    ],
)  # fmt: skip
def test_f13_options_of_fit_of_another_kind_get_a_sentence(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name}|layer") as said:
        fit(**options)
    assert str(said.value).isprintable()
    assert str(said.value).endswith(".")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", "x"), ("seed", 1.5), ("model.hidden", 64), ("model.hidden", ["a"]), ("model.options", 3),
        ("data.root", 3), ("train.epochs", None), ("svi.lam", "x"), ("model.noise_width", True), ("metrics", "abc"),
        ("train.scan", 3), ("train.scan.order", []), ("model.hidden", [2**31]), ("model.hidden", [70_000, 70_000]),
        ("model.blocks", 10**6), ("bayes.show", [1]), ("data.options", {1: 2}), ("data", None),
    ],
)  # fmt: skip
def test_r15_a_stored_configuration_of_another_kind_gets_a_sentence(place, value):
    options = dsnn.config.as_dict(dsnn.config.Config())
    *groups, name = place.split(".")
    inner = options
    for group in groups:
        inner = inner[group]
    inner[name] = value
    with pytest.raises(ValueError, match=r"\.$") as said:
        dsnn.config.from_dict(options)
    assert str(said.value).isprintable()
