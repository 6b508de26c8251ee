"""The files of a run directory, written whole or not at all and read with the caps of `dsnn.store.untrusted`.

Each is written under a temporary name and renamed, so that a reader sees the old one or the new one and never half of
one. The one exception, ``history.jsonl``, grows by whole lines; a line torn by a kill is dropped on the next read.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dsnn.store import untrusted
from dsnn.store.naming import plain

__all__ = [
    "HISTORY",
    "RunDirError",
    "append_history",
    "disk_errors",
    "read_arrays",
    "read_config",
    "read_history",
    "read_json",
    "read_metrics",
    "sweep_temporaries",
    "write_arrays",
    "write_bytes",
    "write_config",
    "write_metrics",
    "write_text",
]

HISTORY = "history.jsonl"

_AGAIN = "run the same command again, which makes it anew, or restore the file"


class RunDirError(RuntimeError):
    """A run directory that cannot be used, in one sentence."""


# --- Configuration, metrics, history


def write_config(directory: str | Path, config: Mapping[str, Any]) -> Path:
    """Writes ``config.yaml``, the resolved configuration."""
    return write_text(directory, "config.yaml", yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))


def read_config(directory: str | Path) -> dict[str, Any]:
    """The configuration in ``config.yaml``."""
    path = Path(directory) / "config.yaml"
    try:
        return untrusted.yaml_mapping(path)
    except FileNotFoundError:
        raise RunDirError(f"{path} is missing; name the directory of a run that wrote it.") from None
    except untrusted.UntrustedError as error:
        raise RunDirError(f"{_bare(error)}; delete the run directory, or restore the file.") from error


def write_metrics(directory: str | Path, metrics: Mapping[str, Any]) -> Path:
    """Writes ``metrics.json``, one flat object of finite numbers and strings.

    Raises:
        RunDirError: A value is NaN, infinite, nested or of another type.
    """
    flat = {name: _metric(name, value) for name, value in metrics.items()}
    return write_text(directory, "metrics.json", json.dumps(flat, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_metrics(directory: str | Path) -> dict[str, float | int | str]:
    """The metrics of a run, finite numbers and strings; empty before it wrote any."""
    metrics = read_json(directory, "metrics.json")
    try:
        return {name: _metric(name, value) for name, value in metrics.items()}
    except RunDirError as error:
        raise RunDirError(f"{Path(directory) / 'metrics.json'} is damaged: {error}") from None


def append_history(directory: str | Path, record: Mapping[str, Any]) -> None:
    """Adds one evaluation to ``history.jsonl``; the line is on its way to the disk when this returns.

    Args:
        directory: The run directory.
        record: Numbers and strings, with the integer ``step``. NaN and infinity are written as null.
    """
    if not isinstance(record.get("step"), int):
        raise RunDirError(f"a history record needs an integer step, got {record.get('step')!r}; add step=<number>.")
    line = json.dumps({name: _finite_or_none(value) for name, value in record.items()}, allow_nan=False)
    path = Path(directory) / HISTORY
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_history(directory: str | Path) -> list[dict[str, Any]]:
    """The evaluations so far, oldest first; a torn last line is left out."""
    path = Path(directory) / HISTORY
    try:
        lines = untrusted.text(path).split("\n")[:-1]
    except FileNotFoundError:
        return []
    except untrusted.UntrustedError as error:
        raise RunDirError(f"{_bare(error)}; {_AGAIN}.") from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            record = untrusted.parsed_json(line, f"line {number}")
        except untrusted.UntrustedError as error:
            raise RunDirError(f"{path} is damaged in line {number}; delete that line.") from error
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise RunDirError(f"{path} is damaged in line {number}, which is no record of a step; delete that line.")
        records.append(record)
    return records


# --- Arrays and JSON


def write_arrays(directory: str | Path, name: str, arrays: Mapping[str, Any]) -> Path:
    """Writes named arrays as the compressed ``name`` (``gates.npz``, ``records.npz``); never pickles."""
    path = Path(directory) / name
    held = {key: np.asarray(value) for key, value in arrays.items()}
    for key, array in held.items():
        if array.dtype.hasobject:
            raise RunDirError(f"{name} holds plain arrays only, got objects in {key}; convert it to numbers.")
    with disk_errors(path), _replacing(path) as file:
        np.savez_compressed(file, **held)  # type: ignore[arg-type]  # keys are array names
    return path


def read_arrays(directory: str | Path, name: str) -> dict[str, np.ndarray]:
    """The arrays in ``name``; empty where there is no such file."""
    return _read(untrusted.arrays, Path(directory) / name)


def read_json(directory: str | Path, name: str) -> dict[str, Any]:
    """The object in the JSON file ``name``; empty where there is no such file."""
    return _read(untrusted.json_object, Path(directory) / name)


def _read(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    try:
        return read(path)
    except FileNotFoundError:
        return {}
    except untrusted.UntrustedError as error:
        raise RunDirError(f"{path} is damaged ({_bare(error)}); {_AGAIN}.") from error


# --- Writing


def write_text(directory: str | Path, name: str, text: str) -> Path:
    """Writes one text file of the run directory atomically and returns its path."""
    return write_bytes(directory, name, text.encode())


def write_bytes(directory: str | Path, name: str, content: bytes) -> Path:
    """Writes one file of the run directory atomically and returns its path."""
    path = Path(directory) / name
    with disk_errors(path), _replacing(path) as file:
        file.write(content)
    return path


def sweep_temporaries(directory: Path) -> None:
    """Removes temporary files that killed processes left; the caller holds the lock of the directory."""
    for path in directory.glob(".*.tmp"):
        match = re.fullmatch(r"\..+\.(\d+)\.tmp", path.name)
        if match and path.is_file() and not _alive(int(match[1])):
            path.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns what a full or read-only disk raises into a sentence that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror if error.strerror else str(error)
        raise RunDirError(
            f"cannot write {path}: {reason}; free space on that disk, or choose a writable directory with run.dir=DIR."
        ) from error


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A binary file that takes the place of `path` once it, and its name, are on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a system that opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _metric(name: str, value: Any) -> float | int | str:
    value = _scalar(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise RunDirError(
            f"metrics.json holds finite numbers and strings only, got {type(value).__name__} for {name}; "
            "flatten it into one name per number."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise RunDirError(
            f"metrics.json holds finite numbers and strings only, got {value} for {name}; "
            "leave a quantity that does not exist out, and look for the cause of one that should."
        )
    return value


def _scalar(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _finite_or_none(value: Any) -> Any:
    value = _scalar(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bare(error: Exception) -> str:
    return str(error).rstrip(".")
