"""Compiles what is written in C beside this file for this processor, once, and hands what they do to XLA."""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from dsnn.native.lowering import on_this_cpu
from dsnn.store.private_folder import digest, only_mine, private, settle
from dsnn.types import Array

HERE = Path(__file__).parent
SOURCE, HEADERS = (
    HERE / "products.c",
    tuple(HERE / f"{name}.h" for name in ("handler", "images", "parallel", "vectors")),
)
TARGETS = ("dsnn_events_drive", "dsnn_events_weight", "dsnn_events_gather", "dsnn_events_count")
LOOPS = HERE / "loops.c"
DECIDE = HERE / "decide.c"
CONVOLUTIONS = HERE / "convolutions.c"
MEMBRANES = HERE / "membranes.c"
MEMBRANE_TARGETS = ("dsnn_membranes", "dsnn_membranes_last", "dsnn_membranes_back")
CONVOLUTION_TARGETS = ("dsnn_convolve", "dsnn_convolve_kernel")
LOOP_TARGETS = tuple(f"dsnn_loops_{name}" for name in ("adaptive", "adaptive_back", "resonating", "resonating_back"))
# a contracted product would round a membrane otherwise than other programs do, and a threshold sees the last bit
LOOP_FLAGS = ("-ffp-contract=off",)
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")


_lock = threading.Lock()


def problem() -> str | None:
    """Returns why what is written in C cannot be used in this process, or None; the first call compiles it.

    Programs that are lowered for another device than a CPU leave it out in any case, see `call`.
    The libraries are kept in ``$XDG_CACHE_HOME/dsnn`` (default ``~/.cache/dsnn``) under names that change with the
    source, the compiler, the version of JAX and the processor, and that end with a digest of what the file holds: a
    damaged one is noticed before it is loaded, and compiled again.
    """
    with _lock:
        return _problem()


def call(target: str, out: Any, elsewhere: Callable[..., Any], *operands: Array) -> Any:
    """Returns what a C program gives on this process's CPU, and elsewhere what ``elsewhere`` gives of the operands.

    Which one runs is chosen when the program is lowered, see `dsnn.native.lowering`.

    Args:
        target: name of the C program.
        out: shape and dtype of what it gives, or a list of these.
        elsewhere: gives arrays of the same shapes.
        operands: arrays.
    """
    return on_this_cpu(foreign(target, out), elsewhere, out, *operands)


def foreign(target: str, out: Any) -> Callable[..., Any]:
    """Returns a C program as a function of its operands, for programs that are lowered for this process's CPU alone."""
    return _Foreign(target, tuple(out) if isinstance(out, list) else out)


@dataclass(frozen=True)
class _Foreign:
    """Equal where the program and its shapes are, so that it is compiled once."""

    target: str
    out: Any

    def __call__(self, *operands: Array) -> Any:
        """Returns what the program gives; mapped calls run one after another."""
        return jax.ffi.ffi_call(self.target, self.out, vmap_method="sequential")(*operands)


@functools.cache
def _problem() -> str | None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "no C compiler was found; install gcc or clang, or name one in CC"
    try:
        program = _program(compiler)
        with _folder() as folder:
            built = (
                (_compiled(program, folder), TARGETS),
                (_compiled(program, folder, LOOPS, LOOP_FLAGS), LOOP_TARGETS),
                (_compiled(program, folder, DECIDE, LOOP_FLAGS), ("dsnn_decide",)),
                (_compiled(program, folder, CONVOLUTIONS), CONVOLUTION_TARGETS),
                (_compiled(program, folder, MEMBRANES, LOOP_FLAGS), MEMBRANE_TARGETS),
            )
            loaded = [(ctypes.CDLL(str(path)), targets) for path, targets in built]
        for library, targets in loaded:
            for target in targets:
                jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    except (OSError, AttributeError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        return f"{compiler} could not build them: {detail.strip().splitlines()[0] if detail.strip() else error!r}"
    return None


def _program(compiler: str) -> list[str]:
    """Returns CC as the words of a command: one program, whose path may hold spaces, or a program and its options.

    Raises:
        ValueError: no words, or a quote that is not closed.
    """
    if shutil.which(compiler):
        return [compiler]
    words = shlex.split(compiler)
    if not words:
        raise ValueError(f"CC must name a C compiler, got {compiler!r}; leave it unset for cc, gcc or clang")
    return words


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Yields where libraries are kept or, without a folder that only this user can write to, one for this process."""
    try:
        folder = private(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsnn")
        usable = os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # or the user has no home
        usable = False
    if usable:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dsnn-", ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)  # once loaded, a library needs its file no longer


def _compiled(program: list[str], folder: Path, source: Path = SOURCE, flags: tuple[str, ...] = ()) -> Path:
    """Returns a library of the folder, which is compiled unless a whole one is there."""
    command = [*program, *FLAGS, *flags, "-I", jax.ffi.include_dir()]
    version = subprocess.run(
        [*program, "--version"], capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=60
    )
    headers = (header.read_text(encoding="utf-8") for header in HEADERS)
    parts = (source.read_text(encoding="utf-8"), *headers, *command, version.stdout, jax.__version__, _processor())
    kind = "events" if source == SOURCE else source.stem
    name = f"{kind}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}"
    found = sorted(folder.glob(f"{name}-*.so"))
    for path in found:
        if _whole(path):
            return path
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / f"{name}.so"
        subprocess.run(
            [*command, "-I", str(HERE), "-o", str(made), str(source), "-lm"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=300,
        )
        made.chmod(0o700)  # whatever the umask is
        settle(made)
        path = folder / f"{name}-{digest(made.read_bytes())}.so"
        made.replace(path)  # whole or not at all, and over a damaged one, also with two processes at it
        settle(folder)
    for damaged in found:
        if damaged != path:
            damaged.unlink(missing_ok=True)
    return path


def _whole(path: Path) -> bool:
    """Returns whether a library holds what its name says, and is this user's; another could end the process."""
    try:
        return only_mine(path) and digest(path.read_bytes()) == path.stem.rpartition("-")[2]
    except OSError:
        return False


def _processor() -> str:
    """Returns what -march=native may depend on: a home directory can be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
