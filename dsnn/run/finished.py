"""A finished run, taken up again: its setup, its parameters, and when it stops."""

import math
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf

from dsnn import resolve, store
from dsnn.assembly.assemble import Setup, build
from dsnn.assembly.identity import reads
from dsnn.bayes.complete import complete
from dsnn.config import Config
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.run import schema


class Finished(NamedTuple):
    """What a run directory holds."""

    directory: Path
    setup: Setup
    settled: Calibrated


def finished(directory: str | Path) -> Finished:
    """Returns a finished run.

    Raises:
        RunDirError: no such run, one that has not finished, or a damaged one.
        ValueError: the run was configured by another version, its data were replaced since, or it has no parameters.
    """
    directory = store.whole(Path(directory).expanduser())
    config = schema.typed(OmegaConf.create(store.read_config(directory)))
    if config.learner == "convert":
        raise ValueError(f"a run that learned a spiking network is needed, {directory} converted one; name another.")
    _check_reads(directory, config)
    setup = build(config)
    stored = store.read_arrays(directory, "parameters.npz")
    params = complete(setup.bayesian, stored, str(directory / "parameters.npz"))
    metrics = store.read_metrics(directory)
    return Finished(directory, setup, Calibrated(params, float(metrics.get("halting/threshold", math.inf)), {}))


def _check_reads(directory: Path, config: Config) -> None:
    """Raises if the data that the run learned from are others now: what it would be held to is not what it knew."""
    then, now = store.read_reads(directory), reads(config)
    changed = sorted(name for name in then if name != "dsnn" and now.get(name) != then[name])
    if changed:
        raise ValueError(
            f"{directory} must find what it read, but {', '.join(changed)} changed since; put it back, or run it again."
        )


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
