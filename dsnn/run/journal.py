"""The file of a search's study, an Optuna journal that survives what a full disk or a power cut does to its end.

Optuna reads past a torn last line, and the next line is then written onto it: from there on the journal cannot be read.
Here a torn end is put aside before anything is added, and an entry that could not be written whole is taken back.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from dsnn.run.console import console

__all__ = ["Journal"]

Entry = dict[str, Any]


class Journal(BaseJournalBackend):
    """A journal in a file, which any number of processes add to."""

    def __init__(self, path: Path) -> None:
        """Opens the journal, begun if there is none, without what is damaged at its end.

        Raises:
            ValueError: It is damaged before entries that are whole.
        """
        self._path, self._lock = path, JournalFileOpenLock(str(path))
        self._file = JournalFileBackend(str(path), self._lock)
        with self._locked():
            _mend(path)

    def read_logs(self, log_number_from: int) -> Iterator[Entry]:
        """Returns the entries from a number on."""
        return self._file.read_logs(log_number_from)

    def append_logs(self, logs: list[Entry]) -> None:
        """Adds entries, all of them or none."""
        added = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs).encode()
        with self._locked():
            if _torn(self._path):
                _mend(self._path)
            with self._path.open("ab", buffering=0) as file:
                size = file.tell()
                try:
                    _write(file.fileno(), added)
                except OSError as error:
                    os.ftruncate(file.fileno(), size)
                    raise OSError(error.errno, error.strerror, str(self._path)) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


class _Replayed(BaseJournalBackend):
    """Lines of a journal as Optuna reads them; counts those that it could make sense of."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines, self.read = lines, 0

    def read_logs(self, log_number_from: int) -> Iterator[Entry]:
        for line in self._lines:
            yield json.loads(line)
            self.read += 1  # reached once the entry has been taken in

    def append_logs(self, logs: list[Entry]) -> None:
        raise NotImplementedError("a journal that is only read takes no entries.")


def _torn(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read(1) != b"\n"


def _mend(path: Path) -> None:
    """Puts the damaged end of a journal aside, and says so.

    Raises:
        ValueError: Entries that are whole come after the damage, and would mean something else without it.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    whole = _whole(lines[:-1] if not lines[-1] else lines)
    kept = b"".join(line + b"\n" for line in lines[:whole])
    if len(kept) == len(content) + 1:  # only the end of the last line is gone
        with path.open("ab") as file:
            file.write(b"\n")
        return
    if kept == content:
        return
    if any(_is_entry(line) for line in lines[whole + 1 :]):
        raise ValueError(
            f"{path} must hold one entry a line, got damage in line {whole + 1} of {len(lines) - 1} before entries "
            f"that are whole; put back a copy of it, cut it to its first {whole} lines to lose what came after, or "
            "begin anew with root=DIR."
        )
    aside = _free(path.with_name(f"{path.name}.damaged"))
    with aside.open("xb") as file:
        _write(file.fileno(), content[len(kept) :])
    os.truncate(path, len(kept))
    console.print(
        f"the end of {path} is damaged: {len(content) - len(kept)} bytes are put aside in {aside.name}, and the search "
        f"goes on from the {whole} entries before them.",
        markup=False,
    )


def _whole(lines: list[bytes]) -> int:
    """Returns how many lines can be read from the first one on."""
    replayed = _Replayed(lines)
    with contextlib.suppress(Exception):  # what Optuna raises at an entry of a wrong shape depends on the shape
        JournalStorage(replayed)
    return replayed.read


def _is_entry(line: bytes) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        entry = json.loads(line)
        return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()
    return False


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        free, number = path.with_name(f"{path.name}.{number}"), number + 1
    return free


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
    os.fsync(file)
