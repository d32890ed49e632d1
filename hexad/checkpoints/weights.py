"""The weights of a model directory, by their Hugging Face names: mapped, or made up.

Knows files and names; does not know which names a model needs.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from hexad.checkpoints.safetensors import SafetensorsFile
from hexad.errors import CheckpointError
from hexad.json_file import read_json_object
from hexad.kernels.ops import Ops, WeightFormat

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARDS = 4096

_FILE_NAME = re.compile(r"\w[\w.\-]*\.safetensors", re.ASCII)
# Written by old transformers; recomputed from the configuration.
_BUFFERS = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$")


class Tensors:
    """Tensors by name, and how several become one packed weight."""

    _rows = np.empty(0, np.uint8)
    """Where tensors meet before they are packed: kept, because fresh memory costs more than the copy."""

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A host array, float32, bfloat16 or float16, of exactly `shape`.

        Raises CheckpointError, naming the tensor, if it is missing or of another shape.
        """
        raise NotImplementedError

    def unused(self) -> list[str]:
        """Names that were never taken."""
        return []

    def pack(self, ops: Ops, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        """The tensors [outputs, inputs] one below the other, as `ops.pack_linear` binds them. Raises as `take`."""
        parts = [self.take(name, (count, inputs)) for name, count in outputs.items()]
        if len(parts) == 1:
            return ops.pack_linear(parts[0], format, leaves=leaves)
        common = np.result_type(*parts)
        wanted = sum(outputs.values()) * inputs * common.itemsize
        if self._rows.nbytes < wanted:
            self._rows = np.empty(wanted, np.uint8)
        joined = self._rows[:wanted].view(common).reshape(-1, inputs)
        return ops.pack_linear(np.concatenate(parts, out=joined), format, leaves=leaves)


class Weights(Tensors):
    """The tensors of all shards, by name."""

    def __init__(self, directory: Path, shards: dict[str, SafetensorsFile]) -> None:
        self._directory = directory
        self._shards = shards
        """By tensor name."""
        self._taken: set[str] = set()

    @classmethod
    def open(cls, directory: Path) -> Weights:
        """Maps model.safetensors, or else the shards of model.safetensors.index.json.

        Raises CheckpointError for anything missing or inconsistent.
        """
        if (directory / SINGLE_FILE).is_file():
            file = SafetensorsFile(directory / SINGLE_FILE)
            return cls(directory, dict.fromkeys(file, file))
        if (directory / INDEX_FILE).is_file():
            return cls(directory, _open_shards(directory))
        pickles = sorted(path.name for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise CheckpointError(
                f"{directory} holds its weights as pickle ({pickles[0]}), which can run code and is never loaded; "
                "convert it with transformers: model.save_pretrained(directory, safe_serialization=True)"
            )
        raise CheckpointError(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}")

    @property
    def paths(self) -> list[Path]:
        """The files of all tensors."""
        return sorted({shard.path for shard in self._shards.values()})

    @property
    def main_dtype(self) -> str:
        """The dtype that most tensors have."""
        names = [shard.infos[name].dtype.name for name, shard in self._shards.items()]
        most: str = max(sorted(set(names)), key=names.count)
        return most

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A read-only view of the mapped file. Raises CheckpointError if missing or of another shape."""
        shard = self._shards.get(name)
        if shard is None:
            near = difflib.get_close_matches(name, self._shards, n=3, cutoff=0.6)
            hint = f"the nearest names are {', '.join(near)}" if near else "no name is near it"
            raise CheckpointError(f"{self._directory} has no weight {name}; {hint}")
        found = shard.infos[name].shape
        if found != shape:
            raise CheckpointError(
                f"{shard.path}: {name} has shape {list(found)}; config.json asks for {list(shape)}. "
                "Weights and config.json do not belong together"
            )
        self._taken.add(name)
        return shard[name]

    def pack(self, ops: Ops, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        packed = super().pack(ops, outputs, inputs, format, leaves)
        for name in outputs:
            self._shards[name].release(name)
        return packed

    def unused(self) -> list[str]:
        """Names that were never taken, without buffers that are recomputed."""
        return sorted(name for name in self._shards if name not in self._taken and not _BUFFERS.search(name))


def has_weights(directory: Path) -> bool:
    """Whether there is anything for `Weights.open`."""
    return (directory / SINGLE_FILE).is_file() or (directory / INDEX_FILE).is_file()


def _open_shards(directory: Path) -> dict[str, SafetensorsFile]:
    path = directory / INDEX_FILE
    weight_map = read_json_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: weight_map must map the names of weights to files")
    for file_name in weight_map.values():
        if not isinstance(file_name, str) or not _FILE_NAME.fullmatch(file_name):
            raise CheckpointError(f"{path}: {file_name!r:.100} is not the plain name of a .safetensors file beside it")
    file_names = sorted(set(weight_map.values()))
    if len(file_names) > MAX_SHARDS:
        raise CheckpointError(f"{path} names {len(file_names)} files; at most {MAX_SHARDS} are opened")
    files = {file_name: SafetensorsFile(directory / file_name) for file_name in file_names}
    shards: dict[str, SafetensorsFile] = {}
    for file in files.values():
        for name in file:
            if name in shards:
                raise CheckpointError(f"{path}: {name} is in both {shards[name].path.name} and {file.path.name}")
            shards[name] = file
    for name, file_name in weight_map.items():
        if shards.get(name) is not files[file_name]:
            raise CheckpointError(f"{path}: {name} should be in {file_name}, and is not")
    return shards


# A prime, so that no matrix repeats a row.
_NOISE_LENGTH = 2_097_143


class DummyWeights(Tensors):
    """Random weights for benchmarks: norms 1, biases 0, the rest N(0, 0.02).

    The same seed, name, shape and dtype give the same values. Tiles of one block of noise, at
    an offset that the name decides: statistically poor, fast to make.
    """

    def __init__(self, seed: int, dtype: str = "bfloat16") -> None:
        self._dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype, dtype))
        noise = np.random.default_rng(seed).standard_normal(_NOISE_LENGTH, dtype=np.float32)
        self._noise = (noise * np.float32(0.02)).astype(self._dtype)

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A new array of the dtype given at the start."""
        if name.endswith("norm.weight"):
            return np.ones(shape, self._dtype)
        if name.endswith(".bias"):
            return np.zeros(shape, self._dtype)
        result = np.empty(int(np.prod(shape, dtype=np.int64)), self._dtype)
        offset = zlib.crc32(name.encode()) % _NOISE_LENGTH
        filled = 0
        while filled < result.size:
            piece = self._noise[offset : offset + result.size - filled]
            result[filled : filled + piece.size] = piece
            filled += piece.size
            offset = 0
        return result.reshape(shape)
