"""CIFAR-10, CIFAR-100 and the small copy, on small files in their exact formats, whole and damaged."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from dsnn import data
from dsnn.data import cifar_records, files

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def stand_in(monkeypatch, module, places):
    """Lets files made by a test take the place of a set's published ones."""
    entries = [files.File(place.name, (hashlib.sha256(place.read_bytes()).hexdigest(),), ()) for place in places]
    monkeypatch.setattr(module, "FILES", tuple(entries))


def tarred(place, entries):
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(place, "w:gz") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return place


# --- CIFAR


def image(number):
    """An image whose every byte says where it is: ``[32, 32, 3]``."""
    row, column, colour = np.indices((32, 32, 3))
    return ((row * 7 + column * 3 + colour * 50 + number) % 256).astype(np.uint8)


def record(labels, pixels):
    """A record of the binary version: labels, then all of red, of green, of blue, each row by row."""
    return bytes(labels) + b"".join(pixels[:, :, colour].tobytes() for colour in range(3))


def cifar10(root, monkeypatch, **changed):
    """Writes seven training images and two to test on, two in the first file and one in each of the others."""
    train = [(3, image(0)), (9, image(1)), *((n, image(n)) for n in range(2, 6))]
    held = [train[:2], *([one] for one in train[2:])]
    content = {f"data_batch_{n}.bin": b"".join(record([y], x) for y, x in held[n - 1]) for n in range(1, 6)}
    content |= {"test_batch.bin": record([0], image(100)) + record([9], image(101)), "readme.html": b"no record"}
    entries = {f"cifar-10-batches-bin/{name}": c for name, c in (content | changed).items() if c is not None}
    place = tarred(root / "cifar10" / "cifar-10-binary.tar.gz", entries)
    stand_in(monkeypatch, data.cifar10, [place])
    return train


def test_cifar10_places_every_byte_and_validates_on_the_last_images(tmp_path, monkeypatch):
    train = cifar10(tmp_path, monkeypatch)
    split = data.load("cifar10", root=tmp_path, val_fraction=0.5)
    assert split.train.x.dtype == np.float32
    x, y = (np.concatenate([getattr(part, f) for part in (split.train, split.val)]) for f in "xy")
    assert np.array_equal(x, np.stack([pixels for _, pixels in train]).astype(np.float32) / np.float32(255))
    assert y.tolist() == [label for label, _ in train]
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [3, 3, 2]
    assert np.array_equal(np.rint(split.test.x[1] * 255), image(101))
    assert split.test.y.tolist() == [0, 9]
    assert split.class_names == CLASSES
    assert data.input_shape(split) == (32, 32, 3)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("data_batch_2.bin", record([4], image(2))[:-1], r"data_batch_2.bin of cifar10 .* got 3072 bytes .* at byte 0"),
        (
            "test_batch.bin",
            record([4], image(2)) + b"\x01",
            r"test_batch.bin .* got 1 bytes of one at byte 3073; it is",
        ),
        ("data_batch_1.bin", record([4], image(0)) + record([10], image(1)), r"from 0 to 9, got 10 at byte 3073; get"),
        ("data_batch_5.bin", b"", r"data_batch_5.bin of cifar10 must hold records of 3073 bytes, got 0"),
        (
            "data_batch_5.bin",
            None,
            r"must hold data_batch_1.bin, .* got none named data_batch_5.bin; get the published",
        ),
    ],
)
def test_damaged_cifar10_is_named_with_its_byte(tmp_path, monkeypatch, name, content, said):
    cifar10(tmp_path, monkeypatch, **{name: content})
    with pytest.raises(data.DataError, match=said):
        data.load("cifar10", root=tmp_path)


def test_an_archive_of_cifar10_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    published = data.cifar10.FILES
    cifar10(tmp_path, monkeypatch)
    monkeypatch.setattr(data.cifar10, "FILES", published)
    with pytest.raises(data.DataError, match=r"cifar-10-binary.tar.gz is corrupted: expected sha256 c4a38c50.*, found"):
        data.load("cifar10", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_pickled_version_is_never_opened(tmp_path, name):
    number = name.removeprefix("cifar")
    (tmp_path / name).mkdir()
    (tmp_path / name / f"cifar-{number}-python.tar.gz").write_bytes(b"never read")
    said = (
        rf"cifar-{number}-python.tar.gz, whose pickles .* fetch https://www.cs.toronto.edu/.*cifar-{number}-binary.tar"
    )
    with pytest.raises(data.DataError, match=said):
        data.load(name, root=tmp_path)


def cifar100(root, monkeypatch, **changed):
    content = {
        "train.bin": record([19, 99], image(0)) + record([0, 5], image(1)),
        "test.bin": record([3, 42], image(2)),
        "fine_label_names.txt": "\n".join(f"fine{n}" for n in range(100)).encode() + b"\n\n",
        "coarse_label_names.txt": "\n".join(f"coarse{n}" for n in range(20)).encode(),
    }
    entries = {f"cifar-100-binary/{name}": made for name, made in (content | changed).items()}
    stand_in(monkeypatch, data.cifar100, [tarred(root / "cifar100" / "cifar-100-binary.tar.gz", entries)])


def test_cifar100_has_fine_and_coarse_labels(tmp_path, monkeypatch):
    cifar100(tmp_path, monkeypatch)
    fine = data.load("cifar100", root=tmp_path, val_fraction=0.0)
    coarse = data.load("cifar100", root=tmp_path, val_fraction=0.0, labels="coarse")
    assert (fine.train.y.tolist(), fine.test.y.tolist(), fine.classes) == ([99, 5], [42], 100)
    assert (coarse.train.y.tolist(), coarse.test.y.tolist(), coarse.classes) == ([19, 0], [3], 20)
    assert (fine.class_names[99], coarse.class_names[19]) == ("fine99", "coarse19")
    assert np.array_equal(np.rint(fine.train.x * 255), [image(0), image(1)])
    assert np.array_equal(fine.test.x, coarse.test.x)


@pytest.mark.parametrize(
    ("changed", "options", "said"),
    [
        ({}, {"labels": "middle"}, "labels must be one of coarse, fine, got 'middle'"),
        ({"test.bin": record([20, 0], image(0))}, {}, "coarse labels from 0 to 19, got 20 at byte 0"),
        ({"test.bin": record([0, 0], image(0)) + record([0, 100], image(0))}, {}, "from 0 to 99, got 100 at byte 3075"),
        ({"fine_label_names.txt": b"one two"}, {}, "must name 100 classes, got 2"),
    ],
)
def test_damaged_cifar100_and_wrong_options_get_a_sentence(tmp_path, monkeypatch, changed, options, said):
    cifar100(tmp_path, monkeypatch, **changed)
    with pytest.raises(data.DataError, match=said):
        data.load("cifar100", root=tmp_path, **options)


def test_records_are_read_up_to_a_cap(tmp_path, monkeypatch):
    cifar10(tmp_path, monkeypatch)
    monkeypatch.setattr(cifar_records, "MAX_BYTES", 20_000)
    with pytest.raises(data.DataError, match="may unpack to 20000 bytes"):
        data.load("cifar10", root=tmp_path)


# --- The small copy of CIFAR-10


def small(root, monkeypatch, **changed):
    rows = {"train": 40, "test": 20}
    arrays = {f"x_{part}": np.stack([image(n) for n in range(count)]) for part, count in rows.items()}
    arrays |= {f"y_{part}": np.arange(count, dtype=np.int32) % 10 for part, count in rows.items()}
    place = root / "cifar10-jpeg-small" / "cifar10_jpeg_small.npz"
    place.parent.mkdir(parents=True)
    np.savez(place, **(arrays | changed))
    stand_in(monkeypatch, data.cifar10_jpeg_small, [place])


def test_the_small_copy_validates_on_a_seeded_part_of_each_class(tmp_path, monkeypatch):
    small(tmp_path, monkeypatch)
    split = data.load("cifar10-jpeg-small", root=tmp_path, val_fraction=0.25, seed=3)
    assert np.bincount(split.val.y).tolist() == [1] * 10
    assert np.array_equal(np.rint(split.test.x[7] * 255), image(7))
    assert split.test.y.tolist() == [*range(10)] * 2
    assert split.class_names == CLASSES


@pytest.mark.parametrize(
    "changed", [{"x_train": np.zeros((40, 32, 32, 3))}, {"y_test": np.zeros(3)}, {"x_test": np.zeros((20, 8), "u1")}]
)
def test_another_npz_is_not_the_small_copy(tmp_path, monkeypatch, changed):
    small(tmp_path, monkeypatch, **changed)
    with pytest.raises(data.DataError, match=r"cifar10_jpeg_small.npz must hold x_t.*, bytes \[n, 32, 32, 3\]"):
        data.load("cifar10-jpeg-small", root=tmp_path)


@pytest.mark.data("cifar10-jpeg-small")
def test_the_small_copy_is_as_made():
    split = data.load("cifar10-jpeg-small")
    assert [np.bincount(p.y).tolist() for p in (split.train, split.val, split.test)] == [
        [n] * 10 for n in (720, 80, 200)
    ]
    assert (split.train.x.min(), split.train.x.max()) == (0, 1)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.data(n)) for n in ("cifar10", "cifar100")])
def test_cifar_is_as_published(name):
    split = data.load(name)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [45000, 5000, 10000]
    assert np.bincount(split.test.y).tolist() == [10000 // split.classes] * split.classes
    if name == "cifar10":
        assert split.train.y[:5].tolist() == [6, 9, 9, 4, 1]
        mean = np.concatenate([split.train.x, split.val.x]).mean((0, 1, 2), dtype=float)
        assert np.allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
