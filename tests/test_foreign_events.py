"""Events as people and devices write them: clocks, grids, polarities, empty recordings, and lists in HDF5 of others."""

import resource
import time
import zlib

import h5py
import numpy as np
import pytest

from dsnn import data

RNG = np.random.default_rng(0)


def folder_of(root, recordings):
    """Writes recordings by class, ``{"a": [arrays, ...], "b": ...}``."""
    for name, every in recordings.items():
        (root / name).mkdir(parents=True)
        for n, arrays in enumerate(every):
            np.savez(root / name / f"{n}.npz", **arrays)
    return root


def both(make, count=4):
    return {name: [make(n) for n in range(count)] for name in ("a", "b")}


def every(split):
    return np.concatenate([part.x for part in (split.train, split.val, split.test)])


def lists_of(place, times, units, labels, **options):
    with h5py.File(place, "w") as file:
        for name, rows, kind in (("times", times, "f8"), ("units", units, "i8")):
            made = file.create_dataset(f"spikes/{name}", (len(rows),), h5py.vlen_dtype(np.dtype(kind)), **options)
            for n, row in enumerate(rows):
                made[n] = row
        file["labels"] = labels
    return place


CLOCKS = {
    "unix microseconds": (1_700_000_000_000_000, 1_000_000),
    "unix nanoseconds": (1_700_000_000_000_000_000, 1_000_000_000),
    "a clock at 5 s": (5_000_000, 1_000_000),
    "before a stimulus": (-500_000, 1_000_000),
    "the least of 64 bits": (-(2**63), 1_000_000),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_f1_times_count_from_the_first_event_where_they_do_not_begin_near_0(name, tmp_path):
    start, lasting = CLOCKS[name]
    ticks = np.sort(RNG.integers(1, lasting - 1, 500))
    ticks[[0, -1]] = 0, lasting
    place = folder_of(tmp_path, both(lambda n: {"t": start + n * (start > 0) + ticks, "channel": np.arange(500) % 7}))
    split = data.load("events", path=place, steps=10, counts=True)
    expected = np.zeros((10, 7))
    np.add.at(expected, (np.minimum(ticks * 10 // lasting, 9), np.arange(500) % 7), 1)
    assert all(np.array_equal(x, expected) for x in every(split))
    _, note = split.notes
    assert note.startswith("times of 8 of 8 recordings do not begin near 0 (the first event of /")
    assert note.endswith(": those of 8 count from their first event.")
    given = data.load("events", path=place, steps=10, counts=True, duration=float(lasting))
    assert np.array_equal(every(given), every(split))


def test_f1_a_clock_that_runs_on_from_recording_to_recording(tmp_path):
    ticks = np.arange(100)
    place = folder_of(
        tmp_path,
        {
            "a": [{"t": ticks + 130 * n, "channel": ticks % 3} for n in range(6)],
            "b": [{"t": ticks + 130 * n + 900, "channel": ticks % 3} for n in range(6)],
        },
    )
    split = data.load("events", path=place, steps=4, counts=True)
    assert all(np.array_equal(x.sum(1), np.full(4, 25)) for x in every(split))
    assert "times of 11 of 12 recordings" in split.notes[1]
    assert "those of 12 count from their first event" in split.notes[1]


def test_f1_one_odd_clock_moves_no_other_recording(tmp_path):
    made = both(lambda n: {"t": np.array([3, 50, 99]), "channel": np.array([0, 1, 2])}, 5)
    made["a"][2]["t"] = made["a"][2]["t"] + 10**6
    split = data.load("events", path=folder_of(tmp_path, made), steps=100)
    firsts = sorted(x.any(1).argmax() for x in every(split))
    assert firsts == [0, *[3] * 9]
    assert "times of 1 of 10 recordings" in split.notes[1]


def test_f1_latencies_of_single_events_stay_what_they_are(tmp_path):
    place = folder_of(tmp_path, both(lambda n: {"t": np.array([10.0 + 20 * n]), "channel": np.array([0])}))
    split = data.load("events", path=place, steps=8)
    assert sorted(x[:, 0].argmax() for x in every(split)) == sorted([1, 3, 5, 7] * 2)
    assert split.notes[1:] == ()


def test_f1_lists_in_hdf5_that_begin_late(tmp_path):
    times = [np.sort(RNG.random(40)) for _ in range(8)]
    for row in times:
        row[[0, -1]] = 0, 1
    units = [RNG.integers(0, 5, 40) for _ in times]
    plain = data.load("events", path=lists_of(tmp_path / "a.h5", times, units, np.arange(8) % 2), steps=8, counts=True)
    late = lists_of(tmp_path / "b.h5", [t + 100 for t in times], units, np.arange(8) % 2)
    split = data.load("events", path=late, steps=8, counts=True)
    assert np.array_equal(every(split), every(plain))
    assert plain.notes[1:] == ()
    assert "the first event of recording 0 of" in split.notes[1]


@pytest.mark.parametrize("steps", [8, 12, 32, 40, 64, 128, 256, 512])
def test_f4_as_many_bins_as_ticks_have_one_event_each(steps, tmp_path):
    place = folder_of(tmp_path, both(lambda n: {"t": np.arange(steps), "channel": np.zeros(steps, int)}, 2))
    split = data.load("events", path=place, steps=steps, counts=True, test_fraction=0.5)
    assert np.array_equal(every(split), np.ones((4, steps, 1)))


@pytest.mark.parametrize("duration", [0, 1_000_000])
@pytest.mark.parametrize("steps", [10, 20, 40, 80])
@pytest.mark.parametrize("kind", [np.int64, np.float64, np.float32])
def test_f4_what_ends_exactly_at_the_end_has_a_bin(steps, kind, duration, tmp_path):
    ticks = np.linspace(0, 1_000_000, 321).astype(kind)
    place = folder_of(tmp_path, both(lambda n: {"t": ticks, "channel": np.zeros(321, int)}, 2))
    split = data.load("events", path=place, steps=steps, counts=True, duration=duration, test_fraction=0.5)
    expected = np.full(steps, 320 // steps)
    expected[-1] += 1
    assert all(np.array_equal(x[:, 0], expected) for x in every(split))


def test_f4_what_lies_beyond_a_given_duration_is_left_out_and_said(tmp_path):
    place = folder_of(tmp_path, both(lambda n: {"t": np.arange(12), "channel": np.zeros(12, int)}, 2))
    split = data.load("events", path=place, steps=5, counts=True, duration=10, test_fraction=0.5)
    assert np.array_equal(every(split)[..., 0], np.tile([2, 2, 2, 2, 3], (4, 1)))
    assert split.notes[-1] == "4 events after the duration, 10, were left out (data.options.duration)."


def frames_of(tmp_path, **changes):
    base = {"t": np.arange(6), "x": np.arange(6), "y": np.arange(6) % 2, "p": np.arange(6) % 2} | changes
    base = {name: value for name, value in base.items() if value is not None}
    return data.load("events", path=folder_of(tmp_path, both(lambda n: base)), steps=3, counts=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"p": np.arange(6) % 2 * 2 - 1},
        {"p": (np.arange(6) % 2 * 2 - 1).astype(float)},
        {"p": np.arange(6) % 2 == 1},
        {"x": np.arange(6.0), "y": np.arange(6) % 2 * np.float32(1), "p": np.arange(6) % 2 * 1.0},
        {"t": np.arange(6.0)},
        {"t": np.arange(6).astype("m8[us]")},
        {"t": (1000 * np.arange(6)).astype("m8[ns]")},
        {"t": np.datetime64("2024-05-01T10:00:00") + np.arange(6)},
        {"t": np.arange(6).astype(np.float16), "x": np.arange(6).astype(np.uint64)},
        {"t": np.arange(6).astype(">i2"), "x": np.arange(6).astype(">f8")},
    ],
)
def test_f11_places_and_times_of_many_kinds_are_one(changes, tmp_path):
    assert np.array_equal(every(frames_of(tmp_path / "a", **changes)), every(frames_of(tmp_path / "b")))


def test_f11_an_empty_recording_is_silence_and_said(tmp_path):
    none = np.array([])
    made = both(lambda n: {"t": np.arange(4), "x": np.arange(4), "y": np.arange(4), "p": np.ones(4, int)})
    made["a"][1] = {"t": none, "x": none, "y": none, "p": none}
    split = data.load("events", path=folder_of(tmp_path, made), steps=2)
    assert sorted(every(split).sum((1, 2, 3, 4))) == [0, *[4] * 7]
    assert split.notes[-1] == "1 of 8 recordings hold no event, and are silent throughout."


def test_f11_counts_beyond_a_byte(tmp_path):
    place = folder_of(tmp_path, both(lambda n: {"t": np.zeros(300, int), "channel": np.zeros(300, int)}))
    split = data.load("events", path=place, steps=1, counts=True)
    assert set(every(split).ravel()) == {300.0}
    assert split.notes[1:] == ()
    small = data.load("events", path=place, steps=1, counts=True, dtype="uint8")
    assert set(every(small).ravel()) == {255}
    assert small.notes[-1] == "counts above 255 were cut to it in 8 of 8 recordings; dtype=float32 has room."


def test_f11_a_wide_list_of_channels_is_read(tmp_path):
    place = folder_of(tmp_path, both(lambda n: {"t": np.arange(3), "channel": np.array([0, 5, 100_000])}))
    assert every(data.load("events", path=place, steps=2)).shape == (8, 2, 100_001)


T, C = np.arange(3), np.arange(3)
BAD = {
    "coordinates": (
        {"t": T, "x": np.array([0, 1, 100_000]), "y": np.array([0, 1, 100_000])},
        "the largest y, x in .*0.npz",
    ),
    "2^40": ({"t": T, "channel": np.array([0, 1, 2**40])}, "from 0 to 2147483646, got channel from 0 to 1.0995"),
    "2^64": ({"t": T, "channel": np.array([0, 1, 2**64 - 1], np.uint64)}, "from 0 to 2147483646"),
    "negative": ({"t": T, "channel": np.array([0, 1, -1])}, "got channel from -1 to 1"),
    "mixed": ({"t": T, "x": C, "y": C}, "got y, x in .* and channel in .*; write them alike"),
    "three polarities": ({"t": T, "x": C, "y": C, "p": np.array([-1, 0, 1])}, "polarities .* -1 and 1, got both"),
    "bytes": ({"t": T, "x": C, "y": C, "p": np.array([0, 255, 0])}, "polarities .* got 255"),
    "nan": ({"t": np.array([0, 1, np.nan]), "channel": C}, "finite numbers, got nan"),
    "inf": ({"t": np.array([0, 1, -np.inf]), "channel": C}, "finite numbers, got -inf"),
    "nat": ({"t": np.array([0, 1, "NaT"], "m8[s]"), "channel": C}, "finite numbers, got nan"),
    "years": ({"t": T.astype("m8[Y]"), "channel": C}, r"finite numbers, got dtype timedelta64\[Y\]"),
    "text times": ({"t": np.array(["0", "1", "2"]), "channel": C}, "finite numbers, got dtype <U1"),
    "complex times": ({"t": T * 1j, "channel": C}, "finite numbers, got dtype complex128"),
    "true times": ({"t": T > 1, "channel": C}, "finite numbers, got dtype bool"),
    "text channels": ({"t": T, "channel": np.array(["0", "1", "2"])}, "must be integers, got channel of dtype <U1"),
    "fractions": ({"t": T, "channel": C + 0.5}, "must be integers, got channel of dtype float64 with fractions"),
    "nan channels": ({"t": T, "channel": np.array([0, np.nan, 1])}, "must be integers"),
    "one number": ({"t": np.array(1), "channel": np.array(1)}, "arrays of one length"),
    "two axes": ({"t": T, "channel": np.stack([C, C], 1)}, "arrays of one length"),
}


@pytest.mark.parametrize("name", BAD)
def test_f11_what_cannot_be_meant_gets_a_sentence(name, tmp_path):
    arrays, words = BAD[name]
    made = both(lambda n: {"t": T, "channel": C})
    if "x" in arrays and name != "mixed":
        made = both(lambda n: {"t": T, "x": C, "y": C, **({"p": C % 2} if "p" in arrays else {})})
    made["a"][0] = arrays
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(data.DataError, match=words) as said:
        data.load("events", path=folder_of(tmp_path, made), steps=2)
    assert str(said.value).isprintable()
    assert str(said.value).endswith(".")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_f11_a_set_without_any_event_gets_a_sentence(tmp_path):
    none = np.array([])
    place = folder_of(tmp_path, both(lambda n: {"t": none, "channel": none}))
    with pytest.raises(data.DataError, match="must hold events, got none in any of 8"):
        data.load("events", path=place, steps=2)


# --- HDF5 of others


def put(name, value=None, **options):
    def change(file, root):
        del file[name]
        if options:
            file.create_dataset(name, **options)
        else:
            file[name] = value

    return change


def row(place, values):
    def change(file, root):
        file[place][3] = values

    return change


def bomb(file, root):
    del file["labels"]
    made = file.create_dataset("labels", (8,), "u1", chunks=(8,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 28)))


def repeated(file, root):
    """Makes a hundred thousand lists that are all the same one."""
    del file["spikes"], file["labels"]
    made = file.create_dataset("spikes/times", (100_000,), h5py.vlen_dtype(np.dtype("f8")))
    made[0] = np.zeros(1 << 17)
    file.flush()
    reference = made.id.read_direct_chunk if made.chunks else None
    assert reference is None
    offset = made.id.get_offset()
    with open(root / "a.h5", "r+b") as raw:
        raw.seek(offset)
        first = raw.read(16)
        raw.seek(offset)
        raw.write(first * 100_000)
    file["spikes/units"] = np.zeros((2, 2))
    file["labels"] = np.zeros(100_000, np.int8)


def elsewhere(file, root):
    with h5py.File(root / "other.h5", "w") as other:
        other["times"] = np.zeros((8, 3))
    layout = h5py.VirtualLayout((8, 3), "f8")
    layout[:] = h5py.VirtualSource(str(root / "other.h5"), "times", (8, 3))
    del file["spikes/times"]
    file.create_virtual_dataset("spikes/times", layout)


def linked(file, root):
    with h5py.File(root / "other.h5", "w") as other:
        file.copy("spikes", other)
    del file["spikes"]
    file["spikes"] = h5py.ExternalLink(str(root / "other.h5"), "/spikes")


def soft(file, root):
    file.move("spikes", "elsewhere")
    file["spikes"] = h5py.SoftLink("/elsewhere")


HOSTILE = {
    "external storage": (put("labels", shape=(20,), dtype="u1", external=[("/etc/passwd", 0, 20)]), "another file"),
    "virtual": (elsewhere, "another file"),
    "external link above": (linked, "'spikes' of .* must lie in the file itself, got a link"),
    "soft link above": (soft, "'spikes' of .* must lie in the file itself, got a link"),
    "times nan": (row("spikes/times", [0.0, np.nan]), "finite numbers, got nan"),
    "times inf": (row("spikes/times", [0.0, np.inf]), "finite numbers, got inf"),
    "unit 2^40": (row("spikes/units", [0, 2**40]), "from 0 to 2147483646"),
    "unit 2^31": (row("spikes/units", [0, 2**31 - 2]), "recordings must fit in 8 GiB"),
    "unit -1": (row("spikes/units", [0, -1]), "got channel from -1 to 0"),
    "lengths": (row("spikes/units", [0, 1, 2]), "recording 3 of .* arrays of one length"),
    "text times": (
        put("spikes/times", np.array([b"a"] * 8)),
        "'spikes/times' of .* must hold lists of numbers, got text",
    ),
    "flat times": (put("spikes/times", np.zeros(8)), "must hold lists of numbers"),
    "labels a group": (
        lambda f, r: (f.__delitem__("labels"), f.create_group("labels")),
        "must be a data set, got a group",
    ),
    "times a group": (lambda f, r: (f.__delitem__("spikes/times"), f.create_group("spikes/times")), "got a group"),
    "spikes a data set": (put("spikes", np.zeros(3)), "got a data set above"),
    "no labels": (lambda f, r: f.__delitem__("labels"), "'labels' of .* is missing"),
    "labels of two axes": (put("labels", np.zeros((8, 2), int)), r"labels in .* must be \[n\]"),
    "one label": (put("labels", 3), r"labels in .* must be \[n\]"),
    "half a label": (put("labels", np.arange(8) / 2), "labels must be integers or text, got 0.5"),
    "too few labels": (put("labels", np.arange(7)), "got 8, 8, 7"),
    "references": (lambda f, r: put("labels", np.array([f["spikes"].ref] * 8, h5py.ref_dtype))(f, r), "got references"),
    "records": (put("labels", np.zeros(8, [("a", "f4")])), "must hold numbers"),
    "a trillion labels": (put("labels", shape=(1 << 40,), dtype="u1", chunks=(1024,)), "may hold 268435456 values"),
    "a packed bomb": (bomb, "unpacks to more"),
    "a plug-in": (
        put("labels", shape=(8,), dtype="u1", chunks=(8,), compression=32_015, allow_unknown_filter=True),
        "filter",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_r11_hostile_lists_get_a_sentence_and_little_memory(name, tmp_path):
    change, words = HOSTILE[name]
    place = lists_of(tmp_path / "a.h5", [[0.0, 1.0]] * 8, [[0, 1]] * 8, np.arange(8) % 2)
    with h5py.File(place, "r+") as file:
        change(file, tmp_path)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(data.DataError, match=words) as said:
        data.load("events", path=place, steps=4)
    assert str(said.value).isprintable()
    assert "a.h5" in str(said.value) or "'y" in str(said.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert time.perf_counter() - start < 10


def test_r11_lists_that_are_all_one_are_counted_as_they_are_read(tmp_path, monkeypatch):
    from dsnn.data import event_files

    place = lists_of(tmp_path / "a.h5", [[0.0, 1.0]] * 8, [[0, 1]] * 8, np.arange(8) % 2)
    with h5py.File(place, "r+") as file:
        repeated(file, tmp_path)
    monkeypatch.setattr(event_files, "MAX_EVENTS", 1 << 22)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(data.DataError, match=r"'spikes/times' of .* may take"):
        data.load("events", path=place, steps=4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000


def test_r11_labels_may_have_names_and_lists_may_be_packed(tmp_path):
    names = np.array(["left", "right"])[np.arange(8) % 2]
    place = lists_of(
        tmp_path / "a.h5", [[0.0, 1.0]] * 8, [[0, 1]] * 8, names.astype("S"), compression="gzip", shuffle=True
    )
    split = data.load("events", path=place, steps=2)
    assert split.class_names == ("left", "right")
    with h5py.File(place, "r+") as file:
        del file["spikes"]
        file["spikes/times"], file["spikes/units"] = np.tile([0.0, 1.0], (8, 1)), np.tile([0.0, 1.0], (8, 1))
    assert np.array_equal(every(data.load("events", path=place, steps=2)), every(split))


@pytest.mark.parametrize("what", ["folder", "file", "part"])
def test_r11_links_out_of_a_folder_of_events_are_not_followed(what, tmp_path):
    outside = folder_of(tmp_path / "outside", both(lambda n: {"t": T, "channel": C}))
    inside = folder_of(tmp_path / "inside", both(lambda n: {"t": T, "channel": C}))
    if what == "folder":
        (inside / "c").symlink_to(outside / "a")
    elif what == "file":
        (inside / "c").mkdir()
        (inside / "c" / "0.npz").symlink_to(outside / "a" / "0.npz")
    else:
        (inside / "train").symlink_to(outside)
        with pytest.raises(data.DataError, match="got none"):
            data.load("events", path=inside, steps=2)
        return
    assert data.load("events", path=inside, steps=2).class_names == ("a", "b")
