"""A finished run, taken up again: its setup, its parameters, and when it stops."""

import math
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
from omegaconf import OmegaConf

from dsnn import resolve, rundir
from dsnn.assemble import Setup, build
from dsnn.exit_calibration import Calibrated
from dsnn.run import schema


class Finished(NamedTuple):
    """What a run directory holds."""

    directory: Path
    setup: Setup
    settled: Calibrated


def finished(directory: str | Path) -> Finished:
    """Returns a finished run.

    Raises:
        RunDirError: no such run, or a damaged one.
        ValueError: the run has not finished, or was configured by another version.
    """
    directory = Path(directory)
    config = rundir.read_config(directory)
    if not rundir.is_done(directory):
        raise ValueError(f"the run must be finished, {directory} is not; the command that began it goes on.")
    setup = build(schema.typed(OmegaConf.create(config)))
    params = {name: jnp.asarray(value) for name, value in rundir.read_arrays(directory, "parameters.npz").items()}
    metrics = rundir.read_metrics(directory)
    return Finished(directory, setup, Calibrated(params, float(metrics.get("halting/threshold", math.inf)), {}))


def options(arguments: list[str], known: dict[str, str]) -> dict[str, str]:
    """Returns the values of a command line of name=value, over their defaults.

    Raises:
        ValueError: an option that is not known, or none where one is needed.
    """
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"the options are {', '.join(known)}, got {', '.join(unknown)}.")
    if given.get("trust", "false").lower() == "true":
        resolve.trust_stored()
    if not given.get("run"):
        raise ValueError("give the directory of a finished run, run=DIR, or several with commas.")
    return known | given
