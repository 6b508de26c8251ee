"""What a run depended on beside its configuration: versions, revision, machine, command, seed."""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from dsnn.store.files import read_json, write_text

__all__ = ["environment", "read_environment", "write_environment"]

_PACKAGES = ("dsnn", "jax", "jaxlib", "flax", "numpyro", "optax", "orbax-checkpoint", "numpy")


def environment(seed: int) -> dict[str, Any]:
    """What a run depended on beside its configuration: versions, revision, machine, command, seed."""
    import jax  # the device is asked only here, so that reading a run directory needs no accelerator

    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{package: version for package in _PACKAGES if (version := _version(package))},
        **_revision(Path(__file__).resolve().parent),
        "device": device.device_kind,
        "device_platform": device.platform,
        "device_count": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "command": _command(),
        "seed": seed,
    }


def write_environment(directory: str | Path, seed: int) -> Path:
    """Writes ``environment.json``."""
    return write_text(directory, "environment.json", json.dumps(environment(seed), indent=2) + "\n")


def read_environment(directory: str | Path) -> dict[str, Any]:
    """The environment a run recorded; empty where it recorded none."""
    return read_json(directory, "environment.json")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision(folder: Path) -> dict[str, Any]:
    """The git revision of the code, and whether it was changed since; nothing outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        told = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=10, check=True)
        return told.stdout.strip()

    try:
        return {"git_revision": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def _command() -> str:
    """The command line as one would type it again."""
    arguments = list(sys.orig_argv) or [sys.executable]
    arguments[0] = "python"
    return shlex.join(arguments)
