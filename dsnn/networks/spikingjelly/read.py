"""State dicts of PyTorch modules from files that hold numbers and nothing else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dsnn.store import untrusted

__all__ = ["read_state"]

READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".safetensors": untrusted.safetensors,
    ".npz": untrusted.arrays,
}

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
"""Endings of files that pickles stand in: reading them runs what they say."""


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a state dict by name.

    Args:
        path: of a ``.safetensors`` file, or of an ``.npz`` file of plain arrays.

    Raises:
        UntrustedError: a file of another kind, a damaged one, or one of more than 16 GiB.
        FileNotFoundError: there is nothing at the path.
    """
    path = Path(path)
    if (ending := path.suffix.lower()) in READERS:
        return READERS[ending](path)
    if ending in PICKLED:
        raise untrusted.UntrustedError(
            f"{path} is a pickle, which is not read here because reading one can run code; write it as numbers where "
            'PyTorch is: state = torch.load(path, weights_only=True), then safetensors.torch.save_file(state, "x.'
            'safetensors"), or numpy.savez("x.npz", **{name: one.numpy() for name, one in state.items()}).'
        )
    raise untrusted.UntrustedError(f"{path} must end in {' or '.join(READERS)}, got {path.suffix!r}.")
