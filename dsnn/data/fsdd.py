"""Free Spoken Digit Dataset (Jackson et al. 2018, v1.0.10): 3000 recordings of ten English digits by six speakers.

Recordings 0 to 4 of each speaker and digit are the official test part (300), 5 to 49 train (2700). They last 0.14 to
2.28 s at 8 kHz; 99 % end within 0.92 s, so a hundred steps of 10 ms cut hardly anything. It stands in for the spoken
digits of SHD where those cannot be downloaded: a filter bank and a spike encoder take the place of the cochlea.
"""

import io
import wave
from pathlib import Path, PurePosixPath

import numpy as np

from dsnn.data import archive, audio
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, divide_extra, seeded_mask

NAME = "free-spoken-digit-dataset-1.0.10-recordings.tar.gz"
FILES = (
    File(
        NAME,
        (
            "0ae11b11b1cf7f6c6dc096cce610dc6b84a60ae8b70c2749f0cfe0638feda8fb",  # the recordings only
            "feb479fad3a37883c3d21ed7f982281c2dd1c18d5aefd7e8a5d50f58023392aa",  # what the address serves
        ),
        ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",),
        others=("v1.0.10.tar.gz",),
    ),
)
SAMPLE_RATE = 8000
TEST_RECORDINGS = 5
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DEFAULT_VALIDATION = 0.1
ENCODINGS = ("none", "delta", "crossing")


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    bands: int = 40,
    steps: int = 100,
    encoding: str = "none",
    threshold: float = 0.05,
) -> Split:
    """Returns the split, temporal; ``extra`` holds each recording's ``length`` in samples and its ``speaker``.

    Args:
        root: the data folder.
        seed: chooses the validation recordings, each digit and speaker in proportion.
        val_fraction: of the 2700 training recordings, in [0, 1); a tenth by default.
        bands: number of mel bands, giving ``[n, steps, bands]`` in [0, 1] over 80 dB (see ``audio.log_mel``); 0 gives
            the samples themselves, ``[n, 18262, 1]`` in [-1, 1], padded with zeros to the longest.
        steps: frames of 10 ms; longer recordings are cut and shorter ones padded with silence. Not used with bands=0.
        encoding: ``none``; ``delta``, spikes where a band rose or fell by the threshold since the step before; or
            ``crossing``, where it did since its own last spike. Both give ``[n, steps, 2 * bands]``, rises first.
        threshold: of the spike encodings, in (0, 1), as a part of the 80 dB.

    Raises:
        DataError: an option is out of range, or the archive is not this set.
    """
    _check(bands, steps, encoding, threshold)
    waves, digits, speakers, takes = _read(locate(root, "fsdd", FILES[0]))
    lengths = np.array([len(w) for w in waves], np.int32)
    if bands == 0:
        x = np.zeros((len(waves), lengths.max(), 1), np.float32)
        for row, samples in zip(x, waves, strict=True):
            row[: len(samples), 0] = samples
    else:
        x = np.stack([audio.log_mel(samples, SAMPLE_RATE, bands, steps) for samples in waves])
        if encoding != "none":
            x = audio.spikes(x, threshold, since_spike=encoding == "crossing")
    train, test = divide(Arrays(x, digits), takes < TEST_RECORDINGS)
    held_in = takes >= TEST_RECORDINGS
    groups = digits[held_in] * len(SPEAKERS) + speakers[held_in]
    mask = seeded_mask(groups, seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    extra = divide_extra("length", lengths[held_in], lengths[~held_in], mask)
    extra |= divide_extra("speaker", speakers[held_in], speakers[~held_in], mask)
    return Split(*divide(train, mask), test, 10, "fsdd", temporal=True, class_names=tuple("0123456789"), extra=extra)


def _check(bands: int, steps: int, encoding: str, threshold: float) -> None:
    if isinstance(bands, bool) or not isinstance(bands, int) or bands < 0:
        raise DataError(f"bands must be an integer of at least 0, got {bands!r}; 40 is usual, 0 gives raw samples.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise DataError(f"steps must be an integer of at least 1, got {steps!r}; 100 steps are one second.")
    if encoding not in ENCODINGS:
        raise DataError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if encoding != "none" and bands == 0:
        raise DataError(f"encoding {encoding!r} needs a filter bank, got bands=0; set bands, for example to 40.")
    if not 0 < threshold < 1:
        raise DataError(f"threshold must be in (0, 1), got {threshold!r}; 0.05 is 4 dB.")


def _read(place: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Returns the samples in [-1, 1), digit, speaker and take of every recording, ordered by digit, speaker, take."""
    found = []
    for name, content in archive.members(place):
        path = PurePosixPath(name)
        if path.suffix != ".wav" or path.parent.name != "recordings":
            continue
        digit, speaker, take = path.stem.split("_")
        with wave.open(io.BytesIO(content)) as recording:
            if recording.getparams()[:3] != (1, 2, SAMPLE_RATE):
                raise DataError(f"{name} in {place} must be mono 16-bit at 8 kHz, got {recording.getparams()[:3]}.")
            samples = np.frombuffer(recording.readframes(recording.getnframes()), "<i2").astype(np.float32) / 32768
        found.append((int(digit), SPEAKERS.index(speaker), int(take), samples))
    found.sort(key=lambda entry: entry[:3])
    if not found:
        raise DataError(f"{place} must hold recordings named <digit>_<speaker>_<take>.wav, got none.")
    digits, speakers, takes = (np.array([entry[i] for entry in found], np.int32) for i in range(3))
    return [entry[3] for entry in found], digits, speakers, takes
