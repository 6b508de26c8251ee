"""CIFAR10-DVS (Li et al. 2017): 10 000 images of CIFAR-10, moved on a screen before a 128 x 128 event camera.

A thousand recordings of each class, some 1.3 s and 200 000 events long, in AEDAT 2 as figshare has them, an archive a
class. figshare gives md5 and no sha256. The set was published without a division. Two of 9 : 1 are usual, by the number
in a file's name, and their accuracies are not comparable: ``test=last`` trains on 0 to 899 of each class and tests on
900 to 999; ``test=first`` tests on 0 to 99 and trains on 100 to 999 (Duan et al. 2022), where accuracies are higher.

Pictures stand upright as the field reads them: the column is 127 less bits 8 to 14 of the address, the row 127 less
bits 1 to 7, and the camera's bit 0 is 0 where the pixel became brighter.
"""

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from dsnn.data import aedat, archive
from dsnn.data.camera_frames import SIDE, CameraFrames
from dsnn.data.cifar10 import CLASS_NAMES
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, seeded_mask

ADDRESS = "https://ndownloader.figshare.com/files/{}"
PUBLISHED = {
    "airplane": (7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
    "automobile": (7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
    "bird": (7712794, "a9c207c91c55b9dc2002dc21c684d785"),
    "cat": (7712812, "52c63c677c2b15fa5146a8daf4d56687"),
    "deer": (7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
    "dog": (7712818, "f379ebdf6703d16e0a690782e62639c3"),
    "frog": (7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
    "horse": (7712851, "e7cbbf77bec584ffbf913f00e682782a"),
    "ship": (7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
    "truck": (7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
}  # number at figshare, md5
FILES = tuple(File(f"{name}.zip", (md5,), (ADDRESS.format(number),)) for name, (number, md5) in PUBLISHED.items())
RECORDINGS = 1000
TESTS = {"last": range(900, 1000), "first": range(100)}
DEFAULT_VALIDATION = 0.1


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    steps: int = 10,
    bins: str = "time",
    duration_s: float | int | None = None,
    pool: int = 1,
    counts: bool = False,
    dtype: str = "uint8",
    test: str = "last",
) -> Split:
    """Returns the split: ``[n, steps, 128 / pool, 128 / pool, 2]``, the last axis darker, brighter.

    Args:
        root: the data folder.
        seed: chooses the validation recordings, each class in proportion.
        val_fraction: of the 9000 training recordings, in [0, 1); a tenth by default.
        steps: bins; all recordings take 328 MB a step in bytes at ``pool=1``.
        bins: of equal ``time``, or ``count`` of events.
        duration_s: of all bins from the first event; None takes each recording's own span.
        pool: pixels along either axis that count as one, a divisor of 128.
        counts: events in each bin rather than whether there was any; bytes hold up to 255.
        dtype: ``uint8``, or ``float32``, which takes four times the memory.
        test: ``last`` tests on recordings 900 to 999 of each class, ``first`` on 0 to 99.

    Raises:
        DataError: an option is out of range, the frames do not fit, or a file is damaged.
    """
    frames = CameraFrames(steps, bins, duration_s, pool, counts, dtype)
    if test not in TESTS:
        raise DataError(f"test must be one of {', '.join(TESTS)}, got {test!r}.")
    places = [locate(root, "cifar10-dvs", file) for file in FILES]
    found = [one for label, place in enumerate(places) for one in _listed(place, label)]
    x = frames.room(len(found))
    for label, place in enumerate(places):
        row = {one.name: n for n, one in enumerate(found) if one.label == label}
        for name, content in archive.zip_members(place, row.__contains__):
            x[row[name]] = frames.of(_upright(aedat.read(content, f"{name} in {place}", SIDE)))
    y = np.array([one.label for one in found], np.int32)
    train, tested = divide(Arrays(x, y), np.isin([one.number for one in found], TESTS[test]))
    mask = seeded_mask(np.asarray(train.y), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    return Split(*divide(train, mask), tested, 10, "cifar10-dvs", temporal=True, class_names=CLASS_NAMES)


class _Member(NamedTuple):
    label: int
    number: int
    name: str


def _listed(place: Path, label: int) -> list[_Member]:
    """Returns the recordings in a class's archive, by number."""
    pattern = re.compile(rf"cifar10_{CLASS_NAMES[label]}_(\d{{1,3}})\.aedat")
    named = [(pattern.fullmatch(PurePosixPath(name).name), name) for name in archive.zipped(place)]
    found = sorted(_Member(label, int(match[1]), name) for match, name in named if match)
    if not found or len({one.number for one in found}) < len(found):
        raise DataError(
            f"{place} must hold recordings cifar10_{CLASS_NAMES[label]}_<0 to {RECORDINGS - 1}>.aedat, each once, got "
            f"{len(found)} in {len(named)} files; get the published archive."
        )
    return found


def _upright(found: aedat.Recording) -> aedat.Recording:
    last = SIDE - 1
    return aedat.Recording(found.times, last - found.x, last - found.y, 1 - found.polarity)
