"""Sound to bands and bands to spikes: a mel filter bank over short Fourier frames, and delta coding of its energies."""

import functools
import math

import numpy as np

FRAME_S = 0.025
HOP_S = 0.010
RANGE_DB = 80.0
LOWEST_HZ = 50.0


def log_mel(samples: np.ndarray, sample_rate: int, bands: int, steps: int) -> np.ndarray:
    """Returns ``[steps, bands]`` mel energies in [0, 1]: 1 is the recording's loudest, 0 is 80 dB below it or silence.

    Frames of 25 ms with a Hann window every 10 ms; triangular bands evenly spaced in mel, 2595 log10(1 + f / 700)
    (O'Shaughnessy 1987), from 50 Hz to half the sample rate. The recording's own loudest value is the reference, so
    no statistics of other recordings enter.

    Args:
        samples: ``[time]``.
        sample_rate: in Hz.
        bands: at least 1.
        steps: frames returned; further ones are cut, missing ones are 0.
    """
    frame, hop = round(FRAME_S * sample_rate), round(HOP_S * sample_rate)
    padded = np.pad(samples, (0, max(0, frame - len(samples)) + hop - 1))  # the last samples still get a frame
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop][:steps]
    size = 1 << (2 * frame - 1).bit_length()  # finer bins than the frame gives, for narrow low bands
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    power = np.abs(np.fft.rfft(frames * window, size)) ** 2
    energy = power @ _filters(size, sample_rate, bands).T
    level = np.zeros((steps, bands), np.float32)
    if (loudest := energy.max()) > 0:
        with np.errstate(divide="ignore"):  # silence is minus infinity dB, and 0 here
            decibels = 10 * np.log10(energy / loudest)
        level[: len(frames)] = np.clip(1 + decibels / RANGE_DB, 0, 1)
    return level


@functools.cache
def _filters(size: int, sample_rate: int, bands: int) -> np.ndarray:
    """Returns ``[bands, size // 2 + 1]`` triangles, each rising and falling between its neighbours' centres."""
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (LOWEST_HZ, sample_rate / 2))
    corners = 700 * (10 ** (np.linspace(lowest, highest, bands + 2) / 2595) - 1)
    hertz = np.arange(size // 2 + 1) * sample_rate / size
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.clip(np.minimum((hertz - low) / (centre - low), (high - hertz) / (high - centre)), 0, None)


def spikes(levels: np.ndarray, threshold: float, since_spike: bool) -> np.ndarray:
    """Returns ``[n, time, 2 * bands]`` spikes, rises first, wherever a level moved by the threshold.

    Args:
        levels: ``[n, time, bands]``; before the first step every level counts as 0.
        threshold: of a rise or fall, above 0.
        since_spike: compare with the level at the band's own last spike, which also follows slow changes; or with the
            step before, as ``dsnn.simulate.encode.delta`` does.
    """
    reference = np.zeros_like(levels[:, 0])
    out = np.zeros((*levels.shape[:2], 2, levels.shape[2]), np.float32)
    for step in range(levels.shape[1]):
        change = levels[:, step] - reference
        out[:, step, 0], out[:, step, 1] = change >= threshold, change <= -threshold
        moved = np.abs(change) >= threshold if since_spike else True
        reference = np.where(moved, levels[:, step], reference)
    return out.reshape(*levels.shape[:2], -1)
