"""Learning goes on in a network that another run made smaller: closed sites cost training nothing any more."""

from collections.abc import Callable
from pathlib import Path

import jax

from dsnn import store
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.complete import complete
from dsnn.config import Config, from_dict
from dsnn.deploy.decided import deploy
from dsnn.networks.whole import Runnable

_above: list[Path] = []
"""Runs whose networks are being built, each from the next."""


def compacted_network(directory: str, seed: int, built: Callable[[Config], Bayesian]) -> Runnable:
    """Returns the decided network of a finished run, posterior means in place of its weights, closed sites removed.

    Args:
        directory: of the run; ``SEED`` in it stands for the seed.
        seed: of the run that goes on.
        built: gives the Bayesian network of a configuration.

    Raises:
        ValueError: the run is not finished, or is one of time steps, which a network cannot keep to itself.
    """
    path = Path(directory.replace("SEED", str(seed))).expanduser()
    if path.resolve() in _above:
        raise ValueError(f"model.compacted must name another run, {path} goes on from itself; name the first run.")
    try:
        store.whole(path)
    except store.RunDirError as error:
        raise ValueError(f"model.compacted must name a finished run, got {path}: {error}") from None
    config = from_dict(store.read_config(path))
    _above.append(path.resolve())
    try:
        with jax.ensure_compile_time_eval():  # the programs of a run are traced around this, but here are values
            bayesian = built(config)
            params = complete(bayesian, store.read_arrays(path, "parameters.npz"), str(path / "parameters.npz"))
            deployed = deploy(bayesian, params)
    finally:
        _above.pop()
    if deployed.fixed is not None:
        raise ValueError(
            f"model.compacted goes on in floating point, got {path} with bits; set bits.enabled=false there."
        )
    if deployed.kept_steps is not None:
        raise ValueError(
            f"model.compacted takes runs without gates on time steps, got {path}; set gates.time=false there."
        )
    return deployed.small
