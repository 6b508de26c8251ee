"""A checkpoint that a process of its own writes, where this one can no longer.

Orbax asks the runtime of `jax.distributed`, of which another process has gone, what to wait for. Where JAX ends this
process it does so in that runtime's own thread, and the question would never be answered.
"""

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from dsnn.store import checkpoint

PATIENCE_S = 600.0
"""How long the other process may take; a state of gigabytes and a slow disk are meant."""


def save(directory: str | Path, step: int, tree: Any, beside: Collection[Path] = ()) -> Path:
    """As `checkpoint.save`, of a state that this process holds alone.

    Raises:
        CheckpointError: It could not be written; the reason stands on standard error.
    """
    leaves = checkpoint.named_leaves(tree)
    told = {
        "directory": str(Path(directory).absolute()),
        "step": step,
        "beside": [str(path) for path in beside],
        "leaves": [(name, leaf.shape, leaf.dtype.name) for name, leaf in leaves.items()],
    }
    command = [sys.executable, "-m", __name__]
    alone = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    writer = subprocess.Popen(command, env=os.environ | alone, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert writer.stdin is not None
    try:
        with writer.stdin as stream:
            stream.write(json.dumps(told).encode() + b"\n")
            for leaf in leaves.values():
                stream.write(np.ascontiguousarray(leaf).view(np.uint8).data)
        status: int | str = writer.wait(PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        status = str(error)
    finally:
        writer.kill()
    if status:
        raise checkpoint.CheckpointError(f"no checkpoint of step {step} could be written to {directory} ({status}).")
    return Path(directory) / str(step)


def received(stream: BinaryIO) -> Path:
    """Writes the checkpoint that `save` of another process sends."""
    told = json.loads(stream.readline())
    leaves = {}
    for name, shape, kind in told["leaves"]:
        dtype = jnp.dtype(kind)
        count = int(np.prod(shape, dtype=np.int64))
        leaves[name] = np.frombuffer(stream.read(count * dtype.itemsize), dtype).reshape(shape)
    return checkpoint.write(told["directory"], told["step"], leaves, [Path(path) for path in told["beside"]])


if __name__ == "__main__":
    try:
        received(sys.stdin.buffer)
    except checkpoint.CheckpointError as error:
        sys.exit(str(error))
