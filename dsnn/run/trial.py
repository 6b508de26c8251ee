"""A trial of a frontier: learns, is judged on the part that selects, and never sees the test part."""

import contextlib
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

from dsnn import energy, store
from dsnn.assembly.assemble import Setup, build
from dsnn.assembly.identity import directory_of, identity, reads
from dsnn.config import Config
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.run import job, machine, signals
from dsnn.run.baselines import Fit
from dsnn.run.console import console
from dsnn.run.finish import check_unchanged, described, recorded
from dsnn.run.finished import finished
from dsnn.run.judged import Judged, judged, key_of
from dsnn.run.loop import Member, train

JUDGED = "records.npz"
PROFILES = ("45nm-int8", "45nm", "22nm")
"""Hardware that all are priced on; the first one's energies are learned, searched and compared."""

ACCOUNTING: energy.Accounting = "memory"
"""The accounting in which these are."""


@functools.cache
def profiles() -> list[energy.Profile]:
    """Returns the hardware, with a price for the addresses of events."""
    return [energy.profile(name).addressed() for name in PROFILES]


def primary(machine: str) -> str:
    """Returns what the energy that decides is called in `Judged`."""
    return key_of(machine, profiles()[0].name, ACCOUNTING)


def learned(config: Config) -> Path:
    """Returns the directory of a trial, once it has learned and been judged; a finished one is left as it is.

    Raises:
        Interrupted: told to stop; going on is the same command.
        TrainingError: the loss was not finite.
        RunDirError: the directory is another run's or cannot be written.
    """
    machine.prepare(config)
    signals.heed()
    read = reads(config)
    directory = directory_of(config, read)
    with contextlib.ExitStack() as closing:
        held = store.held(directory, identity(config), read, resume=config.resume, wait=True)
        if closing.enter_context(held) == "done":
            return directory
        store.write_environment(directory, config.seed)
        with recorded(directory):
            setup = unseeing(build(config))
            check_unchanged(config, read)
            console.print(f"{directory.name}: {described(setup)}", markup=False)
            settled, made = _learned(setup, directory)
        store.write_arrays(directory, "parameters.npz", settled.params)
        store.write_arrays(directory, JUDGED, made.arrays())
        store.write_metrics(directory, _metrics(config, settled, made))
        store.mark_done(directory)
        (directory / store.FAILED).unlink(missing_ok=True)
    return directory


def unseeing(setup: Setup) -> Setup:
    """Returns a setup without its test part: what asks for it gets the examples that select."""
    return dataclasses.replace(setup, split=setup.split._replace(test=setup.split.val))


def _learned(setup: Setup, directory: Path) -> tuple[Calibrated, Judged]:
    member = Member(setup, directory)
    fit = Fit(member, train([member], assessed=False).states[0])
    settled = Calibrated(fit.answers.params, math.inf, {})
    if setup.bayesian.halting is not None:
        settled = job.stopping_rule(setup, fit.answers.params, fit.state, member.predict)
    return settled, judged(setup, settled, "val", profiles())


def _metrics(config: Config, settled: Calibrated, made: Judged) -> dict[str, Any]:
    found: dict[str, Any] = {"experiment": config.experiment, "seed": config.seed, "val/accuracy": made.accuracy}
    found |= {f"val/{machine}_nj": made.mean_nj(primary(machine)) for machine in energy.MACHINES}
    found |= {"val/steps_mean": made.steps, **settled.metrics}
    return found | ({} if math.isinf(settled.threshold) else {"halting/threshold": settled.threshold})


def on_select(directory: Path) -> Judged:
    """Returns what a finished trial was judged to be."""
    return Judged.of(store.read_arrays(directory, JUDGED))


def on_test(directory: Path, folder: Path) -> Judged:
    """Returns what a finished trial is worth on the test part: it is asked once, and its answer is kept.

    Args:
        directory: of the trial.
        folder: where answers are kept, by the trial's name.
    """
    file = f"{directory.name}.npz"
    if not (folder / file).exists():
        found = finished(directory)
        made = judged(found.setup, found.settled, "test", profiles())
        folder.mkdir(parents=True, exist_ok=True)
        store.write_arrays(folder, file, made.arrays())
    return Judged.of(store.read_arrays(folder, file))
