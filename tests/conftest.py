"""What every test shares: a quiet, offline process, the data marker, and the tracer-leak check."""

import gc
import importlib.metadata
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two test processes share one GPU
# Compiled programs outlive the process: test processes, the runs they start, and the next call of the tests share them.
os.environ.setdefault("DSNN_CACHE", os.path.join(tempfile.gettempdir(), f"dsnn-test-programs-{os.getuid()}"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.environ["DSNN_CACHE"])
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# Tests compile far more than they compute, and these make compiling three to four times cheaper; XLA_FLAGS= (empty)
# tests what users run. The second and the third would slow an accelerator down, whose plugin is in that package. XLA
# ends the process at a flag that it does not know, and newer ones know the fourth no more.
JAXLIB = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
QUICKLY_COMPILED = (
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    *(("--xla_cpu_use_fusion_emitters=false",) if JAXLIB < (0, 11) else ()),
    "--xla_cpu_parallel_codegen_split_count=1",
)
if importlib.util.find_spec("jax_plugins") is None:
    os.environ.setdefault("XLA_FLAGS", " ".join(QUICKLY_COMPILED))

import jax  # noqa: E402 - reads the environment
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Types and shapes are checked at run time, but for the runner's: it reads what users wrote, and answers in sentences.
ROOMS = sorted({path.stem for path in (Path(__file__).parents[1] / "dsnn").iterdir()} - {"run", "__init__", "__main__"})
install_import_hook([f"dsnn.{room}" for room in ROOMS], "beartype.beartype")

import variants  # noqa: E402 - the file beside this one

from dsnn.native.allocator import keep_memory  # noqa: E402

keep_memory()


# The longest files first: a process that comes upon one at the end works alone while the other has nothing left to do.
LONG = (
    "configs",
    "frontier",
    "end_to_end",
    "behaviour",
    "tutorials",
    "contracts",
    "norms",
    "train",
    "reliable_sweeps",
    "guides",
)


def pytest_configure(config: pytest.Config) -> None:
    """Settles how many variants run, before worker processes are told."""
    named = config.option.keyword or "not slow" not in config.option.markexpr
    every_file = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if config.option.variants is None:
        config.option.variants = 0 if named or not every_file else variants.USUAL
        config.option.whole = True


@pytest.hookimpl(trylast=True)  # after those that a marker leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out variants that are too many, and orders files by their length; within a file nothing moves."""
    if config.option.variants:
        names = [item.nodeid for item in items]
        few = set(variants.sampled(names, config.option.variants, whole=config.option.whole))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in few])
        items[:] = [item for item in items if item.nodeid in few]
    order = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


def pytest_collection_finish() -> None:
    """Tracing makes many small objects: a fifteenth of the time of these tests went into looking for cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "how many variants of a parametrised test run, 0 for all; 1 where no test is named, all where one is"
    parser.addoption("--variants", type=int, help=said)
    parser.addoption("--whole", action="store_true", help="all variants of files whose variants users name, as usual")
    parser.addoption("--leaks", action="store_true", help="run every test under jax.checking_leaks (slow)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked data(name, ...) whose files are absent, and says where they are to be had."""
    for mark in item.iter_markers("data"):
        from dsnn import data  # here, since most tests need not wait for it

        for name in mark.args:
            folder = data.default_root() / name
            for file in data._source(name).files:
                if not any((folder / known).is_file() for known in (file.name, *file.others)):
                    address = (*file.addresses, file.page)[0]
                    pytest.skip(f"needs {file.name} of {address} in {folder} (DSNN_DATA names the folder above)")


MOST_KEPT = 3 << 30
"""Bytes of a process up to which it keeps its compiled programs from file to file."""


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
    """Small programs of one file serve others, a fifth of all; kept for good they add up to many gigabytes."""
    yield
    gc.collect()  # what the cycles of one file held serves no other
    if _resident() > MOST_KEPT:
        jax.clear_caches()
        gc.collect()


def _resident() -> float:
    """Returns the bytes that this process has in memory; infinitely many where they are not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("inf")


@pytest.fixture(autouse=True)
def _check_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getoption("--leaks"):
        yield
        return
    with jax.checking_leaks():
        yield


@pytest.fixture
def checking_leaks() -> Iterator[None]:
    """Holds one test to leaving no tracer behind."""
    with jax.checking_leaks():
        yield
