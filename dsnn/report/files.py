"""What the files of a run say, read as files that somebody else may have written or that a disk has damaged.

A run that holds anything else than a run writes is damaged, and told so in one sentence. Numbers here are finite and
fit a float, so that whoever draws or adds them need not ask.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dsnn.store import RunDirError, untrusted

__all__ = ["config", "first_line", "history", "metrics"]

Read = TypeVar("Read")
Metrics = dict[str, float | int | str]

NUMBERS = (
    "test/", "val/", "ood/", "deployed/", "gates/", "bits/", "compute/", "energy/", "rival/", "placement/", "halting/",
    "uncertainty/", "calibration/", "conformal/", "time/", "carbon/", "twin/", "linear/", "selected/",
    "automatic/svi.kl_weight",
)  # fmt: skip
"""How the names of metrics begin that are numbers."""

TEXTS = (
    "carbon/source",
    "energy/events",
    "energy/priced_as_lif",
    "energy/uncounted",
    "compute/uncompacted",
    "linear/name",
)
"""Metrics among these that are texts."""

SETTINGS = ("svi.kl_weight", "bayes.samples")
"""Settings that a page takes for numbers, where there are any."""

_LINE = 4096


def config(directory: Path) -> dict[str, Any]:
    """Returns the configuration of a run; empty where it has none.

    Raises:
        RunDirError: The file is damaged, or a setting that has to be a number is none.
    """
    path = directory / "config.yaml"
    found: dict[str, Any] = _read(untrusted.yaml_mapping, path, {})
    with _told(path):
        _check_whole_numbers(found)
        for name in SETTINGS:
            part, key = name.split(".")
            below = found.get(part)
            value = below.get(key) if isinstance(below, Mapping) else None
            if value is not None and not _is_number(value):
                raise ValueError(f"{name} must be a finite number, got {_said(value)}")
    return found


def metrics(directory: Path) -> Metrics:
    """Returns the metrics of a run; empty before it wrote any.

    Raises:
        RunDirError: The file is damaged, or a value is not what its name says.
    """
    path = directory / "metrics.json"
    found: Metrics = _read(untrusted.json_object, path, {})
    with _told(path):
        for name, value in found.items():
            number = name.startswith(NUMBERS) and name not in TEXTS
            if not _is_number(value) and (number or not isinstance(value, str)):
                raise ValueError(f"{name} must be a finite number{'' if number else ' or text'}, got {_said(value)}")
    return found


def history(directory: Path) -> list[dict[str, float | int | str]]:
    """Returns the evaluations of a run, oldest first; a torn last line and what is no number or text are left out.

    Raises:
        RunDirError: A line before the last is damaged.
    """
    path = directory / "history.jsonl"
    records = []
    for number, line in enumerate(_read(untrusted.text, path, "").split("\n")[:-1], start=1):
        if not line.strip():
            continue
        with _told(path):
            record = untrusted.parsed_json(line, f"line {number}")
            if not isinstance(record, dict):
                raise ValueError(f"line {number} must be a JSON object, got {_said(record)}")
        records.append({name: value for name, value in record.items() if _is_number(value) or isinstance(value, str)})
    return records


def first_line(path: Path) -> str:
    """Returns the first line of a text that is not blank; empty where there is none, or no such file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        lines = file.read(_LINE).decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in lines if line.strip()), "")


def _read(read: Callable[..., Read], path: Path, without: Read) -> Read:
    if not path.exists() and not path.is_symlink():
        return without
    with _told(path):
        return read(path)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what is wrong with a file into a sentence that names it once, and says what can be done."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = " ".join(said.replace(f"{path} ", "").replace(f"{path}", path.name).split()).rstrip(".")
        raise RunDirError(
            f"{path} is damaged ({reason}); put back a copy of it, or run the command again with resume=false."
        ) from error


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _check_whole_numbers(value: Any) -> None:
    """Raises a ValueError for a whole number so large that Python refuses to write it down."""
    if isinstance(value, int) and not isinstance(value, bool) and not _is_number(value):
        raise ValueError(f"a number must fit a float, got {_said(value)}")
    for below in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _check_whole_numbers(below)


def _said(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not _is_number(value):
        return f"a number of {value.bit_length()} bits"
    text = "null" if value is None else repr(value)
    return text if len(text) < 40 else f"{text[:36]} ..."
