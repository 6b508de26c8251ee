"""What a run lets its user in on: callbacks after every validation, patience, metrics of one's own at the end."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsnn import resolve, rundir
from dsnn.api.fitted import Fitted
from dsnn.exit_calibration import Calibrated
from dsnn.protocols import Finished, Progress

if TYPE_CHECKING:
    from dsnn.run.loop import Member

ENDED = "ENDED"
"""File of a run directory with the epoch after which learning was ended early."""

SCORES = ("val/nll", "val/rmse")
"""What patience watches: the first of these that a validation has."""


def fitted(
    member: "Member", params: dict[str, Any], exits: Calibrated | None = None, temperature: float = 1.0
) -> Fitted:
    """Returns what a run has learned, as a notebook would have it; without exits, all steps run."""
    losses = [record["train/loss"] for record in rundir.read_history(member.directory) if "train/loss" in record]
    calibrated = Calibrated(params, math.inf, {}) if exits is None else exits
    return Fitted(member.setup, params, losses, calibrated, member.predict, temperature)


def ends(member: "Member", params: dict[str, Any], record: dict[str, float], epoch: int) -> bool:
    """Returns whether a callback, or patience, ends learning after a validation; every callback is asked."""
    config = member.setup.config
    over = bool(config.train.patience) and _lost_patience(member.directory, config.train.patience)
    if not config.callbacks:
        return over
    progress = Progress(epoch, config.train.epochs, dict(record), fitted(member, params))
    answers = [bool(heard("callbacks", name, progress)) for name in config.callbacks]
    return over or any(answers)


def heard(option: str, name: str, moment: Any) -> Any:
    """Returns what a function of the user's says of a run.

    Raises:
        ValueError: it raised something; what was learned is kept, and the same command goes on from it.
    """
    function = resolve.piece(option, name)
    try:
        return function(moment)
    except Exception as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"{name} of {option} failed: {type(error).__name__}: {said}; mend it, and the same command goes on from "
            "what was learned."
        ) from error


def ended(directory: Path) -> int | None:
    """Returns the epoch after which a run's learning was ended, None where it was not."""
    file = directory / ENDED
    return int(file.read_text()) if file.exists() else None


def end(directory: Path, epoch: int) -> None:
    """Notes that learning is over, so that a run that is resumed learns no more."""
    rundir.write_text(directory, ENDED, str(epoch))


def metrics(member: "Member", known: Mapping[str, Any], exits: Calibrated, temperature: float) -> dict[str, float]:
    """Returns what the user's own metrics say of a run that is assessed.

    Raises:
        ValueError: a metric that gives no dictionary of finite numbers, or a name that the run has already.
    """
    setup, found = member.setup, dict[str, float]()
    if not setup.config.metrics:
        return found
    learned = fitted(member, exits.params, exits, temperature)
    for name in setup.config.metrics:
        whole = Finished(member.directory, setup.config, setup.split, {**known, **found}, learned)
        given = heard("metrics", name, whole)
        if not isinstance(given, Mapping):
            raise ValueError(f"a metric must give a dictionary of numbers, got a {type(given).__name__} from {name}.")
        for key, value in given.items():
            if key in known or key in found:
                raise ValueError(f"a metric must have a name of its own, got {key!r} from {name}; choose another.")
            found[str(key)] = _number(value, key, name)
    return found


def _number(value: Any, key: object, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"a metric must be a number, got {value!r} for {key!r} from {name}.") from None
    if not math.isfinite(number):
        raise ValueError(f"a metric must be finite, got {number} for {key!r} from {name}.")
    return number


def _lost_patience(directory: Path, patience: int) -> bool:
    """Returns whether the last validations, as many as patience has, have not been better than one before."""
    history = rundir.read_history(directory)
    score = next((name for name in SCORES if any(name in record for record in history)), None)
    if score is None:
        return False
    seen = [record[score] for record in history if score in record]
    return len(seen) - 1 - seen.index(min(seen)) >= patience
