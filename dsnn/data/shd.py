"""Spiking Heidelberg Digits (Cramer et al. 2022): spoken digits, German and English, from a model of the cochlea.

8156 training and 2264 test recordings by twelve speakers, two of whom are only in the test part, as lists of events on
700 channels. Reading the HDF5 files needs h5py. The publisher gives md5 and no sha256.
"""

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from dsnn.data import events
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, divide_extra, seeded_mask

ADDRESSES = ("https://zenkelab.org/datasets/{}", "https://compneuro.net/datasets/{}")
DIGESTS = {
    "shd_train.h5.gz": ("d47c9825dee33347913e8ce0f2be08b0", "8e9877c85f29a28dd353ea6a54402667"),
    "shd_test.h5.gz": ("3062a80ec0c5719404d5b02e166543b1", "207ad1295a0ab611e22d1734989c254e"),
}  # packed, and unpacked
FILES = tuple(
    File(name, md5, tuple(a.format(name) for a in ADDRESSES), others=(name.removesuffix(".gz"),))
    for name, md5 in DIGESTS.items()
)
CLASS_NAMES = (
    *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
)
CHANNELS = 700
DEFAULT_VALIDATION = 0.1


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 100,
    duration_s: float = 1.4,
    counts: bool = False,
    dtype: str = "float32",
) -> Split:
    """Returns the split: ``[n, steps, 700]``, with each recording's ``speaker`` in ``extra``.

    Args:
        root: the data folder.
        seed: chooses the validation recordings.
        val_fraction: of the training recordings, in [0, 1); a tenth by default.
        steps: equal bins of the duration; all recordings take 29 MB a step as float32.
        duration_s: events from here on are left out; the longest recording lasts 1.37 s.
        counts: events in each bin rather than whether there was any.
        dtype: ``float32``, or ``uint8`` for a quarter of the memory.

    Raises:
        DataError: an option is out of range, h5py is missing, or the files are not of this format.
    """
    events.check_options(steps, dtype)
    if not duration_s > 0:
        raise DataError(f"duration_s must be above 0 seconds, got {duration_s!r}; 1.4 holds every recording.")
    parts = [read(locate(root, "shd", file), steps, duration_s, counts, dtype) for file in FILES]
    (train, train_speakers), (test, test_speakers) = parts
    mask = seeded_mask(np.asarray(train.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    extra = divide_extra("speaker", train_speakers, test_speakers, mask)
    names = CLASS_NAMES
    return Split(*divide(train, mask), test, len(names), "shd", temporal=True, class_names=names, extra=extra)


def read(place: Path, steps: int, duration_s: float, counts: bool, dtype: str) -> tuple[Arrays, np.ndarray]:
    """Returns the frames with their labels, and the speakers, of an SHD file, gzipped or not.

    Raises:
        DataError: h5py is missing, or the file has not the lists of the format.
    """
    try:
        import h5py  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DataError("data set 'shd' needs the package h5py, which is not installed; pip install h5py.") from error
    try:
        content = place.read_bytes()
        content = gzip.decompress(content) if place.suffix == ".gz" else content
        with h5py.File(io.BytesIO(content), "r") as file:
            times, units = file["spikes/times"][:], file["spikes/units"][:]
            y = file["labels"][:].astype(np.int32)
            speakers = file["extra/speaker"][:].astype(np.int32)
    except (OSError, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"{place} must be HDF5 with spikes/times, spikes/units, labels and extra/speaker, got: {error}."
        ) from error
    if not len(times) == len(units) == len(y) == len(speakers):
        raise DataError(f"{place} must hold a list of times, of units and a label each, got {len(times)}, {len(y)}.")
    x = np.zeros((len(y), steps, CHANNELS), dtype)
    for frames, when, unit in zip(x, times, units, strict=True):
        if len(when) != len(unit) or (len(unit) and unit.max() >= CHANNELS):
            raise DataError(f"{place} must give every event a unit below {CHANNELS}, got one that does not.")
        frames[:] = events.frames(when, unit, duration_s, steps, CHANNELS, counts, dtype)
    return Arrays(x, y), speakers
