"""Processes that work through jobs; a job whose process dies is run again once, and no other job is touched.

A pool of the standard library, or joblib's, ends with the first of its processes that is killed, and takes along what
the others were doing. Here each process has a pipe of its own. A job stays in its process until it ends or the process
does, and no process outlives the one that started it, however that ended.
"""

import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NamedTuple

__all__ = ["ATTEMPTS", "Ended", "work", "work_through"]

ATTEMPTS = 2
"""Processes that a job may take with it."""

DIED = "its process ended {times} times without a word ({how}); run fewer at a time if memory is short"
"""What is said of a job whose processes all died."""

GRACE_S = 7.0
"""Seconds that jobs have to write their checkpoints once they are told to stop."""

LOOK_S = 0.2
"""Seconds between looks at what has become of jobs."""

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>
_START = "import sys; sys.path[:] = {path!r}; from dsnn.run import workers; workers.work({pipe}, {parent})"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Ended(NamedTuple):
    """How a job ended.

    Attributes:
        value: What it returned.
        trouble: Why it did not end well, in words; empty where it did.
    """

    value: Any = None
    trouble: str = ""


class _Worker:
    """A process, and the number of the job that it has; -1 for none."""

    def __init__(self, threads: int) -> None:
        self.pipe, theirs = Pipe()
        code = _START.format(path=sys.path, pipe=theirs.fileno(), parent=os.getpid())
        shares = {name: str(threads) for name in _THREADS if name not in os.environ}
        # A group of its own: Ctrl-C in a terminal reaches the starting process alone, which tells each of them once.
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], process_group=0, env={**os.environ, **shares}
        )
        theirs.close()
        self.job = -1

    def take(self, job: int, call: bytes) -> None:
        """Gives it a job; a process that is dead is found so by whoever waits for it."""
        self.job = job
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(call)

    def answer(self) -> Ended | None:
        """Returns how its job ended, or None if the process died of it."""
        with contextlib.suppress(EOFError, OSError):
            return Ended(*pickle.loads(self.pipe.recv_bytes()))
        return None

    def buried(self) -> str:
        """Ends the process, if it has not ended, and returns how it did."""
        self.pipe.close()
        try:
            status = self.process.wait(2 * LOOK_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def work_through(
    calls: Sequence[bytes], count: int, again: Callable[[int, str], None], threads: int = 1
) -> list[Ended]:
    """Runs jobs in processes of their own, several at a time, and returns how each of them ended.

    Args:
        calls: For each job a pickled function without arguments.
        count: How many run at a time, at least 1.
        again: Told of a job that is run again, by its number, and how its process ended.
        threads: What OMP_NUM_THREADS and its kin say there, where the environment is silent.

    Raises:
        Stopped: This process was told to stop; all the others have ended.
    """
    ended: dict[int, Ended] = {}
    waiting, deaths = deque(range(len(calls))), Counter[int]()
    workers: list[_Worker] = []
    with told_to_stop() as told:
        try:
            while len(ended) < len(calls) and not told:
                while waiting and sum(worker.job >= 0 for worker in workers) < count:
                    free = next((worker for worker in workers if worker.job < 0), None)
                    if free is None:
                        workers.append(free := _Worker(threads))
                    free.take(job := waiting.popleft(), calls[job])
                for worker in _ready(workers):
                    job, answer = worker.job, worker.answer()
                    worker.job = -1
                    if answer is not None:
                        ended[job] = answer
                        continue
                    workers.remove(worker)
                    how = worker.buried()
                    if job < 0:
                        continue
                    deaths[job] += 1
                    if deaths[job] < ATTEMPTS:
                        again(job, how)
                        waiting.appendleft(job)
                    else:
                        ended[job] = Ended(trouble=DIED.format(times=deaths[job], how=how))
        finally:
            _stop(workers, told)
    if told:
        raise Stopped(told[0])
    return [ended[job] for job in range(len(calls))]


class Stopped(RuntimeError):
    """Told to stop by a signal, whose number is the argument."""


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """Returns the workers that have something to say, or have died; waits for one a moment."""
    # What a dead process started may hold its end of the pipe open, so that the pipe alone does not tell.
    dead = [worker for worker in workers if worker.process.poll() is not None]
    spoke = wait([worker.pipe for worker in workers], 0 if dead else LOOK_S)
    return [worker for worker in workers if worker in dead or worker.pipe in spoke]


@contextlib.contextmanager
def told_to_stop() -> Iterator[list[int]]:
    """Gathers SIGINT and SIGTERM, in the order in which they come."""
    told: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda n, frame: told.append(n)) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(workers: Sequence[_Worker], told: list[int]) -> None:
    """Ends all workers: the idle ones at once, the others after a checkpoint, or once `told` has a second signal."""
    for worker in workers:
        if worker.job < 0:
            worker.pipe.close()
        else:
            worker.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while any(worker.process.poll() is None for worker in workers):
        if time.monotonic() > deadline or len(told) > 1:
            for worker in workers:
                worker.process.kill()
        time.sleep(0.02)


# --- In the process of a worker


def work(pipe: int, parent: int) -> None:
    """Runs the jobs that come through a pipe until it is closed, and ends with the process at its other end.

    Args:
        pipe: Number of the open pipe.
        parent: Number of the process that started this one.
    """
    _end_with(parent)
    os.set_inheritable(pipe, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    connection = Connection(pipe)
    # Told to stop: the run has written its checkpoint, and whoever started this process says the rest.
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            call = connection.recv_bytes()
            connection.send_bytes(_answer(call))


def _answer(call: bytes) -> bytes:
    try:
        return pickle.dumps(tuple(Ended(pickle.loads(call)())))
    except Exception as error:  # one job's fault is not the next one's
        return pickle.dumps(tuple(Ended(trouble=" ".join(str(error).split()) or type(error).__name__)))


def _end_with(parent: int) -> None:
    """Has this process killed once its parent has ended: by the kernel where it is Linux's, else within a second."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    threading.Thread(target=_watch, args=(parent,), name="dsnn-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)
