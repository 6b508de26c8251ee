"""Published sets laid out as a stranger would have them: folders of recordings, and an npz.

    python scripts/own_folders.py FOLDER

FOLDER/fsdd/{train,test}/<digit>/*.wav (takes 0 to 4 of every speaker test), FOLDER/nmnist/{train,test}/<digit>/*.bin
(the lists that were published with it) and FOLDER/mnist1k.npz (a thousand images of training, all of test), from the
archives in the folder of DSNN_DATA. Then, as `experiments/studies/own_data.md` has it:

    dsnn run data=audio data.path=FOLDER/fsdd seed=0
    dsnn run data=events data.path=FOLDER/nmnist seed=0
    dsnn run data=npz data.path=FOLDER/mnist1k.npz seed=0
"""

import sys
from pathlib import Path

import numpy as np

from dsnn import data
from dsnn.data import archive, fsdd, nmnist_small
from dsnn.data.files import locate


def spoken(folder: Path, root: Path) -> None:
    """Writes the spoken digits."""
    for name, content in archive.members(locate(root, "fsdd", fsdd.FILES[0])):
        if name.endswith(".wav"):
            digit, _, take = Path(name).stem.split("_")
            written(folder / ("test" if int(take) < 5 else "train") / digit / Path(name).name, content)


def events(folder: Path, root: Path) -> None:
    """Writes the recordings of an event camera, by the published lists."""
    members = archive.members(locate(root, "nmnist-small", nmnist_small.FILES[0]))
    files = {Path(name).name: content for name, content in members}
    for part, listed in (("train", "train1K.txt"), ("test", "test100.txt")):
        for line in files[listed].decode().splitlines():
            words = line.split()
            if len(words) > 1 and words[0].isdigit():
                written(folder / part / words[1] / f"{words[0]}.bin", files[f"{words[0]}.bs2"])


def images(file: Path) -> None:
    """Writes a thousand training images of MNIST, every digit in proportion, and all of its test part."""
    split = data.limited(data.load("mnist"), 1000, np.random.default_rng(0))
    (x, y), test = split.train, split.test
    np.savez(file, x_train=x, y_train=y, x_test=test.x, y_test=test.y)


def written(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder, root = Path(sys.argv[1]), data.default_root()
    spoken(folder / "fsdd", root)
    events(folder / "nmnist", root)
    images(folder / "mnist1k.npz")


if __name__ == "__main__":
    main()
