"""Bytes, text and values that nobody meant: all are read, or refused in one sentence, soon and in little memory.

Each kind of input has a strategy and a reader. The quick tests try a few dozen of each, always the same ones; the slow
ones try thousands of new ones (``pytest -m slow tests/test_fuzz.py``).
"""

import io
import json
import resource
import struct
import tempfile
import time
import wave
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import yaml

hypothesis = pytest.importorskip("hypothesis")

import hypothesis.extra.numpy as nps  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from dsnn import config, data, nir  # noqa: E402
from dsnn.api import given as call  # noqa: E402
from dsnn.data import aedat, cifar_records, dvs_gesture, event_files  # noqa: E402
from dsnn.nir.fields import OPTIONAL, REQUIRED  # noqa: E402
from dsnn.run import schema, usage  # noqa: E402
from dsnn.store import untrusted  # noqa: E402

MANY = 2000
SECONDS, KIBIBYTES = 20.0, 1_200_000
SENTENCES = (ValueError, data.DataError, untrusted.UntrustedError, nir.NIRError, usage.UsageError)
RNG = np.random.default_rng(0)


class Input(NamedTuple):
    """A kind of input.

    Attributes:
        examples: what is drawn.
        read: reads one in a folder of its own.
        names: words of which one stands in every sentence; none where the input has no name.
        few: how many the quick test tries.
    """

    examples: st.SearchStrategy[Any]
    read: Callable[[Any, Path], Any]
    names: tuple[str, ...] = ()
    few: int = 60


def check(kind: Input, example: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            kind.read(example, Path(folder))
        except ValueError as error:
            refusal = error
        else:
            refusal = None
        if refusal is not None:
            assert type(refusal) in SENTENCES, repr(refusal)
            said = str(refusal)
            assert said.isprintable(), repr(said)
            assert said.endswith((".", "?")), said  # a sentence may end in "did you mean 'x'?"
            assert not kind.names or any(name in said for name in kind.names), said
        assert time.perf_counter() - start < SECONDS


# --- Bytes

EDGES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)


@st.composite
def damaged(draw: Any, whole: bytes, most: int = 4) -> bytes:
    """Draws bytes that were cut, flipped, zeroed, garbled, doubled, or had a number put among them."""
    made = bytearray(whole)
    for _ in range(draw(st.integers(0, most))):
        at = draw(st.integers(0, max(len(made) - 1, 0)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["cut", "flip", "zero", "garble", "double", "number", "drop"])):
            case "cut":
                del made[at:]
            case "flip" if made:
                made[at] ^= 1 << draw(st.integers(0, 7))
            case "zero":
                made[at : at + length] = bytes(len(made[at : at + length]))
            case "garble":
                made[at : at + length] = draw(st.binary(min_size=1, max_size=40))
            case "double":
                made[at:at] = made[at : at + length]
            case "drop":
                del made[at : at + length]
            case "number":
                width = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from(EDGES)) % (1 << (8 * width))
                made[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
    return bytes(made)


def packed(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def tightly(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X, Y = RNG.normal(size=(12, 3)).astype(np.float32), np.arange(12) % 2
OWN = {"x_train": X, "y_train": Y, "x_test": X[:4], "y_test": Y[:4]}
SPARSE = {
    "x_train_data": np.ones(3),
    "x_train_indices": np.arange(3),
    "x_train_indptr": np.minimum(np.arange(13), 3),
    "x_train_shape": np.array([12, 3]),
}
ROWS = {name: array for name, array in {**OWN, **SPARSE}.items() if name != "x_train"}
ARCHIVES = tuple(pack(**arrays) for pack in (packed, tightly) for arrays in (OWN, ROWS))

DTYPES = (
    *(
        "<f4",
        ">f8",
        "<f2",
        "<i1",
        "<u8",
        "<i8",
        "|b1",
        "<c8",
        "|S3",
        "<U2",
        "<U0",
        "|S0",
        "|V4",
        "|O",
        "<M8[ns]",
        "<m8",
    ),
    *("<m8[Y]", "<f16", "<f3", "", "f4,i4", "<i4(2,)"),
)
LENGTHS = st.one_of(st.integers(-2, 12), st.sampled_from(EDGES))


@st.composite
def headed(draw: Any) -> bytes:
    """Draws an .npy file by its header, which need not agree with what follows."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(
        st.one_of(st.lists(LENGTHS, max_size=4).map(tuple), st.lists(st.just(1), min_size=60, max_size=70).map(tuple))
    )
    text = draw(
        st.sampled_from(
            (
                f"{{'descr': {dtype!r}, 'fortran_order': {draw(st.booleans())}, 'shape': {shape}, }}",
                f"{{'descr': {dtype!r}, 'shape': {shape}}}",
                f"{{'descr': [('a', {dtype!r})], 'fortran_order': False, 'shape': {shape}}}",
                "(" * 500,
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
                "__import__('os')",
            )
        )
    ).encode("latin1")
    version = draw(st.sampled_from((1, 1, 1, 2, 3, 4)))
    length = draw(st.one_of(st.just(len(text) + 1), st.sampled_from(EDGES)))
    size = (length % 2**16).to_bytes(2, "little") if version == 1 else (length % 2**32).to_bytes(4, "little")
    body = draw(st.one_of(st.binary(max_size=64), st.integers(0, 400).map(bytes), st.just(b"\xff" * 12)))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + b"\n" + body


@st.composite
def archived(draw: Any) -> bytes:
    """Draws an .npz file of such members."""
    out = io.BytesIO()
    method = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name in draw(st.lists(st.sampled_from((*OWN, *SPARSE, "x", "y", "t", "\n")), max_size=6, unique=True)):
            whole = npy(OWN[name]) if name in OWN else npy(SPARSE.get(name, Y))
            archive.writestr(f"{name}.npy", draw(st.one_of(st.just(whole), headed(), arrays().map(npy))))
    return out.getvalue()


NUMBERS = (
    "<i1",
    "<u1",
    ">i2",
    "<u4",
    "<i8",
    "<u8",
    "<f2",
    "<f4",
    ">f8",
    "|b1",
    "<c8",
    "<U2",
    "|S2",
    "<M8[us]",
    "<m8[s]",
    "<m8[Y]",
)


@st.composite
def arrays(draw: Any, most: int = 2) -> np.ndarray:
    """Draws an array of any kind, of few values at the edges of what they can be."""
    dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
    shape = draw(st.lists(st.integers(0, 4), max_size=most).map(tuple))
    return draw(nps.arrays(dtype, shape))


# --- Readers


def from_npz(content: bytes, folder: Path) -> None:
    (folder / "own.npz").write_bytes(content)
    data.load("npz", path=folder / "own.npz")


def from_npy(contents: tuple[bytes, bytes], folder: Path) -> None:
    for name, whole in OWN.items():
        (folder / f"{name}.npy").write_bytes(npy(whole))
    for name, content in zip(("x_train", "y_train"), contents, strict=True):
        (folder / f"{name}.npy").write_bytes(content)
    data.load("npy", path=folder)


EVENTS = {"t": np.arange(6), "x": np.arange(6), "y": np.arange(6), "p": np.arange(6) % 2}


def from_event_npz(content: bytes, folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir()
        for n in range(3):
            (folder / label / f"{n}.npz").write_bytes(packed(**EVENTS))
    (folder / "a" / "1.npz").write_bytes(content)
    data.load("events", path=folder, steps=4)


def from_bin(content: bytes, folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir()
        for n in range(3):
            (folder / label / f"{n}.bin").write_bytes(bytes((3, 4, 0x80, 0, n)) * 3)
    (folder / "a" / "1.bin").write_bytes(content)
    data.load("events", path=folder, steps=4)


PACKET = struct.pack("<2h6i", 1, 1, 8, 4, 0, 3, 2, 2) + struct.pack("<6I", 1 << 17 | 5, 9, 3 << 2 | 1, 10, 0, 0)
CAMERA = {
    "2": b"#!AER-DAT2.0\r\n# a line\r\n" + struct.pack(">4I", 3 << 8 | 4 << 1, 9, 5 << 8 | 1, 10),
    "3": b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n" + 2 * PACKET,
}


def from_aedat(content: bytes, folder: Path) -> None:
    (folder / "1.aedat").write_bytes(content)
    event_files.read(folder / "1.aedat")
    aedat.read(content, "1.aedat", 128)


@st.composite
def events(draw: Any) -> bytes:
    """Draws a recording, some of whose arrays are of another kind or length than the others."""
    count = draw(st.integers(0, 6))
    made = {}
    for name in draw(st.sampled_from((("t", "x", "y", "p"), ("t", "x", "y"), ("t", "channel"), ("t",), ("x", "y")))):
        dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
        made[name] = draw(
            st.one_of(nps.arrays(dtype, count), arrays(), st.just(np.arange(count)), st.just(np.arange(count) * 1e9))
        )
    return packed(**made)


def hdf5(build: Callable[[Any], None]) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        build(file)
    return out.getvalue()


def spikes(file: Any) -> None:
    for name, kind in (("times", "f8"), ("units", "i8")):
        made = file.create_dataset(f"spikes/{name}", (8,), h5py.vlen_dtype(np.dtype(kind)))
        for n in range(8):
            made[n] = np.arange(n)
    file["labels"] = np.arange(8) % 2


def graph() -> dict[str, Any]:
    one = np.ones(3)
    nodes = {
        "input": {"type": "Input", "shape": np.array([4])},
        "a": {"type": "Affine", "weight": np.ones((3, 4)), "bias": np.zeros(3)},
        "b": {"type": "LIF", "tau": 0.01 * one, "r": one, "v_leak": 0 * one, "v_threshold": one},
        "output": {"type": "Output", "shape": np.array([3])},
    }
    return {"type": "NIRGraph", "nodes": nodes, "edges": [("input", "a"), ("a", "b"), ("b", "output")]}


def write_tree(file: Any, tree: Any, place: str) -> None:
    for name, below in tree.items():
        inner = f"{place}/{name}" if place else name
        if isinstance(below, dict):
            file.require_group(inner)
            write_tree(file, below, inner)
        elif isinstance(below, list):
            file[inner] = [list(pair) for pair in below]
        else:
            file[inner] = below


@st.composite
def planted(draw: Any, tree: Callable[[Any], None], places: tuple[str, ...]) -> bytes:
    """Draws an HDF5 file in which something else stands at some of the places."""

    def build(file: Any) -> None:
        tree(file)
        for place in draw(st.lists(st.sampled_from(places), max_size=3, unique=True)):
            if file.get(place, getlink=True) is not None:
                del file[place]
            put(draw, file, place)

    try:
        return hdf5(build)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError):  # HDF5 itself refuses to write such a file
        return b""


def put(draw: Any, file: Any, place: str) -> None:
    match draw(
        st.sampled_from(
            [
                "array",
                "group",
                "soft",
                "external",
                "gone",
                "text",
                "texts",
                "vlen",
                "reference",
                "empty",
                "huge",
                "wide",
                "type",
                "packed",
            ]
        )
    ):
        case "array":
            array = draw(arrays())
            file[place] = array.astype("S") if array.dtype.kind == "U" else array
        case "group":
            file.create_group(place)[draw(st.sampled_from(("type", "a", "\x7f")))] = draw(st.integers(-3, 3))
        case "soft":
            file[place] = h5py.SoftLink("/labels")
        case "external":
            file[place] = h5py.ExternalLink("/etc/passwd", "/")
        case "text":
            file[place] = draw(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5))
        case "texts":
            file[place] = [b"a", b"\xff"]
        case "vlen":
            made = file.create_dataset(
                place, (8,), h5py.vlen_dtype(np.dtype(draw(st.sampled_from(("f4", "i8", "u1")))))
            )
            made[0] = [draw(st.integers(0, 100))]
        case "reference":
            file[place] = np.array([file.ref], h5py.ref_dtype)
        case "empty":
            file[place] = h5py.Empty("f4")
        case "huge":
            file.create_dataset(
                place,
                tuple(draw(st.lists(st.sampled_from((1, 8, 2**31, 2**40)), min_size=1, max_size=2))),
                "f4",
                chunks=True,
            )
        case "wide":
            file.create_dataset(place, (2,), f"S{draw(st.sampled_from((1, 2**16, 2**29)))}", chunks=(1,))
        case "type":
            file[place] = np.dtype("f4")
        case "packed":
            file.create_dataset(
                place, data=np.arange(8), compression=draw(st.sampled_from(("gzip", "lzf"))), shuffle=True
            )


def from_lists(content: bytes, folder: Path) -> None:
    (folder / "own.h5").write_bytes(content)
    data.load("events", path=folder / "own.h5", steps=4)


def from_nir_file(content: bytes, folder: Path) -> None:
    (folder / "own.nir").write_bytes(content)
    read = nir.load(folder / "own.nir", dt=1e-3)
    repr(read)
    nir.stack(read)


FIELDS = sorted({field for table in (REQUIRED, OPTIONAL) for fields in table.values() for field in fields})
ODD = st.one_of(
    arrays(3),
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(-2, 9), st.floats()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(("same", "valid", np.ones(3), np.ones((3, 4)), np.ones((2, 4, 1)), np.array([1, 1]), 1, 0.5, 2.0)),
)
NOTES = st.one_of(
    st.sampled_from(
        ('{"reset": "none"}', '{"noise": {"kind": "Logistic", "width": 0.1}}', '{"surrogate": ["atan", {}]}', "{", "[]")
    ),
    st.dictionaries(
        st.sampled_from(
            (
                "reset",
                "reset_timing",
                "compare",
                "refractory",
                "detach_reset",
                "noise",
                "surrogate",
                "dt",
                "method",
                "readout",
            )
        ),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
            lambda s: st.lists(s, max_size=3),
        ),
        max_size=3,
    ).map(json.dumps),
)


@st.composite
def graphs(draw: Any) -> Any:
    """Draws a NIR graph in memory, with fields, nodes and edges that make no sense."""
    made = graph()
    nodes = made["nodes"]
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from((*nodes, "items", "__class__", "a b", "")))
        kind = draw(st.sampled_from((*REQUIRED, "NIRGraph", "Backdoor")))
        whole = {
            field: draw(ODD) for field in (*REQUIRED.get(kind, ()), *OPTIONAL.get(kind, ())) if draw(st.booleans())
        }
        nodes[name] = draw(st.one_of(st.just({"type": kind, **whole}), st.just(graph()), ODD))
    node = nodes[draw(st.sampled_from(sorted(nodes)))]
    if isinstance(node, dict):
        for _ in range(draw(st.integers(0, 2))):
            node[draw(st.sampled_from((*node, *FIELDS, "type")))] = draw(ODD)
        if draw(st.booleans()):
            node["metadata"] = draw(st.one_of(ODD, st.fixed_dictionaries({"dsnn": st.one_of(NOTES, ODD)})))
    for _ in range(draw(st.integers(0, 2))):
        made["edges"].append(draw(st.one_of(st.tuples(*[st.sampled_from(sorted(nodes))] * 2), ODD)))
    if draw(st.integers(0, 9)) == 0:
        made[draw(st.sampled_from(("nodes", "edges", "type", "metadata")))] = draw(ODD)
    return made


def from_graph(made: Any, folder: Path) -> None:
    nir.stack(nir.from_nir(made, dt=1e-3))


def sound(kind: int = 1, width: int = 2, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((channels, width, 8000, 0, "NONE", "none"))
        file.writeframes(bytes(range(240)) * 4 * width)
    made = bytearray(out.getvalue())
    made[20:22] = struct.pack("<H", kind)
    return bytes(made)


@st.composite
def sounds(draw: Any) -> bytes:
    """Draws a wav file by its header."""
    numbers = st.one_of(st.sampled_from(EDGES), st.sampled_from((1, 2, 3, 16, 32, 64, 200, 8000, 44_100)))
    order = draw(st.sampled_from("<<<>"))
    sizes = (2, 2, 4, 4, 2, 2)
    usual = (
        draw(st.sampled_from((1, 3, 6, 0xFFFE))),
        draw(st.integers(1, 2)),
        draw(st.sampled_from((200, 8000))),
        0,
        0,
        draw(st.sampled_from((8, 16, 24, 32, 64))),
    )
    values = [
        draw(st.one_of(st.just(one), st.just(one), numbers)) % (1 << (8 * size))
        for one, size in zip(usual, sizes, strict=True)
    ]
    layout = struct.pack(f"{order}HHIIHH", *values) + draw(st.one_of(st.just(b""), st.binary(max_size=24)))
    body = draw(st.binary(max_size=64)) * draw(st.integers(1, 20))
    said = draw(st.one_of(st.just(len(body)), numbers)) % 2**32
    name = {"<": draw(st.sampled_from((b"RIFF", b"RF64"))), ">": b"RIFX"}[order]
    whole = struct.pack(f"{order}I", draw(st.sampled_from((36, 0, 2**32 - 1))))
    chunk = struct.pack(f"{order}I", len(layout))
    return name + whole + b"WAVEfmt " + chunk + layout + b"data" + struct.pack(f"{order}I", said) + body


def from_wav(content: bytes, folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir()
        for n in range(2):
            (folder / label / f"{n}.wav").write_bytes(sound())
    (folder / "a" / "1.wav").write_bytes(content)
    data.load("audio", path=folder, bands=4, steps=5)


def picture(suffix: str) -> bytes:
    image = pytest.importorskip("PIL.Image")
    out = io.BytesIO()
    exif = image.Exif()
    exif[0x0112] = 6
    image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(out, suffix, exif=exif)
    return out.getvalue()


def from_picture(content: bytes, folder: Path) -> None:
    for label in ("a", "b"):
        (folder / label).mkdir()
        for n in range(3):
            (folder / label / f"{n}.png").write_bytes(picture("png"))
    (folder / "a" / "1.png").write_bytes(content)
    data.load("images", path=folder, test_fraction=0.3, size=[4, 4])


# --- Text and values

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from((2**31, 2**40, 2**63, 10**400, -1, 0, 1)),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(("LIF", "os:system", "mlp", "a.b:c", "none", "auto", "digits", "npz")),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=4), st.integers()), inner, max_size=3)
    ),
    max_leaves=6,
)
USUAL = config.as_dict(config.Config())


def flat(options: Any, place: str = "") -> list[str]:
    found = []
    for name, below in options.items():
        found.append(f"{place}{name}")
        if isinstance(below, dict):
            found += flat(below, f"{place}{name}.")
    return found


PLACES = tuple(flat(USUAL))


CHANGES = st.lists(st.tuples(st.sampled_from((*PLACES, "model.new", "new")), VALUES), min_size=1, max_size=3)
"""Of a stored configuration: other values at some places."""


def from_configuration(changes: list[tuple[str, Any]], folder: Path) -> None:
    made = json.loads(json.dumps(USUAL))
    for place, value in changes:
        *groups, name = place.split(".")
        inner = made
        for group in groups:
            inner = inner.get(group) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[name] = value
    config.from_dict(made)


STORED = yaml.safe_dump(USUAL)
YAML = st.one_of(
    damaged(STORED.encode()),
    st.text(alphabet="ab:-[]{}&*!|>%@`'\"#,?\n\t 01.~<\\", max_size=40).map(str.encode),
    st.binary(max_size=30),
    st.sampled_from(
        (b"[" * 5000, b"{a: " * 5000, b"a: &a [*a]", b"!!python/object/apply:os.system [ls]", b"- " * 5000)
    ),
    st.sampled_from(
        (
            b"a: 2024-99-99",
            b"a: !!int x",
            b"a: !!binary x",
            b"? [a]\n: b",
            b"<<: [a]",
            b"a: 0x",
            b"1: 2",
            b"a: .inf",
            b"a: 1_0:60",
        )
    ),
)


def from_yaml(content: bytes, folder: Path) -> None:
    (folder / "config.yaml").write_bytes(content)
    config.from_dict(untrusted.yaml_mapping(folder / "config.yaml"))


def from_json(content: bytes, folder: Path) -> None:
    (folder / "lines.jsonl").write_bytes(content)
    for number, line in enumerate(untrusted.text(folder / "lines.jsonl").split("\n")):
        untrusted.parsed_json(line, f"line {number} of lines.jsonl")


JSON = st.one_of(
    damaged(b'{"step": 1, "test/accuracy": 0.5, "a": [1, {"b": null}]}\n{"step": 2}\n'),
    st.text(alphabet='[]{}",:0123456789.eE+-truefalsn\\u \n', max_size=40).map(str.encode),
    VALUES.map(lambda value: json.dumps(value, skipkeys=True).encode()),
    st.sampled_from((b"[" * 100_000, b'{"a":' * 5000, b"9" * 5000, b"1e999", b"NaN", b'"\\ud800"', b"\xff")),
)

WORDS = st.one_of(
    st.tuples(
        st.sampled_from((*PLACES, "data.options.steps", "hydra.x", "hydra.searchpath", "", "-", "+a", "~seed")),
        st.text(max_size=12),
    ).map("=".join),
    st.tuples(st.sampled_from(PLACES), st.text(alphabet="[]{}(),:'\"\\$ 01.ab\n=", max_size=12)).map("=".join),
    st.sampled_from(
        (
            "-m",
            "--cfg",
            "--info",
            "--help",
            "-cd",
            "--config-dir",
            "--x",
            "seed",
            "~seed",
            "+seed=1",
            "seed=${a}",
            "seed=1,2",
        )
    ),
    st.text(max_size=12),
)


def from_words(words: list[str], folder: Path) -> None:
    usage.check(usage.read(words).overrides)


def from_overrides(words: list[str], folder: Path) -> None:
    read = usage.read(words)
    usage.check(read.overrides)
    schema.compose([word for word in read.overrides if not word.startswith("hydra")])


def from_call(example: Any, folder: Path) -> None:
    x, y, task, temporal = example
    call.inputs_of(call.split_of(x, y, task, temporal, 0.2, 0), x)


RAGGED = st.lists(st.lists(st.one_of(st.integers(-9, 9), st.none(), st.text(max_size=1)), max_size=3), max_size=6)
CALLS = st.tuples(
    st.one_of(nps.arrays(np.float32, (8, 2)), arrays(3), st.just(X), RAGGED, ODD),
    st.one_of(
        nps.arrays(st.sampled_from([np.dtype(name) for name in NUMBERS]), st.sampled_from((8, (8, 1), (8, 2)))),
        arrays(),
        st.just(Y),
        ODD,
    ),
    st.sampled_from(("auto", "classification", "regression", "multilabel")),
    st.booleans(),
)

INPUTS = {
    "npz bytes": Input(st.sampled_from(ARCHIVES).flatmap(damaged), from_npz, ("own.npz", "'npz'"), 200),
    "npz of headers": Input(archived(), from_npz, ("own.npz", "'npz'"), 120),
    "npy headers": Input(
        st.tuples(
            st.one_of(headed(), arrays(3).map(npy), st.just(npy(X))),
            st.one_of(headed(), arrays().map(npy), st.just(npy(Y))),
        ),
        from_npy,
        ("_train", "'npy'", "train part"),
        120,
    ),
    "npy bytes": Input(st.tuples(damaged(npy(X)), damaged(npy(Y))), from_npy, ("_train", "'npy'", "train part"), 60),
    "event bytes": Input(damaged(packed(**EVENTS)), from_event_npz, ("1.npz", "'events'"), 80),
    "event arrays": Input(events(), from_event_npz, (".npz", "recordings", "'events'"), 200),
    "five-byte events": Input(
        st.one_of(damaged(bytes((3, 4, 0x80, 0, 9)) * 5), st.binary(max_size=40)), from_bin, ("1.bin",), 40
    ),
    "aedat 2": Input(damaged(CAMERA["2"]), from_aedat, ("1.aedat",), 100),
    "aedat 3": Input(damaged(CAMERA["3"]), from_aedat, ("1.aedat",), 200),
    "cifar records": Input(
        damaged(bytes(2 * 3074)),
        lambda made, _: cifar_records.read(made, {"coarse": 20, "fine": 100}, "1.bin"),
        ("1.bin",),
    ),
    "gesture lists": Input(
        damaged(b"class,startTime_usec,endTime_usec\n1,10,20\n11,20,30\n"),
        lambda made, _: dvs_gesture.labels(made.decode("latin-1"), "1.csv"),
        ("1.csv",),
        100,
    ),
    "lists bytes": Input(damaged(hdf5(spikes), 3), from_lists, ("own.h5", "'events'"), 80),
    "lists of others": Input(
        planted(spikes, ("labels", "spikes/times", "spikes/units", "spikes")),
        from_lists,
        ("own.h5", "'events'", "recordings"),
        80,
    ),
    "nir bytes": Input(damaged(hdf5(lambda file: write_tree(file, {"node": graph()}, "")), 3), from_nir_file, (), 60),
    "nir of others": Input(
        planted(
            lambda file: write_tree(file, {"node": graph()}, ""),
            (
                "node",
                "node/nodes",
                "node/edges",
                "node/nodes/a",
                "node/nodes/a/weight",
                "node/nodes/b/tau",
                "node/nodes/b/type",
                "node/nodes/input/shape",
                "node/metadata",
                "node/nodes/b/metadata",
            ),
        ),
        from_nir_file,
        (),
        60,
    ),
    "nir graphs": Input(graphs(), from_graph, (), 150),
    "wav bytes": Input(
        st.sampled_from((sound(), sound(3, 4), sound(1, 3, 2))).flatmap(damaged), from_wav, ("1.wav",), 100
    ),
    "wav headers": Input(sounds(), from_wav, ("1.wav",), 150),
    "png bytes": Input(st.deferred(lambda: damaged(picture("png"))), from_picture, ("1.png", "images"), 60),
    "jpg bytes": Input(st.deferred(lambda: damaged(picture("jpeg"))), from_picture, ("1.png", "images"), 60),
    "yaml": Input(YAML, from_yaml, (), 60),
    "configurations": Input(CHANGES, from_configuration, (), 150),
    "json lines": Input(JSON, from_json, ("lines.jsonl",), 150),
    "command lines": Input(st.lists(WORDS, max_size=4), from_words, (), 150),
    "overrides": Input(st.lists(WORDS, max_size=2), from_overrides, (), 12),
    "calls": Input(CALLS, from_call, (), 150),
}
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


def tried(name: str, count: int, *, same: bool) -> None:
    """Tries a kind of input, always the same examples where asked."""
    kind = INPUTS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=count, derandomize=same, deadline=None, database=None, suppress_health_check=QUIET)
    @given(kind.examples)
    def every(example: Any) -> None:
        check(kind, example)

    every()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KIBIBYTES


@pytest.mark.parametrize("name", INPUTS)
def test_fuzz_gets_a_sentence_at_worst(name):
    tried(name, max(INPUTS[name].few // 3, 10), same=True)  # the slow one tries thousands


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_fuzz_of_thousands_gets_a_sentence_at_worst(name):
    tried(name, MANY, same=False)


FOUND = [
    ("command lines", ["\x1f="]),
    ("overrides", ["learner_options="]),
    ("npz bytes", packed(x_train=X[:, 0], y_train=Y, x_test=X[:4, 0], y_test=Y[:4])),
]
"""Inputs that a fuzzing of new examples found, whose sentences had been wanting."""


@pytest.mark.parametrize(("name", "example"), FOUND, ids=[name for name, _ in FOUND])
def test_fuzz_of_what_was_found_gets_a_sentence(name, example):
    check(INPUTS[name], example)
