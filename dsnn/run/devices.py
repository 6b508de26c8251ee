"""Accelerators dealt out to the jobs of a machine, before JAX starts in them: each takes what no other has taken."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from dsnn.store.private_folder import private

SHARE = 0.9  # of an accelerator's memory; the rest is the driver's and the display's

_held: list[IO[str]] = []  # closing them would give the accelerators back


def visible() -> list[str]:
    """Returns the accelerators that this process may choose from: CUDA_VISIBLE_DEVICES, or all of the machine's."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    found = (path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
    return sorted((name for name in found if name.isdigit()), key=int)


def claim(wanted: float, memory_fraction: float = 0.0) -> None:
    """Takes accelerators that no other job of this machine has taken, until this process ends.

    Args:
        wanted: how many, or a share of one such as 0.5; 0 leaves all of them visible.
        memory_fraction: share of their memory to take; 0 divides it among those who share.

    Raises:
        ValueError: there are too few, others have taken them, or another user made the folder where jobs say so.
    """
    if memory_fraction:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{memory_fraction:g}"
    names = visible()
    if not wanted or not names or _held:
        return
    if wanted > len(names):
        raise ValueError(f"compute.devices_per_job must be at most the {len(names)} accelerators here, got {wanted:g}.")
    sharers = max(1, int(1 / wanted))
    seats = [(name, seat) for seat in range(sharers) for name in names]
    try:
        folder = private(Path(tempfile.gettempdir()) / f"dsnn-devices-{os.getuid()}")
    except OSError as error:
        raise ValueError(f"compute.devices_per_job needs a folder of its own: {error}") from error
    taken: list[str] = []
    for name, seat in seats:
        file = (folder / f"{name.replace('/', '_')}.{seat}").open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        taken.append(name)
        if len(taken) >= wanted:
            break
    if len(taken) < wanted:
        while _held:
            _held.pop().close()
        raise ValueError(
            f"compute.devices_per_job={wanted:g} finds no free accelerator among {', '.join(names)}; "
            f"run at most {int(len(names) / wanted)} jobs at once (hydra.launcher.n_jobs)."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    if not memory_fraction and sharers > 1:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{SHARE / sharers:.3f}"
