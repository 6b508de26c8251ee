"""What a run lets its user in on: callbacks after every validation, patience, metrics of one's own at the end."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dsnn import store, tasks
from dsnn.api import listeners
from dsnn.api.fitted import Fitted
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.protocols import Finished, Progress
from dsnn.store import untrusted

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

ENDED = "ENDED"
"""File of a run directory with the epoch after which learning was ended early."""


class Learning(Protocol):
    """What is asked of a run that learns, a `dsnn.run.loop.Member`."""

    setup: "Setup"
    directory: Path
    predict: Any


def fitted(
    member: "Learning", params: dict[str, Any], exits: Calibrated | None = None, temperature: float = 1.0
) -> Fitted:
    """Returns what a run has learned, as a notebook would have it; without exits, all steps run."""
    losses = [record["train/loss"] for record in store.read_history(member.directory) if "train/loss" in record]
    calibrated = Calibrated(params, math.inf, {}) if exits is None else exits
    return Fitted(member.setup, params, losses, calibrated, member.predict, temperature)


def ends(member: "Learning", params: dict[str, Any], record: dict[str, float], epoch: int) -> bool:
    """Returns whether a callback, or patience, ends learning after a validation; every callback is asked."""
    config = member.setup.config
    patience = config.train.patience
    over = patience > 0 and listeners.lost_patience(_scores(member), patience)
    if not config.callbacks:
        return over
    progress = Progress(epoch, config.train.epochs, dict(record), fitted(member, params))
    return listeners.asked(config.callbacks, progress) or over


def ended(directory: Path) -> int | None:
    """Returns the epoch after which a run's learning was ended, None where it was not."""
    try:
        said = untrusted.text(directory / ENDED, 32)
    except (FileNotFoundError, untrusted.UntrustedError):
        return None
    return int(said) if said.isdecimal() else None


def end(directory: Path, epoch: int) -> None:
    """Notes that learning is over, so that a run that is resumed learns no more."""
    store.write_text(directory, ENDED, str(epoch))


def metrics(member: "Learning", known: Mapping[str, Any], exits: Calibrated, temperature: float) -> dict[str, float]:
    """Returns what the user's own metrics say of a run that is assessed; errors are those of `dsnn.api.listeners`."""
    config = member.setup.config
    if not config.metrics:
        return {}
    learned = fitted(member, exits.params, exits, temperature)
    finished = Finished(member.directory, config, member.setup.split, dict(known), learned)
    return listeners.measured(config.metrics, finished)


def _scores(member: "Learning") -> list[float]:
    """Returns what patience watches, validation by validation; less is better."""
    score, more = tasks.patient_by(member.setup.task.facts)
    found = [record.get(f"val/{score}") for record in store.read_history(member.directory)]
    return [-value if more else value for value in found if value is not None]
