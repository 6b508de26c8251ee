"""Archives, tar and zip, read in memory: nothing is written to disk, and a name that leads out of them is refused."""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

from dsnn.data.split import DataError
from dsnn.store import untrusted

MAX_BYTES, MAX_MEMBERS = 1 << 33, 1_000_000
"""What all files of an archive may take, 8 GiB, and how many there may be."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error),
    *(EOFError, OSError, ValueError, OverflowError, RuntimeError, NotImplementedError),
)
"""What the standard library raises of bytes that make no sense."""


def members(
    place: Path, wanted: Callable[[str], bool] = lambda name: True, most: int = MAX_BYTES
) -> Iterator[tuple[str, bytes]]:
    """Yields the name and content of regular files, in the archive's order; links and devices are passed over.

    Args:
        place: a tar archive, compressed or not.
        wanted: says of a name whether its content is read.
        most: bytes that all files of the archive may take.

    Raises:
        DataError: a name is absolute or climbs to a parent folder, or the archive is damaged.
    """
    left = most
    try:
        with tarfile.open(place) as archive:
            for count, member in enumerate(archive):
                _check_name(member.name, place)
                left -= max(member.size, 0)
                if left < 0 or count > MAX_MEMBERS:
                    _too_much(place, most)
                if not member.isfile() or not wanted(member.name):
                    continue
                if (stream := archive.extractfile(member)) is not None:
                    yield member.name, stream.read()
    except DataError:
        raise
    except UNREADABLE as error:
        said = untrusted.one_line(error)
        raise DataError(f"{place} must be a whole tar archive, got one that does not unpack ({said}).") from error


def zipped(place: Path) -> tuple[str, ...]:
    """Returns the names of the files in a zip archive; links are passed over.

    Raises:
        DataError: a name is absolute or climbs to a parent folder, or this is no zip archive.
    """
    with _opened(place) as archive:
        return tuple(info.filename for info in _listed(archive, place))


def zip_members(place: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, bytes]]:
    """Yields the name and content of the files in a zip archive, in its order; links are passed over.

    Args:
        place: a zip archive.
        wanted: says of a name whether its content is read.

    Raises:
        DataError: a name is absolute or climbs to a parent folder, or the archive is damaged or encrypted.
    """
    with _opened(place) as archive:
        for info in _listed(archive, place):
            if wanted(info.filename):
                yield info.filename, _unpacked(archive, info, place)


def _opened(place: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(place)
    except UNREADABLE as error:
        said = untrusted.one_line(error)
        raise DataError(f"{place} must be a whole zip archive, got one that does not open ({said}).") from error


def _listed(archive: zipfile.ZipFile, place: Path) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    for info in infos:
        _check_name(info.filename, place)
    if sum(info.file_size for info in infos) > MAX_BYTES or len(infos) > MAX_MEMBERS:
        _too_much(place, MAX_BYTES)
    return [info for info in infos if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)]


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path) -> bytes:
    try:
        if info.compress_type not in METHODS:
            raise ValueError(f"it is packed by method {info.compress_type}, not deflate")
        with archive.open(info) as stream:
            content = stream.read(info.file_size)
            if stream.read(1):  # reads on to the checksum
                raise ValueError("it is longer than the archive says")
            return content
    except UNREADABLE as error:
        said = untrusted.one_line(error)
        raise DataError(f"{info.filename} in {place} cannot be unpacked ({said}); get the archive again.") from error


def _too_much(place: Path, most: int) -> NoReturn:
    raise DataError(f"{place} may unpack to {most} bytes in {MAX_MEMBERS} files, got more; do not use this file.")


def _check_name(name: str, place: Path) -> None:
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"names in an archive must stay inside it, got {name!r} in {place}; do not use this file.")
