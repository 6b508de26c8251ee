"""What a NIR node may hold, checked before anything is built of it."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsnn.escape.parameters import check_choice
from dsnn.store import untrusted

METHODS = ("euler", "exp")
NOTES = "dsnn"
MAX_VALUES = 1 << 28
"""Numbers that a file may hold in all, and that a node may give at a step."""

LARGEST = float(np.finfo(np.float32).max)


class NIRError(ValueError):
    """A NIR graph that cannot be read; the message is one sentence that names the node."""

    def __init__(self, sentence: str = ""):
        super().__init__(untrusted.printable(sentence))


@dataclasses.dataclass(frozen=True)
class Clock:
    """How continuous time becomes steps.

    Attributes:
        dt: length of a step in seconds.
        method: "euler" (decay 1 - dt/tau) or "exp" (decay exp(-dt/tau)).
        round_delays: whether a delay that is no multiple of dt is rounded to the nearest one rather than refused.
    """

    dt: float | int
    method: str = "euler"
    round_delays: bool = False

    def __post_init__(self) -> None:
        seconds(self.dt)
        check_choice("method", self.method, METHODS)


def seconds(dt: Any) -> float | int:
    """Returns the length of a step as Python has numbers, of whatever library it came from.

    Raises:
        NIRError: it is no positive number.
    """
    plain = dt if isinstance(dt, int | float) else None
    if plain is None and np.ndim(dt) == 0 and np.asarray(dt).dtype.kind in "iuf":
        plain = float(dt)
    if plain is None or isinstance(dt, bool) or not 0 < plain < 1e300:
        raise NIRError(f"dt must be a positive number of seconds, got {dt!r}; a millisecond is 1e-3.")
    return plain


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The fields of a node as its file held them, in their own precision; static, and compared by identity.

    Attributes:
        name: of the node, with the names of the graphs that hold it before it.
        kind: type of the node, such as "LIF".
        fields: arrays and strings by name.
        metadata: as found.
    """

    name: str
    kind: str
    fields: Mapping[str, Any]
    metadata: Mapping[str, Any]

    def __getitem__(self, field: str) -> np.ndarray:
        """Returns a numeric field."""
        return self.fields[field]

    @property
    def notes(self) -> dict[str, Any]:
        """What this library wrote about the node besides its NIR fields; empty for files of others."""
        if NOTES not in self.metadata:
            return {}
        try:
            notes = untrusted.parsed_json(str(self.metadata[NOTES]), f"metadata {NOTES!r} of node {self.name!r}")
        except untrusted.UntrustedError as error:
            raise NIRError(str(error)) from None
        if not isinstance(notes, dict):
            raise NIRError(f"metadata {NOTES!r} of node {self.name!r} must be a JSON object, got {notes!r}.")
        return notes

    def current(self, **values: Any) -> dict[str, Any]:
        """Returns the fields to write: where a value in single precision is unchanged, the bits that were read."""
        out = dict(self.fields)
        for name, value in values.items():
            old, new = np.asarray(self.fields[name]), np.asarray(value)
            if not np.array_equal(old.astype(np.float32), new.astype(np.float32)):
                out[name] = new.astype(old.dtype).reshape(old.shape)
        return out


REQUIRED: dict[str, tuple[str, ...]] = {
    "Input": ("shape",),
    "Output": ("shape",),
    "Linear": ("weight",),
    "Affine": ("weight", "bias"),
    "Scale": ("scale",),
    "Conv1d": ("weight", "stride", "padding", "dilation", "groups", "bias"),
    "Conv2d": ("weight", "stride", "padding", "dilation", "groups", "bias"),
    "SumPool2d": ("kernel_size", "stride", "padding"),
    "AvgPool2d": ("kernel_size", "stride", "padding"),
    "Flatten": ("start_dim", "end_dim"),
    "Delay": ("delay",),
    "Threshold": ("threshold",),
    "I": ("r",),
    "LI": ("tau", "r", "v_leak"),
    "IF": ("r", "v_threshold"),
    "LIF": ("tau", "r", "v_leak", "v_threshold"),
    "CubaLI": ("tau_syn", "tau_mem", "r", "v_leak"),
    "CubaLIF": ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold"),
}
OPTIONAL: dict[str, tuple[str, ...]] = {
    "Conv1d": ("input_shape",),
    "Conv2d": ("input_shape",),
    "Flatten": ("input_type",),
    "IF": ("v_reset",),
    "LIF": ("v_reset",),
    "CubaLI": ("w_in",),
    "CubaLIF": ("v_reset", "w_in"),
}
RANKS = {("Linear", "weight"): 2, ("Affine", "weight"): 2, ("Conv1d", "weight"): 3, ("Conv2d", "weight"): 4}
POSITIVE = ("tau", "tau_syn", "tau_mem")


def source(name: str, node: Any) -> Source:
    """Returns the checked fields of one node.

    Args:
        name: of the node.
        node: its "type", fields and optional "metadata", as `nir.NIRNode.to_dict` gives them.

    Raises:
        NIRError: an unknown type, a missing or unknown field, or a value out of range; the sentence names the node.
    """
    if not isinstance(node, Mapping):
        raise NIRError(f"node {name!r} must hold its fields by name, got {type(node).__name__}.")
    kind = node.get("type")
    kind = kind.decode("utf8", "replace") if isinstance(kind, bytes) else kind
    if not isinstance(kind, str) or kind not in REQUIRED:
        raise NIRError(f"node {name!r} has the unknown type {kind!r}; known are {', '.join(REQUIRED)} and NIRGraph.")
    known = (*REQUIRED[kind], *OPTIONAL.get(kind, ()))
    given = {key: value for key, value in node.items() if key not in ("type", "metadata")}
    if missing := [key for key in REQUIRED[kind] if given.get(key) is None]:
        raise NIRError(f"node {name!r} of type {kind} lacks {', '.join(missing)}; write the file again with it.")
    if unknown := sorted(given.keys() - set(known)):
        raise NIRError(f"node {name!r} of type {kind} has the unknown field {unknown[0]!r}; it may hold {known}.")
    fields = {key: _field(name, kind, key, value) for key, value in given.items() if value is not None}
    return Source(name, kind, fields, metadata_of(name, node))


def metadata_of(name: str, node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the metadata of a node, empty where it has none.

    Raises:
        NIRError: they are not given by name.
    """
    metadata = node.get("metadata")
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise NIRError(f"metadata of node {name!r} must be given by name, got {type(metadata).__name__}.")
    return metadata


def _field(name: str, kind: str, key: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf8", "replace")
    if isinstance(value, str):
        if key == "padding" and value in ("same", "valid"):
            return value
        raise NIRError(f"{key} of node {name!r} must be numbers, got the text {value!r}.")
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise NIRError(f"{key} of node {name!r} must be numbers, got: {error}.") from None
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise NIRError(f"{key} of node {name!r} must be real numbers, got dtype {array.dtype}.")
    if not np.isfinite(array).all():
        raise NIRError(f"{key} of node {name!r} must be finite, got {array[~np.isfinite(array)].flat[0]}.")
    if array.size and (np.abs(array.astype(np.float64)) > LARGEST).any():
        raise NIRError(f"{key} of node {name!r} must be numbers in single precision, got {np.abs(array).max()}.")
    rank = RANKS.get((kind, key))
    if rank is not None and array.ndim != rank:
        raise NIRError(f"{key} of node {name!r} must have {rank} axes, got shape {array.shape}.")
    if key in POSITIVE and not (array > 0).all():
        raise NIRError(f"{key} of node {name!r} must be positive seconds, got {array.min()}.")
    return array


def whole(node: Source, field: str, value: Any) -> tuple[int, ...]:
    """Returns a field as integers.

    Raises:
        NIRError: fractions, more than one axis, or numbers that no shape can have.
    """
    array = np.atleast_1d(value)
    if array.ndim != 1 or array.dtype.kind not in "biuf" or (array != np.round(array)).any():
        raise NIRError(f"{field} of node {node.name!r} must be integers, got {_shown(array)}.")
    if array.size and not -(2.0**31) < float(array.min()) <= float(array.max()) < 2.0**31:
        raise NIRError(f"{field} of node {node.name!r} must be integers below 2^31, got {_shown(array)}.")
    return tuple(int(n) for n in array)


def check_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of what a node gives.

    Raises:
        NIRError: it is empty, negative, or too large.
    """
    if min(shape, default=1) < 1 or math.prod(shape) > MAX_VALUES or len(shape) > 16:
        raise NIRError(f"node {name!r} may give 1 to {MAX_VALUES} values, got shape {shape[:16]}.")
    return shape


def _shown(array: np.ndarray) -> str:
    return str(array.ravel()[:8].tolist())
