"""The packed cache: linears as a kernel set laid them out, in a file that the next start maps.

A file is a safetensors container of plain bytes, read by the same checked decoder as any other:
what `PackingOps.packed_parts` gave of each linear, then what they were made from, and last a digest
of all that. A file that is not exactly what is looked for is not used. This module does not know
what the bytes of a weight mean.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.safetensors import SafetensorsFile
from hexad.checkpoints.weights import Tensors, Weights
from hexad.errors import CheckpointError, KernelError
from hexad.kernels.ops import Ops, PackingOps, WeightFormat
from hexad.kernels.precision import Precision

MIN_BYTES = 32 * 2**20
"""Packed weights below this are not worth a file: packing them takes no time."""
MAX_TOTAL_BYTES = 32 * 2**30
"""Of all files together; and no more than half of what would be free on the disk without them."""
ALIGNMENT = 64
STALE_S = 3600
"""A file that is still being written after this long belongs to a process that is gone."""

_BYTES = {"U8": np.dtype(np.uint8)}
_MADE_FROM, _DIGEST = "made_from", "digest"
_LANES, _CHUNK_ROWS = 512, 4096
_MLOCK_ONFAULT = 1
"""Of Linux's mlock2, since 4.4."""


def made_from(files: Sequence[Path], config: ModelConfig, precision: Precision, layout: str) -> bytes:
    """All that decides the bytes of a packed file, as JSON: files by path, size and time of change."""
    stats = [(os.path.realpath(file), os.stat(file)) for file in files]
    shards = [(path, found.st_size, found.st_mtime_ns) for path, found in stats]
    facts = {"shards": shards, "config": config, "precision": precision, "layout": layout}
    return msgspec.json.encode(facts, order="deterministic")


class PackedFiles:
    """The directory of the cache: private, bounded, and never a reason not to start."""

    def __init__(self, directory: Path | None = None) -> None:
        """By default hexad/packed under XDG_CACHE_HOME, or else ~/.cache."""
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        home = Path("/", os.path.expanduser("~"), ".cache")
        self.directory = directory or (base if base.is_absolute() else home) / "hexad" / "packed"

    def path(self, origin: bytes) -> Path:
        return self.directory / f"{hashlib.sha256(origin).hexdigest()[:32]}.safetensors"

    def open(self, origin: bytes) -> MappedFile | None:
        """The file made from `origin`, mapped, its header checked; None where there is none.

        Raises CheckpointError, saying why, for a file or a directory that must not be used.
        """
        path = self.path(origin)
        if not path.exists():
            return None
        self._check_private()
        return MappedFile(path, origin)

    def save(self, origin: bytes, arrays: Mapping[str, np.ndarray]) -> None:
        """Write uint8 vectors under another name, then rename the file; older files make room.

        Raises OSError (disk full, read-only, too large for the bounds), or CheckpointError for a
        directory that others can write to.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_private()
        contents: dict[str, np.ndarray] = {}
        for name, array in arrays.items():
            contents[name] = array
            if fill := -array.nbytes % ALIGNMENT:
                contents[f"{name} fill"] = np.zeros(fill, np.uint8)
        contents[_MADE_FROM] = np.frombuffer(origin, np.uint8)
        contents[_DIGEST] = np.zeros(hashlib.sha256().digest_size, np.uint8)
        self._make_room(self.path(origin), sum(array.nbytes for array in contents.values()))
        handle, name = tempfile.mkstemp(dir=self.directory, suffix=".part")  # mode 0600
        try:
            with open(handle, "r+b", buffering=0) as file:
                for piece in (np.frombuffer(_header(contents), np.uint8), *contents.values()):
                    _write_all(file, piece)
                size = file.tell() - contents[_DIGEST].nbytes
                file.seek(size)
                _write_all(file, np.frombuffer(digest(np.memmap(name, np.uint8, "r", shape=(size,))), np.uint8))
            os.replace(name, self.path(origin))
        except BaseException:
            os.unlink(name)
            raise

    def _check_private(self) -> None:
        found = self.directory.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise CheckpointError(
                f"{self.directory} belongs to user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}; it must be "
                f"yours alone: chmod 700 it, remove it, or set XDG_CACHE_HOME elsewhere"
            )

    def _make_room(self, path: Path, wanted: int) -> None:
        """Remove what was used longest ago until `wanted` bytes fit."""
        found = []
        for file in self.directory.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process has just given it its name
                found.append((file.stat(), file))
        for what, file in found:
            if file.suffix == ".part" and what.st_mtime < time.time() - STALE_S:
                file.unlink(missing_ok=True)
        kept = sorted((what.st_mtime, what.st_size, file) for what, file in found if file.suffix == ".safetensors")
        kept = [entry for entry in kept if entry[2] != path]  # that one is replaced
        total = sum(size for _, size, _ in kept)
        bound = min(MAX_TOTAL_BYTES, (shutil.disk_usage(self.directory).free + total) // 2)
        if wanted > bound:
            raise OSError(f"{wanted / 2**30:.2f} GiB do not fit into the {bound / 2**30:.2f} GiB that it may take")
        for _, size, file in kept:
            if total + wanted <= bound:
                return
            file.unlink(missing_ok=True)
            total -= size


class MappedFile(SafetensorsFile):
    """A file of the cache. While others start, a thread reads it whole, which brings it into memory."""

    def __init__(self, path: Path, origin: bytes) -> None:
        """Raises CheckpointError for a file of another `origin`, or one that others could have written."""
        super().__init__(path, _BYTES, _open_private)
        if list(self)[-2:] != [_MADE_FROM, _DIGEST] or self[_MADE_FROM].tobytes() != origin:
            raise CheckpointError(f"{path} was made from something else than its name says")
        with contextlib.suppress(OSError):
            os.utime(path)  # what is used last is removed last
        data = np.frombuffer(self._map, np.uint8)
        self.locked = _keep_in_memory(data)
        """Kept in memory by the system."""
        self._found = b""
        self._reader = threading.Thread(target=self._read, args=(data[: len(data) - len(self[_DIGEST])],))
        self._reader.start()

    def _read(self, data: np.ndarray) -> None:
        self._found = digest(data)

    def sound(self) -> bool:
        """Whether all of it is what was written; waits until that is known."""
        self._reader.join()
        return self._found == self[_DIGEST].tobytes()


class PackedWeights(Tensors):
    """A checkpoint's tensors; what is packed of them comes out of the cache, or can be kept there."""

    def __init__(self, weights: Weights, ops: PackingOps, files: PackedFiles, origin: bytes) -> None:
        self._weights, self._ops, self._files, self._origin = weights, ops, files, origin
        self._packed: dict[str, Any] = {}
        self._parts: dict[str, dict[str, np.ndarray]] = {}
        self.refused = ""
        """Why a file that was there is not used."""
        self.mapped: MappedFile | None = None
        """The cache's file, where the packed weights are those of it."""
        try:
            self.mapped = files.open(origin)
            for name, array in (self.mapped or {}).items():
                weight, _, part = name.rpartition("/")
                self._parts.setdefault(weight, {})[part] = array
        except (CheckpointError, OSError) as error:
            self.refused = str(error)

    @property
    def path(self) -> Path:
        return self._files.path(self._origin)

    def sound(self) -> bool:
        """Whether what was packed may be used: known when the cache's file is read. If not, `pack` packs again."""
        if self.mapped is None or self.mapped.sound():
            return True
        self.mapped, self.refused = None, f"{self.path} is damaged: its bytes are not those that were written"
        return False

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return self._weights.take(name, shape)

    def pack(self, ops: Ops, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        name = next(iter(outputs))
        self._packed[name] = self._adopt(name, outputs, inputs, format, leaves)
        if self._packed[name] is None:
            self._packed[name] = self._weights.pack(ops, outputs, inputs, format, leaves)
        return self._packed[name]

    def _adopt(self, name: str, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        if self.mapped is None:
            return None
        for tensor, count in outputs.items():  # they must be there all the same
            self._weights.take(tensor, (count, inputs))
        try:
            return self._ops.adopt_linear(self._parts.get(name, {}), sum(outputs.values()), inputs, format, leaves)
        except KernelError as error:
            self.mapped, self.refused = None, f"{self.path}: {name}: {error}"
            return None

    def unused(self) -> list[str]:
        return self._weights.unused()

    def save(self) -> None:
        """Keep what was packed for the next start. Raises as `PackedFiles.save`."""
        parts = ((name, self._ops.packed_parts(weight)) for name, weight in self._packed.items())
        self._files.save(self._origin, {f"{name}/{part}": a for name, found in parts for part, a in found.items()})


def _keep_in_memory(data: np.ndarray) -> bool:
    """From when they are read on. Mapped pages are the first that a system short of memory drops.

    Locking may be forbidden (`ulimit -l`).
    """
    with contextlib.suppress(OSError, AttributeError):
        start, size = ctypes.c_void_p(data.ctypes.data), ctypes.c_size_t(data.nbytes)
        return bool(ctypes.CDLL(None).mlock2(start, size, _MLOCK_ONFAULT) == 0)
    return False


def digest(data: np.ndarray) -> bytes:
    """Of bytes, at the speed of memory: SHA-256 over sums in 512 lanes of 8 bytes for each 16 MiB.

    It finds what a disk or a crash did, in any single byte; it is no proof against a forger, who
    would need to write where only this user can.
    """
    words = data[: len(data) // (8 * _LANES) * (8 * _LANES)].view("<u8").reshape(-1, _LANES)
    whole = len(words) // _CHUNK_ROWS * _CHUNK_ROWS
    # One call, which needs no GIL until all is read.
    hashed = hashlib.sha256(np.add.reduce(words[:whole].reshape(-1, _CHUNK_ROWS, _LANES), axis=1).tobytes())
    if whole < len(words):
        hashed.update(np.add.reduce(words[whole:], axis=0).tobytes())
    hashed.update(data[words.nbytes :].tobytes())
    return hashed.digest()


def _header(contents: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors header of byte tensors, whose data starts at a multiple of ALIGNMENT."""
    entries: dict[str, Any] = {}
    end = 0
    for name, array in contents.items():
        entries[name] = {"dtype": "U8", "shape": [len(array)], "data_offsets": [end, end + len(array)]}
        end += len(array)
    text = msgspec.json.encode(entries)
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _write_all(file: BinaryIO, data: np.ndarray) -> None:
    while len(data):  # the system writes at most 2 GiB at once
        data = data[file.write(data.data) :]


def _open_private(path: str, flags: int) -> int:
    """An opener: plain files of this user, that nobody else can write, and no links."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(handle)
        raise PermissionError(f"{path} is not a plain file that is yours alone; remove it")
    return handle
