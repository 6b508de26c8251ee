"""Memory that is freed stays with the process, on CPUs: fresh pages cost more than the arithmetic done in them."""

import ctypes
import platform

__all__ = ["keep_memory"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD, _ARENA_MAX = -3, -1, -2, -8  # of malloc.h
_LARGEST = 2**31 - 1
_STEP = 2**26


def keep_memory() -> bool:
    """Tells the C library to reuse freed memory instead of giving it back; returns whether it listens (glibc does).

    A compiled program asks for its buffers at every call, and by default glibc returns large ones to the system, which
    then fills fresh pages with zeros at the next call. On a virtual machine that took more than half of a training step
    of a small recurrent network. The process keeps as much memory as it ever held at once. Call it before other threads
    allocate; it changes nothing but time and holds for the whole process.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    given = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP), (_ARENA_MAX, 1))
    answers = [library.mallopt(name, value) for name, value in given]
    return all(answer == 1 for answer in answers)
