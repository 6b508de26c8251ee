"""Sound as recorders write it: other rates, real samples, extensible headers, streams; and what is no sound."""

import struct
import sys
import types
import wave

import numpy as np
import pytest

from dsnn import data
from dsnn.data import sound_files

RATE = 16_000


def tone(hertz, rate=RATE, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def wav(path, values, rate=RATE, kind=1, bits=16, extensible=False, sizes=None, channels=1, order="<", extra=b""):
    """Writes a wav file by its definition; ``sizes`` takes the place of the lengths of the file and of the samples."""
    width = bits // 8
    if kind == 3:
        raw = np.asarray(values, f"{order}f{width}").tobytes()
    elif bits == 8:
        raw = np.round(np.asarray(values) * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(np.asarray(values) * (2 ** (bits - 1) - 1)).astype("<i8")
        least_first = whole.view(np.uint8).reshape(-1, 8)[:, :width]
        raw = (least_first[:, ::-1] if order == ">" else least_first).tobytes()
    block = width * channels
    each = (rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    layout = struct.pack(f"{order}HHIIHH", 0xFFFE if extensible else kind, channels, rate, *each)
    if extensible:
        layout += struct.pack(f"{order}HHIH", 22, bits, 4, kind) + bytes.fromhex("000000001000800000aa00389b71")
    body = extra + b"fmt " + struct.pack(f"{order}I", len(layout)) + layout + b"data"
    whole, inner = sizes or (4 + len(body) + 4 + len(raw), len(raw))
    head = (b"RIFX" if order == ">" else b"RIFF") + struct.pack(f"{order}I", whole) + b"WAVE"
    path.write_bytes(head + body + struct.pack(f"{order}I", inner) + raw)


def folder_of(root, write):
    for name, hertz in (("high", 3000), ("low", 300)):
        (root / name).mkdir(parents=True)
        for n in range(4):
            write(root / name / f"{n}.wav", hertz)
    return root


def every(split):
    return np.concatenate([part.x for part in (split.train, split.val, split.test)])


def load(root, **options):
    return data.load("audio", path=root, **{"bands": 20, "steps": 40, **options})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return every(load(folder_of(tmp_path_factory.mktemp("plain"), lambda p, hz: wav(p, tone(hz)))))


KINDS = {
    "24 bits": {"bits": 24},
    "32 bits": {"bits": 32},
    "float": {"kind": 3, "bits": 32},
    "double": {"kind": 3, "bits": 64},
    "extensible 16": {"extensible": True},
    "extensible 24": {"extensible": True, "bits": 24},
    "extensible float": {"extensible": True, "kind": 3, "bits": 32},
    "big-endian": {"order": ">"},
    "big-endian float": {"order": ">", "kind": 3, "bits": 32},
    "streamed": {"sizes": (0xFFFFFFFF, 0xFFFFFFFF)},
    "streamed by sox": {"sizes": (0x7FFFF024, 0x7FFFF000)},
    "streamed with nothing": {"sizes": (0, 0)},
    "a list before": {"extra": b"LIST" + struct.pack("<I", 5) + b"hello" + b"\0"},
}


@pytest.mark.parametrize("name", KINDS)
def test_f12_wav_files_of_every_kind_give_the_same_bands(name, plain, tmp_path):
    split = load(folder_of(tmp_path, lambda p, hz: wav(p, tone(hz), **KINDS[name])))
    found = every(split)
    loud = plain > 0.5
    assert loud.mean() > 0.05
    assert np.abs(found - plain)[loud].max() < 0.01
    assert len(split.notes) == 1  # on the test part


def test_f12_whole_samples_are_read_as_the_standard_library_reads_them(tmp_path):
    values = np.random.default_rng(0).integers(-(2**15), 2**15, 999).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setparams((3, 2, 8000, 0, "NONE", "none"))
        out.writeframes(values.tobytes())
    sound = sound_files.header(tmp_path / "a.wav")
    assert (sound.rate, sound.frames, sound.channels) == (8000, 333, 3)
    found = sound_files.samples(tmp_path / "a.wav", sound, 1.0)
    np.testing.assert_allclose(found, values.reshape(-1, 3).mean(1) / 2**15, atol=1e-7)
    assert len(sound_files.samples(tmp_path / "a.wav", sound, 0.01)) == 80


@pytest.mark.parametrize("rates", [(16_000, 44_100), (44_100, 22_050, 8_000), (48_000, 44_099)])
def test_f12_recordings_at_several_rates_peak_in_one_band(rates, tmp_path):
    count = iter(range(100))

    def write(path, hertz):
        rate = rates[next(count) % len(rates)]
        wav(path, tone(2000 if hertz > 1000 else 300, rate), rate)

    split = load(folder_of(tmp_path, write))
    for label in (0, 1):
        rows = np.concatenate([part.x[part.y == label] for part in (split.train, split.val, split.test)])
        assert len({int(row[2:40].mean(0).argmax()) for row in rows}) == 1
        assert np.abs(rows - rows[0])[:, 2:40, rows[0].mean(0).argmax()].max() < 0.02
    lowest = min(rates)
    assert split.notes[-1].endswith(f"Hz, were resampled to {lowest} Hz (data.options.rate).")
    assert load(tmp_path, rate=12_000).notes[-1].startswith("8 of 8 recordings, at ")


def test_f12_a_file_that_was_cut_is_read_and_said(plain, tmp_path):
    root = folder_of(tmp_path, lambda p, hz: wav(p, tone(hz)))
    whole = (root / "low" / "1.wav").read_bytes()
    (root / "low" / "1.wav").write_bytes(whole[: len(whole) // 2])
    assert load(root).notes[-1] == "1 recordings end before their header says, such as 1.wav; what is there was read."


def bad(path, name):
    match name:
        case "empty file":
            path.write_bytes(b"")
        case "no samples":
            wav(path, [])
        case "100 Hz":
            wav(path, tone(10, 100), 100)
        case "no rate":
            wav(path, tone(10), 0)
        case "a fast rate":
            wav(path, tone(10), 2**32 - 1)
        case "no channels":
            wav(path, tone(10), channels=0)
        case "many channels":
            wav(path, tone(10), channels=60_000)
        case "law":
            wav(path, tone(10), kind=7, bits=8)
        case "64 bits":
            wav(path, tone(10), bits=64)
        case "nan":
            wav(path, [0.0, np.nan], kind=3, bits=32)
        case "inf":
            wav(path, [0.0, np.inf], kind=3, bits=64)
        case "1e300":
            wav(path, [0.0, 1e300], kind=3, bits=64)
        case "text":
            path.write_text("hello, this is no sound at all")
        case "header only":
            path.write_bytes(b"RIFF\x24\0\0\0WAVE")
        case "no layout":
            path.write_bytes(b"RIFF\x24\0\0\0WAVEdata\x04\0\0\0abcd")
        case "endless chunks":
            path.write_bytes(b"RIFF\x24\0\0\0WAVE" + b"LIST\0\0\0\0" * 100_000)
        case "long":
            wav(path, np.zeros(601 * 200), 200)
        case "flac":
            path.with_suffix(".flac").write_bytes(b"fLaC")
    return path


BAD = {
    "empty file": "must be a wav file, got an empty file",
    "no samples": "must hold samples, got an empty recording",
    "100 Hz": "sample rate of 200 to 1000000 Hz, got 100",
    "no rate": "sample rate of 200 to 1000000 Hz, got 0",
    "a fast rate": "sample rate of 200 to 1000000 Hz, got 4294967295",
    "no channels": "1 to 1024 channels, got 0",
    "many channels": "1 to 1024 channels, got 60000",
    "law": "read by soundfile, which is not installed",
    "64 bits": "read by soundfile, which is not installed",
    "nan": "finite samples .* got nan",
    "inf": "finite samples .* got inf",
    "1e300": "finite samples .* got inf",
    "text": "must be a wav file, got another kind of file",
    "header only": "must be a wav file with samples, got none",
    "no layout": "says how its samples are written",
    "endless chunks": "must be a wav file with samples, got none",
    "long": "must last at most 600 s, got 601",
    "flac": r"dsnn\[audio\]",
}


@pytest.mark.parametrize("name", BAD)
def test_f12_what_is_no_sound_gets_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    root = folder_of(tmp_path, lambda p, hz: wav(p, tone(hz)))
    bad(root / "low" / "0.wav", name)
    with pytest.raises(data.DataError, match=BAD[name]) as said:
        load(root)
    assert str(said.value).isprintable()
    assert str(said.value).endswith(".")
    assert "low/0." in str(said.value)


@pytest.mark.parametrize("options", [{"rate": 100}, {"bands": 0}, {"steps": 10**12}, {"threshold": 1.5}])
def test_f12_options_out_of_range_get_a_sentence(options, tmp_path):
    root = folder_of(tmp_path, lambda p, hz: wav(p, tone(hz)))
    with pytest.raises(data.DataError, match="must be"):
        load(root, **options)


def test_f12_other_files_are_read_by_soundfile_where_it_is_installed(plain, tmp_path, monkeypatch):
    said = types.SimpleNamespace(samplerate=RATE, frames=8000, channels=2)

    def read(path, frames, dtype, always_2d):
        assert dtype == "float32"
        assert always_2d
        return np.repeat(tone(3000 if "high" in path else 300)[:frames, None], 2, 1).astype(np.float32), RATE

    monkeypatch.setitem(sys.modules, "soundfile", types.SimpleNamespace(info=lambda path: said, read=read))
    root = folder_of(tmp_path, lambda p, hz: p.with_suffix(".flac").write_bytes(b"fLaC"))
    loud = plain > 0.5
    assert np.abs(every(load(root)) - plain)[loud].max() < 0.01


def test_f12_soundfile_itself(plain, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    root = folder_of(tmp_path, lambda p, hz: soundfile.write(p.with_suffix(".flac"), tone(hz), RATE))
    loud = plain > 0.5
    assert np.abs(every(load(root)) - plain)[loud].max() < 0.01
    (root / "low" / "0.flac").write_bytes((root / "low" / "0.flac").read_bytes()[:50])
    with pytest.raises(data.DataError, match=r"0.flac must be a (whole )?sound file, got: .*\.$"):
        load(root)
