"""What W&B's own file of a run says, as far as it was written: a killed run leaves it cut anywhere, or empty."""

import importlib
import struct
from collections.abc import Iterator
from pathlib import Path

from dsnn import untrusted

__all__ = ["logged_steps"]

# LevelDB's log format: blocks of 32 KiB, pieces of records behind a checksum, a length and a kind.
_BLOCK, _HEAD, _FILE_HEAD = 32768, 7, 7
_FULL, _FIRST, _LAST = 1, 2, 4
_MOST = 1 << 31


def logged_steps(path: Path) -> set[int]:
    """Returns the steps at which a ``.wandb`` file holds history; none where it cannot be read."""
    # An optional library, whose messages are made while it is imported
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    unreadable = importlib.import_module("google.protobuf.message").DecodeError
    steps = set()
    try:
        for content in _records(untrusted.content(path, _MOST)):
            record = messages.Record.FromString(content)
            if record.HasField("history"):
                steps.add(int(record.history.step.num))
    except (untrusted.UntrustedError, OSError, unreadable):  # what was read so far was written
        pass
    return steps


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
