"""Compiled programs: kept in a folder that later processes read, and compiled ahead while something else is done.

Compiling is most of what a first run waits for. XLA compiles outside of Python's lock, so a second core can do it while
data are loaded or a network learns; tracing is not done there, since NumPyro's handlers stand on one stack.
"""

import contextlib
import functools
import importlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax.experimental.compilation_cache import compilation_cache

from dsnn.native import kept_programs

CACHE = "DSNN_CACHE"
KEPT_BYTES = 2 * 2**30
MOST_KEPT = 12
"""Traced programs that a process keeps for the next job of a sweep, the next trial or the next fit."""

Made = TypeVar("Made")
QUICKLY: dict[str, Any] = {
    "xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE",
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""Compiles a CPU's program at about a fifth of the price, which then runs about five times slower.

Not every version of XLA knows all of them, see `quickly`.
"""


def cache_folder() -> Path:
    """Returns where compiled programs are kept: DSNN_CACHE, or dsnn in the user's cache folder."""
    if chosen := os.environ.get(CACHE):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsnn" / "programs"


def use_cache(folder: str = "auto", *, unless_set: bool = False) -> None:
    """Keeps compiled programs in a folder that later processes read; one that cannot be used is passed over.

    Small programs are kept as well: there are hundreds of them, and reading one takes a tenth of compiling it. Programs
    that were damaged since they were written are removed, and the oldest beyond `KEPT_BYTES`; what else lies in the
    folder stays, see `dsnn.native.kept_programs`.

    Args:
        folder: "auto", "none" or a path. One that holds other things gets a folder ``dsnn-programs``.
        unless_set: leaves a folder as it is that JAX has been given already.
    """
    if unless_set and jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    if folder == "none":
        jax.config.update("jax_compilation_cache_dir", None)
        return
    log = logging.getLogger(__name__)
    try:
        chosen = kept_programs.own_folder(cache_folder() if folder == "auto" else Path(folder))
        if damaged := kept_programs.repair(chosen):
            log.warning("%d damaged programs in %s were removed and will be compiled again", damaged, chosen)
        kept_programs.prune(chosen, KEPT_BYTES)
    except (OSError, RuntimeError) as error:  # or the user has no home
        log.warning("compiled programs are not kept: %s", error)
        return
    if jax.config.jax_compilation_cache_dir != str(chosen):  # type: ignore[attr-defined]
        compilation_cache.reset_cache()  # JAX remembers from its first program that there was no folder
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def quickly(level: int = 0) -> dict[str, Any] | None:
    """Returns compiler options for a program that runs once or little; None on an accelerator, which knows others.

    Args:
        level: 0 is `QUICKLY`; 1 takes a third of the usual time and rounds as programs usually do.
    """
    if jax.default_backend() != "cpu":
        return None
    return {"xla_backend_optimization_level": level} if level else _known_of_quickly()


@functools.cache
def _known_of_quickly() -> dict[str, Any]:
    """Returns the options of `QUICKLY` that this version of XLA knows; it refuses a program for any other."""
    nothing = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), jax.numpy.float32))

    def known(options: dict[str, Any]) -> bool:
        try:
            nothing.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return QUICKLY if known(QUICKLY) else {name: value for name, value in QUICKLY.items() if known({name: value})}


def shared(likeness: Hashable | None, make: Callable[[], Made]) -> Made:
    """Returns what ``make`` gives, or gave for an equal likeness in this process; the last few are kept.

    Args:
        likeness: all that decides what is made; None is like nothing.
        make: called where nothing alike is kept.
    """
    if likeness is None:
        return make()
    with _LOCK:
        if likeness in _KEPT:
            _KEPT.move_to_end(likeness)
            return _KEPT[likeness]
    made = make()
    with _LOCK:
        _KEPT[likeness] = made
        if len(_KEPT) > MOST_KEPT:
            _KEPT.popitem(last=False)
    return made


def forget() -> None:
    """Drops the traced programs that `shared` keeps, and the data that they hold."""
    with _LOCK:
        _KEPT.clear()


class Program:
    """`jax.jit` of a function, whose programs can be compiled ahead of their first call.

    Args:
        function: pure.
        options: of `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], **options: Any):
        self.jitted = jax.jit(function, **options)
        self._ready: dict[Hashable, Future[Any]] = {}

    def ahead(self, *arguments: Any) -> None:
        """Traces the program for arguments of these shapes here, and compiles it in another thread."""
        key = _signature(arguments)
        if key not in self._ready:
            self._ready[key] = _compiling().submit(self.jitted.lower(*arguments).compile)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the program, once it is compiled."""
        ready = self._ready.get(_signature(arguments)) if self._ready else None
        return self.jitted(*arguments) if ready is None else ready.result()(*arguments)


def beside(*modules: str) -> None:
    """Imports modules once what is compiled ahead is done, for whoever needs them later; a missing one is left out."""

    def imported() -> None:
        for module in modules:
            with contextlib.suppress(ImportError):  # whoever needs it says so
                importlib.import_module(module)

    _compiling().submit(imported)


_LOCK = threading.Lock()
_KEPT: OrderedDict[Hashable, Any] = OrderedDict()
_POOL: list[ThreadPoolExecutor] = []


def _compiling() -> ThreadPoolExecutor:
    """Returns the one thread that compiles ahead, in the order in which it was asked: what is urgent comes first."""
    with _LOCK:
        if not _POOL:
            _POOL.append(ThreadPoolExecutor(1, thread_name_prefix="compiling"))
        return _POOL[0]


def _signature(arguments: Any) -> Hashable:
    """Returns structure, shapes and kinds of arguments: what a program is compiled for."""
    leaves, tree = jax.tree.flatten(arguments)
    return tree, tuple((jax.numpy.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in leaves)
