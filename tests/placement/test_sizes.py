"""The arithmetic of the memory plan against the bytes that a set really binds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.kernels.ops import PAGE_SIZE, Dtype
from hexad.kernels.precision import Precision
from hexad.kernels.reference import PackedLinear, ReferenceOps
from hexad.models.build import build, new_kvs
from hexad.placement.sizes import kv_bytes_per_token, scratch_bytes, weight_bytes
from hexad.testing.zoo import ZOO, write_model


class CountingOps(ReferenceOps):
    """Counts the bytes of everything that is bound."""

    def __init__(self) -> None:
        self.bound = 0

    def array(self, host: np.ndarray) -> np.ndarray:
        self.bound += host.nbytes
        return host

    def pack_linear(self, weight_NK: np.ndarray, dtype: Dtype, **options: Any) -> PackedLinear:
        packed = super().pack_linear(weight_NK, dtype, **options)
        self.bound += sum(leaf.nbytes for leaf in packed.leaves)
        return packed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["llama", "llama-tied", "llama-bias", "qwen2", "qwen3-bias"])
def test_weight_bytes_are_what_is_bound(tmp_path: Path, variant: str, dtype: Dtype) -> None:
    directory, ops = write_model(tmp_path, ZOO[variant]), CountingOps()
    config = read_model_config(directory)
    precision = Precision.of(dtype, config.dtype)
    build(config, Weights.open(directory), ops, precision)
    # Qwen3's norms of queries and keys are counted for every family.
    assert (
        0
        <= weight_bytes(config, precision, mapped_table=False) - ops.bound
        <= config.num_layers * 2 * config.head_dim * 4
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_kv_bytes_are_what_the_caches_take(tmp_path: Path, dtype: Dtype) -> None:
    config = read_model_config(write_model(tmp_path, ZOO["qwen3"]))
    kvs = new_kvs(config, ReferenceOps(), 3, dtype)
    taken = sum(cache.nbytes for kv in kvs for cache in kv)
    assert taken == 3 * PAGE_SIZE * kv_bytes_per_token(config, dtype)


def test_scratch_grows_with_tokens_and_with_rows_of_logits(tmp_path: Path) -> None:
    config = read_model_config(write_model(tmp_path, ZOO["llama"]))
    assert scratch_bytes(config, 256, 0) < scratch_bytes(config, 256)
    assert scratch_bytes(config, 256) >= 256 * 4 * config.vocab_size
    assert scratch_bytes(config, 512, 1) == 2 * scratch_bytes(config, 256, 1)
