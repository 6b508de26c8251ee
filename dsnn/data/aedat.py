"""Recordings of event cameras in AEDAT 2 and 3, read without running or following anything in them.

Both begin with lines of text: ``#!AER-DAT2.0``, further lines that begin with ``#``, and in AEDAT 3.1 ``#!END-HEADER``.

- AEDAT 2 (jAER) is then a list of an address and a time in microseconds, 32 bits each, the most significant byte first.
  Of a DVS128's address, bits 8 to 14 and 1 to 7 are the two coordinates, and bit 0 is the polarity.
- AEDAT 3 (cAER) is a list of packets of one kind of event each: a header of 28 bytes, then the events, the least
  significant byte first. A polarity event is 32 bits, x from bit 17, y from bit 2, polarity bit 1, whether it is valid
  bit 0, and 31 bits of time, whose overflows the header counts. Packets of other kinds are passed over.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import numpy as np

from dsnn.data.split import DataError

VERSION = re.compile(rb"#!AER-DAT(\d)\.\d+\s*")
END_OF_HEADER = b"#!END-HEADER"
MAX_HEADER = 1 << 20
"""Bytes of text before the events."""

PACKET = np.dtype(
    [
        ("kind", "<i2"),
        ("source", "<i2"),
        *((name, "<i4") for name in ("size", "time_at", "overflows", "capacity", "number", "valid")),
    ]
)
POLARITY = 1
VERSIONS = ("2", "3")
AGAIN = "the file is damaged or of another kind; get it again"


class Recording(NamedTuple):
    """Events in the order of the file, all arrays ``[event]``.

    Attributes:
        times: int64, microseconds of the camera's clock.
        x: int32.
        y: int32.
        polarity: int32, 0 or 1, as it is written.
    """

    times: np.ndarray
    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray


def read(content: bytes, where: str, side: int | None = None) -> Recording:
    """Returns the events of a file.

    Args:
        content: of the file.
        where: names it in a sentence.
        side: number of pixels along either axis that all events must lie on; None asks nothing.

    Raises:
        DataError: the header is none of AEDAT 2 or 3, the events are cut off, or one lies outside; with its byte.
    """
    version, start = _header(content, where)
    if version == "2":
        words = _words(content, start, len(content) - start, ">u4", where)
        address, times = words[:, 0], words[:, 1].astype(np.int64)
        found = _recording(times, address >> 8 & 0x7F, address >> 1 & 0x7F, address & 1)
        _check_side(found, side, start, where)
        return found
    packets = list(_packets(content, start, side, where))
    return Recording(*(np.concatenate(parts) for parts in zip(_recording(*[np.zeros(0)] * 4), *packets, strict=True)))


def _header(content: bytes, where: str) -> tuple[str, int]:
    """Returns the version, "2" or "3", and the byte after the text."""
    known = VERSION.match(content)
    if known is None or (version := known[1].decode()) not in VERSIONS:
        raise DataError(
            f"{where} must be an AEDAT recording, which begins with #!AER-DAT2.0 or #!AER-DAT3.1, got "
            f"{content[:16]!r} at byte 0; get the published file."
        )
    at = 0
    while content[at : at + 1] == b"#":
        end = content.find(b"\n", at, MAX_HEADER)
        if end < 0:
            _refuse(where, "lines of text that end", f"one that does not in the first {MAX_HEADER} bytes", at)
        line, at = content[at:end], end + 1
        if line.startswith(END_OF_HEADER):
            break
    return version, at


def _packets(content: bytes, at: int, side: int | None, where: str) -> Iterator[Recording]:
    """Yields the polarity events of every packet of AEDAT 3."""
    while at < len(content):
        if len(content) - at < PACKET.itemsize:
            _refuse(where, f"packets with headers of {PACKET.itemsize} bytes", f"{len(content) - at} bytes", at)
        head = np.frombuffer(content, PACKET, 1, at)[0]
        size, capacity, number, valid = (int(head[name]) for name in ("size", "capacity", "number", "valid"))
        if size < 0 or not 0 <= valid <= number <= capacity or head["overflows"] < 0:
            _refuse(where, "packets of valid <= number <= capacity events", f"{valid}, {number}, {capacity}", at)
        body, at = at + PACKET.itemsize, at + PACKET.itemsize + size * capacity
        if at > len(content):
            _refuse(where, f"the {size * capacity} bytes of a packet", f"{len(content) - body}", body)
        if head["kind"] != POLARITY:
            continue
        if size != 8 or head["time_at"] != 4:
            _refuse(where, "polarity events of 8 bytes", f"{size}", body)
        words = _words(content, body, 8 * number, "<u4", where)
        address, times = words[:, 0], words[:, 1].astype(np.int64) | int(head["overflows"]) << 31
        found = _recording(times, address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1)
        _check_side(found, side, body, where)
        if valid < number:  # writers that mark no event say that all of them are valid
            found = Recording(*(part[address & 1 == 1] for part in found))
        yield found


def _words(content: bytes, start: int, length: int, kind: str, where: str) -> np.ndarray:
    """Returns pairs of an address and a time."""
    if length % 8:
        _refuse(where, "events of 8 bytes", f"{length % 8} bytes after the last whole one", start + length // 8 * 8)
    return np.frombuffer(content, kind, length // 4, start).reshape(-1, 2).astype(np.uint32)


def _recording(times: np.ndarray, x: np.ndarray, y: np.ndarray, polarity: np.ndarray) -> Recording:
    return Recording(times.astype(np.int64), x.astype(np.int32), y.astype(np.int32), polarity.astype(np.int32))


def _check_side(found: Recording, side: int | None, start: int, where: str) -> None:
    if side is None:
        return
    outside = (found.x >= side) | (found.y >= side)
    if outside.any():
        first = int(outside.argmax())
        place = f"x = {found.x[first]}, y = {found.y[first]}"
        _refuse(where, f"events on {side} x {side} pixels", place, start + 8 * first)


def _refuse(where: str, rule: str, got: str, at: int) -> NoReturn:
    raise DataError(f"{where} must hold {rule}, got {got} at byte {at}; {AGAIN}.")
