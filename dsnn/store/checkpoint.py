"""Checkpoints of a training state: a thin, synchronous layer over Orbax.

A checkpoint is one folder per step, written under a temporary name and renamed when complete, so a process killed at
any moment leaves the previous one intact. Orbax stores the leaves under their key paths; beside them lies a manifest
with the shape and dtype of every leaf and the CRC-32 of every file, so that damage is found before Orbax reads it:
Orbax alone notices a missing file but not every flipped bit.

What is dealt out over devices is written shard by shard, by each process what its devices hold, and read so as well, on
any number of devices. Many processes then write one checkpoint, in a folder that all of them see.
"""

import json
import logging
import os
import re
import shutil
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from dsnn.store import untrusted
from dsnn.store.files import write_bytes
from dsnn.store.rundir import OWN

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

__all__ = ["CheckpointError", "apart", "latest", "put_back", "restore", "save", "steps"]

KEEP = 2
MAX_AXIS = 1 << 40
BESIDE = "beside"
FORMAT = 3
"""What a checkpoint holds and its numbers mean; 3: files lie beside the state."""

_ORBAX = re.compile(
    r"state/(_[A-Z_]+|_sharding|commit_success\.txt|(ocdbt\.process_\d+/)?(manifest\.ocdbt|d/[0-9a-f]{32})|array_metadatas/.*)"
)
"""Names of files that Orbax writes, for checkpoints whose manifest cannot be read."""

Tree = TypeVar("Tree")


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read, in one sentence."""


def save(directory: str | Path, step: int, tree: Any, beside: Collection[Path] = ()) -> Path:
    """Writes `tree` as the checkpoint of `step`, returns its folder, and keeps the last two checkpoints.

    Returns only when the checkpoint is complete on disk. An older one in which somebody else's file lies is kept. Of a
    tree whose parts lie `apart`, every process has to call this.

    Args:
        directory: Folder of the checkpoints; made if it is missing.
        step: Number of the training step, ≥ 0. A checkpoint of the same step is replaced.
        tree: Pytree of arrays, numbers and random keys.
        beside: Files of which the checkpoint keeps a copy, as they are at this step; see `put_back`.

    Raises:
        CheckpointError: The disk is full or read-only, a leaf is not an array, or a file that no run wrote lies in the
            checkpoint that is replaced.
    """
    return write(directory, step, named_leaves(tree), beside, together=apart(tree))


def write(
    directory: str | Path, step: int, leaves: dict[str, Any], beside: Collection[Path] = (), *, together: bool = False
) -> Path:
    """As `save`, of leaves by the names that `named_leaves` gives them.

    Args:
        directory: as `save` takes it.
        step: as `save` takes it.
        leaves: NumPy arrays by name, and arrays that are dealt out over devices.
        beside: as `save` takes it.
        together: whether other processes hold parts of the leaves; then each of them has to call this.
    """
    if step < 0:
        raise CheckpointError(f"a checkpoint's step must be at least 0, got {step}.")
    directory = Path(directory).absolute()
    target, partial = directory / str(step), directory / f"{step}.partial"
    if not together:
        partial = directory / f"{step}.{os.getpid()}.partial"
    elif jax.process_index():
        with _disk_errors(target):
            _write_state(partial, leaves, together)
        return target
    if strange := _strangers(target):
        raise CheckpointError(
            f"the checkpoint {target} is to be replaced and holds {strange[0]}, which no run wrote and "
            "none removes; take it elsewhere, and run the same command again."
        )
    with _disk_errors(target):
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob("*.partial"):
            if re.fullmatch(r"\d+(\.\d+)?\.partial", leftover.name) and leftover.is_dir():
                shutil.rmtree(leftover)
        _write_state(partial, leaves, together)
        (partial / BESIDE).mkdir()
        for file in beside:
            shutil.copyfile(file, partial / BESIDE / file.name)
        _write_manifest(partial, {name: _describe(leaf) for name, leaf in leaves.items()})
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    for old in steps(directory)[:-KEEP]:
        if old != step and not _strangers(directory / str(old)):
            shutil.rmtree(directory / str(old), ignore_errors=True)
    return target


def apart(tree: Any) -> bool:
    """Whether parts of a tree lie on devices of other processes, so that no process alone can write it."""
    arrays = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    return any(not (leaf.is_fully_addressable or leaf.is_fully_replicated) for leaf in arrays)


def latest(directory: str | Path) -> int | None:
    """The newest step with an intact checkpoint, or None where there is none.

    Torn and corrupted newer checkpoints are passed over, each with a sentence on standard error.
    """
    for step in reversed(steps(directory)):
        path = Path(directory).absolute() / str(step)
        try:
            _loaded(path, _intact(path))
        except CheckpointError as error:
            print(f"{error} Going back to the checkpoint before it.", file=sys.stderr)
        else:
            return step
    return None


def restore(directory: str | Path, step: int, like: Tree) -> Tree:
    """The tree saved at `step`, bit for bit, in the structure, array types and placement of `like`.

    What is dealt out over devices in `like` is read so, by each process for its own; what it was when it was saved does
    not matter.

    Args:
        directory: Folder of the checkpoints.
        step: A step that `latest` or `steps` named.
        like: Tree of the same structure, shapes and dtypes, for example a freshly initialised training state.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, or belongs to another structure.
    """
    path = Path(directory).absolute() / str(step)
    wanted, manifest = named_leaves(like), _intact(path)
    _check_structure(path, {name: _shape(entry) for name, entry in manifest["leaves"].items()}, wanted)
    saved = _loaded(path, manifest, {name: leaf.sharding for name, leaf in wanted.items() if _is_dealt(leaf)})
    _check_structure(path, saved, wanted)
    flat, treedef = jax.tree_util.tree_flatten_with_path(like)
    leaves = [_as_like(saved[jax.tree_util.keystr(name)], leaf) for name, leaf in flat]
    return jax.tree_util.tree_unflatten(treedef, leaves)


def put_back(directory: str | Path, step: int, into: Path, names: Collection[str]) -> None:
    """Puts the files that the checkpoint of `step` keeps back to where they were; others of these names are removed.

    Args:
        directory: Folder of the checkpoints.
        step: A step that was restored.
        into: Folder of the files.
        names: Of the files that a checkpoint may keep.
    """
    kept = Path(directory).absolute() / str(step) / BESIDE
    for name in names:
        with _disk_errors(into / name):
            if (kept / name).is_file():
                write_bytes(into, name, (kept / name).read_bytes())
            else:
                (into / name).unlink(missing_ok=True)


def steps(directory: str | Path) -> list[int]:
    """The steps with a checkpoint folder, in increasing order, damaged ones included."""
    directory = Path(directory)
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch(r"[0-9]{1,15}", path.name))


def _strangers(folder: Path) -> list[str]:
    """Returns the names of files in a checkpoint that no run wrote."""
    try:
        listed = _read_manifest(folder)["files"].keys()
    except CheckpointError:
        listed = ()
    known = {"manifest.json", *listed, *(f"{BESIDE}/{name}" for name in OWN)}
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    return [name for name in names if name not in known and not _ORBAX.fullmatch(name)]


def _write_state(partial: Path, leaves: dict[str, Any], together: bool) -> None:
    # Orbax refuses arrays without elements; the manifest alone says all there is to know about them.
    stored = {name: leaf for name, leaf in leaves.items() if leaf.size}
    with _orbax(together) as (ocp, checkpointer):
        checkpointer.save(partial / "state", args=ocp.args.PyTreeSave(stored))


@contextmanager
def _orbax(together: bool = False) -> "Iterator[tuple[Any, ocp.Checkpointer]]":
    """Orbax and a synchronous checkpointer of it whose log is quiet: what fails is raised, and said once.

    Of many processes it waits for all of them (`together`), or for none.
    """
    import orbax.checkpoint as ocp  # here, since it takes most of a second to import

    own = ocp.options.MultiprocessingOptions()
    if not together and jax.process_count() > 1:
        here = jax.process_index()
        own = ocp.options.MultiprocessingOptions(here, {here}, f"process_{here}")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=own)
        with ocp.Checkpointer(handler, multiprocessing_options=own) as checkpointer:
            yield ocp, checkpointer
    finally:
        log.setLevel(level)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_dealt(leaf: Any) -> bool:
    """Whether an array lies in parts on several devices."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a state by their paths, as NumPy arrays where they do not lie in parts."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path)
        if _is_dealt(leaf) and not _is_key(leaf):
            leaves[name] = leaf
            continue
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        if array.dtype.hasobject or array.dtype.kind in "SU":
            raise CheckpointError(
                f"a checkpoint holds arrays and numbers only, got {type(leaf).__name__} at {name or 'the root'}; "
                "take it out of the training state."
            )
        leaves[name] = array
    return leaves


def _describe(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": leaf.dtype.name}


def _file_sums(folder: Path) -> dict[str, int]:
    files = sorted(path for part in ("state", BESIDE) for path in (folder / part).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): zlib.crc32(path.read_bytes()) for path in files}


def _write_manifest(folder: Path, leaves: dict[str, Any]) -> None:
    body = json.dumps({"format": FORMAT, "leaves": leaves, "files": _file_sums(folder)})
    with (folder / "manifest.json").open("w", encoding="utf-8") as file:
        file.write(f"{zlib.crc32(body.encode())}\n{body}\n")
        file.flush()
        os.fsync(file.fileno())


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        checksum, body, _ = untrusted.text(folder / "manifest.json").split("\n")
        if int(checksum) != zlib.crc32(body.encode()):
            raise ValueError
    except (OSError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged (its manifest.json is missing or torn).") from error
    try:
        manifest = untrusted.parsed_json(body, "its manifest.json")
        leaves, files = manifest["leaves"], manifest["files"]
        for name, entry in leaves.items():
            shape, dtype = entry["shape"], entry["dtype"]
            if not all(type(n) is int and 0 <= n <= MAX_AXIS for n in shape):
                raise ValueError(f"{name} has the shape {shape}")
            jax.numpy.dtype(dtype)
        if not all(type(crc) is int for crc in files.values()):
            raise ValueError("files have no checksums")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = str(error).rstrip(".") or type(error).__name__
        raise CheckpointError(f"the checkpoint {folder} is damaged (its manifest.json is none: {said}).") from error
    return manifest


def _intact(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint, after every file was checked against it."""
    if not path.is_dir():
        raise CheckpointError(f"there is no checkpoint {path}; start afresh, or name a run directory that has one.")
    manifest = _read_manifest(path)
    if (written := manifest.get("format", 1)) != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} belongs to another version of dsnn, whose numbers mean other things (format "
            f"{written}, this one has {FORMAT}); set resume=false to start over."
        )
    found = _file_sums(path)
    for name in sorted(manifest["files"].keys() | found.keys()):
        if found.get(name) != manifest["files"].get(name):
            state = "is missing" if name not in found else "does not match its checksum"
            raise CheckpointError(f"the checkpoint {path} is damaged ({name} {state}).")
    return manifest


def _loaded(path: Path, manifest: dict[str, Any], dealt: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The named leaves of a checkpoint that is intact: NumPy arrays, or what lies in parts by its sharding."""
    names = [name for name, entry in manifest["leaves"].items() if 0 not in entry["shape"]]
    try:
        with _orbax(jax.process_count() > 1 and bool(dealt)) as (ocp, checkpointer):
            one = ocp.RestoreArgs(restore_type=np.ndarray)
            how = dict.fromkeys(names, one) | {
                name: ocp.ArrayRestoreArgs(sharding=sharding) for name, sharding in dealt.items()
            }
            saved = checkpointer.restore(path / "state", args=ocp.args.PyTreeRestore(restore_args=how))
    except Exception as error:  # Orbax raises whatever its storage layers raise
        raise CheckpointError(f"the checkpoint {path} cannot be read ({_reason(error)}).") from error
    found = {name: saved[name] if name in saved else _empty(entry) for name, entry in manifest["leaves"].items()}
    return {name: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for name, leaf in found.items()}


def _empty(entry: dict[str, Any]) -> np.ndarray:
    return np.empty(entry["shape"], jax.numpy.dtype(entry["dtype"]))


def _shape(entry: dict[str, Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(entry["shape"]), jax.numpy.dtype(entry["dtype"]))


def _check_structure(path: Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    def fail(what: str) -> None:
        raise CheckpointError(
            f"the checkpoint {path} belongs to another model or optimiser: {what}; "
            "use the configuration it was saved with, or another run directory."
        )

    if missing := sorted(wanted.keys() - saved.keys()):
        fail(f"{len(missing)} expected arrays are not in it, the first is {missing[0]}")
    if extra := sorted(saved.keys() - wanted.keys()):
        fail(f"it holds {len(extra)} arrays that are not expected, the first is {extra[0]}")
    for name, leaf in wanted.items():
        if (saved[name].shape, saved[name].dtype) != (leaf.shape, leaf.dtype):
            fail(
                f"{name} is {saved[name].dtype.name}{list(saved[name].shape)} in it, "
                f"expected {leaf.dtype.name}{list(leaf.shape)}"
            )


def _as_like(saved: Any, like: Any) -> Any:
    if isinstance(saved, jax.Array):
        return jax.numpy.copy(saved)  # for the reason below
    if _is_key(like):
        words = _as_like(saved, jax.random.key_data(like))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        # The copy matters: on CPU device_put may share memory with the NumPy array, which a donated buffer must not.
        saved = saved.copy()
        if like.is_fully_addressable:
            return jax.device_put(saved, like.sharding)
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: saved[index])
    if isinstance(like, np.ndarray | np.generic):
        return saved.copy() if isinstance(like, np.ndarray) else saved[()]
    return type(like)(saved.item())


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tensorstore reports a full disk as ValueError, Python as OSError
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {_reason(error)}; "
            "free space on that disk, or choose a writable folder with run.dir=DIR."
        ) from error


def _reason(error: Exception) -> str:
    """The operating system's own words where the error carries them, else the first line of the message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if match := re.search(r": ([^:]+) \[os_error_code=", str(error)):
        return match[1]
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
