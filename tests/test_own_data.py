"""One's own data: event files, HDF5 lists, wav folders and sparse rows, what is said of bad ones, and looking first."""

import wave

import h5py
import numpy as np
import pytest
import scipy.sparse as sparse

from dsnn import data, store
from dsnn.assembly import loading
from dsnn.run import inspect, job, schema


def event_folder(root, parts=("",), per_class=6):
    rng = np.random.default_rng(0)
    for part in parts:
        for label, name in enumerate(("left", "right")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for n in range(per_class):
                t = np.sort(rng.integers(0, 1000, 30))
                x = rng.integers(0, 3, 30) + 3 * label
                np.savez(folder / f"{n}.npz", t=t, x=x, y=rng.integers(0, 4, 30), p=rng.integers(0, 2, 30))


def test_event_folders_become_frames_with_every_event_in_its_bin(tmp_path):
    event_folder(tmp_path)
    split = data.load("events", path=tmp_path, steps=10, counts=True, duration=1000.0, val_fraction=0.25)
    assert split.train.x.shape[1:] == (10, 4, 6, 2)
    assert [len(getattr(split, p).y) for p in ("train", "val", "test")] == [8, 2, 2]
    assert split.class_names == ("left", "right")
    assert all(np.all(a.x.sum((1, 2, 3, 4)) == 30) for a in (split.train, split.val, split.test))
    for part in (split.train, split.val, split.test):
        sides = part.x.sum((1, 2, 4)).reshape(-1, 2, 3).sum(2)
        assert np.array_equal(sides.argmax(1), part.y)
    again = data.load("events", path=tmp_path, steps=10, counts=True, duration=1000.0, val_fraction=0.25)
    assert np.array_equal(again.test.x, split.test.x)
    one = np.load(tmp_path / "left" / "0.npz")
    expected = np.zeros((10, 4, 6, 2))
    np.add.at(expected, (one["t"] // 100, one["y"], one["x"], one["p"]), 1)
    every = np.concatenate([a.x for a in (split.train, split.val, split.test)])
    assert (every == expected).all((1, 2, 3, 4)).sum() == 1


def test_named_parts_stay_as_they_are(tmp_path):
    event_folder(tmp_path, ("train", "val", "test"), 3)
    split = data.load("events", path=tmp_path, steps=5)
    assert [len(getattr(split, p).y) for p in ("train", "val", "test")] == [6, 6, 6]
    assert data.load("events", path=tmp_path, steps=5, channels=[4, 6, 2], dtype="uint8").train.x.dtype == np.uint8


def test_five_byte_events(tmp_path):
    for name, x in (("a", 3), ("b", 30)):
        (tmp_path / name).mkdir()
        for n in range(5):
            (tmp_path / name / f"{n}.bin").write_bytes(bytes([x, 7, 0x80, 0, n]) * 2)
    split = data.load("events", path=tmp_path, steps=2, channels=[34, 34, 2])
    assert set(zip(*np.nonzero(split.train.x[split.train.y == 1])[2:], strict=True)) == {(7, 30, 1)}


@pytest.mark.parametrize("version", [2, 3])
def test_event_cameras_are_read(version, tmp_path):
    for name, x in (("a", 3), ("b", 30)):
        (tmp_path / name).mkdir()
        for n in range(4):
            times, y, p = np.arange(5) * 100, 7, n % 2
            at = (x << 17) | (y << 2) | (p << 1) if version == 3 else (x << 8) | (y << 1) | p
            words = np.stack([np.full(5, at), times], 1).astype("<u4" if version == 3 else ">u4").tobytes()
            packet = np.array([1, 8, 4, 0, 5, 5, 5], "<u4").tobytes() if version == 3 else b""
            (tmp_path / name / f"{n}.aedat").write_bytes(f"#!AER-DAT{version}.1\r\n".encode() + packet + words)
    split = data.load("events", path=tmp_path, steps=5, channels=[34, 34, 2], duration=500.0)
    assert set(zip(*np.nonzero(split.train.x[split.train.y == 1])[2:4], strict=True)) == {(7, 30)}
    assert np.array_equal(split.train.x.sum((2, 3, 4)), np.ones((len(split.train.y), 5)))
    (tmp_path / "a" / "0.aedat").write_bytes(b"nothing")
    with pytest.raises(data.DataError, match=r"0.aedat must be an AEDAT recording"):
        data.load("events", path=tmp_path, steps=5)


def lists(path, labels, units=5):
    rng = np.random.default_rng(len(labels))
    times, where = [rng.random(9).astype("f4") for _ in labels], [rng.integers(0, units, 9) for _ in labels]
    with h5py.File(path, "w") as file:
        for name, rows, kind in (("times", times, "f4"), ("units", where, "i4")):
            made = file.create_dataset(f"spikes/{name}", (len(labels),), h5py.vlen_dtype(np.dtype(kind)))
            for n, row in enumerate(rows):
                made[n] = row
        file["labels"] = np.asarray(labels)
    return times, where


def test_hdf5_lists(tmp_path):
    times, where = lists(tmp_path / "my_train.h5", [0, 1, 2] * 4)
    lists(tmp_path / "my_test.h5", [0, 1, 2])
    split = data.load("events", path=tmp_path, steps=4, duration=1.0, counts=True, val_fraction=0.0)
    expected = np.zeros((12, 4, 5))
    for n, (t, u) in enumerate(zip(times, where, strict=True)):
        np.add.at(expected[n], ((t * 4).astype(int), u), 1)
    assert np.array_equal(split.train.x, expected)
    assert split.classes == 3
    one = data.load("events", path=tmp_path / "my_train.h5", steps=4)
    assert len(one.test.y) == 2
    assert len(one.train.y) + len(one.val.y) == 10


def test_a_list_that_leads_out_of_the_folder_is_not_read(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    lists(tmp_path / "a_train.h5", [0, 1] * 4)
    lists(inner / "a_test.h5", [0, 1])
    (inner / "a_train.h5").symlink_to(tmp_path / "a_train.h5")
    with pytest.raises(data.DataError, match=r"must hold one \*train\*\.h5, got none"):
        data.load("events", path=inner, steps=4)


def test_wav_folders_of_every_width_give_the_same_bands(tmp_path):
    rate, t = 8000, np.arange(4000) / 8000
    for name, hertz in (("low", 300), ("high", 2500)):
        (tmp_path / name).mkdir()
        for n, width in enumerate((1, 2, 3, 4, 2)):
            tone = np.sin(2 * np.pi * hertz * t) * 0.5
            whole = np.round(tone * (2 ** (8 * width - 1) - 1)).astype(np.int64) + (128 if width == 1 else 0)
            raw = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
            channels = 2 if n == 4 else 1
            with wave.open(str(tmp_path / name / f"{n}.wav"), "wb") as out:
                out.setparams((channels, width, rate, 0, "NONE", "none"))
                out.writeframes(np.repeat(raw, channels, 0).tobytes())
    split = data.load("audio", path=tmp_path, bands=20, steps=50)
    every = {int(y): x for part in (split.train, split.val, split.test) for x, y in zip(part.x, part.y, strict=True)}
    assert split.class_names == ("high", "low")
    assert every[0].mean(0).argmax() > every[1].mean(0).argmax()
    low = split.train.x[split.train.y == 1]
    assert np.abs(low - low[0])[:, :45, low[0].mean(0).argmax()].max() < 0.02
    spikes = data.load("audio", path=tmp_path, bands=20, steps=50, encoding="delta")
    assert spikes.train.x.shape[1:] == (50, 40)
    assert set(np.unique(spikes.train.x)) == {0, 1}


def test_sparse_rows_of_an_npz(tmp_path):
    x = sparse.random_array((12, 30), density=0.2, format="csr", rng=np.random.default_rng(0))
    rows = {
        f"x_train_{k}": v
        for k, v in (("data", x.data), ("indices", x.indices), ("indptr", x.indptr), ("shape", x.shape))
    }
    rest = {"y_train": np.arange(12) % 2, "x_test": np.ones((4, 30)), "y_test": np.arange(4) % 2}
    np.savez(tmp_path / "s.npz", **rows, **rest)
    split = data.load("npz", path=tmp_path / "s.npz", val_fraction=0.0)
    assert np.allclose(split.train.x.toarray(), x.toarray())
    rows["x_train_indices"] = rows["x_train_indices"] + 30
    np.savez(tmp_path / "bad.npz", **rows, **rest)
    with pytest.raises(data.DataError, match=r"x_train_indices .* columns below 30"):
        data.load("npz", path=tmp_path / "bad.npz")


@pytest.mark.parametrize("code", ["rate", "latency"])
@pytest.mark.parametrize("stream", ["auto", "always"])
def test_codes_of_probabilities_refuse_other_numbers(tmp_path, code, stream):
    x, y = np.linspace(-2, 2, 80, dtype=np.float32).reshape(40, 2), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    asked = ["data=npz", f"data.path={tmp_path}/mine.npz", f"data.stream={stream}", "train.batch_size=8"]

    def read(*words):  # a stream is looked at as it is read
        return loading.load_data(schema.compose([*asked, *words])).train.x[np.arange(24)]

    with pytest.raises(data.DataError, match=r"codes need inputs in \[0, 1\], got -?\d.*; rescale the data or use the"):
        read(f"train.encoding={code}")
    assert len(read()) == 24


@pytest.mark.slow
def test_a_run_learns_several_labels_of_sparse_rows(tmp_path):
    rng = np.random.default_rng(0)
    words = sparse.random_array((500, 12), density=0.4, format="csr", rng=rng, data_sampler=lambda size: np.ones(size))
    x = words.toarray()
    y = (x[:, :3] > 0).astype(int)  # a label for each of the first three words
    file = {"x_train": x[:400], "y_train": y[:400], "x_test": x[400:], "y_test": y[400:]}
    rows = sparse.csr_array(file.pop("x_train"))
    file |= {f"x_train_{k}": getattr(rows, k) for k in ("data", "indices", "indptr", "shape")}
    np.savez(tmp_path / "text.npz", **file)
    options = ["data=npz", f"data.path={tmp_path}/text.npz", "data.options.task=multilabel", f"run.root={tmp_path}"]
    options += ["model.hidden=[24]", "train.steps=4", "train.epochs=30", "train.batch_size=16"]
    options += ["optimizer.learning_rate=0.01", "bayes.samples=4", "svi.lam=0.3", "track.wandb=disabled"]
    directory, metrics = job.run(schema.compose(options))
    assert metrics["test/accuracy"] >= 0.97
    assert metrics["deployed/accuracy"] >= 0.97
    assert metrics["test/f1_macro"] >= 0.95
    assert metrics["test/exact_match"] >= 0.9
    assert 3 <= metrics["gates/input/kept"] < 12  # the words that no label reads are closed
    saved = store.read_arrays(directory, "records.npz")
    assert saved["labels/test/probs"].shape == (100, 3)
    assert np.mean((saved["labels/test/probs"] > 0.5) == y[400:]) == pytest.approx(metrics["test/accuracy"])
    assert metrics["test/nll"] == pytest.approx(
        -np.log(np.where(y[400:], saved["labels/test/probs"], 1 - saved["labels/test/probs"])).sum(1).mean(), rel=1e-4
    )
    assert (directory / "report.html").exists()


def spoilt(name, root):
    """Makes something wrong of a folder of events and returns what to load."""
    file = root / "left" / "0.npz"
    match name:
        case "objects":
            np.savez(file, t=np.array([{}]), channel=np.array([1]))
        case "keys":
            np.savez(file, t=np.arange(3))
        case "nan":
            np.savez(file, t=np.array([np.nan]), x=np.array([0]), y=np.array([0]), p=np.array([0]))
        case "floats":
            np.savez(file, t=np.arange(2), x=np.array([0.5, 1]), y=np.arange(2), p=np.arange(2))
        case "text":
            file.write_text("hello")
        case "lengths":
            np.savez(file, t=np.arange(3), x=np.arange(2), y=np.arange(2), p=np.arange(2))
        case "aedat":
            (root / "left" / "0.aedat4").write_bytes(b"")
        case "one class":
            (root / "right").rename(root.parent / "gone")
        case "h5":
            (root / "a.h5").write_text("hello")
            return root / "a.h5"
        case "link":
            with h5py.File(root / "a.h5", "w") as out:
                out["spikes/times"] = h5py.ExternalLink("/etc/passwd", "/")
            return root / "a.h5"
        case "nowhere":
            return root / "nowhere"
    return root


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("objects", "plain arrays"),
        ("keys", "must hold t and channel"),
        ("nan", "finite"),
        ("floats", "must be integers"),
        ("text", "must be an .npz"),
        ("lengths", "one length"),
        ("aedat", "tonic|must be an AEDAT"),
        ("one class", "two classes"),
        ("h5", "must be HDF5"),
        ("link", "link"),
        ("nowhere", "folder"),
    ],
)
def test_bad_events_get_a_sentence(name, words, tmp_path):
    event_folder(tmp_path / "set")
    place = spoilt(name, tmp_path / "set")
    with pytest.raises(data.DataError, match=words) as said:
        data.load("events", path=place, steps=4)
    assert "\n" not in str(said.value)


def test_bad_sound_gets_a_sentence(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.wav").write_bytes(b"RIFFxxxx")
    with pytest.raises(data.DataError, match="must be a wav file"):
        data.load("audio", path=tmp_path)


def test_looking_at_data_prints_what_was_found(tmp_path, capsys):
    event_folder(tmp_path / "set")
    picture = tmp_path / "look.png"
    code = inspect.main(["data=events", f"data.path={tmp_path}/set", "data.options.steps=10", f"picture={picture}"])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "events: classification, 2 classes, 10 steps of (4, 6, 2)" in said.out.replace("\n", " ")
    assert "left" in said.out
    assert "a run can learn this" in said.out
    assert picture.stat().st_size > 1000


def test_looking_at_bad_data_says_the_sentence(tmp_path, capsys):
    assert inspect.main(["data=events", f"data.path={tmp_path}/no"]) == 1
    assert capsys.readouterr().err.startswith("error: data.path must be a folder")
    assert inspect.main(["data=diabetes", "data.ood=[digits]", f"picture={tmp_path}/d.png"]) == 0
    said = capsys.readouterr().out
    assert "a run cannot learn this: data.ood is scored for classes" in said
    assert "diabetes: regression, 1 numbers" in said
    assert inspect.main(["data=events", "data.path=.", "data.options.step=3"]) == 1
    assert "did you mean 'steps'" in capsys.readouterr().err


def test_a_run_does_not_lie_in_the_data_that_it_reads(tmp_path):
    event_folder(tmp_path)
    given = ["data=events", f"data.path={tmp_path}", f"run.root={tmp_path / 'outputs'}"]
    with pytest.raises(ValueError, match=r"outside of the data that it reads.*set run\.dir or run\.root"):
        job.run(schema.compose(given))
    assert not (tmp_path / "outputs").exists()
