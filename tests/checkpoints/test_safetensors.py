"""The decoder against the safetensors package: whatever that refuses is refused here too."""

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from hexad.checkpoints.safetensors import SafetensorsFile
from hexad.errors import CheckpointError

OFTEN = settings(max_examples=400)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("safetensors") / "x.safetensors"


def pack(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def ours_reads(path: Path) -> bool:
    try:
        file = SafetensorsFile(path)
    except CheckpointError as error:
        assert str(path) in str(error)
        return False
    for name in file:
        assert file[name].shape == file.infos[name].shape
    return True


def theirs_reads(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, "np") as file:
            file.keys()
    except Exception:
        return False
    return True


def test_tensors_are_the_same_and_read_only(scratch: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.standard_normal((3, 5)).astype(np.float32),
        "half": rng.standard_normal(7).astype(np.float16),
        "b": rng.standard_normal((2, 1, 4)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "naïve": np.ones(1, np.float16),
    }
    save_file(tensors, scratch, metadata={"format": "pt"})
    file = SafetensorsFile(scratch)
    assert set(file) == set(tensors)
    for name, expected in tensors.items():
        assert file[name].dtype == expected.dtype
        np.testing.assert_array_equal(file[name], expected)
        assert not expected.size or not file[name].flags.writeable


def _entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


REFUSED = {
    "nothing": b"",
    "a short length": b"\x02\0\0",
    "a length alone": struct.pack("<Q", 2),
    "a length of 2**63": pack({}, length=2**63),
    "a length of 2**64 - 1": pack({}, length=2**64 - 1),
    "a length over the limit": pack({}, length=100_000_001),
    "no JSON": pack(b"abcd"),
    "no object": pack(b"[]"),
    "bad UTF-8": pack(b'{"\xff": 1}'),
    "a lone surrogate": pack(b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', b"\0" * 8),
    "deep nesting": pack(b'{"a":' * 100_000),
    "data without tensors": pack({}, b"\0"),
    "truncated data": pack({"a": _entry()}, b"\0" * 7),
    "trailing data": pack({"a": _entry()}, b"\0" * 9),
    "a hole": pack({"a": _entry(), "b": _entry(offsets=[9, 17])}, b"\0" * 17),
    "a hole at the start": pack({"a": _entry(offsets=[1, 9])}, b"\0" * 9),
    "an overlap": pack({"a": _entry(), "b": _entry(offsets=[4, 12])}, b"\0" * 12),
    "the same bytes twice": pack({"a": _entry(), "b": _entry()}, b"\0" * 8),
    "offsets in the wrong order": pack({"a": _entry(offsets=[8, 0])}, b"\0" * 8),
    "negative offsets": pack({"a": _entry(offsets=[-8, 0])}, b"\0" * 8),
    "three offsets": pack({"a": _entry(offsets=[0, 8, 8])}, b"\0" * 8),
    "fractions": pack({"a": _entry(offsets=[0.0, 8.0])}, b"\0" * 8),
    "minus zero": pack(b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [-0, 8]}}', b"\0" * 8),
    "booleans": pack({"a": _entry(shape=[True, 2])}, b"\0" * 8),
    "a shape that lies": pack({"a": _entry(shape=[3])}, b"\0" * 8),
    "a dtype that lies": pack({"a": _entry("F16")}, b"\0" * 8),
    "an unknown dtype": pack({"a": _entry("F128")}, b"\0" * 8),
    "a dtype of another type": pack({"a": _entry(["F32"])}, b"\0" * 8),  # type: ignore[arg-type]
    "a huge shape": pack({"a": _entry(shape=[2**62, 2**62])}, b"\0" * 8),
    "a huge shape times nothing": pack({"a": _entry(shape=[2**62, 2**62, 0], offsets=[0, 0])}),
    "a shape beyond 64 bits": pack({"a": _entry(shape=[2**64, 0], offsets=[0, 0])}),
    "no shape": pack({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, b"\0" * 8),
    "no entry": pack({"a": 3}),
    "metadata that are no strings": pack({"__metadata__": {"a": 1}}),
    "metadata that are no object": pack({"__metadata__": "a"}),
}
STRICTER = {
    "a space first": pack(b" {}"),
    "duplicate keys": pack(
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
        b'"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b"\0" * 8,
    ),
    "a dtype that is not computed with": pack({"a": _entry("I64", [1])}, b"\0" * 8),
    "an unknown field": pack({"a": {**_entry(), "note": "x"}}, b"\0" * 8),
}


@pytest.mark.parametrize("case", REFUSED | STRICTER)
def test_a_damaged_file_is_refused(scratch: Path, case: str) -> None:
    scratch.write_bytes((REFUSED | STRICTER)[case])
    assert not ours_reads(scratch)


@pytest.mark.parametrize("case", REFUSED)
def test_the_oracle_refuses_the_same(scratch: Path, case: str) -> None:
    scratch.write_bytes(REFUSED[case])
    assert not theirs_reads(scratch)


def test_errors_say_what_was_found(scratch: Path) -> None:
    scratch.write_bytes(pack({"a.weight": _entry("F8_E4M3", [8])}, b"\0" * 8))
    with pytest.raises(CheckpointError, match=r"a\.weight is stored as 'F8_E4M3'; allowed: F32, F16, BF16"):
        SafetensorsFile(scratch)
    with pytest.raises(CheckpointError, match="cannot be read"):
        SafetensorsFile(scratch.with_name("missing"))


VALID = pack(
    {
        "__metadata__": {"format": "pt"},
        "a": _entry("F32", [2, 3], [0, 24]),
        "b": _entry("BF16", [4], [24, 32]),
        "c": _entry("F16", [0, 2], [32, 32]),
    },
    bytes(32),
)


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=3), st.integers(-9, 9))
@example([], 0)
@OFTEN
def test_a_mutated_file_is_not_read_where_the_oracle_refuses(
    scratch: Path, changes: list[tuple[int, int]], length: int
) -> None:
    raw = bytearray(VALID)
    for position, byte in changes:
        raw[position] = byte
    scratch.write_bytes(raw[:length] if length < 0 else bytes(raw) + bytes(length))
    assert ours_reads(scratch) <= theirs_reads(scratch)


NUMBERS = st.sampled_from(["0", "1", "2", "4", "8", "16", "-0", "-1", "1.0", "1e0", "08", str(2**63), "null"])
LISTS = st.lists(NUMBERS, max_size=3).map(lambda items: f"[{','.join(items)}]")
ENTRIES = st.tuples(st.sampled_from(["F32", "F16", "BF16", "I8", "f32"]), LISTS, LISTS).map(
    lambda parts: f'{{"dtype":"{parts[0]}","shape":{parts[1]},"data_offsets":{parts[2]}}}'
)
PADDINGS = st.sampled_from(["", " ", "\n", "\0", "{}"])
NAMES = st.sampled_from(["a", "b", "", "\\u0000", "\\ud83d\\ude00", "__metadata__"])


@given(st.lists(st.tuples(NAMES, ENTRIES), max_size=3), st.integers(0, 16), PADDINGS)
@OFTEN
def test_a_made_up_header_is_not_read_where_the_oracle_refuses(
    scratch: Path, entries: list[tuple[str, str]], size: int, padding: str
) -> None:
    header = "{" + ",".join(f'"{name}":{entry}' for name, entry in entries) + "}" + padding
    scratch.write_bytes(pack(header.encode(), bytes(size)))
    assert ours_reads(scratch) <= theirs_reads(scratch)


def test_every_byte_of_the_header_set_to_other_syntax(scratch: Path) -> None:
    for position in range(len(VALID) - 32):
        for byte in b'09-"{, ':
            raw = bytearray(VALID)
            raw[position] = byte
            scratch.write_bytes(raw)
            if ours_reads(scratch):
                assert theirs_reads(scratch), bytes(raw)
