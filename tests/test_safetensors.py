"""Files of tensors as others write them, by hand here, and damaged in every way that a header can be."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsnn.store import untrusted
from dsnn.store.untrusted import UntrustedError

VALUES = np.array([[1.5, -2.0, 0.0], [np.inf, 2.0**-20, 3.0]], np.float32)


def packed(header: Any, numbers: bytes = b"") -> bytes:
    """Returns a file of a header, which may be text of any kind, and numbers."""
    said = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(said).to_bytes(8, "little") + said + numbers


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def read(folder: Path, content: bytes, **options: Any) -> dict[str, np.ndarray]:
    path = folder / "x.safetensors"
    path.write_bytes(content)
    return untrusted.safetensors(path, **options)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("F64", np.float64), ("F32", np.float32), ("F16", np.float16), ("I64", np.int64), ("I32", np.int32),
        ("I16", np.int16), ("I8", np.int8), ("U64", np.uint64), ("U32", np.uint32), ("U16", np.uint16),
        ("U8", np.uint8), ("BOOL", np.bool_),
    ],
)  # fmt: skip
def test_numbers_of_every_dtype_come_back(said: str, kind: Any, tmp_path: Path) -> None:
    values = np.array([[1, 0, 1], [0, 1, 1]]).astype(kind)
    found = read(tmp_path, packed({"a.b": entry(said, (2, 3), (0, values.nbytes))}, values.tobytes()))
    assert list(found) == ["a.b"]
    assert found["a.b"].dtype == kind
    np.testing.assert_array_equal(found["a.b"], values)


def test_halves_of_floats_become_floats_of_the_same_value(tmp_path: Path) -> None:
    """bfloat16 is the upper half of a float32, so that those of few digits are exact."""
    upper = (VALUES.view(np.uint32) >> 16).astype("<u2")
    found = read(tmp_path, packed({"w": entry("BF16", (2, 3), (0, 12))}, upper.tobytes()))
    assert found["w"].dtype == np.float32
    np.testing.assert_array_equal(found["w"], VALUES)


def test_order_scalars_empty_tensors_and_words_about_the_file(tmp_path: Path) -> None:
    one, two = np.float32(7.0), np.arange(4, dtype=np.int64)
    header = {
        "__metadata__": {"format": "pt"}, "later": entry("I64", (4,), (4, 36)), "none": entry("F32", (0, 3), (4, 4)),
        "first": entry("F32", (), (0, 4)),
    }  # fmt: skip
    found = read(tmp_path, packed(header, one.tobytes() + two.tobytes()))
    assert set(found) == {"later", "none", "first"}
    assert found["first"] == 7.0
    assert found["first"].shape == ()
    assert found["none"].shape == (0, 3)
    np.testing.assert_array_equal(found["later"], two)
    found["later"][0] = 5  # one may change them
    assert read(tmp_path, packed({})) == {}


NUMBERS = bytes(24)
TWICE = packed({"a": entry(), "b": entry("F32", (0,), (0, 0))}, NUMBERS).replace(b'"b"', b'"a"')


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must begin with the length of its header, at most 0 bytes here, got 0"),
        (b"\x05\x00\x00", "must begin with the length"),
        ((2**63).to_bytes(8, "little") + b"{}", "at most 2 bytes here, got 9223372036854775808"),
        (packed(b"\xff\xfe"), "must be text in UTF-8"),
        (packed(b"{"), "must be JSON"),
        (packed(b"[" * 100 + b"]" * 100), "may be nested 64 deep"),
        (packed([]), "must map names to tensors, got a list"),
        (packed({"a": 3}), "a in .* must have dtype, shape and data_offsets, got 3"),
        (packed({"a": {"dtype": "F32", "shape": [1]}}), "must have dtype, shape and data_offsets"),
        (packed({"a": entry("F8_E4M3")}, NUMBERS), "must have one of the dtypes .*, got 'F8_E4M3'"),
        (packed({"a": entry(["F32"])}, NUMBERS), "must have one of the dtypes"),
        (packed({"a": entry(shape=[2, -3])}, NUMBERS), "must have a shape of sizes"),
        (packed({"a": entry(shape=[2, 3.0])}, NUMBERS), "must have a shape of sizes"),
        (packed({"a": entry(shape=[6, True])}, NUMBERS), "must have a shape of sizes"),
        (packed({"a": entry(shape=[1] * 40)}, bytes(4)), "must have a shape of sizes"),
        (packed({"a": entry(shape="23")}, NUMBERS), "must have a shape of sizes"),
        (packed({"a": entry(offsets=[0])}, NUMBERS), "must have its first byte and its end"),
        (packed({"a": entry(offsets=[-24, 0])}, NUMBERS), "must have its first byte and its end"),
        (packed({"a": entry(offsets=[24, 0])}, NUMBERS), "must have 24 bytes for F32 of shape .*, got -24"),
        (packed({"a": entry(shape=[2**40, 2**40])}, NUMBERS), "must have .* bytes for F32"),
        (packed({"a": entry()}, NUMBERS[:-1]), "without holes, got the end at byte 23 where 24 bytes"),
        (packed({"a": entry()}, NUMBERS + b"x"), "without holes, got the end at byte 25"),
        (packed({"a": entry(offsets=[1, 25])}, NUMBERS + b"x"), "without holes, got a at byte 1 where 0"),
        (packed({"a": entry(), "b": entry()}, NUMBERS), "without holes, got b at byte 0 where 24"),
        (TWICE, "without holes"),
        (packed({"a": entry("BOOL", [2], [0, 2])}, b"\x01\x02"), "must be truth values"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(content: bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UntrustedError, match=sentence):
        read(tmp_path, content)


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    content = packed({"a": entry()}, NUMBERS)
    assert set(read(tmp_path, content, most=24)) == {"a"}
    with pytest.raises(UntrustedError, match="may hold 23 bytes of numbers, got 24 bytes"):
        read(tmp_path, content, most=23)
    with pytest.raises(FileNotFoundError):
        untrusted.safetensors(tmp_path / "absent.safetensors")
    with pytest.raises(UntrustedError, match="must be a plain file"):
        untrusted.safetensors(tmp_path)


def test_bytes_at_random_give_tensors_or_a_sentence(tmp_path: Path) -> None:
    """Every byte of the header changed, cut or doubled: never another error, and never a tensor of another size."""
    whole = packed({"a": entry(), "b": entry("F16", (2,), (24, 28))}, bytes(28))
    draw, read_well = random.Random(0), 0
    for at in range(len(whole)):
        for new in (bytes([draw.randrange(256)]), b"", whole[at : at + 1] * 2):
            try:
                found = read(tmp_path, whole[:at] + new + whole[at + 1 :])
            except UntrustedError:
                continue
            assert sum(one.nbytes for one in found.values()) == 28
            read_well += 1
    assert 0 < read_well < len(whole) * 2
