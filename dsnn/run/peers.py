"""A run of many processes of which one dies: the others end with a sentence, the first of them with a checkpoint.

Its death is seen in two ways. Where what the processes tell each other breaks off, XLA raises an error. Where it hangs,
or the first process is gone, with which all keep in touch, JAX aborts the others: at once, or once the lost one has
been silent for the 100 s of `jax.distributed`. Python is not told of an abort, so that a handler of C is set.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

import jax

from dsnn.run.signals import Interrupted

Rescue = Callable[[], str]
"""Writes what can be kept, and returns in words what there is to go on from."""


class PeerLost(Interrupted):
    """Another process of the run is gone."""

    def __init__(self, kept: str):
        said = f"another process of this run is gone; {kept}, and the same command, in every process, goes on."
        super().__init__(said, signal.SIGHUP)


def heed() -> None:
    """Lets an abort of this process end it with a sentence; called once the processes have found each other."""
    with contextlib.suppress(OSError, AttributeError):  # no C library that can be asked
        ctypes.CDLL(None).signal(signal.SIGABRT, _AT_ABORT)


@contextlib.contextmanager
def watched(rescue: Rescue) -> Iterator[None]:
    """Within, the loss of another process raises `PeerLost`, or ends this one with its sentence.

    Args:
        rescue: called once when it happens.
    """
    if jax.process_count() == 1:
        yield
        return
    _rescues.append(rescue)
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # gathering wraps the former into the latter
        if not _is_loss(error):
            raise
        _rescues.clear()
        raise PeerLost(rescue()) from None
    finally:
        _rescues.clear()


def left(status: int) -> int:
    """Returns the exit status of this process, or ends it if others wait for it that would wait in vain.

    One of many that ends well waits for all others, as `jax.distributed` does; one that failed must not.
    """
    if status and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


_SIGNS = ("gloo", "connection", "nccl", "unavailable", "heartbeat", "coordination", "deadline", "peer")
_rescues: list[Rescue] = []


def _is_loss(error: BaseException) -> bool:
    said = str(error).lower()
    return any(sign in said for sign in _SIGNS)


def _aborted(number: int) -> None:
    """Says why the process ends, in the thread that ends it; whatever fails here must not keep it alive."""
    try:
        kept = _rescues.pop()() if _rescues else "its last checkpoint stands"
        lost = PeerLost(kept)
        os.write(2, f"JAX ends this process, as it said above. As a rule {lost}\n".encode())
        os._exit(lost.exit_code)
    except Exception as error:
        os.write(2, f"JAX ends this process, as it said above, and {error}\n".encode())
    finally:
        os._exit(1)


_AT_ABORT = ctypes.CFUNCTYPE(None, ctypes.c_int)(_aborted)
