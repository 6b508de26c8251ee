"""How `benchmark` times: workers in processes of their own that take turns at every repeat, and medians."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


def measure(
    actions: dict[str, Callable[[], Any]], repeats: int, warmups: int = 2, turn: Callable[[], Any] | None = None
) -> dict[str, dict[str, float]]:
    """Times actions in turn, so that a busy moment of the machine falls on all of them.

    Args:
        actions: functions that return when their work is done.
        repeats: timed calls of each.
        warmups: calls before.
        turn: called before every repeat; returns when it may begin.

    Returns:
        by name ``median_s``, the quartiles ``q1_s`` and ``q3_s``, the shortest ``min_s``, and ``n``; and ``cpu_s``, the
        median of the seconds that all threads of the process computed, which is what can be compared where other
        processes use the machine.
    """
    for _ in range(warmups):
        for action in actions.values():
            action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    computed: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        if turn is not None:
            turn()
        for name, action in actions.items():
            started, began = time.perf_counter(), time.process_time()
            action()
            seconds[name].append(time.perf_counter() - started)
            computed[name].append(time.process_time() - began)
    out = {}
    for name, values in seconds.items():
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive") if repeats > 1 else values * 3
        out[name] = {"median_s": median, "q1_s": q1, "q3_s": q3, "min_s": min(values), "n": repeats}
        out[name]["cpu_s"] = statistics.median(computed[name])
    return out


def first_call(action: Callable[[], Any]) -> float:
    """Returns the seconds of an action's first call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def peak_mb() -> float:
    """Returns the largest resident memory that this process ever had, in MB."""
    import resource  # absent on Windows, where only a worker would need it

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


READY = "ready"


def wait_for_turn() -> None:
    """Says in a worker that it is ready for a repeat, and waits until `take_turns` says that nobody else works."""
    print(READY, flush=True)
    sys.stdin.readline()


class Worker:
    """A process that measures one implementation.

    Args:
        command: to run.
        environment: of the process.
        timeout_s: seconds after which it is ended.
    """

    def __init__(self, command: list[str], environment: dict[str, str], timeout_s: float):
        self.record: dict[str, Any] | None = None
        self.timeout_s, self.late = timeout_s, False
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed when the record is there
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        try:
            self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        except OSError as error:
            self.record = {"error": f"could not start {command[0]}: {error.strerror}"}
            self.errors.close()
            return
        self.timer = threading.Timer(timeout_s, self._end)
        self.timer.daemon = True
        self.timer.start()

    def _end(self) -> None:
        self.late = True
        self.process.kill()

    def advance(self, go: bool = True) -> bool:
        """Lets the worker do its next repeat; returns whether it waits for another, else `record` is what it found."""
        if self.record is not None:
            return False
        last = ""
        stdin, stdout = self.process.stdin, self.process.stdout
        if go and stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it has ended; why is in its errors
                stdin.write("\n")
                stdin.flush()
        for line in stdout or ():
            if line.strip() == READY:
                return True
            last = line
        self.process.wait()
        self.timer.cancel()
        self.record = self._outcome(last)
        for stream in (stdin, stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        return False

    def _outcome(self, last: str) -> dict[str, Any]:
        if self.late:
            return {"error": f"took longer than {self.timeout_s:.0f} s"}
        if code := self.process.returncode:
            self.errors.seek(0)
            lines = [line.strip() for line in self.errors if line.strip()]
            return {"error": lines[-1] if lines else f"ended with code {code}"}
        return json.loads(last)


def child(command: list[str], environment: dict[str, str], timeout_s: float) -> dict[str, Any]:
    """Returns what a worker process printed as its last line, or ``{"error": why}``."""
    return take_turns([(command, environment)], timeout_s)[0]


def take_turns(commands: Sequence[tuple[list[str], dict[str, str]]], timeout_s: float) -> list[dict[str, Any]]:
    """Returns what each worker printed as its last line; no two of them work at the same time.

    Args:
        commands: and the environment of each.
        timeout_s: seconds after which a worker is ended, from its start to its last turn.
    """
    workers = []
    for command, environment in commands:
        workers.append(Worker(command, environment, timeout_s))
        workers[-1].advance(go=False)  # compiles, while those before it wait
    active = [worker for worker in workers if worker.record is None]
    while active:
        active = [worker for worker in active if worker.advance()]
    return [worker.record or {} for worker in workers]
