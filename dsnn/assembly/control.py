"""A control at equal sparsity: as many sites of each group as another run kept, chosen without inference."""

import dataclasses
from pathlib import Path

import numpy as np

from dsnn import store
from dsnn.config import Config

__all__ = ["as_many_as"]


def as_many_as(config: Config) -> Config:
    """Returns the configuration with the numbers of sites that the run ``gates.like`` kept, in place of its name.

    It is the same where no run is named.

    Raises:
        ValueError: the run is not finished, or had no gates.
    """
    if not config.gates.like:
        return config
    path = Path(config.gates.like.replace("SEED", str(config.seed))).expanduser()
    try:
        store.whole(path)
        runs = store.read_arrays(path, "gates.npz")
    except store.RunDirError as error:
        raise ValueError(f"gates.like must name a finished run, got {path}: {error}") from None
    if not runs:
        raise ValueError(f"gates.like must name a run with gates, got {path} without gates.npz; name the gated run.")
    kept = {group: int((np.asarray(p) > 0.5).sum()) for group, p in runs.items()}
    gates, svi = dataclasses.replace(config.gates, like=""), dataclasses.replace(config.svi, budget_sites=kept)
    return dataclasses.replace(config, gates=gates, svi=svi)
