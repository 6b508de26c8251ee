"""The records of W&B's own file of a run, as far as it was written: a killed run leaves it cut anywhere, or empty."""

import struct
from collections.abc import Iterator
from pathlib import Path

from dsnn.store import untrusted

__all__ = ["records"]

# LevelDB's log format: blocks of 32 KiB, pieces of records behind a checksum, a length and a kind.
_BLOCK, _HEAD, _FILE_HEAD = 32768, 7, 7
_FULL, _FIRST, _LAST = 1, 2, 4
_MOST = 1 << 31


def records(path: Path) -> Iterator[bytes]:
    """Yields what was written whole of a ``.wandb`` file, record by record; nothing where it cannot be read."""
    try:
        content = untrusted.content(path, _MOST)
    except (untrusted.UntrustedError, OSError):
        return
    yield from _records(content)


def _records(content: bytes) -> Iterator[bytes]:
    partial, at = b"", _FILE_HEAD
    while at + _HEAD <= len(content):
        if _BLOCK - at % _BLOCK < _HEAD:  # the rest of a block is too short for a head
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        piece = content[at + _HEAD : at + _HEAD + length]
        if len(piece) < length or not _FULL <= kind <= _LAST:
            return
        partial = piece if kind in (_FULL, _FIRST) else partial + piece
        at += _HEAD + length
        if kind in (_FULL, _LAST):
            yield partial
