"""Learning goes on in a network that another run made smaller: closed sites cost training nothing any more."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from dsnn import rundir
from dsnn.bayes.lift import Lifted
from dsnn.config import Config, from_dict
from dsnn.deploy import deploy
from dsnn.models import Stack


def compacted_network(directory: str, seed: int, lift: Callable[[Config], Lifted]) -> Stack:
    """Returns the decided network of a finished run, posterior means in place of its weights, closed sites removed.

    Args:
        directory: of the run; ``SEED`` in it stands for the seed.
        seed: of the run that goes on.
        lift: builds the lifted network of a configuration.

    Raises:
        ValueError: the run is not finished, or is one of time steps, which a network cannot keep to itself.
    """
    path = Path(directory.replace("SEED", str(seed)))
    stored = rundir.read_arrays(path, "parameters.npz")
    if not rundir.is_done(path) or not stored:
        raise ValueError(
            f"model.compacted must name a finished run, got {path}; finish it with the command that began it."
        )
    config = from_dict(rundir.read_config(path))
    with jax.ensure_compile_time_eval():  # the programs of a run are traced around this, but here are values
        deployed = deploy(lift(config), {name: jnp.asarray(value) for name, value in stored.items()})
    if deployed.kept_steps is not None:
        raise ValueError(
            f"model.compacted takes runs without gates on time steps, got {path}; set gates.time=false there."
        )
    return deployed.small
