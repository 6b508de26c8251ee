"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017): 28x28 articles of clothing, 55000/5000/10000."""

from pathlib import Path

from dsnn.data import idx
from dsnn.data.files import File
from dsnn.data.split import Split

ADDRESSES = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{}",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{}",
)
DIGESTS = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FILES = tuple(File(name, (sha,), tuple(a.format(name) for a in ADDRESSES)) for name, sha in DIGESTS.items())
CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


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
    return idx.split(root, "fashion-mnist", FILES, val_fraction, CLASS_NAMES, sequence, permutation)
