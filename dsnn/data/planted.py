"""Generated tasks whose truth is known: evidence about one of four classes lies in some sites only.

Every site shows 0.5 + a s + noise, where s = +-1 codes a class and the noise is Gaussian. In the sites that matter that
class is the label; in the others it is drawn anew, so that site by site the two kinds have the same distribution and
nothing but the labels tells them apart. The amplitude a is set so that all relevant sites together hold two classes
``separation`` standard deviations from the boundary between them: an ideal observer errs at about 3 Q(separation), and
more as soon as it loses a site.
"""

import math
from pathlib import Path

import numpy as np

from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, divide_extra, seeded_mask

CLASSES = 4
NOISE = 0.12
CODES = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], np.float32)  # each divides the classes in halves
DEFAULT_VALIDATION = 0.2
TEST_EXAMPLES = 1000


def channels(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    channels: int = 64,
    relevant: int = 8,
    separation: float = 2.5,
    examples: int = 5000,
) -> Split:
    """Returns ``[n, channels]`` inputs of which only ``relevant`` matter; ``truth["channels"]`` marks them.

    Args:
        root: not used.
        seed: makes everything: the truth, the examples, the test part.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        channels: of the input.
        relevant: how many of them matter, from 1 to ``channels``.
        separation: in standard deviations; see the module.
        examples: to train and validate on; the test part has 1000 more.
    """
    _check(channels=channels, examples=examples, relevant=relevant)
    _check_at_most("relevant", relevant, "channels", channels)
    rng, y, n = _begin(seed, examples)
    truth = _choose(channels, relevant, rng)
    shown = _shown(y[:, None], truth, (n, channels), rng)
    return _split(
        "planted-channels",
        _view(shown, _codes(channels, rng), relevant, separation, rng),
        y,
        seed,
        val_fraction,
        {"channels": truth},
    )


def window(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 20,
    length: int = 5,
    channels: int = 16,
    separation: float = 2.5,
    examples: int = 5000,
) -> Split:
    """Returns ``[n, steps, channels]`` inputs that tell the class in one window of time; ``truth["steps"]`` marks it.

    At every other step all channels together show some class, drawn anew for the step.

    Args:
        root: not used.
        seed: makes everything: the truth, the examples, the test part.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        steps: of time.
        length: of the window, from 1 to ``steps``.
        channels: of the input; all matter.
        separation: in standard deviations; see the module.
        examples: to train and validate on; the test part has 1000 more.
    """
    _check(steps=steps, length=length, channels=channels, examples=examples)
    _check_at_most("length", length, "steps", steps)
    rng, y, n = _begin(seed, examples)
    start = int(rng.integers(steps - length + 1))
    truth = (np.arange(steps) >= start) & (np.arange(steps) < start + length)
    shown = np.broadcast_to(_shown(y[:, None], truth, (n, steps), rng)[:, :, None], (n, steps, channels))
    x = _view(shown, _codes(channels, rng), length * channels, separation, rng)
    return _split("planted-window", x, y, seed, val_fraction, {"steps": truth}, temporal=True)


def blocks(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    grid: int = 4,
    block: int = 4,
    relevant: int = 3,
    separation: float = 2.5,
    examples: int = 5000,
) -> Split:
    """Returns images of ``grid`` x ``grid`` square blocks of which only some tell the class.

    ``x`` is ``[n, grid * block, grid * block, 1]``. ``truth["blocks"]``, ``[grid, grid]``, marks the blocks that matter
    and ``truth["pixels"]`` their pixels. All pixels of any other block show some class, drawn anew for the block.

    Args:
        root: not used.
        seed: makes everything: the truth, the examples, the test part.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        grid: blocks along a side.
        block: pixels along a side of a block.
        relevant: how many blocks matter, from 1 to ``grid * grid``.
        separation: in standard deviations; see the module.
        examples: to train and validate on; the test part has 1000 more.
    """
    _check(grid=grid, block=block, relevant=relevant, examples=examples)
    _check_at_most("relevant", relevant, "grid * grid", grid * grid)
    rng, y, n = _begin(seed, examples)
    truth = _choose(grid * grid, relevant, rng).reshape(grid, grid)
    side = grid * block
    shown = _shown(y[:, None, None], truth, (n, grid, grid), rng).repeat(block, axis=1).repeat(block, axis=2)
    x = _view(shown.reshape(n, side * side), _codes(side * side, rng), relevant * block**2, separation, rng)
    pixels = truth.repeat(block, axis=0).repeat(block, axis=1)
    return _split(
        "planted-blocks", x.reshape(n, side, side, 1), y, seed, val_fraction, {"blocks": truth, "pixels": pixels}
    )


def difficulty(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 16,
    channels: int = 16,
    separation: float = 2.5,
    examples: int = 5000,
) -> Split:
    """Returns ``[n, steps, channels]`` inputs with fresh noise at every step, some harder to tell than others.

    An example of difficulty d in [0, 1], drawn evenly, needs ``steps ** d`` steps to reach the separation: one when it
    is easy, all when it is hard. ``truth["train/difficulty"]``, and so on by part, gives d.

    Args:
        root: not used.
        seed: makes everything: the difficulties, the examples, the test part.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        steps: of time.
        channels: of the input; all matter.
        separation: in standard deviations; see the module.
        examples: to train and validate on; the test part has 1000 more.
    """
    _check(steps=steps, channels=channels, examples=examples)
    rng, y, n = _begin(seed, examples)
    hard = rng.random(n, np.float32)
    shown = np.broadcast_to(y[:, None, None], (n, steps, channels))
    scale = (steps**hard)[:, None, None] ** -0.5
    x = _view(shown, _codes(channels, rng), channels, separation, rng, scale)
    mask = _mask(y[:examples], seed, val_fraction)
    truth = divide_extra("difficulty", hard[:examples], hard[examples:], mask)
    return _split("planted-difficulty", x, y, seed, val_fraction, truth, temporal=True)


TIMES = ("early", "late", "random", "static", "classes")


def timing(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    when: str = "late",
    steps: int = 30,
    length: int = 10,
    channels: int = 16,
    background: float = 0.1,
    rate: float = 0.6,
    examples: int = 600,
) -> Split:
    """Returns spikes ``[n, steps, channels]`` of which those of the class come at a known time.

    Every channel fires at rate ``background``; for ``length`` steps the quarter of the channels that belongs to the
    class fires at ``rate`` besides. ``truth["train/onset"]``, and so on by part, gives the first of these steps.

    Args:
        root: not used.
        seed: makes everything: the times, the examples, the test part.
        val_fraction: of the examples, in [0, 1); a fifth by default.
        when: "early", the first steps; "late", the last; "random", drawn for each example; "static", all steps, at a
            rate that gives as many spikes; "classes", each class at a time of its own, evenly spread.
        steps: of time.
        length: of the evidence, from 1 to ``steps``.
        channels: of the input, a multiple of 4.
        background: spikes per step of every channel.
        rate: spikes per step that the class adds to its channels.
        examples: to train and validate on; the test part has 1000 more.
    """
    _check(steps=steps, length=length, channels=channels, examples=examples)
    _check_at_most("length", length, "steps", steps)
    if when not in TIMES:
        raise DataError(f"when must be one of {', '.join(TIMES)}, got {when!r}.")
    if channels % CLASSES:
        raise DataError(f"channels must be a multiple of {CLASSES}, got {channels}.")
    rng, y, n = _begin(seed, examples)
    last = steps - length
    onset = {
        "early": np.zeros(n, int),
        "late": np.full(n, last),
        "random": rng.integers(last + 1, size=n),
        "static": np.zeros(n, int),
        "classes": y * last // (CLASSES - 1),
    }[when]
    shown = steps if when == "static" else length
    time = np.arange(steps)
    now = (time >= onset[:, None]) & (time < onset[:, None] + shown)
    own = np.arange(channels) * CLASSES // channels == y[:, None]
    strength = rate * (length / shown) * now[:, :, None] * own[:, None, :]
    quiet = rng.random((n, steps, channels), np.float32) >= background
    x = ~(quiet & (rng.random((n, steps, channels), np.float32) >= strength))
    truth = divide_extra("onset", onset[:examples], onset[examples:], _mask(y[:examples], seed, val_fraction))
    return _split("planted-timing", x.astype(np.float32), y, seed, val_fraction, truth, temporal=True)


def _begin(seed: int, examples: int) -> tuple[np.random.Generator, np.ndarray, int]:
    """Returns a generator, the label of every example, and their number, the test part at the end."""
    rng, n = np.random.default_rng(seed), examples + TEST_EXAMPLES
    return rng, rng.integers(CLASSES, size=n, dtype=np.int32), n


def _choose(sites: int, relevant: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(sites) < relevant


def _codes(features: int, rng: np.random.Generator) -> np.ndarray:
    """Returns ``[features, classes]`` signs; any two classes differ in two thirds of the features."""
    return CODES[rng.permutation(features) % len(CODES)] * rng.choice(np.array([-1, 1], np.float32), (features, 1))


def _shown(y: np.ndarray, truth: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns the class that each site shows: the label where it matters, one drawn anew where it does not."""
    return np.where(truth, y, rng.integers(CLASSES, size=shape, dtype=np.int32))


def _view(
    shown: np.ndarray,
    codes: np.ndarray,
    evidence: int,
    separation: float,
    rng: np.random.Generator,
    scale: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Returns noisy inputs in [0, 1]; ``evidence`` features together give the separation.

    Two classes differ in 2/3 of the features, by 2 a in each: half their distance is a sqrt(2/3 evidence).
    """
    amplitude = separation * NOISE / math.sqrt(2 / 3 * evidence)
    signs = codes[np.arange(codes.shape[0]), shown]
    noise = NOISE * rng.standard_normal(shown.shape, np.float32)
    return np.clip(0.5 + amplitude * scale * signs + noise, 0, 1).astype(np.float32)


def _mask(y: np.ndarray, seed: int, val_fraction: float | None) -> np.ndarray:
    return seeded_mask(y, seed, check_fraction(val_fraction, DEFAULT_VALIDATION))


def _split(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    seed: int,
    val_fraction: float | None,
    truth: dict[str, np.ndarray],
    temporal: bool = False,
) -> Split:
    rest, test = Arrays(x[:-TEST_EXAMPLES], y[:-TEST_EXAMPLES]), Arrays(x[-TEST_EXAMPLES:], y[-TEST_EXAMPLES:])
    train, val = divide(rest, _mask(y[:-TEST_EXAMPLES], seed, val_fraction))
    return Split(train, val, test, CLASSES, name, temporal=temporal, truth=truth)


def _check(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name} must be an integer of at least 1, got {value!r}.")


def _check_at_most(name: str, value: int, of: str, limit: int) -> None:
    if value > limit:
        raise DataError(f"{name} must be at most {of}, {limit}, got {value}; lower it.")
