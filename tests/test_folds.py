"""Folds: every example is tested once, by a network that did not learn from it."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sparse

from dsnn import data
from dsnn.assembly.identity import identity
from dsnn.assembly.loading import open_data
from dsnn.run import schema


def numbered(counts=(40, 7, 12), sparse_rows=False):
    """A set whose only feature is an example's number, in classes of 3 : 2 : 1."""
    every = np.arange(sum(counts), dtype=np.float32)[:, None]
    labels = np.asarray([(0, 0, 0, 1, 1, 2)[k % 6] for k in range(len(every))], np.int32)
    ends = np.cumsum(counts)
    parts = [data.Arrays(every[a:b], labels[a:b]) for a, b in zip((0, *ends[:-1]), ends, strict=True)]
    if sparse_rows:
        parts = [part._replace(x=sparse.csr_array(part.x)) for part in parts]
    return data.Split(*parts, 3, "numbered")


def numbers(part):
    x = part.x.toarray() if sparse.issparse(part.x) else part.x
    return x[:, 0].astype(int).tolist()


@pytest.mark.parametrize("sparse_rows", [False, True])
def test_every_example_is_tested_once_and_by_who_never_saw_it(sparse_rows):
    split = numbered(sparse_rows=sparse_rows)
    tested = []
    for fold in range(5):
        found = data.folded(split, 5, fold, seed=3)
        parts = [numbers(part) for part in (found.train, found.val, found.test)]
        assert sorted(itertools.chain(*parts)) == list(range(59))
        assert len(parts[2]) in (11, 12)
        assert len(parts[1]) == round(len(parts[0] + parts[1]) * 7 / 47)
        counts = np.bincount(found.test.y, minlength=3)
        assert all(abs(count - 59 * share) < 1.5 for count, share in zip(counts, (0.1, 1 / 15, 1 / 30), strict=True))
        tested += parts[2]
    assert sorted(tested) == list(range(59))


def test_seeds_move_what_validates_and_nothing_that_is_tested():
    first, second = (data.folded(numbered(), 4, 1, seed) for seed in (0, 1))
    assert numbers(first.test) == numbers(second.test)
    assert numbers(first.val) != numbers(second.val)
    assert "All 59 examples are in 4 folds by class, and fold 1 is the test part." in first.notes


def test_what_cannot_be_dealt_out_gets_a_sentence():
    split = numbered()
    with pytest.raises(data.DataError, match=r"two examples a fold, got 30 folds of 59 examples; lower data.folds"):
        data.folded(split, 30, 0, 0)
    with pytest.raises(data.DataError, match=r"knows more of its parts \(test/labelled\); leave data.folds out"):
        data.folded(split._replace(extra={"test/labelled": np.ones(12)}), 3, 0, 0)
    for given, said in (
        ("data.folds=1", "data.folds must be at least 2, or 0 for the set's own test part, got 1"),
        ("data.fold=2", "data.fold must be below data.folds, from 0, got fold 2 of 0"),
    ):
        with pytest.raises(ValueError, match=said):
            schema.compose([given])


def test_a_run_reads_its_fold_and_one_without_folds_keeps_its_name():
    plain, third = schema.compose([]), schema.compose(["data.folds=10", "data.fold=3"])
    assert not {"folds", "fold"} & identity(plain)["data"].keys()
    assert identity(third)["data"]["fold"] == 3
    whole, split = open_data(plain), open_data(third)
    count = sum(data.size(part) for part in (whole.train, whole.val, whole.test))
    assert data.size(split.test) in (count // 10, count // 10 + 1)
    assert sum(data.size(part) for part in (split.train, split.val, split.test)) == count


def test_a_stream_is_not_dealt_out():
    with pytest.raises(data.DataError, match=r"read as it is used; set data.stream=never"):
        data.folded(data.streams.streamed(numbered()), 3, 0, 0)
