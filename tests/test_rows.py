"""Sparse rows that stay sparse: padded, gathered and made dense inside a compiled step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse

from dsnn import data, learn
from dsnn.assembly import loading
from dsnn.assembly.assemble import build
from dsnn.assembly.linear import linear_model
from dsnn.data import Arrays, Split, rows
from dsnn.run import population, schema
from dsnn.tasks import predictor

WORDS = sparse.random_array((40, 300), density=0.03, format="csr", rng=np.random.default_rng(0), dtype=np.float32)


def test_rows_are_the_dense_array_wherever_they_are_asked():
    ours, right = rows.padded(WORDS, "words"), WORDS.toarray()
    assert (len(ours), ours.shape, ours.ndim, ours.dtype) == (40, (40, 300), 2, right.dtype)
    assert ours.values.shape[1] == np.diff(WORDS.indptr).max()
    for index in (np.array([3, 3, 0]), slice(5, 9), 7, np.arange(6).reshape(2, 3)):
        np.testing.assert_array_equal(ours[index], right[index])
        np.testing.assert_array_equal(jax.tree.map(jnp.asarray, ours)[index], right[index])
    np.testing.assert_array_equal(np.asarray(ours), right)
    np.testing.assert_array_equal(jnp.asarray(ours), right)
    assert (ours.min(), ours.max()) == (right.min(), right.max())
    assert (ours.tocsr() != WORDS).nnz == 0
    np.testing.assert_array_equal(ours[:], right)  # still


def test_rows_are_an_argument_of_a_compiled_function_and_never_dense_as_a_whole():
    ours = jax.tree.map(jnp.asarray, rows.padded(WORDS, "words"))

    @jax.jit
    def batch(x, index):
        return x[index]

    index = jnp.array([4, 0, 39])
    np.testing.assert_array_equal(batch(ours, index), WORDS.toarray()[np.asarray(index)])
    text = batch.lower(ours, index).as_text()
    assert "3x300xf32" in text
    assert "40x300xf32" not in text


def test_a_column_that_comes_twice_is_added_up_as_scipy_does():
    twice = sparse.csr_array((np.array([1.0, 2.0, 4.0]), np.array([1, 1, 0]), np.array([0, 3, 3])), shape=(2, 3))
    ours = rows.padded(twice, "twice")
    np.testing.assert_array_equal(ours[:], twice.toarray())
    np.testing.assert_array_equal(jax.tree.map(jnp.asarray, ours)[:], [[4, 3, 0], [0, 0, 0]])
    empty = rows.padded(sparse.csr_array((2, 3)), "empty")
    np.testing.assert_array_equal(empty[:], np.zeros((2, 3)))


def test_one_endless_row_is_refused_with_a_way_out(monkeypatch):
    monkeypatch.setattr(rows, "MAX_PADDED", 100)
    with pytest.raises(data.DataError, match=r"may take 100 values, got 40 rows of up to \d+ in 'words'; leave out"):
        rows.padded(WORDS, "words")


def made(x) -> Split:
    part = Arrays(x, np.arange(x.shape[0]) % 2)
    return Split(part, part, part, 2, "words", certify=part)


def test_the_unit_of_sparse_values_changes_nothing():
    one, other = (rows.sparse_standardised(made(sparse.csr_array(WORDS * k))) for k in (1.0, 1000.0))
    np.testing.assert_allclose(other.certify.x.toarray(), one.certify.x.toarray(), rtol=1e-5)
    assert np.sqrt((one.train.x.data**2).mean()) == pytest.approx(1, rel=1e-5)
    dense = data.standardised(made(WORDS.toarray()))
    np.testing.assert_allclose(one.train.x.toarray(), dense.train.x, rtol=1e-5)
    assert float(data.scaling_of(one).scale) == pytest.approx(float(data.scaling_of(dense).scale))
    ones = made((WORDS != 0).astype(np.float32))
    assert float(data.scaling_of(rows.sparse_standardised(ones)).scale) == 1
    assert isinstance(rows.on_device(one).certify.x, rows.Rows)
    assert rows.on_device(dense) is dense


@pytest.mark.slow
def test_a_run_on_rows_is_the_run_on_the_dense_array(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    x = sparse.csr_array(
        (rng.random((90, 25)) < np.where(y[:, None] == np.arange(25) % 2, 0.3, 0.05)).astype(float) * 3
    )
    fields = {f"x_{p}_{k}": getattr(part, k) for p, part in (("train", x[:60]), ("test", sparse.csr_array(x[60:])))
              for k in ("data", "indices", "indptr", "shape")}  # fmt: skip
    np.savez(tmp_path / "w.npz", **fields, y_train=y[:60], y_test=y[60:])
    config = schema.compose(
        ["data=npz", f"data.path={tmp_path}/w.npz", "model.hidden=[8]", "train.steps=3", "train.epochs=2"]
    )

    def learned():
        setup = build(config)
        own, arrays, losses = setup.config.train, population._arrays(setup), []
        state = setup.learner.init()
        for epoch in learn.fit(
            setup.learner, state, arrays, epochs=own.epochs, batch_size=own.batch_size, root=setup.root
        ):
            state = epoch.state
            losses.append(np.asarray(epoch.info.loss))
        probs = predictor(setup.bayesian)(setup.params(state), setup.split.test.x, setup.root, samples=2).probs
        return setup.split, np.concatenate(losses), probs, linear_model(setup.split).scores

    dense, *right = learned()
    monkeypatch.setattr(loading, "MAX_DENSE", 0)
    wide, *ours = learned()
    assert isinstance(dense.train.x, np.ndarray)
    for part in ("train", "val", "test", "certify"):
        assert isinstance(getattr(wide, part).x, rows.Rows)
        np.testing.assert_allclose(getattr(wide, part).x[:], getattr(dense, part).x, rtol=1e-6)
    np.testing.assert_allclose(ours[0], right[0], rtol=1e-4)
    np.testing.assert_allclose(ours[1], right[1], atol=1e-4)
    assert ours[2] == pytest.approx(right[2], abs=1e-4)
