"""A user's sound recordings: a folder of wav files per class, as mel bands or as spikes of them."""

import wave
from pathlib import Path

import numpy as np

from dsnn.data import audio, folder
from dsnn.data.split import DataError, Split

ENCODINGS = ("none", "delta", "crossing")
MAX_SECONDS = 600


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
    test_fraction: float | None = None,
) -> Split:
    """Returns the split of a folder of wav files, ``[n, steps, bands]`` in [0, 1] or spikes ``[n, steps, 2 bands]``.

    Args:
        root: not used, ``path`` stands for itself.
        seed: chooses the parts that the folder does not name.
        val_fraction: of the training recordings, in [0, 1); by default a fifth, and 5 000 at most.
        path: ``<class>/<file>.wav`` or ``{train,val,test}/<class>/<file>.wav``; channels are averaged.
        bands: number of mel bands from 50 Hz to half the sample rate.
        steps: frames of 10 ms; longer recordings are cut, shorter ones padded with silence.
        encoding: ``none``, ``delta`` or ``crossing``, as in ``fsdd``.
        threshold: of the spike encodings, in (0, 1), as a part of 80 dB.
        test_fraction: of the recordings, in (0, 1), where there is no test part; a fifth where there are no parts.

    Raises:
        DataError: an option is out of range, or a file is no such wav.
    """
    if path is None:
        raise DataError("data set 'audio' needs the option path, got none; set it to a folder of wav files by class.")
    for name, number in (("bands", bands), ("steps", steps)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise DataError(f"{name} must be an integer of at least 1, got {number!r}.")
    if encoding not in ENCODINGS:
        raise DataError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding!r}.")
    if not 0 < threshold < 1:
        raise DataError(f"threshold must be in (0, 1), got {threshold!r}; 0.05 is 4 dB.")
    found = folder.find(Path(path).expanduser(), (".wav",))

    def levels(file: Path) -> np.ndarray:
        level = audio.log_mel(*read(file), bands, steps)
        return level if encoding == "none" else audio.spikes(level[None], threshold, encoding == "crossing")[0]

    held = folder.drawn_by_default(found, test_fraction)
    return folder.split(found, levels, "audio", seed, val_fraction, held)


def read(path: Path) -> tuple[np.ndarray, int]:
    """Returns the samples of a wav file in [-1, 1), channels averaged, and its sample rate in Hz.

    Raises:
        DataError: the file is no wav of 8, 16, 24 or 32-bit integers, is empty, or lasts more than ten minutes.
    """
    try:
        with wave.open(str(path)) as recording:
            channels, width, rate, frames = recording.getparams()[:4]
            if frames > MAX_SECONDS * max(rate, 1):
                raise DataError(f"{path} must last at most {MAX_SECONDS} s, got {frames / rate:.0f}; cut it.")
            content = recording.readframes(frames)
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(
            f"{path} must be a wav file of integer samples, got: {str(error) or 'an empty file'}."
        ) from error
    if width not in (1, 2, 3, 4) or not content or rate < 200:
        raise DataError(f"{path} must hold samples of 8 to 32 bits, got {len(content)} bytes of {8 * width} bits.")
    byte = np.frombuffer(content[: len(content) // width * width], np.uint8).reshape(-1, width)
    if width == 1:
        samples = byte[:, 0].astype(np.float32) / 128 - 1
    else:
        wide = np.zeros((len(byte), 4), np.uint8)
        wide[:, 4 - width :] = byte
        samples = (wide.view("<i4")[:, 0] / 2.0**31).astype(np.float32)
    return samples[: len(samples) // channels * channels].reshape(-1, channels).mean(1), rate
