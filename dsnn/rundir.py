"""The run directory: which configuration owns it, how far it got, and the files it holds.

Every file is written under a temporary name and renamed, so a reader sees the old one or the new one and never half of
one. The one exception, ``history.jsonl``, grows by whole lines; a line torn by a kill is dropped on the next read.
"""

import dataclasses
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

__all__ = [
    "ELSEWHERE",
    "RunDirError",
    "append_history",
    "claim",
    "config_hash",
    "environment",
    "flat_config",
    "is_done",
    "lock",
    "mark_done",
    "read_arrays",
    "read_config",
    "read_environment",
    "read_history",
    "read_metrics",
    "truncate_history",
    "write_arrays",
    "write_config",
    "write_environment",
    "write_metrics",
    "write_text",
]

ELSEWHERE = ("run", "track", "resume", "data.root", "hydra", "compute", "population")
"""Configuration keys that say where a run lives, how it is watched and on what it is computed, not what."""

Claim = Literal["fresh", "interrupted", "done"]

_PACKAGES = ("dsnn", "jax", "jaxlib", "flax", "numpyro", "optax", "orbax-checkpoint", "numpy")


class RunDirError(RuntimeError):
    """A run directory that cannot be used, in one sentence."""


# --- Which configuration owns the directory


def config_hash(config: Mapping[str, Any], exclude: Collection[str] = ELSEWHERE) -> str:
    """Twelve hexadecimal digits that name what `config` computes.

    Args:
        config: The resolved configuration, nested mappings of plain values.
        exclude: Dotted keys left out; a key leaves out everything below it.
    """
    text = json.dumps(flat_config(config, exclude), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flat_config(config: Mapping[str, Any], exclude: Collection[str] = ELSEWHERE) -> dict[str, Any]:
    """The leaves of `config` by dotted key, without the excluded branches."""
    leaves: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if prefix in exclude:
            return
        if isinstance(value, dict) and value:
            for key, below in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), below)
        else:
            leaves[prefix] = value

    walk("", _plain(config))
    return leaves


def claim(directory: str | Path, config: Mapping[str, Any], exclude: Collection[str] = ELSEWHERE) -> Claim:
    """How far the run of `config` got in `directory`: "fresh" (just created), "interrupted" or "done".

    A fresh directory receives ``config.yaml``, which is the claim.

    Raises:
        RunDirError: The directory belongs to another configuration, holds foreign files, or cannot be written.
    """
    directory = Path(directory)
    if not (directory / "config.yaml").exists():
        _refuse_foreign(directory)
        write_config(directory, config)
        return "fresh"
    theirs = flat_config(read_config(directory), exclude)
    ours = flat_config(config, exclude)
    keys = sorted(theirs.keys() | ours.keys())
    if differing := [key for key in keys if _said(theirs, key) != _said(ours, key)]:
        shown = ", ".join(f"{key} ({_said(theirs, key)} there, {_said(ours, key)} now)" for key in differing[:6])
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise RunDirError(
            f"{directory} belongs to a run with another configuration; it differs in {shown}{more}. "
            "Choose another directory with run.dir=DIR, or leave run.dir out to have it named by its configuration."
        )
    return "done" if is_done(directory) else "interrupted"


@contextmanager
def lock(directory: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Holds the run directory for this process; the lock goes with the process, however it ends.

    Args:
        directory: The run directory.
        wait: Waits until another process lets go of it.

    Raises:
        RunDirError: Another process is working in the directory, and `wait` is false.
    """
    directory = Path(directory)
    with _disk_errors(directory / ".lock"):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            if not wait:
                raise RunDirError(
                    f"{directory} is in use by process {holder}; "
                    "wait for it to end, or choose another directory with run.dir=DIR."
                ) from None
            print(f"{directory} is in use by process {holder}; waiting for it to end.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_done(directory: str | Path) -> bool:
    """Whether the run in `directory` finished."""
    return (Path(directory) / "DONE").exists()


def mark_done(directory: str | Path) -> None:
    """Writes ``DONE``; the last thing a run does."""
    write_text(directory, "DONE", "")


# --- Its files


def write_text(directory: str | Path, name: str, text: str) -> Path:
    """Writes one text file of the run directory atomically and returns its path."""
    return _write_bytes(Path(directory) / name, text.encode())


def write_config(directory: str | Path, config: Mapping[str, Any]) -> Path:
    """Writes ``config.yaml``, the resolved configuration."""
    return write_text(directory, "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def read_config(directory: str | Path) -> dict[str, Any]:
    """The configuration in ``config.yaml``."""
    path = Path(directory) / "config.yaml"
    try:
        config = yaml.safe_load(_read_text(path))
    except yaml.YAMLError as error:
        raise RunDirError(f"{path} is not valid YAML; delete the run directory, or restore the file.") from error
    return config or {}


def write_metrics(directory: str | Path, metrics: Mapping[str, Any]) -> Path:
    """Writes ``metrics.json``, one flat object of finite numbers and strings.

    Raises:
        RunDirError: A value is NaN, infinite, nested or of another type.
    """
    flat = {name: _metric(name, value) for name, value in metrics.items()}
    return write_text(directory, "metrics.json", json.dumps(flat, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_metrics(directory: str | Path) -> dict[str, float | int | str]:
    """The metrics of a run; empty before it wrote any."""
    return _read_json(Path(directory) / "metrics.json")


def append_history(directory: str | Path, record: Mapping[str, Any]) -> None:
    """Adds one evaluation to ``history.jsonl``; the line is on its way to the disk when this returns.

    Args:
        directory: The run directory.
        record: Numbers and strings, with the integer ``step``. NaN and infinity are written as null.
    """
    if not isinstance(record.get("step"), int):
        raise RunDirError(f"a history record needs an integer step, got {record.get('step')!r}; add step=<number>.")
    line = json.dumps({name: _finite_or_none(value) for name, value in record.items()}, allow_nan=False)
    path = Path(directory) / "history.jsonl"
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(line + "\n")


def read_history(directory: str | Path) -> list[dict[str, Any]]:
    """The evaluations so far, oldest first; a torn last line is left out."""
    path = Path(directory) / "history.jsonl"
    return [json.loads(line) for line in _whole_lines(path)]


def truncate_history(directory: str | Path, step: int) -> None:
    """Drops the evaluations after `step`, so that a resumed run writes the file an uninterrupted one writes."""
    path = Path(directory) / "history.jsonl"
    if path.exists():
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
        write_text(directory, path.name, "".join(line + "\n" for line in kept))


def write_arrays(directory: str | Path, name: str, arrays: Mapping[str, Any]) -> Path:
    """Writes named arrays as the compressed ``name`` (``gates.npz``, ``records.npz``); never pickles."""
    path = Path(directory) / name
    plain = {key: np.asarray(value) for key, value in arrays.items()}
    for key, array in plain.items():
        if array.dtype.hasobject:
            raise RunDirError(f"{name} holds plain arrays only, got objects in {key}; convert it to numbers.")
    with _disk_errors(path), _replacing(path) as file:
        np.savez_compressed(file, **plain)  # type: ignore[arg-type]  # keys are array names
    return path


def read_arrays(directory: str | Path, name: str) -> dict[str, np.ndarray]:
    """The arrays in ``name``; empty where there is no such file."""
    path = Path(directory) / name
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # a torn zip raises from zipfile, zlib, struct and NumPy alike
        raise RunDirError(f"{path} is damaged ({error}); delete it and run the same command again.") from error


def environment(seed: int) -> dict[str, Any]:
    """What a run depended on beside its configuration: versions, revision, machine, command, seed."""
    import jax  # the device is asked only here, so that reading a run directory needs no accelerator

    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: version for package in _PACKAGES if (version := _version(package))},
        **_revision(Path(__file__).resolve().parent),
        "device": device.device_kind,
        "device_platform": device.platform,
        "device_count": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": _command(),
        "seed": seed,
    }


def write_environment(directory: str | Path, seed: int) -> Path:
    """Writes ``environment.json``."""
    return write_text(directory, "environment.json", json.dumps(environment(seed), indent=2) + "\n")


def read_environment(directory: str | Path) -> dict[str, Any]:
    """The environment a run recorded; empty where it recorded none."""
    return _read_json(Path(directory) / "environment.json")


# --- Below: plain values, atomic writing, errors


def _plain(value: Any) -> Any:
    """`value` in the types that YAML and JSON share."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(below) for below in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    return str(value)


def _said(leaves: Mapping[str, Any], key: str) -> str:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "absent"


def _refuse_foreign(directory: Path) -> None:
    if not directory.is_dir():
        return
    foreign = sorted(path.name for path in directory.iterdir() if path.name not in (".lock", ".hydra"))
    foreign = [name for name in foreign if not name.endswith((".log", ".tmp"))]
    if foreign:
        raise RunDirError(
            f"{directory} is not a run directory: it has no config.yaml and holds {', '.join(foreign[:4])}"
            f"{' and more' if len(foreign) > 4 else ''}; choose an empty or new directory with run.dir=DIR."
        )


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


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        raise RunDirError(f"{path} is missing; name the directory of a run that wrote it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirError(f"cannot read {path}: {_reason(error)}; check the file, or run the command again.") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunDirError(f"{path} is not valid JSON; delete it and run the same command again.") from error


def _whole_lines(path: Path) -> list[str]:
    """The lines of `path` that end in a newline and are JSON objects."""
    if not path.exists():
        return []
    lines = [line for line in _read_text(path).split("\n")[:-1] if line]
    for number, line in enumerate(lines, start=1):
        try:
            json.loads(line)
        except json.JSONDecodeError as error:
            raise RunDirError(f"{path} is damaged in line {number}; delete that line.") from error
    return lines


def _write_bytes(path: Path, data: bytes) -> Path:
    with _disk_errors(path), _replacing(path) as file:
        file.write(data)
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A binary file that takes the place of `path` once it is complete on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunDirError(
            f"cannot write {path}: {_reason(error)}; "
            "free space on that disk, or choose a writable directory with run.dir=DIR."
        ) from error


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision(folder: Path) -> dict[str, Any]:
    """The git revision of the code, and whether it was changed since; nothing outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"git_revision": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _command() -> str:
    """The command line as one would type it again."""
    arguments = list(sys.orig_argv) or [sys.executable]
    arguments[0] = "python"
    return shlex.join(arguments)
