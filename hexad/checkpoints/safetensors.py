"""A checked decoder of safetensors files: a header, then tensors mapped read-only.

Format: https://github.com/huggingface/safetensors#format. Stricter than the reference in
refusing duplicate keys, unknown fields and dtypes that Hexad does not compute with. This
module does not know what the tensors mean.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from hexad.errors import CheckpointError
from hexad.json_file import parse_json_object

MAX_HEADER_BYTES = 100_000_000
MAX_DIMENSIONS = 8
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class TensorInfo(msgspec.Struct, frozen=True):
    """Where a tensor lies: bytes [start, stop) after the header."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_header(
    header: bytes, data_bytes: int, source: str, dtypes: Mapping[str, np.dtype[Any]] = DTYPES
) -> dict[str, TensorInfo]:
    """The tensors, of `dtypes`, of a header that is followed by `data_bytes` bytes, in the order they lie there.

    Raises CheckpointError naming `source` unless the tensors fill the data exactly, without
    holes or overlaps, each with the bytes of its shape and dtype.
    """
    if not header.startswith(b"{"):
        raise CheckpointError(f"{source}: the header starts with {header[:1]!r}; it must be a JSON object")
    entries = parse_json_object(header, source)
    _check_metadata(entries.pop("__metadata__", {}), source)
    infos = {name: _tensor_info(name, entry, source, dtypes) for name, entry in entries.items()}
    ordered = dict(sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)))
    end = 0
    for name, info in ordered.items():
        if info.start != end:
            raise CheckpointError(
                f"{source}: {name} starts at byte {info.start} of the data, the tensor before it ends at {end}; "
                "tensors must follow each other without holes or overlaps. Download the file again"
            )
        end = info.stop
    if end != data_bytes:
        raise CheckpointError(
            f"{source}: its tensors take {end} bytes and the file holds {data_bytes}; "
            "it is truncated or damaged. Download it again"
        )
    return ordered


def _check_metadata(metadata: Any, source: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{source}: __metadata__ must map strings to strings")
    _check_text([*metadata, *metadata.values()], source)


def _check_text(texts: list[str], source: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{source}: the header holds a lone surrogate: {error}") from error


def _tensor_info(name: str, entry: Any, source: str, dtypes: Mapping[str, np.dtype[Any]]) -> TensorInfo:
    _check_text([name], source)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{source}: {name} must have dtype, shape and data_offsets, and nothing else")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in dtypes:
        raise CheckpointError(f"{source}: {name} is stored as {entry['dtype']!r:.50}; allowed: {', '.join(dtypes)}")
    dtype = dtypes[entry["dtype"]]
    shape = _naturals(entry["shape"], f"{source}: the shape of {name}")
    offsets = _naturals(entry["data_offsets"], f"{source}: data_offsets of {name}")
    if len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(f"{source}: {name} has {len(shape)} dimensions; at most {MAX_DIMENSIONS} are read")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"{source}: data_offsets of {name} are {list(offsets)}; they must be [start, stop]")
    wanted = dtype.itemsize
    for size in shape:
        wanted *= size
        if wanted >= 2**63:
            raise CheckpointError(f"{source}: the shape {list(shape)} of {name} has more than 2**63 bytes")
    if offsets[1] - offsets[0] != wanted:
        raise CheckpointError(
            f"{source}: {name} has {offsets[1] - offsets[0]} bytes; {entry['dtype']} of shape {list(shape)} "
            f"takes {wanted}"
        )
    return TensorInfo(dtype, shape, offsets[0], offsets[1])


def _naturals(values: Any, what: str) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**63 for value in values):
        raise CheckpointError(f"{what} is {values!r:.100}; it must be a list of integers, none negative")
    return tuple(values)


class SafetensorsFile(Mapping[str, np.ndarray]):
    """Tensors by name, as read-only views of the mapped file (memory is touched when read).

    A file that shrinks while it is mapped cannot be guarded against: the process dies of SIGBUS.
    """

    def __init__(
        self, path: Path, dtypes: Mapping[str, np.dtype[Any]] = DTYPES, opener: Callable[[str, int], int] | None = None
    ) -> None:
        """Reads and checks the header; `opener` is that of `open`. Raises CheckpointError naming the file."""
        self.path = path
        try:
            with open(path, "rb", opener=opener) as file:
                size = file.seek(0, 2)
                if size < 8:
                    raise CheckpointError(f"{path} has {size} bytes; a safetensors file has at least 8")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        (header_bytes,) = struct.unpack("<Q", self._map[:8])
        if header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(
                f"{path}: its header claims {header_bytes} bytes; the file has {size} "
                f"and a header at most {MAX_HEADER_BYTES}. Download it again"
            )
        self._data_start = 8 + header_bytes
        self.infos = parse_header(self._map[8 : self._data_start], size - self._data_start, str(path), dtypes)

    def __getitem__(self, name: str) -> np.ndarray:
        info = self.infos[name]
        count = (info.stop - info.start) // info.dtype.itemsize
        if count == 0:
            return np.zeros(info.shape, info.dtype)
        # An odd header length leaves the view unaligned; numpy reads it correctly, only slower.
        view = np.frombuffer(self._map, np.uint8, info.stop - info.start, self._data_start + info.start)
        return view.view(info.dtype).reshape(info.shape)

    def release(self, name: str) -> None:
        """Give back the memory of a tensor that is done with; who touches it again reads it again."""
        info = self.infos[name]
        first = -(-(self._data_start + info.start) // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (self._data_start + info.stop) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, length)

    def __iter__(self) -> Any:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)
