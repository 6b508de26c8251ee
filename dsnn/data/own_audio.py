"""A user's sound recordings: a folder of wav files per class, as mel bands or as spikes of them.

Bands reach to half the sample rate, so recordings at several rates are brought to one of them first.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dsnn.data import audio, folder, sound_files, streams
from dsnn.data.sound_files import Sound
from dsnn.data.split import DataError, Split

ENCODINGS = ("none", "delta", "crossing")
MOST = 1 << 16
SPARE_S = 0.1
"""Read beyond the last frame, which a resampling filter sees."""


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    path: str | Path | None = None,
    bands: int = 40,
    steps: int = 100,
    encoding: str = "none",
    threshold: float = 0.05,
    rate: int = 0,
    test_fraction: float | None = None,
    stream: str = streams.AUTO,
) -> Split:
    """Returns the split of a folder of sound files, ``[n, steps, bands]`` in [0, 1] or spikes ``[n, steps, 2 bands]``.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training recordings, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``<class>/<file>.wav`` or ``{train,val,test}/<class>/<file>.wav``; channels are averaged. With soundfile
            installed (``dsnn[audio]``) flac, ogg, mp3 and aiff as well.
        bands: number of mel bands from 50 Hz to half the sample rate.
        steps: frames of 10 ms; longer recordings are cut, shorter ones padded with silence.
        encoding: ``none``, ``delta`` or ``crossing``, as in ``fsdd``.
        threshold: of the spike encodings, in (0, 1), as a part of 80 dB.
        rate: samples a second that recordings are brought to; 0 leaves them, or takes the lowest where they differ.
        test_fraction: of the recordings, in (0, 1), where there is no test part; a fifth where there are no parts.
        stream: whether files are read as they are used, see `dsnn.data.npy.load`.

    Raises:
        DataError: an option is out of range, or a file is no such sound.
    """
    if path is None:
        raise DataError("data set 'audio' needs the option path, got none; set it to a folder of wav files by class.")
    for name, number in (("bands", bands), ("steps", steps)):
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MOST:
            raise DataError(f"{name} must be an integer of at least 1, got {number!r}; {MOST} is the most.")
    if encoding not in ENCODINGS:
        raise DataError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
        raise DataError(f"threshold must be in (0, 1), got {threshold!r}; 0.05 is 4 dB.")
    lowest, highest = sound_files.LOWEST_RATE, sound_files.HIGHEST_RATE
    if isinstance(rate, bool) or not isinstance(rate, int) or (rate and not lowest <= rate <= highest):
        raise DataError(f"rate must be 0 or {lowest} to {highest} Hz, got {rate!r}; 16000 is usual for speech.")
    found = folder.find(Path(path).expanduser(), sound_files.SUFFIXES)
    width = bands * (1 if encoding == "none" else 2)
    if (size := 4 * len(found.recordings) * steps * width) > folder.MAX_BYTES and stream == streams.NEVER:
        raise DataError(
            f"recordings must fit in {folder.MAX_BYTES >> 30} GiB, got {len(found.recordings)} of shape "
            f"{(steps, width)}, {size / 2**30:.1f} GiB; use fewer steps or bands, or leave data.stream=never out."
        )
    sounds = {recording.path: sound_files.header(recording.path) for recording in found.recordings}
    common = rate or min(sound.rate for sound in sounds.values())

    def levels(file: Path) -> np.ndarray:
        level = audio.log_mel(_at(file, sounds[file], common, steps), common, bands, steps)
        return level if encoding == "none" else audio.spikes(level[None], threshold, encoding == "crossing")[0]

    held = folder.drawn_by_default(found, test_fraction)
    split = folder.split(found, levels, "audio", seed, val_fraction, held, stream=stream)
    return split._replace(notes=(*split.notes, *_notes(sounds, common)))


def _at(file: Path, sound: Sound, rate: int, steps: int) -> np.ndarray:
    """Returns as much of a recording as its frames need, at a sample rate."""
    needed = steps * round(audio.HOP_S * rate) + round(audio.FRAME_S * rate)
    values = sound_files.samples(file, sound, needed / rate + SPARE_S)
    if sound.rate == rate:
        return values
    from scipy.signal import resample_poly  # which takes half a second to import

    common = math.gcd(rate, sound.rate)
    return np.asarray(resample_poly(values, rate // common, sound.rate // common), np.float32)


def _notes(sounds: Mapping[Path, Sound], rate: int) -> tuple[str, ...]:
    said = []
    if others := sorted({sound.rate for sound in sounds.values()} - {rate}):
        count = sum(sound.rate != rate for sound in sounds.values())
        shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        said.append(
            f"{count} of {len(sounds)} recordings, at {shown} Hz, were resampled to {rate} Hz (data.options.rate)."
        )
    if cut := [file.name for file, sound in sounds.items() if sound.cut]:
        said.append(f"{len(cut)} recordings end before their header says, such as {cut[0]}; what is there was read.")
    return tuple(said)
