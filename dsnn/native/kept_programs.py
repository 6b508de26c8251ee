"""The files in which JAX keeps compiled programs: damaged ones are removed, and the oldest when there are too many.

JAX reads an entry when it needs it, warns about one that it cannot unpack, compiles, and leaves the damaged file where
it is, so that every later process warns again. `repair` looks at the entries before JAX does. What it has seen whole is
noted in the folder with a digest, and is looked at again once it has changed or the machine has been started anew: a
loss of power leaves files of the right size and time with nothing in them.
"""

import importlib
import json
import os
import re
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dsnn.store.private_folder import digest, private

FOLDER = "dsnn-programs"
"""Name of the folder that is made in one that holds other things."""

NOTES = "dsnn-checked.json"
TAG = "CACHEDIR.TAG"  # backups leave a folder with it out, see bford.info/cachedir
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Programs that dsnn had compiled, which can be removed.\n"
ENTRY = re.compile(r".+-[0-9a-f]{64}-cache")
OURS = re.compile(rf"{ENTRY.pattern}|.+-[0-9a-f]{{64}}-atime|\.lockfile|xla_gpu_\w+|{re.escape(NOTES)}.*|{TAG}|private")
PAUSE_S = 0.1
MOST_S = 2.0
"""Time for looking at entries: thousands of them that no process has looked at yet are shared among several."""

PIECE = 2**20
ZSTD = b"\x28\xb5\x2f\xfd"
BOOT = Path("/proc/sys/kernel/random/boot_id")


Note = list[int | str]
"""Size, times of the last two changes, the start of the machine under which it was seen whole, and its digest."""


class Entry(NamedTuple):
    """A program's file."""

    path: Path
    size: int
    modified_ns: int
    changed_ns: int


def own_folder(chosen: Path) -> Path:
    """Returns a folder for programs alone that only this user can write to, and that says what it is.

    It is the chosen one where that is new or holds nothing but programs, else `FOLDER` in it.

    Raises:
        OSError: it cannot be made or written, or others could write to it.
    """
    if chosen.is_dir() and not _tagged(chosen) and any(not OURS.fullmatch(name) for name in os.listdir(chosen)):
        chosen = chosen / FOLDER
    folder = private(chosen)
    with tempfile.TemporaryFile(dir=folder):
        pass
    if not _tagged(folder):
        _write(folder / TAG, TAG_TEXT)
    return folder


def repair(folder: Path) -> int:
    """Removes programs that were damaged, and returns their number.

    It takes no longer than about `MOST_S`.

    Args:
        folder: of JAX's entries; what else lies there is left alone, and so is what vanishes meanwhile.
    """
    # a machine that does not say is one that was never seen
    boot = BOOT.read_text(encoding="utf-8").strip() if BOOT.exists() else uuid.uuid4().hex
    notes = _notes(folder)
    listed = list(entries(folder))
    seen = {entry.path.name: notes[entry.path.name] for entry in listed if entry.path.name in notes}
    fresh = [entry for entry in listed if seen.get(entry.path.name, [])[:4] != [*entry[1:], boot]]
    fresh.sort(key=lambda entry: entry.path.name not in seen)  # what has changed is looked at first
    until, doubtful = time.monotonic() + MOST_S, []
    for entry in fresh:
        if time.monotonic() > until:
            break  # the next process goes on
        name = entry.path.name
        found = _digest_of_whole(entry.path, seen.pop(name, None))
        if found is None:
            doubtful.append(entry)
        else:
            seen[name] = [*entry[1:], boot, found]
    if doubtful:
        time.sleep(PAUSE_S)  # JAX writes entries in place: another process may be at them
    damaged = sum(_unchanged(entry) and _removed(entry.path) for entry in doubtful)
    if seen != notes:
        _write(folder / NOTES, json.dumps(seen))
    return damaged


def prune(folder: Path, most_bytes: int) -> None:
    """Removes the oldest programs of a folder that has grown beyond its bound; JAX needs another library for that."""
    found = sorted(entries(folder), key=lambda entry: entry.modified_ns)
    excess = sum(entry.size for entry in found) - most_bytes
    for entry in found:
        if excess <= 0:
            return
        _removed(entry.path)
        excess -= entry.size


def entries(folder: Path) -> Iterator[Entry]:
    """Yields what JAX keeps in a folder: files with the names that it gives them."""
    with os.scandir(folder) as files:
        for file in files:
            if not ENTRY.fullmatch(file.name):
                continue
            try:
                if file.is_file(follow_symlinks=False):
                    status = file.stat(follow_symlinks=False)
                    yield Entry(Path(file.path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            except OSError:  # another process has removed it
                continue


def _digest_of_whole(path: Path, note: Note | None) -> str | None:
    """Returns the digest of an entry that has the digest it had, or that can be unpacked; None of a damaged one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    found = digest(data)
    return found if (note is not None and note[-1] == found) or _unpacks(data) else None


def _unpacks(data: bytes) -> bool:
    """Returns whether an entry is whole: what zlib packs ends with a checksum of it."""
    if data.startswith(ZSTD):
        return _unpacks_zstd(data)
    unpacked = zlib.decompressobj()
    try:
        while data and not unpacked.eof:
            unpacked.decompress(data, PIECE)
            data = unpacked.unconsumed_tail
    except zlib.error:
        return False
    return unpacked.eof and not unpacked.unused_data


def _unpacks_zstd(data: bytes) -> bool:
    """JAX packs with this where it is installed; who lacks it, reads none of these entries and lets them be."""
    for name in ("compression.zstd", "zstandard"):
        try:
            library = importlib.import_module(name)
        except ImportError:
            continue
        try:
            library.decompress(data)
        except library.ZstdError:
            return False
        return True
    return True


def _unchanged(entry: Entry) -> bool:
    try:
        status = entry.path.lstat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == entry[1:]


def _removed(path: Path) -> bool:
    """Returns whether an entry could be removed, with the time of its last use."""
    try:
        path.unlink()
        path.with_name(f"{path.name.removesuffix('cache')}atime").unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _tagged(folder: Path) -> bool:
    try:
        return (folder / TAG).read_text(encoding="utf-8") == TAG_TEXT
    except (OSError, ValueError):
        return False


def _notes(folder: Path) -> dict[str, Note]:
    """Returns what was noted of each entry, nothing if the notes cannot be read."""
    try:
        read = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        return {str(name): [*map(int, note[:3]), *map(str, note[3:])] for name, note in read.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
