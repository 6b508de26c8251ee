"""Freed memory that stays with the process is used again: the system has no fresh pages to fill."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
import dsnn
if sys.argv[1] == "keep":
    assert dsnn.keep_memory()
run = jax.jit(lambda x: jnp.cumsum(jnp.sin(x)[:, None] * x[None, :256], 0)[-1])
x = jnp.ones(2**16, jnp.float32)  # a buffer of 64 MB
for _ in range(20):
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    run(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_program_called_again_touches_no_fresh_pages():
    """A call needs 2^14 pages or more; kept, twenty more calls need next to none once as many as overlap are there."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert faults["leave"] > 2**14, faults
    assert faults["keep"] < faults["leave"] / 20, faults
