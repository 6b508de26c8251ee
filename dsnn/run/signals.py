"""Signals, from the first line of a command on: none that asks a run to stop is lost.

Python raises KeyboardInterrupt wherever it stands, and where that is a callback of the garbage collector the exception
is printed and forgotten. So what was asked is noted as well, and `heed` asks for it between the parts of a run.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_asked: list[int] = []


class Interrupted(RuntimeError):
    """A run that was told to stop; its checkpoint is written."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message, signal_number)  # both, so that it can be sent to another process
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def heard() -> Iterator[None]:
    """Notes every SIGINT of a command, beside raising KeyboardInterrupt."""
    try:
        before = signal.signal(signal.SIGINT, _told)
    except ValueError:  # not the main thread, which alone is told
        yield
        return
    try:
        yield
    finally:
        _asked.clear()
        signal.signal(signal.SIGINT, before)


def heed() -> None:
    """Raises KeyboardInterrupt if a SIGINT was noted whose own exception went nowhere."""
    if _asked:
        raise KeyboardInterrupt


@contextmanager
def after_this_epoch(say: Callable[[str], None]) -> Iterator[list[int]]:
    """Turns SIGINT, SIGTERM and a launcher's SIGUSR2 into a request that the loop reads at the end of an epoch.

    Args:
        say: is told a sentence for the user.

    Yields:
        The signals that came, none so far; one more than the first raises KeyboardInterrupt.
    """
    heed()
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            _asked.append(number)
            raise KeyboardInterrupt
        asked.append(number)
        say("stopping after this epoch; once more stops at once")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if callable(signal.getsignal(signal.SIGUSR2)):  # a launcher listens, and is told once the checkpoint is written
        numbers = [signal.SIGINT, signal.SIGUSR2]
    old = {}
    try:
        for number in numbers:
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: a launcher's worker, which is stopped by its launcher
        pass
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _told(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise KeyboardInterrupt
