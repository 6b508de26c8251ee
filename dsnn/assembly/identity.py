"""What names a run: its configuration, and the content of everything that it reads.

Data that were replaced under the same path, a module of one's own that was changed, another run behind
``model.compacted`` or another version of dsnn make another run: an old result never answers for new data.
"""

import ast
import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsnn import energy, resolve, store
from dsnn.assembly.control import as_many_as
from dsnn.config import OWN, PYTHON, Config, as_dict
from dsnn.store.version import VERSION

__all__ = ["directory_of", "identity", "reads"]

WHOLE_BYTES = 1 << 30
"""Up to this size files are read whole; of larger data, size, time and blocks are."""

BLOCK, BLOCKS = 1 << 16, 64
OWN_EXPERIMENT = "own"

_digests: dict[tuple[Any, ...], str] = {}


def identity(config: Config) -> dict[str, Any]:
    """Returns the configuration without what it only hands out at the end."""
    found = {name: value for name, value in as_dict(config).items() if name not in ("export", "trust")}
    # options that came later, so that runs without them keep their names
    later = {
        "bits": () if config.bits.enabled else ("activations",),
        "data": () if config.data.folds else ("folds", "fold"),
    }
    for group, names in later.items():
        found[group] = {name: value for name, value in found[group].items() if name not in names}
    return found


def directory_of(config: Config, read: dict[str, str] | None = None) -> Path:
    """Returns a run's directory: as given, or named by its configuration and by what it reads, see `reads`.

    Raises:
        ValueError: it lies in the folder of the data, which a run would then change.
    """
    if config.run.dir:
        return _outside(Path(config.run.dir).expanduser(), config)
    config = as_many_as(config)
    code = store.config_hash(identity(config), reads=reads(config) if read is None else read)
    return _outside(Path(config.run.root).expanduser() / f"{_called(config)}-{code}", config)


def _outside(directory: Path, config: Config) -> Path:
    """Returns a run's directory, once it is known to lie outside of what the run reads."""
    folder = Path(config.data.path).expanduser() if config.data.path and config.data.name in OWN else None
    if folder is not None and folder.is_dir() and directory.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"a run must lie outside of the data that it reads, got {directory} in data.path={folder}; set run.dir or "
            f"run.root to another folder."
        )
    return directory


def reads(config: Config) -> dict[str, str]:
    """Returns a digest of everything beside its configuration that a run depends on, by name.

    What does not exist is named so here, and refused by whatever reads it.
    """
    found = {"dsnn": VERSION}
    if config.data.path and config.data.name in OWN:
        found["data.path"] = _content(Path(config.data.path).expanduser())
    if config.model.compacted:
        found["model.compacted"] = _run(Path(config.model.compacted.replace("SEED", str(config.seed))).expanduser())
    for name in sorted({name.partition(":")[0] for name in resolve.foreign_names(identity(config))}):
        if f"{name}:" != resolve.LOCAL:
            found[f"module {name}"] = _code(name)
    for profile in sorted({config.energy.profile, *config.energy.also}):
        path = energy.profile_file(profile)
        if path is not None:
            found[f"profile {profile}"] = _file(path)
    return found


def _called(config: Config) -> str:
    """Returns the first part of a run's name: its experiment, and what its own data are called."""
    data = config.data
    own = data.source.partition(":")[2] if data.name == PYTHON else data.path and Path(data.path).expanduser().stem
    if config.experiment != OWN_EXPERIMENT or not own:
        return config.experiment
    return f"{config.experiment}-{re.sub(r'[^A-Za-z0-9_.]+', '_', own).strip('._')[:40] or 'data'}"


# --- Content


def _content(path: Path) -> str:
    if not path.exists():
        return "missing"
    if path.is_file():
        return _file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    large = sum(file.stat().st_size for file in files) > WHOLE_BYTES
    parts = (f"{file.relative_to(path).as_posix()} {_file(file, sampled=large)}" for file in files)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _file(path: Path, *, sampled: bool = False) -> str:
    """Returns the sha256 of a file; of one above the size that is read whole, that of its size, time and blocks."""
    try:
        seen = path.stat()
        key = (str(path.resolve()), seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, sampled)
        if key not in _digests:
            with path.open("rb") as file:
                if seen.st_size <= (BLOCK * BLOCKS if sampled else WHOLE_BYTES):
                    _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
                else:
                    _digests[key] = _sample(file, seen)
        return _digests[key]
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _sample(file: Any, seen: os.stat_result) -> str:
    digest = hashlib.sha256(f"{seen.st_size} {seen.st_mtime_ns}".encode())
    for k in range(BLOCKS):
        file.seek(max(0, (seen.st_size - BLOCK) * k // (BLOCKS - 1)))
        digest.update(file.read(BLOCK))
    return digest.hexdigest()


def _run(directory: Path) -> str:
    """Returns what names a finished run's results: the digest of its parameters and of its configuration."""
    if not store.is_done(directory):
        return "unfinished"
    return "+".join(_file(directory / name) for name in ("parameters.npz", "config.yaml"))


# --- Code


def _code(module: str) -> str:
    """Returns a digest of a module of one's own and of what it imports from beside itself, and so on."""
    start = _source(module)
    if start is None:
        return "missing"
    root = _root(module, start)
    found: dict[str, str] = {}
    waiting = [(module, start)]
    while waiting:
        name, path = waiting.pop()
        if path.as_posix() in found:
            continue
        found[path.as_posix()] = f"{path.relative_to(root).as_posix()} {_file(path)}"
        if path.suffix != ".py":
            continue
        for other in _imported(name, path):
            beside = _source(other)
            if beside is not None and _together(other, module, beside, root):
                waiting.append((other, beside))
    return hashlib.sha256("\n".join(sorted(found.values())).encode()).hexdigest()


def _together(name: str, module: str, path: Path, root: Path) -> bool:
    """Returns whether a module is the user's as well: of the same package, or beside it and not installed."""
    top = name.partition(".")[0]
    if top == module.partition(".")[0]:
        return True
    installed = {"site-packages", "dist-packages"} & {*path.parts, *root.parts}
    standard = top in sys.stdlib_module_names or top == "dsnn"
    return path.is_relative_to(root) and not installed and not standard


def _source(module: str) -> Path | None:
    """Returns the file of a module, found where `dsnn.resolve` finds it; None where there is none.

    Looked for by its parts, so that no package is imported for it.
    """
    here = str(Path.cwd())
    folders = [*sys.path, here] if here not in sys.path else list(sys.path)
    for folder in folders:
        base = Path(folder or ".").joinpath(*module.split("."))
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return path.resolve()
    loaded = sys.modules.get(module)
    origin = getattr(getattr(loaded, "__spec__", None), "origin", None)
    if origin is None and "." not in module:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        origin = spec.origin if spec else None
    return Path(origin).resolve() if origin and Path(origin).is_file() else None


def _root(module: str, path: Path) -> Path:
    """Returns the folder that holds the top-level package or module."""
    up = module.count(".") + (path.name == "__init__.py")
    return path.parents[up] if up < len(path.parents) else path.parent


def _imported(module: str, path: Path) -> Iterator[str]:
    """Yields the names of modules that a file imports, as far as its text says, and of the packages it lies in."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    if package:
        yield package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            near = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (near, node.module) if part)
            yield from (name for name in (base, *(f"{base}.{alias.name}" for alias in node.names)) if name)
