"""Reads NIR files without trusting them: bounded sizes, no links out of the file, no class chosen by a name in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsnn.nir.fields import Clock, NIRError, Source
from dsnn.nir.graph import Graph, build

MAX_NODES = 10_000
MAX_VALUES = 1 << 28
MAX_DEPTH = 16


def load(
    path: str | Path,
    *,
    dt: float | int | None = None,
    method: str | None = None,
    round_delays: bool = False,
    max_values: int = MAX_VALUES,
) -> Graph:
    """Returns the network of a NIR file.

    Args:
        path: an HDF5 file as `nir.write` or `dsnn.nir.save` writes it.
        dt: length of a step in seconds; None takes what `dsnn.nir.save` noted in the file. Other frameworks' files say
            nothing: snnTorch takes 1e-4 and Norse 1e-3 unless told otherwise.
        method: "euler" or "exp"; None takes the file's note, else "euler".
        round_delays: rounds delays to multiples of dt instead of refusing them.
        max_values: numbers that the file may hold in all (2^28 by default, a gigabyte in single precision).

    Raises:
        NIRError: a file that is no NIR, is too large or not understood; one sentence that names the node.
    """
    return from_nir(read(Path(path).expanduser(), max_values), dt=dt, method=method, round_delays=round_delays)


def from_nir(
    graph: Any, *, dt: float | int | None = None, method: str | None = None, round_delays: bool = False
) -> Graph:
    """Returns the network of a NIR graph in memory.

    Args:
        graph: a `nir.NIRGraph`, or its ``to_dict()``.
        dt: length of a step in seconds, as in `load`.
        method: "euler" or "exp", as in `load`.
        round_delays: as in `load`.

    Raises:
        NIRError: a graph that is not understood.
    """
    nodes = graph if isinstance(graph, Mapping) else graph.to_dict()
    notes = Source("graph", "NIRGraph", {}, nodes.get("metadata") or {}).notes
    dt = notes.get("dt") if dt is None else dt
    method = notes.get("method", "euler") if method is None else method
    if dt is None:
        raise NIRError(
            "NIR is continuous in time and this graph names no step, so dt must be given, got None; dt=1e-4."
        )
    return build(nodes, Clock(dt, method, round_delays))


def read(path: Path, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Returns the nested dictionary of a NIR file, every size checked before it is read."""
    try:
        import h5py  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise NIRError(
            "reading NIR needs the package h5py, which is not installed; pip install nir, or set DSNN_EXTRAS=nir."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            if "node" not in file:
                raise NIRError(
                    f"{path} must be a NIR file with the group 'node', got {sorted(file) or 'an empty file'}."
                )
            return _Reader(h5py, max_values).group(file["node"], "", 0)
    except (OSError, KeyError, RuntimeError) as error:
        raise NIRError(f"{path} must be a NIR file in HDF5, got: {error}.") from error


class _Reader:
    """Walks an HDF5 file and counts what it reads."""

    def __init__(self, h5py: Any, max_values: int):
        self.h5py, self.left, self.nodes = h5py, max_values, 0

    def group(self, group: Any, where: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise NIRError(f"groups may be nested {MAX_DEPTH} deep, got more at {where!r}; a group may hold itself.")
        out: dict[str, Any] = {}
        for name in group:
            place = f"{where}/{name}" if where else name
            self.nodes += 1
            if self.nodes > 16 * MAX_NODES:
                raise NIRError(f"a NIR file may hold {16 * MAX_NODES} items, got more at {place!r}; it is too large.")
            if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
                raise NIRError(f"{place!r} must lie in the file itself, got a link; links are not followed.")
            item = group[name]
            if isinstance(item, self.h5py.Group):
                out[name] = self.group(item, place, depth + 1)
            elif isinstance(item, self.h5py.Dataset):
                out[name] = self.values(item, place)
            else:
                raise NIRError(f"{place!r} must be a group or an array, got {type(item).__name__}.")
        return out

    def values(self, dataset: Any, place: str) -> Any:
        if dataset.is_virtual or dataset.external:
            raise NIRError(f"{place!r} must hold its values itself, got a reference to another file.")
        if dataset.shape is None:
            raise NIRError(f"{place!r} must hold a value, got an empty array.")
        self.left -= int(np.prod(dataset.shape, dtype=object))
        if self.left < 0:
            raise NIRError(
                f"a NIR file may hold max_values numbers in all, got more at {place!r} of shape {dataset.shape}; raise "
                "max_values if you trust the file."
            )
        kind = dataset.dtype
        text = self.h5py.check_string_dtype(kind) is not None
        if not (text or kind.kind in "iufb"):
            raise NIRError(f"{place!r} must hold numbers or text, got dtype {kind}.")
        value = dataset[()]
        if isinstance(value, bytes):
            return value.decode("utf8", "replace")
        return value
