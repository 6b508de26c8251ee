"""What a run directory is: whose, who works in it, how far it got, and whether it is whole.

A directory is *absent* (nothing there), *foreign* (what it holds no run wrote), *claimed* by the ``config.yaml`` and
``identity.json`` of a run that has not ended, *working* while a process holds its lock, *done* once ``DONE`` lists the
sha256 of its other files, and *damaged* where a file is not what ``DONE`` says. Every command asks
here, in one file: states, lock, seal and refusals ask each other.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dsnn.store import untrusted
from dsnn.store.files import (
    HISTORY,
    RunDirError,
    disk_errors,
    read_config,
    read_json,
    sweep_temporaries,
    write_config,
    write_text,
)
from dsnn.store.naming import ELSEWHERE, flat_config

__all__ = [
    "DONE",
    "FAILED",
    "IDENTITY",
    "Claim",
    "Kind",
    "State",
    "claim",
    "held",
    "is_done",
    "lock",
    "mark_done",
    "pictures_whole",
    "read_reads",
    "reseal",
    "state",
    "whole",
]

DONE, FAILED, IDENTITY, LOCK = "DONE", "FAILED", "identity.json", ".lock"
PICTURES = ("report.html", "figures")
"""What is drawn from the other files, and can be drawn again."""

FILES = frozenset(
    {
        *(DONE, FAILED, IDENTITY, LOCK, HISTORY, "ENDED", "config.yaml", "environment.json", "metrics.json"),
        *("parameters.npz", "gates.npz", "records.npz", "selected.npz", "deep.npz", "report.html"),
    }
)
OWN = FILES | {"checkpoints", "figures", "baselines", "wandb", "tensorboard", ".hydra", ".submitit"}
"""Everything that a run writes into its directory, and what of it is a file."""

ADDED: dict[str, Any] = {"task": "auto", "task_options": {}, "data.view": "steps"}
"""Options that a run of an earlier version cannot name, and what they were."""

FORMAT = 1
MAX_DONE = 1 << 24

Kind = Literal["absent", "foreign", "claimed", "working", "done", "damaged"]
Claim = Literal["fresh", "interrupted", "done"]


class State(NamedTuple):
    """What a directory is, and where it is foreign or damaged one sentence that says by what."""

    kind: Kind
    said: str = ""


# --- Asking


def state(directory: str | Path) -> State:
    """Returns what a directory is; nothing is written, and nobody waits.

    A directory that another process works in is *working*, whatever it holds.
    """
    directory = Path(directory)
    if not directory.exists():
        return State("absent")
    if not directory.is_dir():
        return State("foreign", f"{directory} must be a directory, got a file; choose another one.")
    if _locked(directory):
        return State("working")
    if not (directory / "config.yaml").exists() and not (directory / DONE).exists():
        strange = _strangers(directory)
        return State("foreign", _not_ours(directory, strange)) if strange else State("absent")
    if (directory / DONE).exists():
        damaged = _damage(directory)
        return State("damaged", _broken(directory, damaged)) if damaged else State("done")
    return State("claimed")


def is_done(directory: str | Path) -> bool:
    """Returns whether the run in a directory finished, and is whole."""
    directory = Path(directory)
    return (directory / DONE).is_file() and not _damage(directory)


def pictures_whole(directory: str | Path) -> bool:
    """Returns whether the report and the figures of a finished run are those that were drawn last."""
    directory = Path(directory)
    digests = untrusted.json_object(directory / DONE, MAX_DONE)["sha256"]
    drawn = {name: digest for name, digest in digests.items() if _is_picture(name)}
    return all((directory / name).is_file() and _digest(directory / name) == drawn[name] for name in drawn)


def whole(directory: str | Path) -> Path:
    """Returns the directory of a finished run whose files are those that the run wrote.

    Raises:
        RunDirError: no such run, one that has not finished, or a damaged one.
    """
    directory = Path(directory)
    if not (directory / "config.yaml").exists() and not (directory / DONE).exists():
        raise RunDirError(f"{directory / 'config.yaml'} is missing; name the directory of a run that wrote it.")
    if not (directory / DONE).exists():
        raise RunDirError(f"the run must be finished, {directory} is not; the command that began it goes on.")
    if damaged := _damage(directory):
        raise RunDirError(_broken(directory, damaged))
    return directory


def read_reads(directory: str | Path) -> dict[str, str]:
    """Returns what the run of a directory read beside its configuration, a digest of each by name.

    Raises:
        RunDirError: ``identity.json`` is missing or damaged.
    """
    path = Path(directory) / IDENTITY
    read = read_json(directory, IDENTITY).get("reads")
    if not isinstance(read, dict) or not all(isinstance(digest, str) for digest in read.values()):
        raise RunDirError(
            f"{path} is missing or damaged, so nobody knows which data the run has read; restore the file, or set the "
            "directory aside with resume=false."
        )
    return read


# --- Owning


@contextmanager
def held(
    directory: str | Path,
    config: Mapping[str, Any],
    reads: Mapping[str, str] | None = None,
    *,
    resume: bool = True,
    wait: bool = False,
    exclude: Collection[str] = ELSEWHERE,
) -> Iterator[Claim]:
    """Holds a directory for the run of a configuration, and yields how far that run got in it.

    The lock is taken before anything is written, moved or removed. A finished run is not locked.

    Args:
        directory: The run directory.
        config: The run's resolved configuration.
        reads: What the run reads beside it, a digest of each by name.
        resume: False sets what is there aside, under the next free name, and begins anew.
        wait: Waits for another process that works in the directory, instead of refusing.
        exclude: Keys of the configuration that may differ.

    Raises:
        RunDirError: The directory is another run's, is in use, holds what no run wrote, or cannot be written.
    """
    directory = Path(directory)
    _refuse_folders(directory)
    if resume and (directory / DONE).exists() and claim(directory, config, reads, exclude) == "done":
        yield "done"
        return
    _refuse_foreign(directory)
    with ExitStack() as locks:
        locks.enter_context(lock(directory, wait=wait))
        sweep_temporaries(directory)
        if not resume and (strange := [path for path in directory.iterdir() if path.name != LOCK]):
            _set_aside(directory, strange)
            locks.enter_context(lock(directory))
        yield claim(directory, config, reads, exclude)


def claim(
    directory: str | Path,
    config: Mapping[str, Any],
    reads: Mapping[str, str] | None = None,
    exclude: Collection[str] = ELSEWHERE,
) -> Claim:
    """How far the run of `config` got in `directory`: "fresh" (just claimed), "interrupted" or "done".

    A fresh directory receives ``identity.json`` and ``config.yaml``, which are the claim. A finished run of which a
    file is damaged is an interrupted one again: what is damaged is made anew.

    Raises:
        RunDirError: The directory belongs to another run, holds what no run wrote, or cannot be written.
    """
    directory = Path(directory)
    _refuse_folders(directory)
    if not (directory / "config.yaml").exists():
        _refuse_foreign(directory)
        if (directory / DONE).exists():
            (directory / DONE).unlink()
        write_text(directory, IDENTITY, json.dumps({"format": FORMAT, "reads": dict(reads or {})}, indent=1) + "\n")
        write_config(directory, config)
        return "fresh"
    _refuse_others(directory, config, reads, exclude)
    if not (directory / DONE).exists():
        return "interrupted"
    damaged = _damage(directory)
    if not damaged:
        return "done"
    print(f"{_broken(directory, damaged)} It is made anew.", file=sys.stderr)
    (directory / DONE).unlink()
    return "interrupted"


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
    with disk_errors(directory / LOCK):
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / LOCK).open("a+", encoding="utf-8", errors="replace")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            said = file.read(32).strip()
            holder = said if said.isdecimal() else "unknown"
            if not wait:
                raise RunDirError(
                    f"{directory} is in use by process {holder}; "
                    "wait for it to end, or choose another directory with run.dir=DIR."
                ) from None
            print(f"{directory} is in use by process {holder}; waiting for it to end.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        with disk_errors(directory / LOCK):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _locked(directory: Path) -> bool:
    """Returns whether some process, this one included, holds the lock."""
    try:
        with (directory / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN)
    return False


# --- Sealing


def mark_done(directory: str | Path) -> None:
    """Writes ``DONE`` with the sha256 of every other file of the run; the last thing a run does."""
    directory = Path(directory)
    digests = {name: _digest(directory / name) for name in _sealed(directory)}
    write_text(directory, DONE, json.dumps({"format": FORMAT, "sha256": digests}, indent=1, sort_keys=True) + "\n")


def reseal(directory: str | Path) -> None:
    """Notes the digests of pictures that were drawn anew, if the run is done and whole."""
    if is_done(directory):
        mark_done(directory)


def _sealed(directory: Path, *, pictures: bool = True) -> list[str]:
    """Returns the names of the files that DONE lists: what the run wrote once, and what was drawn of it."""
    files = [directory / name for name in sorted(OWN - {DONE, FAILED, LOCK, *PICTURES})]
    if pictures:
        files += [directory / "report.html", *sorted((directory / "figures").rglob("*"))]
    return [path.relative_to(directory).as_posix() for path in files if path.is_file()]


def _is_picture(name: str) -> bool:
    return name.split("/")[0] in PICTURES and ".." not in name.split("/")


def _digest(path: Path) -> str:
    with disk_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(directory: Path) -> str:
    """Returns what is wrong with the results of a finished run, nothing where they are whole."""
    try:
        said = untrusted.json_object(directory / DONE, MAX_DONE)
    except (untrusted.UntrustedError, FileNotFoundError):
        return f"{DONE} lists no digests"
    digests = said.get("sha256")
    if said.get("format") != FORMAT or not isinstance(digests, dict) or "config.yaml" not in digests:
        return f"{DONE} lists no digests"
    for name, digest in sorted(digests.items()):
        if _is_picture(name):
            continue
        path = directory / name
        if name not in OWN:
            return f"{DONE} lists {name}, which no run writes"
        if not path.is_file():
            return f"{name} is missing"
        try:
            if _digest(path) != digest:
                return f"{name} is not what the run wrote"
        except RunDirError:
            return f"{name} cannot be read"
    if added := sorted(set(_sealed(directory, pictures=False)) - digests.keys()):
        return f"{added[0]} was not written by the run"
    return ""


# --- Words and moves


def _broken(directory: Path, damaged: str) -> str:
    return (
        f"{directory} is damaged: {damaged}; the command that made it makes it anew, "
        "and resume=false sets it aside and begins again."
    )


def _refuse_others(
    directory: Path, config: Mapping[str, Any], reads: Mapping[str, str] | None, exclude: Collection[str]
) -> None:
    """Raises if a directory's claim is that of another run."""
    theirs, ours = flat_config(read_config(directory), exclude), flat_config(config, exclude)
    keys = sorted(theirs.keys() | ours.keys())
    late = {key for key, value in ADDED.items() if key not in theirs and ours.get(key) == value}
    if differing := [key for key in keys if key not in late and _said(theirs, key) != _said(ours, key)]:
        if len(differing) > 1 and all(key not in theirs for key in differing):
            raise RunDirError(
                f"{directory / 'config.yaml'} is damaged: it ends before {differing[0]} and {len(differing) - 1} "
                "more; restore the file, or set the directory aside with resume=false."
            )
        shown = ", ".join(f"{key} ({_said(theirs, key)} there, {_said(ours, key)} now)" for key in differing[:6])
        more = f" and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise RunDirError(
            f"{directory} belongs to a run with another configuration; it differs in {shown}{more}. "
            "Choose another directory with run.dir=DIR, or leave run.dir out to have it named by its configuration."
        )
    if reads is None:
        return
    read = read_reads(directory)
    if changed := sorted(name for name in read.keys() | reads.keys() if read.get(name) != reads.get(name)):
        raise RunDirError(
            f"{directory} belongs to a run that read something else: {', '.join(changed)} changed since, which makes "
            "another run; choose another directory with run.dir=DIR, leave run.dir out to have it named by what it "
            "reads, or set this one aside with resume=false."
        )


def _said(leaves: Mapping[str, Any], key: str) -> str:
    return json.dumps(leaves[key], ensure_ascii=False) if key in leaves else "absent"


def _strangers(directory: Path) -> list[str]:
    """Returns the names in a directory that no run writes."""
    return sorted(
        path.name for path in directory.iterdir() if path.name not in OWN and not path.name.endswith((".log", ".tmp"))
    )


def _refuse_foreign(directory: Path) -> None:
    """Raises if a directory holds what no run wrote, and no run has claimed it."""
    if directory.exists() and not directory.is_dir():
        raise RunDirError(f"{directory} must be a directory, got a file; choose another one with run.dir=DIR.")
    if directory.is_dir() and not (directory / "config.yaml").exists() and (strange := _strangers(directory)):
        raise RunDirError(_not_ours(directory, strange))


def _refuse_folders(directory: Path) -> None:
    """Raises if a folder lies where a run writes a file: no run made it, and none may remove it."""
    if folders := sorted(name for name in FILES if (directory / name).is_dir()):
        raise RunDirError(
            f"{directory / folders[0]} must be a file, got a folder, which no run wrote; take it elsewhere, or choose "
            "another directory with run.dir=DIR."
        )


def _not_ours(directory: Path, strange: list[str]) -> str:
    return (
        f"{directory} is not a run directory: it has no config.yaml and holds {', '.join(strange[:4])}"
        f"{' and more' if len(strange) > 4 else ''}; choose an empty or new directory with run.dir=DIR."
    )


def _set_aside(directory: Path, present: list[Path]) -> None:
    """Renames a directory, whose lock the caller holds, to the next free name; nothing that a run made is lost."""
    here = directory.resolve()
    if here == Path.cwd().resolve() or here in Path.cwd().resolve().parents:
        raise RunDirError(f"{directory} holds the current folder and stays; choose another directory with run.dir=DIR.")
    if strange := _strangers(directory):
        raise RunDirError(
            f"{directory} also holds {', '.join(strange[:4])}{' and more' if len(strange) > 4 else ''}, which no run "
            "wrote and none moves; take it elsewhere, or choose another directory with run.dir=DIR."
        )
    number = 1
    while (target := here.with_name(f"{here.name}.{number}")).exists():
        number += 1
    with disk_errors(target):
        shutil.move(here, target)
    print(f"the earlier {directory} is now {directory.with_name(target.name)}", file=sys.stderr)
