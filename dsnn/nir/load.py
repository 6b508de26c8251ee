"""Reads NIR files without trusting them: bounded sizes, no links out of the file, no class chosen by a name in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from dsnn.nir.batch import batched, unbatched
from dsnn.nir.fields import MAX_VALUES, Clock, NIRError, Source, metadata_of, seconds
from dsnn.nir.graph import MAX_DEPTH, MAX_NODES, Graph, build
from dsnn.store import untrusted

MAX_ITEMS = 10 * MAX_NODES
"""Groups and arrays of a file."""

MAX_BYTES = 1 << 32


def load(
    path: str | Path,
    *,
    dt: SupportsFloat | None = None,
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
    graph: Any, *, dt: SupportsFloat | None = None, method: str | None = None, round_delays: bool = False
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
    notes = Source("graph", "NIRGraph", {}, metadata_of("graph", nodes)).notes
    dt = notes.get("dt") if dt is None else dt
    method = notes.get("method", "euler") if method is None else method
    if dt is None:
        raise NIRError(
            "NIR is continuous in time and this graph names no step, so dt must be given, got None; dt=1e-4."
        )
    clock = Clock(seconds(dt), method, round_delays)
    try:
        return build(nodes, clock)
    except NIRError as error:
        if not batched(nodes):
            raise
        try:
            return build(unbatched(nodes), clock)
        except NIRError:
            raise error from None


def read(path: Path, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Returns the nested dictionary of a NIR file, every size checked before it is read.

    Raises:
        NIRError: the file is no NIR, or too large.
    """
    try:
        with untrusted.hdf5(path, MAX_BYTES) as file:
            if "node" not in (names := file.children()):
                raise NIRError(
                    f"{path} must be a NIR file with the group 'node', got {sorted(names)[:8] or 'an empty file'}."
                )
            if not file.is_group("node"):
                raise NIRError(f"{path} must be a NIR file with the group 'node', got an array of that name.")
            return _Reader(file, max_values).group("node", "", 0)
    except (untrusted.UntrustedError, FileNotFoundError) as error:
        said = str(error) if isinstance(error, untrusted.UntrustedError) else "got: No such file or directory."
        raise NIRError(f"{path} must be a NIR file in HDF5: {said.removeprefix(f'{path} ')}") from error


class _Reader:
    """Walks an HDF5 file and counts what it reads."""

    def __init__(self, file: untrusted.Hdf5, max_values: int):
        self.file, self.left, self.items = file, max_values, 0

    def group(self, place: str, where: str, depth: int) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise NIRError(f"groups may be nested {MAX_DEPTH} deep, got more at {where!r}; a group may hold itself.")
        out: dict[str, Any] = {}
        for name in self.file.children(place):
            inner = f"{where}/{name}" if where else name
            self.items += 1
            if self.items > MAX_ITEMS:
                raise NIRError(f"a NIR file may hold {MAX_ITEMS} items, got more at {inner!r}; it is too large.")
            below = f"{place}/{name}"
            out[name] = self.group(below, inner, depth + 1) if self.file.is_group(below) else self.value(below, inner)
        return out

    def value(self, place: str, where: str) -> Any:
        self.left -= self.file.size(place)
        if self.left < 0:
            raise NIRError(
                f"a NIR file may hold max_values numbers in all, got more at {where!r}; raise max_values "
                "if you trust the file."
            )
        value = self.file.text(place) if self.file.is_text(place) else self.file.values(place)
        return value[()] if value.ndim else value.item() if value.dtype.kind == "U" else value[()]
