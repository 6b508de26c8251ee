"""MNIST (LeCun, Cortes & Burges 1998): 28x28 handwritten digits, 55000/5000/10000."""

from pathlib import Path

from dsnn.data import idx
from dsnn.data.files import File
from dsnn.data.split import Split

ADDRESSES = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/{}",
    "https://storage.googleapis.com/cvdf-datasets/mnist/{}",
)
DIGESTS = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FILES = tuple(File(name, (sha,), tuple(a.format(name) for a in ADDRESSES)) for name, sha in DIGESTS.items())
CLASS_NAMES = tuple("0123456789")


def load(
    root: Path, seed: int, val_fraction: float | None, *, sequence: str = "image", permutation: int | None = None
) -> Split:
    """Returns the split; validation is the last 5000 training images (the last ``val_fraction`` of the 60000 if given).

    Args:
        root: the data folder.
        seed: not used, every part is fixed.
        val_fraction: in [0, 1), or None for the 5000.
        sequence: ``image``; or temporal, by ``rows`` (28 steps of 28) or ``pixels`` (784 steps of 1).
        permutation: seed of one fixed order of the pixels, for ``pixels`` only; None keeps theirs.
    """
    return idx.split(root, "mnist", FILES, val_fraction, CLASS_NAMES, sequence, permutation)
