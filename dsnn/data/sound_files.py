"""Sound files of others: wav of whole or real samples read here, everything else with soundfile where it is installed.

The header of a wav file is believed no further than the file reaches: a recorder that streams says 0 or 2^32 - 1.
"""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsnn.data import foreign
from dsnn.data.split import DataError
from dsnn.store import untrusted

WAV = ".wav"
SUFFIXES = (WAV, ".flac", ".ogg", ".mp3", ".aiff", ".aif")
MAX_SECONDS = 600
MAX_BYTES = 1 << 31
MAX_CHANNELS = 1024
MAX_CHUNKS = 4096
LOWEST_RATE, HIGHEST_RATE = 200, 1_000_000
WHOLE, REAL, EXTENSIBLE = 1, 3, 0xFFFE
STREAMED = 0x7FFF0000
"""Lengths from here on stand for one that was not known."""

LOUDEST = 1e15


class Sound(NamedTuple):
    """What a file says of its sound.

    Attributes:
        rate: samples a second.
        frames: samples of each channel.
        channels: that are averaged.
        width: bytes of a sample in a wav file; 0 is for soundfile to read.
        real: whether samples are in floating point.
        start: of the samples in the file.
        swapped: whether numbers are big-endian.
        cut: whether the file ends before its header says.
    """

    rate: int
    frames: int
    channels: int
    width: int = 0
    real: bool = False
    start: int = 0
    swapped: bool = False
    cut: bool = False


def header(path: Path) -> Sound:
    """Returns what a file says of its sound.

    Raises:
        DataError: it is no sound, empty, too long, or of a rate or width that cannot be read.
    """
    with foreign.sentences(path, "a sound file"):
        untrusted.plain(path, MAX_BYTES)
        found = _wav(path) if path.suffix.lower() == WAV else None
    found = _other(path) if found is None else found
    if not 1 <= found.channels <= MAX_CHANNELS:
        raise DataError(f"{path} must have 1 to {MAX_CHANNELS} channels, got {found.channels}.")
    if not LOWEST_RATE <= found.rate <= HIGHEST_RATE:
        raise DataError(f"{path} must have a sample rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {found.rate}.")
    if found.frames < 1:
        raise DataError(f"{path} must hold samples, got an empty recording; take it out.")
    if found.frames > MAX_SECONDS * found.rate:
        raise DataError(f"{path} must last at most {MAX_SECONDS} s, got {found.frames / found.rate:.0f}; cut it.")
    return found


def samples(path: Path, sound: Sound, seconds: float) -> np.ndarray:
    """Returns the beginning of a recording, float32 ``[time]``, channels averaged; whole samples lie in [-1, 1).

    Args:
        path: of the file.
        sound: its `header`.
        seconds: how much of it.

    Raises:
        DataError: it does not decode, or a sample is not finite.
    """
    count = min(sound.frames, math.ceil(seconds * sound.rate))
    if not sound.width:
        values = _decoded(path, count)
    else:
        size = count * sound.channels * sound.width
        with foreign.sentences(path, "a sound file"), untrusted.opened(path) as file:
            file.seek(sound.start)
            raw = np.frombuffer(file.read(size), np.uint8)
        values = _real(raw, sound) if sound.real else _whole(raw, sound)
        values = values[: len(values) // sound.channels * sound.channels].reshape(-1, sound.channels)
    loudest = np.abs(values).max(initial=0.0)
    if not loudest < LOUDEST:  # NaN as well
        raise DataError(f"{path} must hold finite samples below {LOUDEST:g}, got {loudest}; write it again.")
    return values.mean(1).astype(np.float32)


def _real(raw: np.ndarray, sound: Sound) -> np.ndarray:
    kind = np.dtype(f"f{sound.width}").newbyteorder(">" if sound.swapped else "<")
    with np.errstate(over="ignore", invalid="ignore"):
        return raw[: len(raw) // sound.width * sound.width].view(kind).astype(np.float32)


def _whole(raw: np.ndarray, sound: Sound) -> np.ndarray:
    byte = raw[: len(raw) // sound.width * sound.width].reshape(-1, sound.width)
    if sound.width == 1:
        return byte[:, 0].astype(np.float32) / 128 - 1
    wide = np.zeros((len(byte), 4), np.uint8)
    wide[:, 4 - sound.width :] = byte[:, ::-1] if sound.swapped else byte
    return (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)


def _wav(path: Path) -> Sound | None:
    """Returns the header of a wav file, None for samples that are packed in some other way."""
    with untrusted.opened(path) as file:
        held = file.seek(0, 2)
        file.seek(0)
        first = file.read(12)
        if len(first) < 12 or first[:4] not in (b"RIFF", b"RIFX", b"RF64") or first[8:] != b"WAVE":
            raise DataError(
                f"{path} must be a wav file, got {'an empty file' if not held else 'another kind of file'}."
            )
        order = ">" if first[:4] == b"RIFX" else "<"
        place, layout = 12, b""
        for _ in range(MAX_CHUNKS):
            file.seek(place)
            head = file.read(8)
            if len(head) < 8:
                break
            name, (size,) = head[:4], struct.unpack(f"{order}I", head[4:])
            if name == b"fmt ":
                layout = file.read(min(size, 64))
            if name == b"data":
                (whole,) = struct.unpack(f"{order}I", first[4:8])
                return _laid_out(
                    path, layout, place + 8, size, held, order, size == 0 and (whole == 0 or whole >= STREAMED)
                )
            place += 8 + size + size % 2
    raise DataError(f"{path} must be a wav file with samples, got none; it is cut off, or take it out.")


def _laid_out(path: Path, layout: bytes, start: int, said: int, held: int, order: str, streamed: bool) -> Sound | None:
    if len(layout) < 16:
        raise DataError(f"{path} must be a wav file that says how its samples are written, got none of it.")
    kind, channels, rate, _, block, bits = struct.unpack(f"{order}HHIIHH", layout[:16])
    if kind == EXTENSIBLE and len(layout) >= 26:
        (kind,) = struct.unpack(f"{order}H", layout[24:26])
    width = (bits + 7) // 8
    if channels and block % channels == 0 and block // channels > width:
        width = block // channels  # samples fill their bytes from above
    if (kind, width) not in {*((WHOLE, n) for n in (1, 2, 3, 4)), (REAL, 4), (REAL, 8)}:
        return None
    there = max(held - start, 0)
    size = there if streamed else min(said, there)
    frames = size // (width * channels) if channels else 0
    return Sound(rate, frames, channels, width, kind == REAL, start, order == ">", there < said < STREAMED)


def _soundfile(path: Path) -> object:
    try:
        import soundfile  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise DataError(
            f"{path} is read by soundfile, which is not installed; pip install 'dsnn[audio]', or write wav files of "
            "whole or real samples."
        ) from error
    made: object = soundfile
    return made


def _other(path: Path) -> Sound:
    reader = _soundfile(path)
    try:
        said = reader.info(str(path))  # type: ignore[attr-defined]
        return Sound(int(said.samplerate), int(said.frames), int(said.channels))
    except Exception as error:  # whatever another library says of bytes that make no sense
        raise DataError(f"{path} must be a sound file, got: {untrusted.one_line(error)}.") from error


def _decoded(path: Path, count: int) -> np.ndarray:
    reader = _soundfile(path)
    try:
        values, _ = reader.read(str(path), frames=count, dtype="float32", always_2d=True)  # type: ignore[attr-defined]
    except Exception as error:
        raise DataError(f"{path} must be a whole sound file, got: {untrusted.one_line(error)}.") from error
    return np.asarray(values)
