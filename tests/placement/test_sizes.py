"""The arithmetic of the memory plan against the bytes that a set really binds."""

import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.kernels.ops import LEAVES, PAGE_SIZE, Dtype, WeightFormat
from hexad.kernels.precision import Precision
from hexad.kernels.reference import ReferenceOps
from hexad.models.build import build, new_kvs
from hexad.placement.sizes import kv_bytes_per_token, packed_bytes, scratch_bytes, weight_bytes
from hexad.testing.zoo import ZOO, write_model
from tests.kernel_sets import ops_of

FORMATS: tuple[WeightFormat, ...] = typing.get_args(WeightFormat)


class Counting:
    """A native set that counts the bytes of everything that is bound."""

    def __init__(self) -> None:
        self._ops = ops_of("native")
        self.bound = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def array(self, host: np.ndarray) -> np.ndarray:
        mapped = not host.flags.owndata and not host.flags.writeable
        self.bound += 0 if mapped else host.nbytes
        return host

    def pack_linear(self, weight_NK: np.ndarray, format: WeightFormat, **options: Any) -> Any:
        packed = self._ops.pack_linear(weight_NK, format, **options)
        self.bound += packed.nbytes
        return packed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4", "int4-32"])
@pytest.mark.parametrize("variant", ["llama", "llama-tied", "llama-bias", "qwen2", "qwen3-bias"])
def test_weight_bytes_are_what_is_bound(tmp_path: Path, variant: str, dtype: str) -> None:
    """From float32, so that only the table of bfloat16 is not left in the mapped file."""
    directory, ops = write_model(tmp_path, ZOO[variant]), Counting()
    config = read_model_config(directory)
    precision = Precision.of(dtype, config.dtype)
    build(config, Weights.open(directory), ops, precision)
    planned = weight_bytes(config, precision, mapped_table=dtype != "bfloat16")
    assert planned == ops.bound


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("format", FORMATS)
def test_packed_bytes_are_what_the_native_set_takes(format: WeightFormat, leaves: int) -> None:
    for outputs, inputs in ((1, 8), (16, 64), (17, 200), (100, 1000), (48, 77)):
        weight = ops_of("native").pack_linear(np.ones((outputs, inputs), np.float32), format, leaves=leaves)
        assert packed_bytes(outputs, inputs, leaves, format) == weight.nbytes, (outputs, inputs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kv_bytes_are_what_the_caches_take(tmp_path: Path, dtype: Dtype) -> None:
    config = read_model_config(write_model(tmp_path, ZOO["qwen3"]))
    kvs = new_kvs(config, ReferenceOps(), 3, dtype)
    taken = sum(cache.nbytes for kv in kvs for cache in kv)
    assert taken == 3 * PAGE_SIZE * kv_bytes_per_token(config, dtype)


def test_scratch_grows_with_tokens_and_holds_their_logits(tmp_path: Path) -> None:
    config = read_model_config(write_model(tmp_path, ZOO["llama"]))
    assert scratch_bytes(config, 256) >= 256 * 4 * config.vocab_size
    assert scratch_bytes(config, 512) == 2 * scratch_bytes(config, 256)
