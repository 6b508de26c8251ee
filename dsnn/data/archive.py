"""Tar archives read in memory: nothing is written to disk, and a name that would leave the folder is refused."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from dsnn.data.split import DataError
from dsnn.store import untrusted

MAX_BYTES, MAX_MEMBERS = 1 << 33, 1_000_000
"""What all files of an archive may take, 8 GiB, and how many there may be."""


def members(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yields the name and content of every regular file, in the archive's order; links and devices are passed over.

    Args:
        place: a tar archive, compressed or not.

    Raises:
        DataError: a name is absolute or climbs to a parent folder, or the archive is damaged.
    """
    left = MAX_BYTES
    try:
        with tarfile.open(place) as archive:
            for count, member in enumerate(archive):
                _check_name(member.name, place)
                left -= max(member.size, 0)
                if left < 0 or count > MAX_MEMBERS:
                    raise DataError(
                        f"{place} may unpack to {MAX_BYTES} bytes in {MAX_MEMBERS} files, got more; do not use "
                        "this file."
                    )
                if member.isfile() and (stream := archive.extractfile(member)) is not None:
                    yield member.name, stream.read()
    except DataError:
        raise
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError) as error:
        said = untrusted.one_line(error)
        raise DataError(f"{place} must be a whole tar archive, got one that does not unpack ({said}).") from error


def _check_name(name: str, place: Path) -> None:
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"names in an archive must stay inside it, got {name!r} in {place}; do not use this file.")
