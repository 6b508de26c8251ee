"""Data sets: exact readers, splits that do not leak, files that are verified, and a sentence for whatever is wrong."""

import gzip
import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import data, rng
from dsnn.data import files, idx
from dsnn.data.split import hold_out

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


def published(name):
    """Skips, with the address, unless the files of a published set lie in the data folder."""
    for file in data._SOURCES[name].files:
        if not any((data.default_root() / name / n).exists() for n in (file.name, *file.others)):
            pytest.skip(f"DSNN_DATA has no {name}/{file.name}; get it from {file.addresses[0]}")


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
NAN = np.where(np.arange(150).reshape(30, 5) == 42, np.nan, 0.0)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({"y_train": Y + 0.5}, {}, "labels must be integers, got 0.5 in y_train"),
        ({"y_train": Y - 1}, {}, "class numbers from 0 to 1, got -1 in the"),
        ({"y_test": np.full(9, 3)}, {}, "class numbers from 0 to 2, got 3 in the test part"),
        ({"y_train": np.full(30, 2**40)}, {}, "class numbers from 0, got 1099511627776"),
        ({"x_train": NAN}, {"val_fraction": 0.0}, r"finite, got 1 NaN .* first at index \(8, 2\)"),
        ({"x_test": np.full((9, 5), np.inf)}, {}, "finite, got 45 NaN or infinite ones in x in the test"),
        ({"x_test": np.full((9, 5), 1e300)}, {}, "finite, got 45"),
        ({"x_train": X[:0], "y_train": Y[:0]}, {}, "x_train must not be empty, got 0"),
        ({"x_test": X[:0], "y_test": Y[:0]}, {}, "test part of 'npz' must not be empty"),
        ({"y_train": Y[:29]}, {}, "equally long, got 30 and 29"),
        ({"y_test": Y[:8]}, {}, "one entry per example, got 9 inputs and 8 targets in the test"),
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
        ({"y_train": np.nan * X[:, 0]}, {"task": "regression", "val_fraction": 0.0}, "finite, got 30 NaN"),
        ({}, {"classes": 2}, "class numbers from 0 to 1, got 2"),
        ({}, {"classes": 1}, "classes must be an integer of at least 2, got 1"),
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


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_image_sets_are_as_published(name):
    published(name)
    split = data.load(name)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [55000, 5000, 10000]
    assert data.input_shape(split) == (28, 28, 1)
    assert (split.train.x.min(), split.train.x.max()) == (0, 1)
    assert np.array_equal(np.bincount(split.test.y)[:2], [980, 1135] if name == "mnist" else [1000, 1000])
    if name == "mnist":
        assert split.train.y[:5].tolist() == [5, 0, 4, 1, 9]
        assert np.isclose(np.concatenate([split.train.x, split.val.x]).mean(dtype=float), 0.1307, atol=5e-5)


def test_kmnist_has_only_a_test_part():
    published("kmnist")
    split = data.load("kmnist")
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [0, 0, 10000]
    assert np.array_equal(np.bincount(split.test.y), [1000] * 10)
    with pytest.raises(data.DataError, match="only a test part"):
        data.require_training(split)
    with pytest.raises(data.DataError, match="val_fraction must be left out"):
        data.load("kmnist", val_fraction=0.1)
