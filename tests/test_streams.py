"""Data that are read as they are used: the numbers of memory, in an order of seed and epoch, and said errors."""

import io
import json
import pickle

import jax
import numpy as np
import pytest

from dsnn import data, rng
from dsnn.data import feed, stream, streams
from dsnn.data.batches import epoch_order
from dsnn.data.feed import Feed
from dsnn.data.readers import ArrayReader, Kept, MappedReader
from dsnn.data.shards import ShardReader
from dsnn.data.streamed import Filled, Single, Streamed
from dsnn.run import job, loop, population, schema

TINY = (
    "train.epochs=2",
    "train.batch_size=16",
    "train.steps=3",
    "model.hidden=[8]",
    "bayes.samples=2",
    "track.tool=none",
    "run.report=false",
    "baseline=none",
)


def own(folder, train=300, test=90, width=7, dtype=np.float64):
    draw = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        y = draw.integers(0, 3, count)
        np.save(folder / f"x_{part}.npy", (draw.normal(size=(count, width)) + y[:, None]).astype(dtype))
        np.save(folder / f"y_{part}.npy", y)
    return folder


def shards(folder, kind="npz", sizes=(40, 30, 50, 20), width=5, test=30):
    """Writes shards whose examples hold their number, and returns all training inputs in order."""
    folder.mkdir(exist_ok=True)
    total = sum(sizes)
    x = np.arange(total * width, dtype=np.float32).reshape(total, width)
    y = np.arange(total) % 3
    start = 0
    for number, size in enumerate((*sizes, test)):
        rows = slice(start, start + size) if number < len(sizes) else slice(0, test)
        name = folder / (f"train-{number:03}.{kind}" if number < len(sizes) else f"test.{kind}")
        write(name, kind, x[rows], y[rows])
        start += size
    return x, y


def write(name, kind, x, y):
    if kind == "npz":
        np.savez_compressed(name, x=x, y=y)
    elif kind == "parquet":
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {f"c{k}": x[:, k] for k in range(x.shape[1])}
        parquet.write_table(pa.table({**columns, "y": y}), name)
    else:
        module = pytest.importorskip("array_record.python.array_record_module")
        writer = module.ArrayRecordWriter(str(name), "group_size:1")
        for one, label in zip(x, y, strict=True):
            record = io.BytesIO()
            np.savez(record, x=one, y=label)
            writer.write(record.getvalue())
        writer.close()


def fed(x, y, **how):
    return Feed(x if isinstance(x, Streamed) else Streamed(ArrayReader(x)), y, **how)


def test_streamed_inputs_are_those_of_memory(tmp_path):
    own(tmp_path)
    whole, read = (data.load("npy", path=tmp_path, stream=how) for how in ("never", "always"))
    assert isinstance(read.train.x, Streamed)
    assert isinstance(whole.train.x, np.ndarray)
    whole, read = data.assign_roles(data.standardised(whole), 0), data.assign_roles(data.standardised(read), 0)
    for part in ("train", "val", "certify", "test"):
        one, other = getattr(whole, part), getattr(read, part)
        assert np.array_equal(one.y, other.y)
        assert other.x.dtype == one.x.dtype
        assert other.x.shape == one.x.shape
        np.testing.assert_array_equal(np.asarray(other.x), one.x)


def test_a_slice_and_a_mask_read_nothing_and_numbers_read_their_rows():
    x = np.arange(12.0, dtype=np.float32).reshape(6, 2)
    some = Streamed(ArrayReader(x)).then(Single(2.0))[1:5]
    assert isinstance(some, Streamed)
    np.testing.assert_array_equal(some[np.array([3, 0])], 2 * x[[4, 1]])
    np.testing.assert_array_equal(some[np.array([False, True, True, False])][np.array([1])], 2 * x[[3]])
    np.testing.assert_array_equal(some[2], 2 * x[3])
    assert (some.min(), some.max()) == (4.0, 18.0)
    with pytest.raises(TypeError, match="numbers, a mask or a slice"):
        some[0, 1]


def test_what_is_not_finite_is_refused_with_the_number_of_its_example():
    x = np.ones((6, 2), np.float32)
    x[4, 1] = np.nan
    some = Streamed(ArrayReader(x))[np.arange(6) > 1]
    assert some[np.array([0, 1])].sum() == 4
    with pytest.raises(data.DataError, match="in example 4 of a stream"):
        some[np.array([1, 2])]
    assert Streamed(ArrayReader(x)).then(Filled(np.array([0.0, 7.0])))[4][1] == 7


def test_gaps_are_filled_with_medians_of_what_was_looked_at(tmp_path):
    own(tmp_path)
    x = np.load(tmp_path / "x_train.npy")
    x[::5, 2] = np.nan
    np.save(tmp_path / "x_train.npy", x)
    whole, read = (data.load("npy", path=tmp_path, stream=how) for how in ("never", "always"))
    assert any("gaps are filled" in note for note in read.notes)
    np.testing.assert_allclose(np.asarray(read.test.x), whole.test.x)
    filled = np.isclose(np.asarray(read.train.x), whole.train.x, atol=0.3)  # the median of all, and of all but few
    assert filled.all()


def test_a_series_that_ends_early_is_refused(tmp_path):
    x = np.ones((40, 6, 2))
    x[3, 4:] = np.nan
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", x)
        np.save(tmp_path / f"y_{part}.npy", np.arange(40) % 2)
    with pytest.raises(data.DataError, match=r"series that end early.*data\.stream=never"):
        data.load("npy", path=tmp_path, stream="always", temporal=True)


def test_a_series_that_ends_early_outside_of_what_was_looked_at_is_refused_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("dsnn.data.limit.LOOKED_AT", 5)
    x = np.ones((40, 6, 2))
    for part in ("train", "test"):
        np.save(tmp_path / f"x_{part}.npy", x)
        np.save(tmp_path / f"y_{part}.npy", np.arange(40) % 2)
        x[3, 4:] = np.nan  # of the test part alone
    split = data.load("npy", path=tmp_path, stream="always", temporal=True)
    assert np.asarray(split.train.x).shape == (32, 6, 2)
    with pytest.raises(data.DataError, match="series that end early"):
        np.asarray(split.test.x)


def test_whole_streams_are_read_up_to_a_size(monkeypatch):
    some = Streamed(ArrayReader(np.ones((8, 4), np.float32)))
    assert np.asarray(some).shape == (8, 4)
    monkeypatch.setattr("dsnn.data.streamed.MOST_WHOLE_BYTES", 100)
    with pytest.raises(data.DataError, match=r"reads all examples at once.*data\.stream=never"):
        np.asarray(some)


def test_auto_streams_files_above_a_size(tmp_path, monkeypatch):
    own(tmp_path)
    assert isinstance(data.load("npy", path=tmp_path).train.x, np.ndarray)
    monkeypatch.setattr(streams, "MOST_IN_MEMORY", 1000)
    assert isinstance(data.load("npy", path=tmp_path).train.x, Streamed)


def test_an_order_is_that_of_arrays_in_memory():
    x, root = np.zeros((37, 2), np.float32), rng.root(3)
    order = feed.order_of(fed(x, np.zeros(37)), root, 4, 8)
    np.testing.assert_array_equal(order, data.epoch_permutation(rng.stream(root, "data", 4), 37, 8))


@pytest.mark.parametrize("kind", ["arrays", "shards"])
def test_epochs_of_some_updates_go_through_one_pass_after_another(tmp_path, kind):
    root = rng.root(1)
    if kind == "arrays":
        some = fed(np.zeros((37, 2), np.float32), np.zeros(37))
    else:
        shards(tmp_path, sizes=(10, 12, 15))
        some = fed(data.load("shards", path=tmp_path, val_fraction=0.0).train.x, np.zeros(37))
    passes = np.concatenate([feed.order_of(some, root, epoch, 8) for epoch in range(6)])
    parts = np.concatenate([feed.order_of(some, root, epoch, 8, updates=5) for epoch in range(4)])
    np.testing.assert_array_equal(parts, passes[:20])
    long = np.concatenate([feed.order_of(some, root, epoch, 8, updates=11) for epoch in range(2)])
    np.testing.assert_array_equal(long, passes[:22])
    if kind == "arrays":
        traced = jax.jit(lambda epoch: epoch_order(root, epoch, 37, 8, 11))(1)
        np.testing.assert_array_equal(traced, passes[11:22])


def test_shards_are_mixed_a_few_at_a_time_and_every_example_comes_once(tmp_path):
    shards(tmp_path)
    split = data.load("shards", path=tmp_path, val_fraction=0.0)
    reader = split.train.x.reader
    reader.together = 2
    some, root = fed(split.train.x, split.train.y), rng.root(0)
    first, again, other = (feed.order_of(some, root, epoch, 10) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert sorted(first.ravel()) == list(range(140))
    drawn = reader.shard[first.ravel()]
    sizes = np.bincount(reader.shard)
    seen = list(dict.fromkeys(drawn))
    half = sizes[sorted(set(drawn[: min(len(drawn), 20)]) | set(seen[:2]))].sum()
    groups = set(drawn[:half]), set(drawn[half:])
    assert [len(group) for group in groups] == [2, 2]
    assert not groups[0] & groups[1]
    assert len(set(drawn[:10])) == 2  # mixed, and not one after the other


@pytest.mark.parametrize("kind", ["npz", "parquet", "array_record"])
def test_shards_of_every_kind_hold_the_same_examples(tmp_path, kind):
    x, y = shards(tmp_path, kind)
    split = data.load("shards", path=tmp_path, val_fraction=0.25)
    assert isinstance(split.train.x, Streamed)
    rows = np.concatenate([np.asarray(split.train.x), np.asarray(split.val.x)])
    labels = np.concatenate([split.train.y, split.val.y])
    order = np.argsort(rows[:, 0])
    np.testing.assert_array_equal(rows[order], x)
    np.testing.assert_array_equal(labels[order], y)
    np.testing.assert_array_equal(np.asarray(split.test.x), x[:30])


def test_shards_of_images_in_parquet_take_their_shape_from_an_option(tmp_path):
    shards(tmp_path, "parquet", width=6)
    split = data.load("shards", path=tmp_path, shape=[2, 3])
    assert split.train.x.shape[1:] == (2, 3)
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    lists = pa.table({"x": [[1.0, 2.0], [3.0, 4.0]] * 20, "y": [0, 1] * 20})
    for part in ("train", "test"):
        parquet.write_table(lists, tmp_path / "lists.parquet")
        (tmp_path / part).mkdir()
        parquet.write_table(lists, tmp_path / part / "0.parquet")
    for old in tmp_path.glob("*.parquet"):
        old.unlink()
    assert data.load("shards", path=tmp_path).test.x[1].tolist() == [3.0, 4.0]


def tables(folder, *columns, sizes=20, part="train", start=0):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for number, one in enumerate(columns, start):
        parquet.write_table(pa.table(one), folder / f"{part}-{number}.parquet")


def test_columns_of_parquet_are_read_by_their_names(tmp_path):
    a, b, y = [1.0, 2.0] * 10, [3.0, 4.0] * 10, ["no", "yes"] * 10
    tables(tmp_path, {"b": b, "a": a, "y": y}, {"a": a, "y": y, "b": b})
    tables(tmp_path, {"a": a, "b": b, "y": y}, part="test")
    split = data.load("shards", path=tmp_path, val_fraction=0.0)
    assert split.class_names == ("no", "yes")
    np.testing.assert_array_equal(np.asarray(split.train.x), [[3, 1], [4, 2]] * 20)
    np.testing.assert_array_equal(np.asarray(split.test.x), [[3, 1], [4, 2]] * 10)
    tables(tmp_path, {"a": a, "c": b, "y": y}, start=2)
    with pytest.raises(data.DataError, match=r"the same columns.*train-2\.parquet"):
        data.load("shards", path=tmp_path)


def test_gaps_of_integers_in_parquet_are_gaps(tmp_path):
    a = [1, 2, 3, None] * 10
    tables(tmp_path, {"a": a, "y": [0, 1] * 20})
    tables(tmp_path, {"a": [1, 2], "y": [0, 1]}, part="test")
    split = data.load("shards", path=tmp_path, val_fraction=0.0)
    np.testing.assert_array_equal(np.asarray(split.train.x)[:, 0], [1, 2, 3, 2] * 10)


@pytest.mark.parametrize("called", [int, lambda label: f"class {label}"])
def test_what_is_looked_at_has_every_class_though_each_has_shards_of_its_own(tmp_path, monkeypatch, called):
    for number in range(30):
        label = number // 3
        x = np.full((50, 3), label, np.float32)
        np.savez(tmp_path / f"train-{number:02}.npz", x=x, y=np.array([called(label)] * 50))
    np.savez(tmp_path / "test.npz", x=np.zeros((9, 3), np.float32), y=np.array([called(label) for label in range(9)]))
    monkeypatch.setattr("dsnn.data.limit.LOOKED_AT", 100)
    monkeypatch.setattr("dsnn.data.shards.MIXED_BYTES", 1200)
    split = data.load("shards", path=tmp_path, val_fraction=0.0)
    seen = data.looked_at(split.train)
    np.testing.assert_array_equal(np.bincount(seen.y), np.full(10, 10))
    assert any("shards differ in their classes" in note for note in split.notes)
    shuffled = np.random.default_rng(0).permutation(1500)
    x, y = np.asarray(split.train.x)[shuffled], split.train.y[shuffled]
    for number in range(30):
        rows = slice(50 * number, 50 * number + 50)
        names = np.array([called(int(label)) for label in y[rows]])
        np.savez(tmp_path / f"train-{number:02}.npz", x=x[rows], y=names)
    assert not any("shards differ" in note for note in data.load("shards", path=tmp_path).notes)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(lambda k: 0.5 * (k % 3), "must be integers or text"), (lambda k: float("nan"), "give at least two")],
)
def test_labels_of_a_stream_are_read_as_those_of_arrays(labels, sentence):
    pairs = [(np.zeros(4, np.float32), labels(k)) for k in range(30)]
    with pytest.raises(data.DataError, match=sentence):
        stream.split_of(data.Stream(pairs, Numbered(12), 3, "mine"), 0, 0.25)
    named = [(np.zeros(4, np.float32), ("cat", "dog")[k % 2]) for k in range(30)]
    assert stream.split_of(data.Stream(named, named, 2, "mine"), 0, 0.25).class_names == ("cat", "dog")


def test_a_source_whose_first_example_is_whole_numbers_keeps_the_fractions_of_others():
    pairs = [(np.array([1, 2]), 0), *[(np.array([0.25, 0.75]), k % 2) for k in range(20)]]
    with pytest.raises(data.DataError, match="one kind of numbers"):
        stream.split_of(data.Stream(pairs, pairs, 2, "mine"), 0, 0.0)


def test_grey_images_in_shards_are_read_by_convolutions(tmp_path):
    draw = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 20)):
        x = draw.integers(0, 255, (count, 16, 16)).astype(np.uint8)
        np.savez(tmp_path / f"{part}.npz", x=x, y=np.arange(count) % 2)
    setup = job.build(schema.compose(["data=shards", f"data.path={tmp_path}", "train.epochs=1", "train.batch_size=8"]))
    assert setup.split.train.x.shape[1:] == (16, 16, 1)
    assert setup.split.train.x[np.array([0])].dtype == np.float32


def test_inspect_looks_at_some_of_a_large_stream(tmp_path, monkeypatch, capsys):
    own(tmp_path)
    monkeypatch.setattr("dsnn.data.streamed.MOST_WHOLE_BYTES", 100)
    monkeypatch.setattr("dsnn.data.limit.LOOKED_AT", 50)
    from dsnn.run import inspect

    inspect.main(["data=npy", f"data.path={tmp_path}", "data.stream=always"])
    assert "(240, 7)" in capsys.readouterr().out


def test_fewer_examples_of_a_stream_stay_unread(tmp_path):
    own(tmp_path)
    given = ["data=npy", f"data.path={tmp_path}", "data.stream=always", "data.limit=100", *TINY]
    train = job.build(schema.compose(given)).split.train
    assert isinstance(train.x, Streamed)
    assert len(train.x) == len(train.y) == 100


@pytest.mark.parametrize("kind", ["npz", "parquet", "array_record"])
def test_a_cut_shard_is_named(tmp_path, kind):
    shards(tmp_path, kind)
    cut = tmp_path / f"train-002.{kind}"
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(data.DataError, match=r"train-002.*"):
        data.load("shards", path=tmp_path)


def test_a_shard_that_is_cut_while_a_run_reads_ends_it_with_a_sentence(tmp_path):
    shards(tmp_path)
    split = data.load("shards", path=tmp_path)
    (tmp_path / "train-001.npz").write_bytes((tmp_path / "train-001.npz").read_bytes()[:-50])
    some = fed(pickle.loads(pickle.dumps(split.train.x)), split.train.y)  # which has decoded nothing yet
    with pytest.raises(data.DataError, match=r"train-001\.npz"):
        list(feed.batches(some, feed.order_of(some, rng.root(0), 0, 10)))
    write(tmp_path / "train-001.npz", "npz", np.zeros((3, 5), np.float32), np.zeros(3, int))
    with pytest.raises(data.DataError, match=r"of shape \(30, 5\).*train-001\.npz"):
        list(feed.batches(some, feed.order_of(some, rng.root(0), 0, 10)))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"x": np.zeros((3, 4), np.float32), "y": np.zeros(3, int)}, "examples of one shape"),
        ({"x": np.zeros((3, 5), np.int64), "y": np.zeros(3, int)}, "inputs of one dtype"),
        ({"x": np.zeros((3, 5), np.float32), "y": np.array(["a", "b", "c"])}, "targets of one kind"),
        ({"x": np.zeros((3, 5), np.float32), "y": np.zeros(2, int)}, "one entry per example"),
        ({"x": np.zeros((3, 5), np.float32)}, "must hold x and y"),
        ({"x": np.array([[None] * 5] * 3), "y": np.zeros(3, int)}, "pickled objects"),
    ],
)
def test_shards_that_do_not_fit_are_refused(tmp_path, broken, sentence):
    shards(tmp_path)
    np.savez(tmp_path / "train-009.npz", **broken)
    with pytest.raises(data.DataError, match=sentence):
        data.load("shards", path=tmp_path)


def test_what_is_called_neither_train_nor_test_is_named(tmp_path):
    shards(tmp_path)
    np.savez(tmp_path / "more.npz", x=np.zeros((3, 5), np.float32), y=np.zeros(3, int))
    with pytest.raises(data.DataError, match=r"train\*, val\* or test\*.*more\.npz"):
        data.load("shards", path=tmp_path)
    for file in tmp_path.glob("t*.npz"):
        file.unlink()
    with pytest.raises(data.DataError, match=r"data\.options\.test_fraction"):
        data.load("shards", path=tmp_path)


class Numbered:
    """A source of examples of one's own, as grain.sources have them."""

    def __init__(self, count=60, holds=None):
        self.count, self.holds = count, count if holds is None else holds

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number >= self.holds:
            raise IndexError(number)
        return np.full(4, number, np.float32), number % 3


def test_a_source_of_single_examples_becomes_a_split():
    split = stream.split_of(data.Stream(Numbered(), Numbered(12), 3, "mine"), 0, 0.25)
    assert [len(getattr(split, part).y) for part in ("train", "val", "test")] == [45, 15, 12]
    np.testing.assert_array_equal(np.asarray(split.train.x)[:, 0] % 3, split.train.y)
    assert data.check(split) is split


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ((pair for pair in [(0, 0)]), r"must say how many examples.*N / B"),
        ([], "must hold examples, got none"),
        (Numbered(60, 40), "as many examples as its len"),
        ([np.zeros(3)], r"must be \(x, y\)"),
        ([(np.array(["a"]), 0)], "real numbers"),
    ],
)
def test_a_source_that_is_none_is_refused(train, sentence):
    with pytest.raises(data.DataError, match=sentence):
        stream.split_of(data.Stream(train, Numbered(12), 3, "mine"), 0, 0.25)


def test_examples_of_another_shape_are_refused_when_they_are_read():
    pairs = [(np.zeros(4, np.float32), 0)] * 5 + [(np.zeros(3, np.float32), 1)] * 5
    with pytest.raises(data.DataError, match="must have one shape"):
        stream.split_of(data.Stream(pairs, Numbered(12), 3, "mine", val=Numbered(9)), 0, 0.0)


def test_what_was_decoded_stays_up_to_a_number_of_bytes():
    decoded = []

    def decode(key):
        decoded.append(key)
        return np.zeros(10, np.uint8)

    kept = Kept(decode, 25)
    for key in (1, 2, 1, 3, 1, 2):
        kept(key)
    assert decoded == [1, 2, 3, 2]
    assert pickle.loads(pickle.dumps(Kept(np.zeros, 30)))(4).shape == (4,)


def test_a_mapped_file_travels_as_its_path_and_notices_that_it_changed(tmp_path):
    own(tmp_path)
    reader = MappedReader(tmp_path / "x_train.npy")
    sent = pickle.dumps(reader)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).rows(np.array([5])), np.load(reader.path)[[5]])
    np.save(reader.path, np.zeros((3, 7)))
    with pytest.raises(data.DataError, match="must stay as it was when the run began"):
        pickle.loads(sent).rows(np.array([1]))


@pytest.mark.parametrize("workers", [0, 1, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers_reads_the_same_batches(tmp_path, workers):
    own(tmp_path)
    split = data.load("npy", path=tmp_path, stream="always")
    some = fed(split.train.x, split.train.y, workers=workers)
    order = feed.order_of(some, rng.root(0), 0, 16)
    read = list(feed.batches(some, order))
    assert len(read) == len(order)
    whole = np.asarray(split.train.x)
    for (x, y), rows in zip(read, order, strict=True):
        np.testing.assert_array_equal(x, whole[rows])
        np.testing.assert_array_equal(y, split.train.y[rows])


def test_hosts_read_their_own_part_of_every_batch():
    x = np.arange(64, dtype=np.float32)[:, None]
    parts = [fed(x, x, process=(k, 2)) for k in range(2)]
    order = feed.order_of(parts[0], rng.root(0), 0, 16)
    for one, other, rows in zip(*(feed.batches(part, order) for part in parts), order, strict=True):
        np.testing.assert_array_equal(np.concatenate([one[0], other[0]])[:, 0], rows)


def learned(directory, *more):
    """Returns losses and final state of a run that learns the folder's examples."""
    setup = job.build(schema.compose(["data=npy", f"data.path={directory}", *TINY, *more]))
    together = population.together([setup], None)
    epochs = [*_fit(setup, together)]
    return np.concatenate([epoch.info.loss for epoch in epochs]), epochs[-1].state


def _fit(setup, together):
    from dsnn import learn

    return learn.fit_program(
        together.run, together.settings, together.init(), together.arrays, epochs=setup.config.train.epochs
    )


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("train.updates_per_epoch=7", "train.epochs=4"),
        ("learner=map", "train.transform=test_streams:jittered"),
    ],
)
def test_updates_are_those_of_memory_bit_for_bit(tmp_path, monkeypatch, more):
    own(tmp_path)
    monkeypatch.setattr("dsnn.learn.streaming.MOST_BATCHES", 4)  # 4, 4, 4 and 3 of the 15 batches of a pass
    (losses, state), (expected, whole) = (learned(tmp_path, f"data.stream={s}", *more) for s in ("always", "never"))
    np.testing.assert_array_equal(losses, expected)
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(_plain(one), _plain(other))


@pytest.mark.parametrize(("ahead", "wanted"), [(1 << 21, [20 * 15]), (2 * 15 * 16, [30, 30, 30])])
def test_readers_stay_from_epoch_to_epoch(tmp_path, monkeypatch, ahead, wanted):
    own(tmp_path)
    begun, real = [], feed.batches
    monkeypatch.setattr("dsnn.learn.streaming.AHEAD_EXAMPLES", ahead)
    monkeypatch.setattr(feed, "batches", lambda some, order: begun.append(len(order)) or real(some, order))
    (losses, _), (expected, _) = (learned(tmp_path, f"data.stream={s}", "train.epochs=6") for s in ("always", "never"))
    np.testing.assert_array_equal(losses, expected)
    assert begun == wanted


def _plain(leaf):
    return np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def jittered(x, key):
    return x + 0.1 * jax.random.normal(key, x.shape)


@pytest.mark.slow
@pytest.mark.parametrize("within", [(), ("train.updates_per_epoch=5",)])  # 15 updates a pass: it stops inside of one
def test_a_streamed_run_is_assessed_like_one_in_memory_and_resumes(within, tmp_path, monkeypatch, capsys):
    (tmp_path / "own").mkdir()
    own(tmp_path / "own")
    more = ["train.epochs=3", "train.checkpoint_s=0", "baseline=linear"]
    given = ["data=npy", f"data.path={tmp_path / 'own'}", *TINY, *more, *within]
    found = {}
    for how in ("always", "never"):
        run = tmp_path / how
        job.run(schema.compose([*given, f"data.stream={how}", f"run.dir={run}"]))
        found[how] = json.loads((run / "metrics.json").read_text())
    assert "read as they are used" in capsys.readouterr().out
    same = [name for name in found["never"] if name.startswith(("test/", "val/", "deployed/", "linear/", "energy/"))]
    assert len(same) > 20
    for name in same:
        assert found["always"][name] == found["never"][name], name
    stopped = tmp_path / "stopped"
    real = loop.Member.keep

    def keep(self, state, epoch):
        real(self, state, epoch)
        if epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Member, "keep", keep)
    again = [*given, "data.stream=always", f"run.dir={stopped}"]
    with pytest.raises(KeyboardInterrupt):
        job.run(schema.compose(again))
    monkeypatch.undo()
    job.run(schema.compose(again))
    ends = [np.load(tmp_path / name / "parameters.npz") for name in ("always", "stopped")]
    assert ends[0].files == ends[1].files
    for name in ends[0].files:
        np.testing.assert_array_equal(ends[0][name], ends[1][name])


def test_learners_that_want_all_examples_say_so(tmp_path):
    own(tmp_path)
    given = ["data=npy", f"data.path={tmp_path}", "data.stream=always", *TINY]
    with pytest.raises(ValueError, match=r"population\.size=2 needs all training examples.*data\.stream=never"):
        job.build(schema.compose([*given, "population.size=2"]))


def test_wide_streams_are_looked_at_in_some_of_their_shards(tmp_path, monkeypatch):
    shards(tmp_path, sizes=(10,) * 12)
    split = data.load("shards", path=tmp_path, val_fraction=0.0)
    monkeypatch.setattr("dsnn.data.limit.LOOKED_AT", 15)
    seen = data.looked_at(split.train)
    assert len(seen.x) == 15
    assert len(set((seen.x[:, 0] // 5 // 10).astype(int))) <= 6
    np.testing.assert_array_equal((seen.x[:, 0] / 5) % 3, seen.y)
    assert isinstance(split.train.x.reader, ShardReader)


def test_folders_of_recordings_are_decoded_as_they_are_used(tmp_path):
    import wave

    draw = np.random.default_rng(0)
    for label in ("one", "two"):
        (tmp_path / label).mkdir()
        for number in range(6):
            with wave.open(str(tmp_path / label / f"{number}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((3000 * draw.normal(size=2000)).astype("<i2").tobytes())
    whole, read = (data.load("audio", path=tmp_path, bands=8, steps=12, stream=how) for how in ("never", "always"))
    assert isinstance(read.train.x, Streamed)
    for part in ("train", "val", "test"):
        np.testing.assert_array_equal(np.asarray(getattr(read, part).x), getattr(whole, part).x)
        np.testing.assert_array_equal(getattr(read, part).y, getattr(whole, part).y)
