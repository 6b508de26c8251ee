"""DVS128 Gesture (Amir et al. 2017): eleven gestures of 29 people in different light, seen by an event camera.

The archive ``DvsGesture.tar.gz`` holds 122 recordings in AEDAT 3.1, each of one person who goes through all gestures;
beside each lies a list of when which gesture began and ended. Every line of a list is an example, from its start to
just before its end: 1176 in the recordings of ``trials_to_train.txt`` (people 1 to 23) and 288 in those of
``trials_to_test.txt`` (24 to 29). The paper counts 1342, one fewer a recording: ``arm roll`` has two lines in a list.

Pixels stand as the camera wrote them, x before y. The publisher gives no digest; the md5 is the one that other
libraries' loaders agree on.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dsnn.data import aedat, archive
from dsnn.data.camera_frames import SIDE, CameraFrames
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, seeded_mask

FILES = (
    File(
        "DvsGesture.tar.gz",
        ("8a5c71fb11e24e5ca5b11866ca6c00a1",),
        (),
        page="https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794",
    ),
)
CLASS_NAMES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise"),
    *("left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
)
LISTS = ("trials_to_train.txt", "trials_to_test.txt")
COLUMNS = "class,startTime_usec,endTime_usec"
MAX_ARCHIVE = 1 << 34
MAX_TEXT, MAX_TRIALS = 1 << 20, 10_000
DEFAULT_VALIDATION = 0.1


class Trial(NamedTuple):
    """A gesture of a recording: its class from 0, and when it began and ended, in microseconds."""

    label: int
    start: int
    end: int


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 16,
    bins: str = "time",
    duration_s: float | int | None = None,
    pool: int = 1,
    counts: bool = False,
    dtype: str = "uint8",
) -> Split:
    """Returns the split: ``[n, steps, 128 / pool, 128 / pool, 2]``, the last axis darker, brighter.

    Args:
        root: the data folder.
        seed: chooses the validation examples, each class in proportion; people are in both parts.
        val_fraction: of the 1176 training examples, in [0, 1); a tenth by default.
        steps: bins; all examples take 48 MB a step in bytes at ``pool=1``.
        bins: of equal ``time``, or ``count`` of events.
        duration_s: of all bins from the first event of a gesture, such as 1.5; None takes each one's own span, 6 s in
            the mean.
        pool: pixels along either axis that count as one, a divisor of 128.
        counts: events in each bin rather than whether there was any; bytes hold up to 255.
        dtype: ``uint8``, or ``float32``, which takes four times the memory.

    Raises:
        DataError: an option is out of range, the frames do not fit, or a file is damaged.
    """
    frames = CameraFrames(steps, bins, duration_s, pool, counts, dtype)
    place = locate(root, "dvs-gesture", FILES[0])
    texts = _texts(place)
    listed = [_trials(place, texts, part) for part in LISTS]
    trials = [trial for part in listed for recording in part.values() for trial in recording]
    x = frames.room(len(trials))
    rows = _rows(listed, place)
    for path, content in archive.members(place, lambda path: PurePosixPath(path).name in rows, MAX_ARCHIVE):
        found = aedat.read(content, f"{path} in {place}", SIDE)
        for row in rows.pop(PurePosixPath(path).name):
            x[row] = frames.of(_during(found, trials[row]))
    if rows:
        raise DataError(f"{place} must hold the recordings of its lists, got none named {min(rows)}; get it again.")
    y = np.array([trial.label for trial in trials], np.int32)
    count = sum(map(len, listed[0].values()))
    train, test = Arrays(x[:count], y[:count]), Arrays(x[count:], y[count:])
    mask = seeded_mask(np.asarray(train.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    names = CLASS_NAMES
    return Split(*divide(train, mask), test, len(names), "dvs-gesture", temporal=True, class_names=names)


def _rows(listed: list[dict[str, list[Trial]]], place: Path) -> dict[str, range]:
    """Returns which examples come from a recording, by its name."""
    rows: dict[str, range] = {}
    first = 0
    for name, trials in (pair for part in listed for pair in part.items()):
        if name in rows:
            raise DataError(f"{place} must train or test on a recording, got {name} in both lists; get it again.")
        rows[name] = range(first, first + len(trials))
        first += len(trials)
    return rows


def _during(recording: aedat.Recording, trial: Trial) -> aedat.Recording:
    inside = (recording.times >= trial.start) & (recording.times < trial.end)
    return aedat.Recording(*(values[inside] for values in recording))


def _texts(place: Path) -> dict[str, str]:
    """Returns the lists of the archive by file name."""
    found = {}
    for path, content in archive.members(place, lambda path: path.endswith((".txt", ".csv")), MAX_ARCHIVE):
        if len(content) > MAX_TEXT:
            raise DataError(f"{path} in {place} may have {MAX_TEXT} bytes, got {len(content)}; get the archive again.")
        found[PurePosixPath(path).name] = content.decode("latin-1")
    return found


def _trials(place: Path, texts: dict[str, str], part: str) -> dict[str, list[Trial]]:
    """Returns the trials of a part's recordings by file name, in the order of its list."""
    names = [line.strip() for line in _text(place, texts, part).splitlines() if line.strip()]
    odd = [name for name in names if not name.endswith(".aedat")]
    if not names or odd or len(set(names)) < len(names):
        got = repr(odd[0]) if odd else f"{len(names)} lines, {len(set(names))} of them different"
        raise DataError(f"{part} in {place} must name .aedat files, a line each, got {got}; get the archive again.")
    lists = {name: f"{PurePosixPath(name).stem}_labels.csv" for name in names}
    return {name: labels(_text(place, texts, beside), f"{beside} in {place}") for name, beside in lists.items()}


def _text(place: Path, texts: dict[str, str], name: str) -> str:
    if name not in texts:
        raise DataError(f"{place} must hold {name}, got none; get the published archive.")
    return texts[name]


def labels(text: str, where: str) -> list[Trial]:
    """Returns the trials in a list of labels.

    Args:
        text: ``class,startTime_usec,endTime_usec``, then a line of three integers for every trial.
        where: names it in a sentence.

    Raises:
        DataError: another first line, a line that is no trial, or a class that is none of 1 to 11, with its line.
    """
    first, *lines = text.splitlines() or [""]
    if first.strip() != COLUMNS or len(lines) > MAX_TRIALS:
        raise DataError(f"{where} must begin with {COLUMNS}, got {first[:60]!r} in line 1; get the archive again.")
    trials = []
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        words = [word.strip() for word in line.split(",")]
        if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) < 19 for word in words):
            raise DataError(
                f"{where} must have three integers on a line, got {line[:60]!r} in line {number}; get the archive "
                "again."
            )
        label, start, end = map(int, words)
        if not 1 <= label <= len(CLASS_NAMES) or end <= start:
            raise DataError(
                f"{where} must give a class from 1 to {len(CLASS_NAMES)} and an end after its start, got "
                f"{line[:60]!r} in line {number}; get the archive again."
            )
        trials.append(Trial(label - 1, start, end))
    return trials
