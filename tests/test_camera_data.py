"""CIFAR10-DVS, DVS128 Gesture, AEDAT and zip archives, on small files in their exact formats, whole and damaged."""

import stat
import zipfile
from typing import Any

import numpy as np
import pytest
from test_cifar import CLASSES, stand_in, tarred

from dsnn import data
from dsnn.data import aedat, archive, dvs_gesture
from dsnn.data.camera_frames import CameraFrames

RNG = np.random.default_rng(0)


def zipped(place, entries, method=zipfile.ZIP_DEFLATED):
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w", method) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return place


# --- Events of cameras


def aedat2(events, header=b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"):
    """A file of jAER: (time, address) pairs, the most significant byte first."""
    return header + b"".join(int(n).to_bytes(4, "big") for time, address in events for n in (address, time))


def dvs128(column, row, brighter):
    """The address of a pixel that stands ``column`` from the left and ``row`` from the top in CIFAR10-DVS."""
    return (127 - column) << 8 | (127 - row) << 1 | (1 - brighter)


def packet(events, kind=1, overflows=0, valid=None, capacity=None):
    """A packet of cAER: its header of 28 bytes, then (time, x, y, polarity, valid) events."""
    count = len(events)
    fields = (8, 4, overflows, capacity or count, count, sum(e[4] for e in events) if valid is None else valid)
    head = kind.to_bytes(2, "little") + (1).to_bytes(2, "little") + b"".join(n.to_bytes(4, "little") for n in fields)
    words = [n for t, x, y, p, good in events for n in (x << 17 | y << 2 | p << 1 | good, t)]
    return head + b"".join(n.to_bytes(4, "little") for n in words) + bytes(8 * ((capacity or count) - count))


HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2015-09-14\r\n#!END-HEADER\r\n"


def test_aedat_2_gives_the_fields_of_every_address():
    found = aedat.read(aedat2([(5, 0x7F00 | 0xFE | 1), (2**31 + 7, 3 << 8 | 9 << 1)]), "a.aedat")
    assert [values.tolist() for values in found] == [[5, 2**31 + 7], [127, 3], [127, 9], [1, 0]]


def test_aedat_3_joins_its_packets_and_passes_over_other_kinds():
    content = HEADER3 + packet([(5, 127, 3, 1, 1), (6, 0, 127, 0, 1)], capacity=4)
    content += packet([(9, 1, 1, 1, 1)], kind=0) + packet([(7, 2, 4, 1, 1)], overflows=3)
    found = aedat.read(content, "a.aedat", 128)
    assert [v.tolist() for v in found] == [[5, 6, 3 * 2**31 + 7], [127, 0, 2], [3, 127, 4], [1, 0, 1]]


def test_events_of_aedat_3_that_are_marked_invalid_are_left_out():
    events = [(5, 1, 2, 1, 0), (6, 3, 4, 1, 1)]
    assert aedat.read(HEADER3 + packet(events), "a").x.tolist() == [3]
    assert aedat.read(HEADER3 + packet(events, valid=2), "a").x.tolist() == [1, 3]  # a writer that marks nothing


def test_a_recording_without_events_is_empty():
    assert [len(v) for v in aedat.read(HEADER3, "a")] == [0] * 4
    assert [len(v) for v in aedat.read(aedat2([]), "a")] == [0] * 4


THREE = HEADER3 + packet([(5, 1, 2, 1, 1)])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a.aedat must be an AEDAT recording.*got b'' at byte 0"),
        (b"\x89HDF\r\n\x1a\n", "must be an AEDAT recording, which begins with #!AER-DAT2.0 or #!AER-DAT3.1, got"),
        (b"#!AER-DAT1.0\r\n", "got b'#!AER-DAT1.0.*get the published file"),
        (b"#!AER-DAT4.0\r\n", "got b'#!AER-DAT4.0"),
        (b"#!AER-DAT2.0 and on", "lines of text that end, got one that does not .* at byte 0"),
        (
            aedat2([(1, 2)], b"#!AER-DAT2.0\n")[:-3],
            "events of 8 bytes, got 5 bytes after the last whole one at byte 13",
        ),
        (THREE[: len(HEADER3) + 20], f"headers of 28 bytes, got 20 bytes at byte {len(HEADER3)}"),
        (THREE[:-1], f"the 8 bytes of a packet, got 7 at byte {len(HEADER3) + 28}"),
        (
            HEADER3 + packet([(5, 1, 2, 1, 1)], valid=2),
            rf"valid <= number <= capacity events, got 2, 1, 1 at byte {len(HEADER3)}",
        ),
        (
            HEADER3 + packet([(1, 1, 2, 1, 1), (5, 128, 2, 1, 1)]),
            f"128 x 128 pixels, got x = 128, y = 2 at byte {len(HEADER3) + 36}",
        ),
    ],
)
def test_damaged_recordings_are_named_with_their_byte(content, said):
    with pytest.raises(data.DataError, match=said):
        aedat.read(content, "a.aedat", 128)


def recording(times, x=0, y=0, polarity=0):
    given = [np.broadcast_to(np.asarray(v, np.int32), len(times)).copy() for v in (x, y, polarity)]
    return aedat.Recording(np.asarray(times, np.int64), *given)


FRAMES = {"steps": 4, "bins": "time", "duration_s": None, "pool": 1, "counts": True, "dtype": "uint8"}


def per_step(made, **options):
    return CameraFrames(**(FRAMES | options)).of(made).sum((1, 2, 3)).tolist()


def test_bins_of_time_share_a_recordings_own_span_or_a_given_one():
    times = 1_000_000 + np.array([0, 1, 99, 100, 250, 300, 399, 400])
    assert per_step(recording(times)) == [3, 1, 1, 3]  # the last bin holds its end
    assert per_step(recording(times[::-1])) == [3, 1, 1, 3]
    assert per_step(recording(times), duration_s=200e-6) == [2, 1, 1, 0]
    assert per_step(recording([7, 7, 7])) == [3, 0, 0, 0]
    assert per_step(recording([])) == [0, 0, 0, 0]


def test_bins_of_count_hold_equally_many_events_and_the_last_the_rest():
    times = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 1000, 2000])
    assert per_step(recording(times), bins="count") == [2, 2, 2, 5]
    assert per_step(recording(times), bins="count", duration_s=8.5e-6) == [2, 2, 2, 3]
    assert per_step(recording(times[:2]), bins="count") == [1, 1, 0, 0]


def test_pixels_have_their_row_column_and_polarity_and_are_pooled():
    made = recording([0, 1, 2], x=[127, 126, 3], y=[2, 3, 127], polarity=[1, 1, 0])
    whole = CameraFrames(**(FRAMES | {"steps": 1})).of(made)
    assert [tuple(map(int, at)) for at in np.argwhere(whole)] == [(0, 2, 127, 1), (0, 3, 126, 1), (0, 127, 3, 0)]
    pooled = CameraFrames(**(FRAMES | {"steps": 1, "pool": 2, "dtype": "float32"})).of(made)
    assert pooled.shape == (1, 64, 64, 2)
    assert pooled[0, 1, 63, 1] == 2
    assert pooled[0, 63, 1, 0] == 1
    assert CameraFrames(**(FRAMES | {"steps": 1, "pool": 2, "counts": False})).of(made).max() == 1
    assert CameraFrames(**(FRAMES | {"steps": 1})).of(recording(range(300))).max() == 255  # bytes hold no more


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"bins": "number"}, "bins must be one of time, count, got 'number'"),
        ({"duration_s": 0}, "duration_s must be above 0 seconds, got 0"),
        ({"duration_s": True}, "duration_s must be above 0 seconds, got True"),
        ({"pool": 3}, "pool must divide the 128 pixels of a side, got 3"),
        ({"pool": True}, "pool must divide"),
        ({"dtype": "int8"}, "dtype must be one of float32, uint8"),
    ],
)
def test_options_of_frames_out_of_range_get_a_sentence(options, said):
    with pytest.raises(data.DataError, match=said):
        CameraFrames(**(FRAMES | options))


def test_frames_that_do_not_fit_get_a_sentence_before_they_are_made():
    said = r"fit in 8 GiB, got 10000 of shape \(16, 128, 128, 2\) in float32, 19.5 GiB; set data.options.pool=2"
    with pytest.raises(data.DataError, match=said):
        CameraFrames(**(FRAMES | {"steps": 16, "dtype": "float32"})).room(10_000)


def cifar10_dvs(root, monkeypatch, numbers=(0, 1, 899, 900, 999), **changed):
    """Ten archives of a few recordings; n of class c has an event at row c, column n % 128, n us after 50."""
    places = []
    for label, name in enumerate(CLASSES):
        made = {
            f"{name}/cifar10_{name}_{n}.aedat": aedat2([(50, dvs128(0, 0, 0)), (50 + n, dvs128(n % 128, label, 1))])
            for n in numbers
        }
        made |= {f"__MACOSX/{name}/._x": b"", f"{name}/": b"", **(changed if name == "bird" else {})}
        places.append(zipped(root / "cifar10-dvs" / f"{name}.zip", made))
    stand_in(monkeypatch, data.cifar10_dvs, places)
    return places


def test_cifar10_dvs_stands_upright_and_divides_by_number(tmp_path, monkeypatch):
    cifar10_dvs(tmp_path, monkeypatch)
    split = data.load("cifar10-dvs", root=tmp_path, steps=2, val_fraction=0.0)
    assert [data.size(p) for p in (split.train, split.test)] == [30, 20]
    assert split.train.x.shape == (30, 2, 128, 128, 2)
    assert split.test.y.tolist() == [label for label in range(10) for _ in range(2)]
    for n, (label, number) in enumerate((label, number) for label in range(10) for number in (900, 999)):
        assert np.argwhere(split.test.x[n]).tolist() == [[0, 0, 0, 0], [1, label, number % 128, 1]]
    first = data.load("cifar10-dvs", root=tmp_path, steps=2, val_fraction=0.0, test="first")
    assert [data.size(p) for p in (first.train, first.test)] == [30, 20]
    assert np.argwhere(first.test.x[1]).tolist() == [[0, 0, 0, 0], [1, 0, 1, 1]]
    assert split.class_names == CLASSES
    assert (split.temporal, split.train.x.dtype) == (True, np.uint8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"bird/cifar10_bird_7.aedat": b"#!AER-DAT2.0\r\n\0"},
            r"cifar10_bird_7.aedat in .*bird.zip .* at byte 14; the file",
        ),
        ({"bird/cifar10_bird_7.aedat": b"AER"}, "cifar10_bird_7.aedat in .*bird.zip must be an AEDAT recording"),
        (
            {"again/cifar10_bird_1.aedat": aedat2([])},
            "bird.zip must hold recordings cifar10_bird_<0 to 999>.aedat, each once",
        ),
        ({"../cifar10_bird_7.aedat": aedat2([])}, "names in an archive must stay inside it"),
    ],
)
def test_damaged_cifar10_dvs_gets_a_sentence(tmp_path, monkeypatch, changed, said):
    cifar10_dvs(tmp_path, monkeypatch, numbers=(0, 1, 950), **changed)
    with pytest.raises(data.DataError, match=said):
        data.load("cifar10-dvs", root=tmp_path, steps=2)


def test_cifar10_dvs_has_two_divisions_and_no_other(tmp_path):
    with pytest.raises(data.DataError, match="test must be one of last, first, got 'random'"):
        data.load("cifar10-dvs", root=tmp_path, test="random")


def test_published_md5s_serve_where_there_is_no_sha256(tmp_path, monkeypatch):
    published = data.cifar10_dvs.FILES
    cifar10_dvs(tmp_path, monkeypatch)
    monkeypatch.setattr(data.cifar10_dvs, "FILES", published)
    with pytest.raises(
        data.DataError, match=r"airplane.zip is corrupted: expected md5 0afd5c4bf9ae06af762a77b180354fdd"
    ):
        data.load("cifar10-dvs", root=tmp_path)


@pytest.mark.data("cifar10-dvs")
def test_cifar10_dvs_is_as_published():
    split = data.load("cifar10-dvs", steps=2, pool=4, counts=True)
    assert [data.size(p) for p in (split.train, split.val, split.test)] == [8100, 900, 1000]


COLUMNS = "class,startTime_usec,endTime_usec\n"


def dvs_gesture_archive(root, monkeypatch, **changed):
    """Three recordings, of which two train, and their lists; what is None is left out."""
    events = [(t, t % 128, 5, 1, 1) for t in (10, 20, 30, 40, 50)]
    content: dict[str, Any] = {
        "user01_led.aedat": HEADER3 + packet(events[:3]) + packet(events[3:]),
        "user01_led_labels.csv": (COLUMNS + "1,10,30\n8,30,50\n8,45,60\n").encode(),
        "user02_lab.aedat": HEADER3 + packet(events),
        "user02_lab_labels.csv": (COLUMNS + "11,40,51\n").encode(),
        "user24_led.aedat": HEADER3 + packet(events, overflows=1),
        "user24_led_labels.csv": (COLUMNS + f"2,{2**31 + 20},{2**31 + 21}\n").encode(),
        "user30_led.aedat": b"in no list",
        "trials_to_train.txt": b"user02_lab.aedat\nuser01_led.aedat\n\n",
        "trials_to_test.txt": b"user24_led.aedat\n",
    }
    entries = {f"DvsGesture/{name}": made for name, made in (content | changed).items() if made is not None}
    stand_in(monkeypatch, dvs_gesture, [tarred(root / "dvs-gesture" / "DvsGesture.tar.gz", entries)])


def test_dvs_gesture_cuts_recordings_by_their_lists(tmp_path, monkeypatch):
    dvs_gesture_archive(tmp_path, monkeypatch)
    split = data.load("dvs-gesture", root=tmp_path, steps=2, val_fraction=0.0, counts=True)
    assert split.train.y.tolist() == [10, 0, 7, 7]  # in the order of the lists
    assert split.test.y.tolist() == [1]
    where = [[[int(t), int(x)] for t, y, x, p in np.argwhere(one)] for one in (*split.train.x, *split.test.x)]
    assert where == [[[0, 40], [1, 50]], [[0, 10], [1, 20]], [[0, 30], [1, 40]], [[0, 50]], [[0, 20]]]
    assert {(int(y), int(p)) for _, _, y, _, p in np.argwhere(split.train.x)} == {(5, 1)}
    assert split.class_names[7] == "arm roll"
    assert (split.classes, split.temporal) == (11, True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"user01_led_labels.csv": (COLUMNS + "12,1,2\n").encode()},
            "user01_led_labels.csv in .* class from 1 to 11 .* got '12,1,2' in line 2",
        ),
        ({"user01_led_labels.csv": (COLUMNS + "1,1,2\n0,1,2\n").encode()}, "got '0,1,2' in line 3"),
        ({"user01_led_labels.csv": (COLUMNS + "1,2,2\n").encode()}, "an end after its start, got '1,2,2'"),
        ({"user01_led_labels.csv": (COLUMNS + "1,2\n").encode()}, "three integers on a line, got '1,2' in line 2"),
        (
            {"user01_led_labels.csv": b"1,2,3\n"},
            "must begin with class,startTime_usec,endTime_usec, got '1,2,3' in line 1",
        ),
        ({"user01_led_labels.csv": None}, "must hold user01_led_labels.csv, got none"),
        ({"user01_led.aedat": None}, "got none named user01_led.aedat"),
        (
            {"user01_led.aedat": (HEADER3 + packet([(1, 2, 3, 1, 1)]))[:-4]},
            "DvsGesture/user01_led.aedat in .* the 8 bytes of a packet, got 4",
        ),
        ({"user01_led.aedat": HEADER3 + packet([(1, 2, 200, 1, 1)])}, "128 x 128 pixels, got x = 2, y = 200"),
        ({"trials_to_test.txt": None}, "must hold trials_to_test.txt, got none"),
        ({"trials_to_test.txt": b"user01_led.aedat"}, "train or test on a recording, got user01_led.aedat in both"),
        ({"trials_to_test.txt": b"user24_led"}, "must name .aedat files, a line each, got 'user24_led'"),
        ({"trials_to_test.txt": b""}, "must name .aedat files, a line each, got 0 lines"),
    ],
)
def test_damaged_dvs_gesture_gets_a_sentence(tmp_path, monkeypatch, changed, said):
    dvs_gesture_archive(tmp_path, monkeypatch, **changed)
    with pytest.raises(data.DataError, match=said):
        data.load("dvs-gesture", root=tmp_path, steps=2)


def test_dvs_gesture_says_where_it_is_to_be_had(tmp_path):
    with pytest.raises(
        data.DataError, match=r"DvsGesture.tar.gz is missing and must be had from https://ibm.ent.box.com/s/"
    ):
        data.load("dvs-gesture", root=tmp_path)


@pytest.mark.data("dvs-gesture")
def test_dvs_gesture_is_as_published():
    split = data.load("dvs-gesture", steps=2, pool=4, val_fraction=0.0)
    assert [data.size(p) for p in (split.train, split.test)] == [1176, 288]


# --- Zip archives


@pytest.mark.parametrize("name", ["/etc/evil", "a/../../evil", "C:\\evil"])
def test_zips_with_names_that_leave_the_folder_are_refused(tmp_path, name):
    place = zipped(tmp_path / "a.zip", {"fine": b"1", name: b"2"})
    for read in (archive.zipped, lambda place: list(archive.zip_members(place))):
        with pytest.raises(data.DataError, match="names in an archive must stay inside it"):
            read(place)


def test_zips_give_their_files_and_follow_no_link(tmp_path):
    place = zipped(tmp_path / "a.zip", {"d/one": b"1", "two": b"22"})
    with zipfile.ZipFile(place, "a") as out:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
    assert archive.zipped(place) == ("d/one", "two")
    assert list(archive.zip_members(place, lambda name: name != "two")) == [("d/one", b"1")]


def test_damaged_zips_get_a_sentence(tmp_path, monkeypatch):
    place = zipped(tmp_path / "a.zip", {"one": RNG.bytes(500)}, zipfile.ZIP_STORED)
    whole = place.read_bytes()
    place.write_bytes(whole[:-30])
    with pytest.raises(data.DataError, match=r"a.zip must be a whole zip archive, got one that does not open"):
        archive.zipped(place)
    place.write_bytes(whole[:100] + b"\0\0\0\0" + whole[104:])
    with pytest.raises(data.DataError, match=r"one in .*a.zip cannot be unpacked \(Bad CRC.*get the archive again"):
        list(archive.zip_members(place))
    packed = zipped(tmp_path / "b.zip", {"one": RNG.bytes(500)}, zipfile.ZIP_BZIP2)
    with pytest.raises(data.DataError, match="packed by method 12, not deflate"):
        list(archive.zip_members(packed))
    monkeypatch.setattr(archive, "MAX_BYTES", 499)
    with pytest.raises(data.DataError, match="may unpack to 499 bytes"):
        archive.zipped(packed)
