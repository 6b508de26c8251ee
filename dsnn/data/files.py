"""Published files: found in a folder or downloaded, and never used before their digest is the published one."""

import hashlib
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from dsnn.data.split import DataError

TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18


class File(NamedTuple):
    """A published file.

    Attributes:
        name: the name it is published, and kept, under.
        digests: every sha256 that is accepted (sets that were repacked have more than one); md5, told by its length,
            only where the publisher gives nothing better.
        addresses: where it is downloaded from, the official one first.
        others: names under which the same content, packed otherwise, may already lie in the folder.
        page: where a person finds it when there is no address.
    """

    name: str
    digests: tuple[str, ...]
    addresses: tuple[str, ...]
    others: tuple[str, ...] = ()
    page: str = "its publisher"


def default_root() -> Path:
    """Returns the folder that ``DSNN_DATA`` names, else the user's cache folder for dsnn."""
    if named := os.environ.get("DSNN_DATA"):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "dsnn"


def locate(root: Path, folder: str, file: File) -> Path:
    """Returns the path of a verified file, downloading it when it is missing; a file that is there is never replaced.

    Args:
        root: the data folder; the file belongs at ``root/folder/<name>``.
        folder: the name of the data set.
        file: what is wanted.

    Raises:
        DataError: the file is corrupted, or missing and cannot be had.
    """
    for name in (file.name, *file.others):
        place = root / folder / name
        if place.exists():
            return _verified(place, file)
    return _download(root / folder / file.name, file)


def _verified(place: Path, file: File) -> Path:
    try:
        found = _digest(place, file)
    except OSError as error:
        raise DataError(f"{place} cannot be read ({error.strerror}); check that it is a readable file.") from error
    if found not in file.digests:
        again = f"run again to download it from {_addresses(file)}" if file.addresses else f"get it from {file.page}"
        raise DataError(
            f"{place} is corrupted: expected {_kind(file)} {' or '.join(file.digests)}, found {found}; "
            f"delete it and {again}."
        )
    return place


def _kind(file: File) -> str:
    return "md5" if len(file.digests[0]) == 32 else "sha256"


def _digest(place: Path, file: File) -> str:
    with open(place, "rb") as stream:
        return hashlib.file_digest(stream, _kind(file)).hexdigest()


def _addresses(file: File) -> str:
    return " or ".join(file.addresses) or file.page


def _download(place: Path, file: File) -> Path:
    reasons = []
    for address in file.addresses:
        try:
            with _unfinished(place) as part:
                _fetch(address, part, file.name)
                found = _digest(part, file)
                if found in file.digests:
                    os.replace(part, place)
                    return place
            reasons.append(f"the file served has {_kind(file)} {found}, expected {' or '.join(file.digests)}")
        except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors; a malformed address a ValueError
            reasons.append(str(getattr(error, "reason", None) or error))
    tried = f"could not be downloaded from {_addresses(file)} ({'; '.join(reasons)})"
    raise DataError(
        f"{file.name} is missing and {tried if file.addresses else f'must be had from {file.page}'}; "
        f"put it at {place}, or let DSNN_DATA name the folder that holds {place.parent.name}/{file.name}."
    )


@contextmanager
def _unfinished(place: Path) -> Iterator[Path]:
    """Yields a fresh file beside ``place``, gone again on leaving unless it was moved away."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _fetch(address: str, part: Path, label: str) -> None:
    request = urllib.request.Request(address, headers={"User-Agent": "dsnn"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response, open(part, "wb") as out:
        if not sys.stderr.isatty():
            shutil.copyfileobj(response, out, CHUNK_BYTES)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True) as progress:
            length = response.headers.get("Content-Length")
            task = progress.add_task(label, total=int(length) if length else None)
            while chunk := response.read(CHUNK_BYTES):
                out.write(chunk)
                progress.advance(task, len(chunk))
