"""The record of a sweep: which jobs it has, how each ended, and whether the whole is done.

A sweep is named by its overrides, so the same command goes on with the same record and the same W&B group. A command
adds a line when it begins, and each of its jobs one when it starts and one when it ends. What stands in the record is
what the last command said of each of its runs, so a command that was corrected does not count the mistaken one's jobs.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsnn.store import untrusted

ELSEWHERE = ("run", "track", "compute", "resume", "data.root")  # may change when a sweep goes on
_TEXTS = ("overrides", "dir", "status")
LOST = "failed: its process ended without a word (killed, or out of memory)"


def record_file(root: Path, arguments: Iterable[str]) -> Path:
    """Returns where the sweep of a command line is recorded, ``<root>/sweeps/<name>.jsonl``."""
    told = (a for a in arguments if not a.startswith(("-", "hydra")))
    told = (a for a in told if not any(f"{a.split('=')[0]}.".startswith(f"{name}.") for name in ELSEWHERE))
    words = sorted(told)
    experiment = next((w.split("=", 1)[1] for w in words if w.startswith("experiment=")), "sweep")
    name = experiment.replace(",", "+")[:40]
    return root / "sweeps" / f"{name}-{hashlib.sha256(' '.join(words).encode()).hexdigest()[:8]}.jsonl"


def begin(record: Path) -> str:
    """Adds the line of a command that begins, and returns the name by which its jobs call it."""
    record.parent.mkdir(parents=True, exist_ok=True)
    command = secrets.token_hex(4)
    add(record, {"command": command, "begins": True})
    return command


def add(record: Path, entry: Mapping[str, Any]) -> None:
    """Adds a line; one write, so that the lines of parallel jobs do not mix, and none is joined to a torn one.

    Raises:
        OSError: The disk does not take it; the error names the record.
    """
    file = os.open(record, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(file).st_size
        torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
        line = b"\n" * torn + (json.dumps(entry) + "\n").encode()
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(record)) from None
    finally:
        os.close(file)


def fail(record: Path, command: str, number: int, overrides: str, reason: str) -> None:
    """Adds the line of a job that could not say itself why it failed."""
    known = [one for one in _read(record)[0] if one.get("command") == command and one.get("job") == number]
    entry = known[-1] if known else {"command": command, "job": number, "dir": "", "overrides": overrides}
    add(record, {**entry, "status": f"failed: {reason}"})


def jobs(record: Path, command: str = "") -> list[dict[str, Any]]:
    """Returns the last entry of each run of a command, in the order in which they first started.

    Args:
        record: The sweep's record.
        command: Its name; the last that began, by default.
    """
    entries, begun, _ = _read(record)
    command = command or (begun[-1] if begun else "")
    last: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if entry.get("command", "") == command:
            last[entry["dir"] or entry["overrides"]] = entry
    return [job | {"status": LOST} if job["status"] == "running" else job for job in last.values()]


def damaged(record: Path) -> int:
    """Returns how many lines of the record cannot be read, torn ones and those that are no entries; all else counts."""
    return _read(record)[2]


def _read(record: Path) -> tuple[list[dict[str, Any]], list[str], int]:
    """Returns the entries of jobs, the commands that began, and the number of lines that are neither."""
    entries, begun, lost = list[dict[str, Any]](), list[str](), 0
    lines = record.read_bytes().split(b"\n") if record.exists() else []
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = untrusted.parsed_json(line.decode(), record.name)
        except (untrusted.UntrustedError, UnicodeDecodeError):
            lost += 1
            continue
        if isinstance(entry, dict) and entry.get("begins") is True and isinstance(entry.get("command"), str):
            begun.append(entry["command"])
        elif isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in _TEXTS):
            metrics = entry.get("metrics")
            numbers = metrics if isinstance(metrics, dict) else {}
            entries.append(entry | {"metrics": {name: value for name, value in numbers.items() if _is_plain(value)}})
        else:
            lost += 1
    return entries, begun, lost


def _is_plain(value: object) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def draw_front(jobs: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Draws accuracy over modelled energy of the deployed networks of a sweep, and returns the path.

    None where fewer than two jobs know both, or none differs in energy.
    """
    done = [job for job in jobs if "deployed/accuracy" in job.get("metrics", {})]
    metrics = [job["metrics"] for job in done]
    # jobs that differ in their seed alone are one configuration
    words = [[word for word in str(job["overrides"]).split(" ") if not word.startswith("seed=")] for job in done]
    settings = [" ".join(word for word in own if not all(word in other for other in words)) for own in words]
    names = {name for m in metrics for name in m if name.startswith("energy/") and name.endswith("/snn_nj")}
    own = sorted(name for name in names if name.count("/") == 2 and all(name in m for m in metrics))
    if len(metrics) < 2 or not own or len({m[own[0]] for m in metrics}) < 2:
        return None
    # Matplotlib is not worth its start-up to every other command
    from dsnn import plots

    figure = plots.accuracy_energy(
        np.array([m[own[0]] for m in metrics]),
        np.array([m["deployed/accuracy"] for m in metrics]),
        settings,
        own[0].split("/")[1],
    )
    return plots.save_png(figure, path)
