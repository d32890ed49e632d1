"""Weights by name, over one file or shards written by transformers; attacks on the index; made-up weights."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from hexad.checkpoints.weights import DummyWeights, Weights
from hexad.errors import CheckpointError

CONFIG = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    tie_word_embeddings=False,
)  # fmt: skip
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("shard_size", ["5GB", "10KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_weights_that_transformers_saved_come_back(tmp_path: Path, shard_size: str, dtype: torch.dtype) -> None:
    model = LlamaForCausalLM(CONFIG).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / INDEX).exists() == (shard_size == "10KB")
    weights = Weights.open(tmp_path)
    expected = model.state_dict()
    assert weights.unused() == sorted(expected)
    for name, tensor in expected.items():
        got = weights.take(name, tuple(tensor.shape))
        np.testing.assert_array_equal(got.astype(np.float32), tensor.float().numpy())
    assert weights.unused() == []
    assert weights.main_dtype == str(dtype).removeprefix("torch.")


def write(directory: Path, name: str, *names: str) -> None:
    save_file({weight: np.ones(2, np.float32) for weight in names}, directory / name)


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_a_missing_or_misshapen_weight_says_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", "model.layers.0.mlp.up_proj.weight", "model.norm.weight")
    weights = Weights.open(tmp_path)
    with pytest.raises(CheckpointError, match=r"no weight model\.layers\.0\.mlp\.up.*model\.layers\.0\.mlp\.up_proj"):
        weights.take("model.layers.0.mlp.up.weight", (2,))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has shape \[2\]; config.json asks for \[3\]"):
        weights.take("model.norm.weight", (3,))


def test_recomputed_buffers_are_not_left_over(tmp_path: Path) -> None:
    write(tmp_path, "model.safetensors", "model.layers.0.self_attn.rotary_emb.inv_freq", "extra")
    assert Weights.open(tmp_path).unused() == ["extra"]


@pytest.mark.parametrize(
    "file_name",
    ["../secret.safetensors", "/etc/passwd", "a/../../x.safetensors", "sub/x.safetensors", "..", "", "x.bin",
     "a\\b.safetensors", ".safetensors", "x.safetensors\n", 3, None, ["x.safetensors"], "gone.safetensors"],
)  # fmt: skip
def test_the_index_names_only_files_beside_it(tmp_path: Path, file_name: Any) -> None:
    directory = tmp_path / "model"
    (directory / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.safetensors", directory / "sub" / "x.safetensors"):
        write(path.parent, path.name, "a")
    write_index(directory, {"a": file_name})
    with pytest.raises(CheckpointError):
        Weights.open(directory)


@pytest.mark.parametrize("weight_map", [None, {}, [], "x", {"a": "one.safetensors", "b": "one.safetensors"},
                                        {"a": "two.safetensors", "c": "one.safetensors"}])  # fmt: skip
def test_the_index_must_agree_with_the_shards(tmp_path: Path, weight_map: Any) -> None:
    write(tmp_path, "one.safetensors", "a")
    write(tmp_path, "two.safetensors", "c")
    write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match="index"):
        Weights.open(tmp_path)


def test_a_weight_in_two_shards_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "one.safetensors", "a", "b")
    write(tmp_path, "two.safetensors", "b", "c")
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"})
    with pytest.raises(CheckpointError, match="b is in both"):
        Weights.open(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_refused_with_advice(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=f"pickle.*{name}.*never loaded.*safe_serialization"):
        Weights.open(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="neither"):
        Weights.open(tmp_path)


def test_made_up_weights_have_their_statistics_and_repeat() -> None:
    weights = DummyWeights(seed=7, dtype="float32")
    name, shape = "model.layers.0.mlp.up_proj.weight", (1500, 1024)
    matrix = weights.take(name, shape)
    assert abs(float(matrix.mean())) < 1e-3
    assert abs(float(matrix.std()) - 0.02) < 1e-3
    assert len(np.unique(matrix[:, :8], axis=0)) == 1500
    np.testing.assert_array_equal(matrix, DummyWeights(7, "float32").take(name, shape))
    assert (matrix != DummyWeights(8, "float32").take(name, shape)).any()
    assert (matrix != weights.take("model.layers.1.mlp.up_proj.weight", shape)).any()
    assert (weights.take("model.layers.0.self_attn.q_norm.weight", (64,)) == 1).all()
    assert (weights.take("model.layers.0.self_attn.q_proj.bias", (64,)) == 0).all()


def test_made_up_weights_take_little_time() -> None:
    started = time.thread_time()
    weights = DummyWeights(seed=0)
    for layer in range(10):
        assert weights.take(f"model.layers.{layer}.mlp.up_proj.weight", (3072, 1024)).dtype.name == "bfloat16"
    # 31 million in half a second at most: half a billion in seconds, not minutes.
    assert time.thread_time() - started < 0.5
