"""Tar archives read in memory: nothing is written to disk, and a name that would leave the folder is refused."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from dsnn.data.split import DataError


def members(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and content of every regular file, in the archive's order; links and devices are passed over.

    Args:
        place: a tar archive, compressed or not.

    Raises:
        DataError: a name is absolute or climbs to a parent folder, or the archive is damaged.
    """
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                _check_name(member.name, place)
                if member.isfile() and (stream := archive.extractfile(member)) is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{place} must be a whole tar archive, got one that does not unpack ({error}).") from error


def _check_name(name: str, place: Path) -> None:
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"names in an archive must stay inside it, got {name!r} in {place}; do not use this file.")
