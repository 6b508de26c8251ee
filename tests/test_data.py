"""Data sets: exact readers, splits that do not leak, files that are verified, and a sentence for whatever is wrong."""

import gzip
import hashlib
import http.server
import io
import math
import os
import subprocess
import sys
import tarfile
import threading
import wave
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse
from scipy.io import savemat

from dsnn import data, rng
from dsnn.data import archive, audio, events, files, idx, imdb, newsgroups
from dsnn.data.split import hold_out
from dsnn.simulate import encode

CHECKOUT = Path(__file__).parents[1]


def idx_bytes(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(np.uint8).tobytes()


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def write_gz(place, content):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(content))
    return place


def rows(x):
    return {row.tobytes() for row in np.asarray(x)}


# Reading IDX files.


def test_idx_reads_hand_made_files(tmp_path):
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4) + 200
    assert np.array_equal(idx.read(write_gz(tmp_path / "i.gz", idx_bytes(pixels)), 3), pixels)
    labels = np.array([7, 0, 255], np.uint8)
    assert np.array_equal(idx.read(write_gz(tmp_path / "l.gz", idx_bytes(labels)), 1), labels)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "got nothing"),
        (b"\x00\x00\x0d\x03" + bytes(12), "rank 3.*got 00000d03"),
        (idx_bytes(np.zeros(4)), "rank 3.*got 00000801"),
        (idx_bytes(np.zeros((2, 3, 4)))[:-1], "24 bytes that it declares, got 23"),
        (idx_bytes(np.zeros((2, 3, 4))) + b"\x00", "24 bytes that it declares, got 25"),
        (idx_bytes(np.zeros((2, 3, 4)))[:9], "declares, got 0"),
    ],
)
def test_idx_refuses_what_is_not_its_format(tmp_path, content, said):
    with pytest.raises(data.DataError, match=said):
        idx.read(write_gz(tmp_path / "x.gz", content), 3)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"plain" + b, lambda b: b[:-8] + bytes(8)])
def test_idx_refuses_broken_gzip(tmp_path, damage):
    place = tmp_path / "x.gz"
    place.write_bytes(damage(gzip.compress(idx_bytes(np.zeros((2, 3, 4))))))
    with pytest.raises(data.DataError, match="must be a whole gzip file"):
        idx.read(place, 3)


def small_mnist(root, monkeypatch, train=20, test=6):
    """A data folder with a small set in MNIST's files, whose digests take the place of the published ones."""
    made = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": made.integers(0, 256, (train, 4, 4)),
        "train-labels-idx1-ubyte.gz": np.arange(train) % 10,
        "t10k-images-idx3-ubyte.gz": made.integers(0, 256, (test, 4, 4)),
        "t10k-labels-idx1-ubyte.gz": np.arange(test) % 10,
    }
    entries = []
    for name, array in arrays.items():
        place = write_gz(root / "mnist" / name, idx_bytes(array))
        entries.append(files.File(name, (hashlib.sha256(place.read_bytes()).hexdigest(),), ()))
    monkeypatch.setattr(data.mnist, "FILES", tuple(entries))
    return arrays


def test_idx_sets_scale_their_bytes_and_validate_on_the_last_images(tmp_path, monkeypatch):
    arrays = small_mnist(tmp_path, monkeypatch)
    split = data.load("mnist", root=tmp_path, val_fraction=0.25)
    assert split.train.x.dtype == np.float32
    assert split.train.y.dtype == np.int32
    assert split.train.x.shape == (15, 4, 4, 1)
    whole = np.concatenate([split.train.x, split.val.x])[..., 0] * 255
    assert np.array_equal(np.rint(whole), arrays["train-images-idx3-ubyte.gz"])
    assert np.array_equal(np.concatenate([split.train.y, split.val.y]), np.arange(20) % 10)
    assert data.input_shape(split) == (4, 4, 1)
    assert data.steps(split) is None


def test_labels_outside_the_classes_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "IMAGE_CLASSES", 5)
    small_mnist(tmp_path, monkeypatch)
    with pytest.raises(data.DataError, match=r"class numbers from 0 to 4, got 9 in the train part of 'mnist'"):
        data.load("mnist", root=tmp_path, val_fraction=0.0)


# Published files.


@pytest.fixture
def server(tmp_path):
    """A web server of the folder ``tmp_path/web``; yields its address."""
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "web"))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def test_a_missing_file_comes_from_the_mirror_when_the_official_address_fails(tmp_path, server):
    (tmp_path / "web" / "good").write_bytes(b"published")
    file = files.File("set.bin", (sha(b"published"),), (f"{server}/absent", f"{server}/good"))
    place = files.locate(tmp_path / "data", "set", file)
    assert place == tmp_path / "data" / "set" / "set.bin"
    assert place.read_bytes() == b"published"
    (tmp_path / "web" / "good").unlink()
    assert files.locate(tmp_path / "data", "set", file) == place  # found, not downloaded again


def test_what_is_downloaded_is_checked_before_it_gets_its_name(tmp_path, server):
    (tmp_path / "web" / "bad").write_bytes(b"something else")
    file = files.File("set.bin", (sha(b"published"),), (f"{server}/bad",))
    with pytest.raises(
        data.DataError, match=rf"set.bin is missing .*{server}/bad.*{sha(b'something else')}.*DSNN_DATA"
    ):
        files.locate(tmp_path / "data", "set", file)
    assert list((tmp_path / "data" / "set").iterdir()) == []  # neither the file nor an unfinished one


def test_a_file_that_cannot_be_had_gets_a_sentence(tmp_path):
    file = files.File("set.bin", ("0" * 64,), ("http://127.0.0.1:9/set.bin",))
    with pytest.raises(data.DataError) as error:
        files.locate(tmp_path, "set", file)
    assert "http://127.0.0.1:9/set.bin" in str(error.value)
    assert str(tmp_path / "set" / "set.bin") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_corrupted_file_is_named_and_never_replaced(tmp_path, server):
    (tmp_path / "web" / "good").write_bytes(b"published")
    file = files.File("set.bin", (sha(b"published"),), (f"{server}/good",))
    place = tmp_path / "set" / "set.bin"
    place.parent.mkdir()
    place.write_bytes(b"damaged")
    with pytest.raises(
        data.DataError, match=f"corrupted: expected sha256 {sha(b'published')}, found {sha(b'damaged')}"
    ):
        files.locate(tmp_path, "set", file)
    assert place.read_bytes() == b"damaged"


def test_a_corrupted_set_is_found_on_loading(tmp_path, monkeypatch):
    small_mnist(tmp_path, monkeypatch)
    place = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte.gz is corrupted"):
        data.load("mnist", root=tmp_path)


def test_other_packings_are_accepted_under_their_name(tmp_path):
    file = files.File("a.tar", (sha(b"a"), sha(b"b")), (), others=("b.tar",))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b.tar").write_bytes(b"b")
    assert files.locate(tmp_path, "set", file).name == "b.tar"


def test_the_root_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DSNN_DATA", str(tmp_path))
    assert data.default_root() == tmp_path
    monkeypatch.delenv("DSNN_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.default_root() == tmp_path / "home" / ".cache" / "dsnn"


def test_the_fetch_script_verifies_and_reports(tmp_path):
    place = tmp_path / "kmnist" / "t10k-images-idx3-ubyte.gz"
    place.parent.mkdir()
    place.write_bytes(b"damaged")
    command = [sys.executable, "scripts/fetch_data.py", "digits", "kmnist", "--root", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "digits needs no file\n"
    assert "corrupted" in done.stderr
    assert "Traceback" not in done.stderr


# Splits.


def test_digits_are_the_published_images_once_each():
    from sklearn.datasets import load_digits

    split = data.load("digits")
    parts = [split.train, split.val, split.test]
    assert [data.size(p) for p in parts] == [1347 - 135, 135, 450]
    x = np.concatenate([p.x for p in parts])
    y = np.concatenate([p.y for p in parts])
    assert x.shape == (1797, 8, 8, 1)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0, 1)
    bunch = load_digits()
    got = sorted((row.tobytes(), int(label)) for row, label in zip(np.rint(x[..., 0] * 16).astype(int), y, strict=True))
    expected = sorted((r.tobytes(), int(t)) for r, t in zip(bunch.images.astype(int), bunch.target, strict=True))
    assert got == expected


def test_digits_parts_hold_each_class_in_proportion():
    split = data.load("digits", seed=3)
    whole = np.bincount(np.concatenate([split.train.y, split.val.y, split.test.y]))
    assert (np.abs(np.bincount(split.test.y) - whole * 450 / 1797) < 1).all()
    rest = np.bincount(np.concatenate([split.train.y, split.val.y]))
    assert (np.abs(np.bincount(split.val.y) - rest * 135 / 1347) < 1).all()


def test_the_seed_moves_validation_and_never_the_test_part():
    first, again, other = (data.load("digits", seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.val.x, again.val.x)
    assert np.array_equal(first.train.y, again.train.y)
    assert not np.array_equal(first.val.x, other.val.x)
    assert np.array_equal(first.test.x, other.test.x)
    assert np.array_equal(first.test.y, other.test.y)


def test_the_parts_of_digits_share_no_image():
    split = data.load("digits")
    assert not rows(split.train.x) & rows(split.test.x)
    assert not rows(split.val.x) & rows(split.test.x)
    assert not rows(split.train.x) & rows(split.val.x)


def test_val_fraction_zero_keeps_everything_for_training():
    split = data.load("digits", val_fraction=0.0)
    assert (data.size(split.train), data.size(split.val)) == (1347, 0)


def test_hold_out_marks_exactly_so_many_by_largest_remainder():
    labels = np.repeat([4, 7, 9], [10, 5, 2])
    mask = hold_out(labels, 7, np.random.default_rng(0))
    # shares 4.12, 2.06, 0.82: the one left after 4 + 2 + 0 goes to the largest remainder
    assert [int(mask[labels == c].sum()) for c in (4, 7, 9)] == [4, 2, 1]
    assert not hold_out(labels, 0, np.random.default_rng(0)).any()
    assert hold_out(labels, 17, np.random.default_rng(0)).all()


# A user's own arrays.


def write_npz(place, **changes):
    made = np.random.default_rng(0)
    arrays = {
        "x_train": made.normal(size=(30, 5)),
        "y_train": np.arange(30) % 3,
        "x_test": made.normal(size=(9, 5)),
        "y_test": np.arange(9) % 3,
    }
    arrays = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(place, **arrays)
    return arrays


def test_npz_gives_its_arrays(tmp_path):
    arrays = write_npz(tmp_path / "a.npz", x_val=np.ones((2, 5)), y_val=np.array([0, 2]))
    split = data.load("npz", path=tmp_path / "a.npz")
    assert (split.classes, split.task, split.temporal) == (3, "classification", False)
    assert np.array_equal(split.train.x, arrays["x_train"].astype(np.float32))
    assert np.array_equal(split.val.x, np.ones((2, 5)))
    assert np.array_equal(split.test.y, arrays["y_test"])
    assert split.test.y.dtype == np.int32


def test_npz_without_validation_holds_out_a_seeded_part(tmp_path):
    arrays = write_npz(tmp_path / "a.npz")
    split = data.load("npz", path=tmp_path / "a.npz", seed=5, val_fraction=0.2)
    assert np.array_equal(np.bincount(split.val.y), [2, 2, 2])
    assert rows(split.train.x) | rows(split.val.x) == rows(arrays["x_train"].astype(np.float32))
    assert not rows(split.train.x) & rows(split.val.x)


def test_npz_scales_and_keeps_time(tmp_path):
    pixels = np.full((30, 4, 5), 255, np.uint8)
    write_npz(tmp_path / "a.npz", x_train=pixels, x_test=pixels[:9])
    split = data.load("npz", path=tmp_path / "a.npz", temporal=True, scale=1 / 255)
    assert data.steps(split) == 4
    assert data.input_shape(split) == (5,)
    assert np.allclose(split.train.x, 1)


def test_npz_takes_labels_per_step_regression_and_multilabel(tmp_path):
    place = tmp_path / "a.npz"
    x = np.zeros((30, 4, 5))
    y = np.tile([0, 1, 2, 1], (30, 1))
    write_npz(place, x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    assert data.per_step(data.load("npz", path=place, temporal=True))
    write_npz(place, y_train=np.linspace(0, 1, 30), y_test=np.zeros(9))
    regression = data.load("npz", path=place, task="regression")
    assert regression.test.y.shape == (9, 1)
    assert regression.test.y.dtype == np.float32
    assert regression.classes == 1
    write_npz(place, y_train=np.eye(3)[np.arange(30) % 3], y_test=np.ones((9, 3)))
    assert data.load("npz", path=place, task="multilabel").classes == 3


X, Y = np.zeros((30, 5)), np.arange(30) % 3


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"y_train": Y + 0.5}, {}, "labels must be integers or text, got 0.5 in y_train.*data.options.task=regression"),
        (
            {"y_train": Y - 1},
            {},
            r"among those of the training part \(-1, 0, 1\), got 2 in the test part of 'npz' alone",
        ),
        ({"y_test": np.full(9, 3)}, {}, r"training part \(0, 1, 2\), got 3 in the test part"),
        ({"y_train": np.full(30, 2**40)}, {}, "two classes, got 24 training labels .* all 1099511627776"),
        ({"y_train": np.where(Y == 1, np.inf, Y)}, {}, "labels must be finite, got inf in y_train"),
        ({"x_test": np.full((9, 5), np.inf)}, {}, "finite, got 45 NaN or infinite ones in x in the test"),
        ({"x_test": np.full((9, 5), 1e300)}, {}, "finite, got 45"),
        ({"x_train": X[:0], "y_train": Y[:0]}, {}, "x_train must not be empty, got 0"),
        ({"x_test": X[:0], "y_test": Y[:0]}, {}, "test part of 'npz' must not be empty"),
        ({"y_train": Y[:29]}, {}, "equally long, got 30 and 29"),
        ({"y_test": Y[:8]}, {}, "x_test and y_test must be equally long, got 9 and 8"),
        ({"x_test": None}, {}, "must hold x_train, y_train, x_test, y_test.*add x_test"),
        ({"x_val": X}, {}, "both of x_val and y_val or neither"),
        ({"x_train": X.astype(object)}, {}, "pickled objects in x_train .* refused"),
        ({"x_train": X.astype(str)}, {}, "x_train must hold real numbers, got dtype <U"),
        ({"x_train": X.astype(complex)}, {}, "x_train must hold real numbers, got dtype complex128"),
        ({"x_train": X[:, 0]}, {}, r"x_train must be \[n, features\].*got shape \(30,\)"),
        ({}, {"temporal": True}, r"x_train must be \[n, time, features\].*got shape \(30, 5\)"),
        ({"x_train": X[:, :4]}, {}, r"one shape, got \(4,\) in the train part .* and \(5,\)"),
        ({"x_train": X[:, :0], "x_test": X[:9, :0]}, {}, "examples must not be empty"),
        ({"y_train": np.eye(3)[Y]}, {}, "argmax"),
        ({"y_train": np.nan * X[:, 0]}, {"task": "regression", "val_fraction": 0.0}, "got 0 examples with a target"),
        ({}, {"classes": 2}, "class numbers from 0 to 1, got 2"),
        ({}, {"classes": 1}, "classes must be an integer from 2 to 1048576, got 1"),
        ({}, {"task": "regresion"}, "task must be one of .* got 'regresion'"),
        ({}, {"tempral": True}, "got 'tempral'; did you mean 'temporal'"),
        ({}, {"val_fraction": 1.5}, r"val_fraction must be in \[0, 1\), got 1.5"),
        ({}, {"seed": -1}, "seed must be a non-negative integer, got -1"),
    ],
)
def test_npz_mistakes_get_one_sentence(tmp_path, changes, options, said):
    write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(data.DataError, match=said) as error:
        data.load("npz", path=tmp_path / "a.npz", **options)
    assert "\n" not in str(error.value)


def test_npz_runs_nothing_that_is_pickled_in_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    write_npz(tmp_path / "a.npz", y_test=np.array([Trap()] * 9, object))
    with pytest.raises(data.DataError, match="pickled objects in y_test"):
        data.load("npz", path=tmp_path / "a.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: None, "No such file"),
        (lambda p: p.mkdir(), "Is a directory"),
        (lambda p: p.write_bytes(b""), "must be an .npz file"),
        (lambda p: p.write_bytes(b"hello"), "not a .npz archive of plain arrays"),
        (lambda p: p.write_bytes(b"PK\x03\x04 not really"), "not a .npz archive"),
        (lambda p: p.write_bytes(npy_bytes(np.zeros(3))), "got a single .npy array"),
    ],
)
def test_a_file_that_is_no_npz_gets_a_sentence(tmp_path, write, said):
    write(tmp_path / "a.npz")
    with pytest.raises(data.DataError, match=said):
        data.load("npz", path=tmp_path / "a.npz")


def test_npz_with_a_damaged_member_gets_a_sentence(tmp_path):
    place = tmp_path / "a.npz"
    write_npz(place)
    content = bytearray(place.read_bytes())
    content[200] ^= 0xFF  # inside the first array
    place.write_bytes(bytes(content))
    with pytest.raises(data.DataError, match=r"x_train in .* cannot be read"):
        data.load("npz", path=place)


# Names and requirements.


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(data.DataError, match="got 'fashion_mnist'; did you mean 'fashion-mnist'"):
        data.load("fashion_mnist")
    with pytest.raises(data.DataError, match="did you mean 'mnist'"):
        data.fetch("mnits")
    assert "digits" in data.names()


def part(n, low=0.0, high=1.0):
    return data.Arrays(np.linspace(low, high, 2 * n, dtype=np.float32).reshape(n, 2), np.zeros(n, np.int32))


def test_training_on_a_set_without_a_training_part_gets_a_sentence():
    split = data.Split(part(0), part(0), part(3), 2, "kmnist")
    assert data.check(split) is split
    with pytest.raises(data.DataError, match="'kmnist', which has only a test part of 3 examples"):
        data.require_training(split)
    whole = data.load("digits")
    assert data.require_training(whole) is whole


def test_probabilities_outside_the_unit_interval_get_a_sentence():
    good = data.Split(part(4), part(0), part(2), 2, "made")
    assert data.require_unit_range(good) is good
    with pytest.raises(data.DataError, match="got -1 to 1 in the val part of 'made'"):
        data.require_unit_range(good._replace(val=part(2, low=-1.0)))


# Batches.


def test_an_epoch_visits_examples_at_most_once_and_drops_the_rest():
    order = data.epoch_permutation(jax.random.key(0), 23, 5)
    assert order.shape == (4, 5)
    assert len(set(np.asarray(order).ravel().tolist())) == 20
    assert order.min() >= 0
    assert order.max() < 23


def test_an_epoch_is_the_same_inside_a_compiled_loop():
    root = rng.root(0)

    @jax.jit
    def epochs(root):
        return jax.lax.map(lambda e: data.epoch_permutation(rng.stream(root, "data", e), 23, 5), jnp.arange(3))

    inside = np.asarray(epochs(root))
    outside = [np.asarray(data.epoch_permutation(rng.stream(root, "data", e), 23, 5)) for e in range(3)]
    assert np.array_equal(inside, outside)
    assert not np.array_equal(inside[0], inside[1])


def test_every_place_in_the_order_is_equally_likely():
    keys = jax.random.split(jax.random.key(0), 4000)
    first = jax.vmap(lambda k: data.epoch_permutation(k, 5, 5)[0, 0])(keys)
    counts = np.bincount(first, minlength=5)
    assert (np.abs(counts - 800) < 5 * np.sqrt(4000 * 0.2 * 0.8)).all()


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (3, 10), (1, 1), (0, 4)])
def test_evaluation_covers_every_example_once(n, batch_size):
    batches = data.eval_batches(n, batch_size)
    assert batches.indices.shape == batches.mask.shape
    assert batches.indices[batches.mask].tolist() == list(range(n))
    assert (batches.indices >= 0).all()
    assert batches.indices.size == 0 or batches.indices.max() < n


def test_batch_sizes_that_cannot_be_get_a_sentence():
    with pytest.raises(data.DataError, match="at most the 3 training examples, got 4"):
        data.epoch_permutation(jax.random.key(0), 3, 4)
    with pytest.raises(data.DataError, match="positive integer, got 0"):
        data.epoch_permutation(jax.random.key(0), 3, 0)
    with pytest.raises(data.DataError, match="positive integer, got -1"):
        data.eval_batches(3, -1)


def test_take_puts_time_first():
    x = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)
    y = np.array([5, 6, 7], np.int32)
    index = np.array([2, 0])
    xs, ys = data.take(data.Arrays(x, y), index, temporal=True)
    assert np.array_equal(xs, np.stack([x[2], x[0]], axis=1))
    assert np.array_equal(ys, [7, 5])
    stepwise = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert np.array_equal(data.take(data.Arrays(x, stepwise), index, temporal=True)[1], stepwise[[2, 0]].T)
    flat, _ = jax.jit(data.take, static_argnums=2)(data.Arrays(jnp.asarray(x), jnp.asarray(y)), index)
    assert np.array_equal(flat, x[[2, 0]])


# The published files themselves, where they are at hand.


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.data(n)) for n in ("mnist", "fashion-mnist")])
def test_image_sets_are_as_published(name):
    split = data.load(name)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [55000, 5000, 10000]
    assert data.input_shape(split) == (28, 28, 1)
    assert (split.train.x.min(), split.train.x.max()) == (0, 1)
    assert np.array_equal(np.bincount(split.test.y)[:2], [980, 1135] if name == "mnist" else [1000, 1000])
    if name == "mnist":
        assert split.train.y[:5].tolist() == [5, 0, 4, 1, 9]
        assert np.isclose(np.concatenate([split.train.x, split.val.x]).mean(dtype=float), 0.1307, atol=5e-5)


@pytest.mark.data("kmnist")
def test_kmnist_has_only_a_test_part():
    split = data.load("kmnist")
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [0, 0, 10000]
    assert np.array_equal(np.bincount(split.test.y), [1000] * 10)
    with pytest.raises(data.DataError, match="only a test part"):
        data.require_training(split)
    with pytest.raises(data.DataError, match="val_fraction must be left out"):
        data.load("kmnist", val_fraction=0.1)


# Archives.


def write_tar(place, entries, mode="w:gz"):
    """Writes (name, content) pairs; a content of None makes a link to /etc/passwd."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place, mode) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    return place


@pytest.mark.parametrize("name", ["/etc/evil", "a/../../evil", "..", "C:\\evil", "a\\..\\..\\evil"])
def test_archives_with_names_that_leave_the_folder_are_refused(tmp_path, name):
    place = write_tar(tmp_path / "a.tar.gz", [("fine", b"1"), (name, b"2")])
    with pytest.raises(data.DataError, match="names in an archive must stay inside it"):
        list(archive.members(place))


def test_archives_give_their_files_and_follow_no_link(tmp_path):
    place = write_tar(tmp_path / "a.tar.xz", [("d/one", b"1"), ("link", None), ("two..txt", b"22")], "w:xz")
    assert list(archive.members(place)) == [("d/one", b"1"), ("two..txt", b"22")]


@pytest.mark.parametrize("mode", ["w:gz", "w:xz"])
def test_a_damaged_archive_gets_a_sentence(tmp_path, mode):
    place = write_tar(tmp_path / "a.tar", [("one", np.random.default_rng(0).bytes(5000))], mode)
    place.write_bytes(place.read_bytes()[:2000])
    with pytest.raises(data.DataError, match="must be a whole tar archive"):
        list(archive.members(place))


def stand_in(monkeypatch, module, places):
    """Lets files made by a test take the place of a set's published ones."""
    entries = [files.File(place.name, (sha(place.read_bytes()),), ()) for place in places]
    monkeypatch.setattr(module, "FILES", tuple(entries))


def test_md5_serves_where_there_is_no_sha256(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"published")
    good = files.File("a", (hashlib.md5(b"published").hexdigest(),), ())
    assert files.locate(tmp_path, "set", good).name == "a"
    bad = files.File("a", (hashlib.md5(b"other").hexdigest(),), (), page="the shelf")
    with pytest.raises(data.DataError, match=r"expected md5 .* delete it and get it from the shelf"):
        files.locate(tmp_path, "set", bad)
    with pytest.raises(data.DataError, match=r"b is missing and must be had from the shelf; put it at .*set/b"):
        files.locate(tmp_path, "set", bad._replace(name="b"))


# Images as sequences.


def test_images_become_sequences(tmp_path, monkeypatch):
    arrays = small_mnist(tmp_path, monkeypatch)
    image = arrays["t10k-images-idx3-ubyte.gz"][0] / 255

    def loaded(**options):
        return data.load("mnist", root=tmp_path, val_fraction=0.1, **options)

    by_rows, by_pixels = loaded(sequence="rows"), loaded(sequence="pixels")
    permuted, again = (loaded(sequence="pixels", permutation=3, seed=seed) for seed in (0, 9))
    assert (by_rows.temporal, data.steps(by_rows), data.input_shape(by_rows)) == (True, 4, (4,))
    assert np.allclose(by_rows.test.x[0], image)
    assert (data.steps(by_pixels), data.input_shape(by_pixels)) == (16, (1,))
    assert np.allclose(by_pixels.test.x[0, :, 0], image.ravel())
    order = np.random.default_rng(3).permutation(16)
    assert not np.array_equal(order, np.arange(16))
    for part in ("train", "val", "test"):  # one order everywhere
        assert np.array_equal(getattr(permuted, part).x, getattr(by_pixels, part).x[:, order])
    assert np.array_equal(again.test.x, permuted.test.x)
    with pytest.raises(data.DataError, match="permutation needs sequence=pixels, got sequence=rows"):
        data.load("mnist", root=tmp_path, sequence="rows", permutation=1)
    with pytest.raises(data.DataError, match="sequence must be one of image, rows, pixels, got 'row'"):
        data.load("mnist", root=tmp_path, sequence="row")


# ECG.


def test_qtdb_counts_unlabelled_steps_as_class_zero_and_says_where_they_are(tmp_path, monkeypatch):
    made = np.random.default_rng(0)
    for name, n in (("QTDB_train.mat", 20), ("QTDB_test.mat", 5)):
        x = made.integers(0, 2, (n, 7, 4)).astype(np.int16)
        x[:, -1, 0] = -1
        y = np.eye(6, dtype=np.uint8)[made.integers(0, 6, (n, 7))]
        y[:, 2] = 0
        (tmp_path / "qtdb").mkdir(exist_ok=True)
        savemat(tmp_path / "qtdb" / name, {"x": x, "y": y})
    stand_in(monkeypatch, data.qtdb, [tmp_path / "qtdb" / n for n in ("QTDB_train.mat", "QTDB_test.mat")])
    split = data.load("qtdb", root=tmp_path, val_fraction=0.25)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [15, 5, 5]
    assert data.per_step(split)
    assert np.array_equal(split.test.y, np.where(split.extra["test/labelled"], y.argmax(-1), 0))
    for part in ("train", "val", "test"):
        assert np.array_equal(split.extra[f"{part}/labelled"].all(0), np.arange(7) != 2)
        assert split.extra[f"{part}/labelled"].shape == getattr(split, part).y.shape
    assert set(np.unique(split.test.x)) == {0, 1}
    assert np.array_equal(data.load("qtdb", root=tmp_path, as_published=True).test.x, x)


@pytest.mark.data("qtdb")
def test_qtdb_is_as_published():
    split = data.load("qtdb", as_published=True)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [556, 62, 141]
    assert split.train.x.shape[1:] == (1301, 4)
    x = np.concatenate([split.train.x, split.val.x])
    assert (x[:, 1300, 0] == -1).all()
    assert (x[:, :1300] >= 0).all()
    labelled = np.concatenate([split.extra["train/labelled"], split.extra["val/labelled"]])
    assert round(100 * (1 - labelled.mean()), 1) == 8.2
    assert round(100 * (1 - split.extra["test/labelled"].mean()), 1) == 10.4
    late = split.test.y[:, 10:]
    assert np.bincount(late.ravel()).max() / late.size == pytest.approx(0.307, abs=5e-4)  # the majority baseline
    assert data.load("qtdb").test.x.min() == 0


# Sound.


def tone(hertz, seconds=0.5, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(8000 * seconds)) / 8000)).astype(np.float32)


def test_a_tone_lands_in_its_own_band():
    bands = 20
    corners = 700 * (10 ** (np.linspace(*2595 * np.log10(1 + np.array([50, 4000]) / 700), bands + 2) / 2595) - 1)
    for band in (2, 9, 17):
        level = audio.log_mel(tone(corners[band + 1]), 8000, bands, 40)
        assert (level[:40].argmax(1) == band).all()
        assert level.max() == 1


def test_levels_are_decibels_below_the_loudest():
    loud, quiet = tone(1000, level=0.5), tone(1000, level=0.05)  # a tenth of the amplitude: 20 dB
    level = audio.log_mel(np.concatenate([loud, quiet]), 8000, 20, 100).max(1)
    assert level[20] == pytest.approx(1, abs=1e-3)
    assert level[75] == pytest.approx(1 - 20 / 80, abs=1e-3)


def test_frames_begin_every_ten_milliseconds_and_end_with_the_sound():
    impulse = np.zeros(8000, np.float32)
    impulse[4000] = 1.0  # in frames from 4000 - 199 to 4000: 48 (3840) to 50 (4000, where the window is 0)
    heard = audio.log_mel(impulse, 8000, 20, 120).max(1) > 0
    assert np.flatnonzero(heard).tolist() == [48, 49]
    assert (audio.log_mel(tone(1000, 0.5), 8000, 20, 80)[50:] == 0).all()
    assert (audio.log_mel(np.zeros(5000, np.float32), 8000, 20, 80) == 0).all()
    assert audio.log_mel(tone(1000, 0.001), 8000, 20, 5).max() == 1  # shorter than a frame


def test_delta_spikes_agree_with_the_encoder_and_crossings_with_a_hand_count():
    levels = np.random.default_rng(0).random((3, 12, 5), np.float32)
    expected = np.moveaxis(np.asarray(encode.delta(jnp.moveaxis(jnp.asarray(levels), 1, 0), 0.3, off="channel")), 0, 1)
    assert np.array_equal(audio.spikes(levels, 0.3, since_spike=False), expected)
    ramp = np.array([0, 0.06, 0.12, 0.18, 0.24, 0.18, 0.12, 0.06], np.float32)[None, :, None]
    assert not audio.spikes(ramp, 0.1, since_spike=False).any()
    crossed = audio.spikes(ramp, 0.1, since_spike=True)[0].T
    assert crossed.tolist() == [[0, 0, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]]


def wav(samples, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def small_fsdd(root, monkeypatch, rate=8000):
    made = np.random.default_rng(0)
    entries = [("f/README.md", b"hello"), ("f/other/9_theo_0.wav", b"not a recording of the set")]
    for digit in range(10):
        for speaker in ("theo", "george"):
            for take in (0, 4, 5, 6, 49):
                samples = made.integers(-9000, 9000, 400 + 10 * digit + take)
                entries.append((f"f/recordings/{digit}_{speaker}_{take}.wav", wav(samples, rate)))
    place = write_tar(root / "fsdd" / "recordings.tar.gz", entries)
    stand_in(monkeypatch, data.fsdd, [place])
    return dict(entries)


def test_fsdd_follows_the_official_split(tmp_path, monkeypatch):
    content = small_fsdd(tmp_path, monkeypatch)
    split = data.load("fsdd", root=tmp_path, bands=0, val_fraction=1 / 3)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [40, 20, 40]
    assert data.input_shape(split) == (1,)
    assert data.steps(split) == 400 + 90 + 49
    assert np.array_equal(np.bincount(split.test.y), [4] * 10)
    # one of the three of each digit and speaker validates
    groups = split.val.y * 6 + split.extra["val/speaker"]
    assert len(np.unique(groups)) == 20
    # ordered by digit, speaker and take: the second test recording is take 4 of george's zero
    samples = np.frombuffer(content["f/recordings/0_george_4.wav"][44:], "<i2") / 32768
    assert split.extra["test/length"][1] == len(samples) == 404
    assert np.array_equal(split.test.x[1, :404, 0], samples.astype(np.float32))
    assert not split.test.x[1, 404:].any()


def test_fsdd_gives_bands_and_spikes(tmp_path, monkeypatch):
    small_fsdd(tmp_path, monkeypatch)
    bands = data.load("fsdd", root=tmp_path, bands=12, steps=9)
    assert bands.test.x.shape == (40, 9, 12)
    data.require_unit_range(bands)
    spikes = data.load("fsdd", root=tmp_path, bands=12, steps=9, encoding="delta", threshold=0.1)
    assert spikes.test.x.shape == (40, 9, 24)
    assert np.array_equal(spikes.test.x, audio.spikes(bands.test.x, 0.1, since_spike=False))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bands": -1}, "bands must be an integer of at least 0, got -1"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"encoding": "dlta"}, "encoding must be one of none, delta, crossing, got 'dlta'"),
        ({"encoding": "delta", "bands": 0}, "needs a filter bank, got bands=0"),
        ({"threshold": 1.0}, r"threshold must be in \(0, 1\), got 1.0"),
    ],
)
def test_fsdd_mistakes_get_a_sentence(tmp_path, options, said):
    with pytest.raises(data.DataError, match=said):
        data.load("fsdd", root=tmp_path, **options)


def test_fsdd_refuses_another_sample_rate(tmp_path, monkeypatch):
    small_fsdd(tmp_path, monkeypatch, rate=16000)
    with pytest.raises(data.DataError, match=r"must be mono 16-bit at 8 kHz, got .*16000"):
        data.load("fsdd", root=tmp_path)


@pytest.mark.data("fsdd")
def test_fsdd_is_as_published():
    split = data.load("fsdd", bands=40, steps=100, encoding="delta")
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [2430, 270, 300]
    assert split.train.x.shape[1:] == (100, 80)
    assert np.array_equal(np.bincount(split.test.y), [30] * 10)
    assert np.array_equal(np.bincount(split.extra["val/speaker"]), [45] * 6)
    longest = max(split.extra[f"{p}/length"].max() for p in ("train", "val", "test"))
    shortest = min(split.extra[f"{p}/length"].min() for p in ("train", "val", "test"))
    assert (longest, shortest) == (18262, 1148)
    assert 0.01 < split.train.x.mean() < 0.2


# Events.


def test_events_fall_into_equal_bins():
    times, channels = np.array([0.0, 0.19, 0.2, 0.2, 0.99, 1.0, -0.1]), np.array([0, 1, 2, 2, 0, 1, 1])
    expected = np.zeros((5, 3), np.float32)
    expected[0, 0] = expected[0, 1] = expected[1, 2] = expected[4, 0] = 1  # the last two lie outside
    assert np.array_equal(events.frames(times, channels, 1.0, 5, 3, False, "float32"), expected)
    expected[1, 2] = 2
    counted = events.frames(times, channels, 1.0, 5, 3, True, "uint8")
    assert counted.dtype == np.uint8
    assert np.array_equal(counted, expected)
    assert events.frames(np.zeros(300), np.zeros(300, int), 1.0, 1, 1, True, "uint8")[0, 0] == 255
    assert not events.frames(np.zeros(0), np.zeros(0, int), 1.0, 5, 3, True, "uint8").any()


def event(x, y, polarity, microseconds):
    return bytes([x, y, polarity << 7 | microseconds >> 16, microseconds >> 8 & 255, microseconds & 255])


NMNIST = {
    "train1K.txt": b"#sample #class\n" + b"".join(b"%d\t%d\n" % (i, i % 2) for i in range(1, 11)),
    "test100.txt": b"#sample #class\n60001\t7\n",
    **{f"{i}.bs2": event(i, 0, 0, 5) for i in range(1, 11)},
    "60001.bs2": event(33, 2, 1, 309_999) + event(3, 30, 0, 70_000) + event(3, 30, 0, 70_001) + event(0, 0, 1, 310_000),
}


def test_nmnist_places_hand_made_events(tmp_path, monkeypatch):
    entries = [(f"NMNISTsmall/{name}", content) for name, content in NMNIST.items()] + [("NMNISTsmall/0.bsn", b"x")]
    stand_in(monkeypatch, data.nmnist_small, [write_tar(tmp_path / "nmnist-small" / "NMNISTsmall.tar.xz", entries)])
    split = data.load("nmnist-small", root=tmp_path, steps=31, counts=True, val_fraction=0.2)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [8, 2, 1]
    expected = np.zeros((31, 34, 34, 2))
    expected[30, 2, 33, 1] = 1  # [step, row y, column x, polarity]; the event at 310 ms is past the end
    expected[7, 30, 3, 0] = 2
    assert np.array_equal(split.test.x[0], expected)
    assert split.test.y.tolist() == [7]
    small = data.load("nmnist-small", root=tmp_path, steps=31, dtype="uint8")
    assert small.test.x.dtype == np.uint8
    assert np.array_equal(small.test.x[0], expected > 0)
    assert data.take(small.test, np.array([0]), temporal=True)[0].dtype == jnp.float32


def test_nmnist_takes_the_published_folder_once_its_content_is_verified(tmp_path, monkeypatch):
    folder = tmp_path / "nmnist-small" / "NMNISTsmall"
    folder.mkdir(parents=True)
    for name, content in (NMNIST | {"README": b"not counted"}).items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(data.nmnist_small, "CONTENT_SHA256", data.nmnist_small.content_digest(NMNIST))
    assert data.size(data.load("nmnist-small", root=tmp_path).train) == 9
    (folder / "3.bs2").write_bytes(event(4, 0, 0, 5))
    with pytest.raises(data.DataError, match=r"NMNISTsmall is not the published folder: expected content sha256"):
        data.load("nmnist-small", root=tmp_path)


def test_nmnist_mistakes_get_a_sentence(tmp_path):
    with pytest.raises(data.DataError, match="multiple of 5 bytes long, got 6"):
        data.nmnist_small.read(event(0, 0, 0, 0) + b"x")
    with pytest.raises(data.DataError, match="34 x 34 pixels, got 34"):
        data.nmnist_small.read(event(0, 34, 0, 0))
    with pytest.raises(data.DataError, match="steps must be an integer of at least 1, got 0"):
        data.load("nmnist-small", root=tmp_path, steps=0)
    with pytest.raises(data.DataError, match="dtype must be one of float32, uint8, got 'int8'"):
        data.load("nmnist-small", root=tmp_path, dtype="int8")
    with pytest.raises(data.DataError, match=r"must be had from https://github.com/bamsumit/slayerPytorch"):
        data.load("nmnist-small", root=tmp_path)


@pytest.mark.data("nmnist-small")
def test_nmnist_is_as_published():
    split = data.load("nmnist-small", steps=10, counts=True)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [900, 100, 100]
    events_each = np.concatenate([split.train.x, split.val.x]).sum((1, 2, 3, 4))
    assert events_each.mean() == pytest.approx(4108, rel=0.02)
    assert split.test.y[:2].tolist() == [7, 2]
    content = data.nmnist_small._content(data.default_root())
    assert data.nmnist_small.content_digest(content) == data.nmnist_small.CONTENT_SHA256


def write_shd(place, gz):
    h5py = pytest.importorskip("h5py")
    buffer = io.BytesIO()
    times = [np.array([0.0, 0.5, 0.5]), np.array([]), np.array([1.39])]
    units = [np.array([0, 699, 699]), np.array([]), np.array([3])]
    with h5py.File(buffer, "w") as file:
        for name, rows, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            lists = file.create_dataset(f"spikes/{name}", 3, dtype=h5py.vlen_dtype(kind))
            for i, row in enumerate(rows):
                lists[i] = row.astype(kind)
        file["labels"] = np.array([19, 0, 5], np.uint16)
        file["extra/speaker"] = np.array([4, 4, 11], np.uint16)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(gzip.compress(buffer.getvalue()) if gz else buffer.getvalue())
    return place


@pytest.mark.parametrize("gz", [True, False])
def test_shd_reads_its_format(tmp_path, monkeypatch, gz):
    end = ".h5.gz" if gz else ".h5"
    places = [write_shd(tmp_path / "shd" / f"shd_{part}{end}", gz) for part in ("train", "test")]
    stand_in(monkeypatch, data.shd, places)
    split = data.load("shd", root=tmp_path, steps=14, counts=True, val_fraction=0.0)
    expected = np.zeros((3, 14, 700))
    expected[0, 0, 0], expected[0, 5, 699], expected[2, 13, 3] = 1, 2, 1
    assert np.array_equal(split.test.x, expected)
    assert split.test.y.tolist() == [19, 0, 5]
    assert split.class_names[19] == "nine"
    assert split.extra["test/speaker"].tolist() == [4, 4, 11]


def test_shd_without_its_package_or_format_gets_a_sentence(tmp_path, monkeypatch):
    place = tmp_path / "shd_train.h5"
    place.write_bytes(b"not hdf5")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(data.DataError, match="needs the package h5py"):
            data.shd.read(place, 10, 1.4, False, "float32")
    h5py = pytest.importorskip("h5py")
    with pytest.raises(data.DataError, match="must be HDF5 with spikes/times"):
        data.shd.read(place, 10, 1.4, False, "float32")
    with h5py.File(place, "w") as file:
        file["labels"] = np.zeros(3)
    with pytest.raises(data.DataError, match="must be HDF5 with spikes/times"):
        data.shd.read(place, 10, 1.4, False, "float32")


# Text.

MESSAGE = "From: a\nSubject: b\n\nJoe wrote:\n> old\nnew words\nmore in English\n\n--\nJoe, Inc.\n"


def test_messages_lose_headers_footers_and_quotes():
    assert newsgroups.strip(MESSAGE, ("headers", "footers", "quotes")) == "new words\nmore in English\n"
    assert newsgroups.strip(MESSAGE, ("headers",)) == MESSAGE.split("\n\n", 1)[1]
    assert newsgroups.strip(MESSAGE, ()) == MESSAGE


def test_messages_are_stripped_as_scikit_learn_strips_them():
    from sklearn.datasets import _twenty_newsgroups as reference

    made = np.random.default_rng(0)
    lines = ["", "--", "text", "> quote", "he writes: x", "|", "In article 3", "- -", "  ", "\t", "a -- b", "x wrote:"]
    for _ in range(500):
        text = "\n".join(lines[i] for i in made.integers(0, len(lines), made.integers(0, 12)))
        expected = reference.strip_newsgroup_header(text)
        expected = reference.strip_newsgroup_footer(expected)
        expected = reference.strip_newsgroup_quoting(expected)
        assert newsgroups.strip(text, ("headers", "footers", "quotes")) == expected


def small_newsgroups(root, monkeypatch):
    entries = []
    for part, texts in (("train", ["apple pear apple"] * 6), ("test", ["apple plum"] * 2)):
        for group, extra in (("sci.b", " banana"), ("alt.a", " cherry")):
            entries += [
                (f"20news-bydate-{part}/{group}/{i}", f"H: 1\n\n{t}{extra}".encode()) for i, t in enumerate(texts)
            ]
    stand_in(monkeypatch, newsgroups, [write_tar(root / "20newsgroups" / "20news-bydate.tar.gz", entries)])


def test_text_becomes_sparse_counts_of_training_words(tmp_path, monkeypatch):
    small_newsgroups(tmp_path, monkeypatch)
    split = data.load("20newsgroups", root=tmp_path, weighting="counts", val_fraction=1 / 3)
    assert split.class_names == ("alt.a", "sci.b")
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [8, 4, 4]
    assert split.extra["vocabulary"].tolist() == ["apple", "banana", "cherry", "pear"]  # plum is only in the test part
    assert split.train.y.tolist() == [0] * 4 + [1] * 4
    assert isinstance(split.train.x, sparse.csr_array)
    assert split.train.x.dtype == np.float32
    assert split.train.x.toarray()[[0, 4]].tolist() == [[2, 0, 1, 1], [2, 1, 0, 1]]
    x, y = data.take(split.test, np.array([3, 0]))
    assert x.tolist() == [[1, 1, 0, 0], [1, 0, 1, 0]]
    assert y.tolist() == [1, 0]


def test_text_becomes_rows_of_length_one(tmp_path, monkeypatch):
    small_newsgroups(tmp_path, monkeypatch)
    split = data.load("20newsgroups", root=tmp_path, sublinear=False)
    row = split.train.x.toarray()[0]
    n = data.size(split.train)
    idf = {
        w: np.log((1 + n) / (1 + df)) + 1
        for w, df in (("apple", n), ("cherry", (split.train.y == 0).sum()), ("pear", n))
    }
    expected = np.array([2 * idf["apple"], 0, idf["cherry"], idf["pear"]])
    assert np.allclose(row, expected / np.linalg.norm(expected))
    assert data.load("20newsgroups", root=tmp_path, vocabulary=2).train.x.shape[1] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weighting": "tf"}, "weighting must be one of tfidf, counts, got 'tf'"),
        ({"vocabulary": 0}, "vocabulary must be an integer of at least 1 or left out, got 0"),
        ({"min_documents": 0}, "min_documents must be an integer of at least 1, got 0"),
        ({"stop_words": "german"}, "stop_words must be 'english' or None, got 'german'"),
        ({"remove": ["header"]}, "remove must name any of headers, footers, quotes, got 'header'"),
    ],
)
def test_text_mistakes_get_a_sentence(tmp_path, options, said):
    with pytest.raises(data.DataError, match=said):
        data.load("20newsgroups", root=tmp_path, **options)


@pytest.mark.data("20newsgroups")
def test_20newsgroups_is_as_published():
    split = data.load("20newsgroups", val_fraction=0.0)
    assert (data.size(split.train), data.size(split.test)) == (11314, 7532)
    assert split.class_names[:2] == ("alt.atheism", "comp.graphics")
    assert np.bincount(split.train.y)[:3].tolist() == [480, 584, 591]
    assert split.train.x.nnz / np.prod(split.train.x.shape) < 0.01
    lengths = np.sqrt(split.train.x.multiply(split.train.x).sum(1))
    assert np.isclose(lengths[lengths > 0], 1, atol=1e-5).all()


def test_reviews_become_sparse_rows_of_two_sentiments(tmp_path, monkeypatch):
    entries = [("aclImdb/train/unsup/0_0.txt", b"never read"), ("aclImdb/README", b"about")]
    for part, number in (("train", 5), ("test", 2)):
        for kind, word in (("pos", "fine"), ("neg", "awful")):
            text = f"A film<br /><br />{word} \u00e9t\u00e9".encode()
            entries += [(f"aclImdb/{part}/{kind}/{i}_7.txt", text) for i in range(number)]
    stand_in(monkeypatch, imdb, [write_tar(tmp_path / "imdb" / "aclImdb_v1.tar.gz", entries)])
    split = data.load("imdb", root=tmp_path, weighting="counts", val_fraction=0.2)
    assert split.class_names == ("neg", "pos")
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [8, 2, 4]
    assert split.extra["vocabulary"].tolist() == ["awful", "film", "fine", "\u00e9t\u00e9"]
    assert split.test.y.tolist() == [0, 0, 1, 1]
    assert isinstance(split.test.x, sparse.csr_array)
    assert split.test.x.toarray()[[0, 2]].tolist() == [[1, 1, 0, 1], [0, 1, 1, 1]]
    with pytest.raises(data.DataError, match="weighting must be one of"):
        data.load("imdb", root=tmp_path, weighting="tf")


def test_reviews_that_are_damaged_or_of_another_archive_get_a_sentence(tmp_path, monkeypatch):
    place = write_tar(tmp_path / "imdb" / "aclImdb_v1.tar.gz", [("other/train/pos/0_1.txt", b"a film")])
    with pytest.raises(data.DataError, match="is corrupted: expected sha256 c40f74a1"):
        data.load("imdb", root=tmp_path)
    stand_in(monkeypatch, imdb, [place])
    with pytest.raises(data.DataError, match="must hold reviews under aclImdb/train"):
        data.load("imdb", root=tmp_path)


# Generated sets.


def q(z):
    """The upper tail of the normal distribution."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def discriminated(split, sites):
    """Test accuracy of a linear discriminant that sees the given sites (a mask over the axes after the examples)."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    fitted = LinearDiscriminantAnalysis().fit(split.train.x[:, sites].reshape(len(split.train.y), -1), split.train.y)
    return fitted.score(split.test.x[:, sites].reshape(len(split.test.y), -1), split.test.y)


PLANTED = [("planted-channels", "channels"), ("planted-window", "steps"), ("planted-blocks", "pixels")]


@pytest.mark.parametrize(("name", "sites"), PLANTED)
def test_only_the_planted_sites_tell_the_class(name, sites):
    split = data.load(name, seed=4)
    truth = split.truth[sites]
    slack = 4 * math.sqrt(0.25 / 1000)  # four standard deviations of any accuracy on 1000 examples
    best = discriminated(split, truth)
    assert 1 - 3 * q(2.5) - 4 * math.sqrt(0.02 / 1000) - 0.01 < best < 1 - q(2.5) + 4 * math.sqrt(0.01 / 1000)
    assert abs(discriminated(split, ~truth) - 0.25) < slack
    without_one = truth.copy()
    without_one[tuple(i[0] for i in np.nonzero(truth))] = False
    assert discriminated(split, without_one) <= best
    data.require_unit_range(split)


@pytest.mark.parametrize(("name", "sites"), PLANTED)
def test_site_by_site_the_planted_ones_look_like_the_others(name, sites):
    from scipy.stats import ks_2samp

    split = data.load(name, seed=5)
    truth, n = split.truth[sites], data.size(split.train)
    inside, outside = (split.train.x[:, t].reshape(n, -1) for t in (truth, ~truth))
    assert ks_2samp(inside.ravel()[::37], outside.ravel()[::37]).pvalue > 1e-4
    for x in (inside, outside):
        # noise of variance 0.12^2 about two values 2 a apart, each shown half of the time
        evidence = {"planted-channels": 8, "planted-window": 80, "planted-blocks": 48}[name]
        variance = 0.12**2 * (1 + 2.5**2 / (2 / 3 * evidence))
        assert (np.abs(x.mean(0) - 0.5) < 5 * math.sqrt(variance / n)).all()
        assert x.var(0).mean() == pytest.approx(variance, rel=0.03)


def test_planted_sites_are_as_many_as_asked_and_move_with_the_seed():
    assert data.load("planted-channels").truth["channels"].sum() == 8
    window = data.load("planted-window", steps=12, length=3).truth["steps"]
    assert np.array_equal(np.diff(np.flatnonzero(window)), [1, 1])
    planted = data.load("planted-blocks")
    assert planted.truth["blocks"].sum() == 3
    assert np.array_equal(planted.truth["pixels"], np.kron(planted.truth["blocks"], np.ones((4, 4))) > 0)
    found = [data.load("planted-channels", seed=s).truth["channels"] for s in (0, 0, 1)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_every_planted_channel_is_needed():
    split = data.load("planted-channels", examples=20_000, seed=1)
    truth = split.truth["channels"]
    whole = discriminated(split, truth)
    for channel in np.flatnonzero(truth):
        assert discriminated(split, truth & (np.arange(64) != channel)) < whole + 0.002


def test_planted_difficulty_sets_how_many_steps_are_needed():
    split = data.load("planted-difficulty", seed=2)
    hard = split.truth["test/difficulty"]
    assert data.size(split.test) == len(hard)
    assert len(split.truth["train/difficulty"]) == data.size(split.train)
    means = np.stack([split.train.x[split.train.y == c].mean((0, 1)) for c in range(4)]) - 0.5

    def right(steps, chosen):
        evidence = (split.test.x[chosen, :steps].sum(1) - 0.5 * steps) @ means.T
        return (evidence.argmax(1) == split.test.y[chosen]).mean()

    easy, difficult = hard < 0.2, hard > 0.8
    assert right(1, easy) > 0.95  # 16 ** 0.2 = 1.7 steps' worth at most: Q(2.5 / 1.3) three times over
    assert right(1, difficult) < 0.75
    assert right(16, difficult) > 0.96


def test_two_moons_are_half_circles():
    split = data.load("two-moons", noise=0.0)
    for part in (split.train, split.val, split.test):
        upper, lower = part.x[part.y == 0], part.x[part.y == 1]
        assert np.allclose(np.linalg.norm(upper, axis=1), 1, atol=1e-5)
        assert (upper[:, 1] >= -1e-6).all()
        assert np.allclose(np.linalg.norm(lower - [1, 0.5], axis=1), 1, atol=1e-5)
        assert (lower[:, 1] <= 0.5 + 1e-6).all()
    noisy = data.load("two-moons", noise=0.1, examples=4000)
    upper = np.concatenate([noisy.train.x[noisy.train.y == 0], noisy.val.x[noisy.val.y == 0]])
    radius = np.linalg.norm(upper, axis=1)
    assert radius.std() == pytest.approx(0.1, abs=5 * 0.1 / math.sqrt(2 * len(radius)))


def test_diabetes_is_standardised_by_its_training_part_alone():
    from sklearn.datasets import load_diabetes

    split = data.load("diabetes", seed=2)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [319, 35, 88]
    assert split.task == "regression"
    assert np.allclose(split.train.x.mean(0), 0, atol=1e-5)
    assert np.allclose(split.train.y.std(), 1, atol=1e-5)
    parts = (split.train.y, split.val.y, split.test.y)
    targets = np.concatenate(parts) * split.extra["target_std"] + split.extra["target_mean"]
    assert np.array_equal(np.sort(np.rint(targets[:, 0])), np.sort(load_diabetes().target))
    other = data.load("diabetes", seed=3)
    back = [s.test.y * s.extra["target_std"] + s.extra["target_mean"] for s in (split, other)]
    assert np.allclose(*back, atol=1e-3)
    assert not np.array_equal(split.val.x, other.val.x)
    elsewhere = data.load("diabetes", seed=2, test_seed=1)
    tested = elsewhere.test.y * elsewhere.extra["target_std"] + elsewhere.extra["target_mean"]
    assert not np.array_equal(np.sort(np.rint(tested)), np.sort(np.rint(back[0])))
    follows = data.load("diabetes", seed=1, test_seed=-1)
    followed = follows.test.y * follows.extra["target_std"] + follows.extra["target_mean"]
    assert np.allclose(followed, tested, atol=1e-3)
    with pytest.raises(data.DataError, match="test_seed must be an integer of at least -1, got -2"):
        data.load("diabetes", seed=2, test_seed=-2)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("planted-channels", {"relevant": 65}, "relevant must be at most channels, 64, got 65"),
        ("planted-channels", {"relevant": 0}, "relevant must be an integer of at least 1, got 0"),
        ("planted-window", {"length": 21}, "length must be at most steps, 20, got 21"),
        ("planted-blocks", {"relevant": 17}, r"relevant must be at most grid \* grid, 16, got 17"),
        ("planted-difficulty", {"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ("two-moons", {"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ("two-moons", {"examples": 0}, "examples must be an integer of at least 1, got 0"),
    ],
)
def test_generated_sets_refuse_options_out_of_range(name, options, said):
    with pytest.raises(data.DataError, match=said):
        data.load(name, **options)
