"""ECG waves of the QT database, delta-coded (Laguna et al. 1997; Yin, Corradi & Bohte 2020): a label at every step.

618 training and 141 test records of 1301 steps with four binary channels (rises and falls of two leads). Two quirks of
the published files are kept in sight:

- 8.2 % of the training steps and 10.4 % of the test steps have no label. Published accuracies count them as class 0,
  as ``argmax`` of an empty row does; so does ``y``. ``extra["<part>/labelled"]`` says where there is a label, for the
  accuracy on labelled steps.
- The first channel is -1 at the last step of every record, and nowhere else: padding, set to 0 here unless
  ``as_published``.
"""

from pathlib import Path

import numpy as np

from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, divide, divide_extra, seeded_mask

ADDRESS = "https://raw.githubusercontent.com/byin-cwi/Efficient-spiking-networks/main/data/{}"
DIGESTS = {
    "QTDB_train.mat": "72d1a10c96f1540880447e07256835d66da419c0b34f3dff495731a7928c5bc7",
    "QTDB_test.mat": "916f11e21679a5b61988305bbb7cd1e6df8b34f1ed4a157a7a4e295d400ef232",
}
FILES = tuple(File(name, (sha,), (ADDRESS.format(name),)) for name, sha in DIGESTS.items())
CLASS_NAMES = ("P", "PQ", "QR", "RS", "ST", "TP")
DEFAULT_VALIDATION = 0.1
STEPS = 1301


def load(root: Path, seed: int, val_fraction: float | None, *, as_published: bool = False, steps: int = STEPS) -> Split:
    """Returns the split: ``x`` is ``[n, 1301, 4]`` and ``y`` is ``[n, 1301]``, with the labelled steps in ``extra``.

    Args:
        root: the data folder.
        seed: chooses the validation records.
        val_fraction: of the 618 training records, in [0, 1); a tenth by default.
        as_published: keep the -1 of the last step.
        steps: the first ones to keep, 1 to 1301; Higuchi et al. 2024 leave out the last.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= STEPS:
        raise DataError(f"steps must be an integer from 1 to {STEPS}, got {steps!r}.")
    (train, train_labelled), (test, test_labelled) = (
        _read(locate(root, "qtdb", file), as_published, steps) for file in FILES
    )
    mask = seeded_mask(np.zeros(len(train.y), int), seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    extra = divide_extra("labelled", train_labelled, test_labelled, mask)
    names = CLASS_NAMES
    return Split(*divide(train, mask), test, len(names), "qtdb", temporal=True, class_names=names, extra=extra)


def _read(place: Path, as_published: bool, steps: int) -> tuple[Arrays, np.ndarray]:
    from scipy.io import loadmat  # here, so that importing dsnn does not import it

    content = loadmat(place, variable_names=("x", "y"))
    x, onehot = content["x"].astype(np.float32), content["y"]
    if x.ndim != 3 or onehot.shape != (*x.shape[:2], len(CLASS_NAMES)):
        raise DataError(f"{place} must hold x [n, time, 4] and y [n, time, 6], got {x.shape} and {onehot.shape}.")
    if not as_published:
        x[:, -1, 0] = np.maximum(x[:, -1, 0], 0)
    return Arrays(x[:, :steps], onehot[:, :steps].argmax(-1).astype(np.int32)), onehot[:, :steps].any(-1)
