"""Tiny models with random weights, written as Hugging Face directories, without torch.

`ZOO` has one entry for each family and each variant of attention that Hexad runs. The weights
are drawn wide enough that a wrong detail shows in the logits. This module does not know how
Hexad reads a checkpoint: it writes what transformers would.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

STD = 0.15

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}

ZOO: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-tied": {"model_type": "llama", "tie_word_embeddings": True, "num_key_value_heads": 4},
    "llama-bias": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-llama3": {"model_type": "llama", "rope_scaling": _LLAMA3, "head_dim": 32},
    "llama-yarn": {"model_type": "llama", "rope_scaling": _YARN},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "sliding_window": 16, "head_dim": 32},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "qwen2-window": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
    "qwen2-yarn": {"model_type": "qwen2", "rope_scaling": {**_YARN, "attention_factor": 1.25, "beta_fast": 16}},
    "qwen3": {"model_type": "qwen3", "head_dim": 32},
    "qwen3-bias": {"model_type": "qwen3", "head_dim": 24, "attention_bias": True, "tie_word_embeddings": True},
    "qwen3-v5": {  # the layout that transformers 5 writes
        "model_type": "qwen3",
        "head_dim": 16,
        "rope_theta": None,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    },
}


def write_model(
    directory: Path, config: Mapping[str, Any], *, seed: int = 0, dtype: str = "float32", shards: int = 1
) -> Path:
    """Write config.json and safetensors for `BASE` overridden by `config`; returns `directory`.

    Weights are N(0, 0.15), norms 1 + N(0, 0.15). `dtype` is float32, bfloat16 or float16; with
    `shards` > 1 the weights are spread over that many files with an index.
    """
    merged = {**BASE, **config}
    whole = {name: value for name, value in merged.items() if value is not None or name == "sliding_window"}
    whole |= {"architectures": [ARCHITECTURES[whole["model_type"]]], "torch_dtype": dtype}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(whole, indent=2))
    kind = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    tensors = {name: tensor.astype(kind) for name, tensor in random_weights(whole, seed).items()}
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors)
        return directory
    names = list(tensors)
    files = [f"model-{shard + 1:05d}-of-{shards:05d}.safetensors" for shard in range(shards)]
    for shard, file in enumerate(files):
        write_safetensors(directory / file, {name: tensors[name] for name in names[shard::shards]})
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: files[i % shards] for i, name in enumerate(names)},
    }
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def random_weights(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Every tensor of the model that `config` (as in config.json) describes, float32."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.standard_normal(shape, np.float32) * STD for name, shape in weight_shapes(config).items()}
    for name in weights:
        if name.endswith("norm.weight"):
            weights[name] += 1
    return weights


def weight_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a checkpoint, as transformers saves it."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    family = config["model_type"]
    qkv_bias = family == "qwen2" or config.get("attention_bias", False)
    output_bias = family != "qwen2" and config.get("attention_bias", False)
    mlp_bias = config.get("mlp_bias", False)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}

    def linear(name: str, outputs: int, inputs: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        linear(f"{layer}.self_attn.q_proj", queries, hidden, qkv_bias)
        linear(f"{layer}.self_attn.k_proj", keys, hidden, qkv_bias)
        linear(f"{layer}.self_attn.v_proj", keys, hidden, qkv_bias)
        linear(f"{layer}.self_attn.o_proj", hidden, queries, output_bias)
        if family == "qwen3":
            shapes[f"{layer}.self_attn.q_norm.weight"] = (head_dim,)
            shapes[f"{layer}.self_attn.k_norm.weight"] = (head_dim,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        linear(f"{layer}.mlp.gate_proj", inner, hidden, mlp_bias)
        linear(f"{layer}.mlp.up_proj", inner, hidden, mlp_bias)
        linear(f"{layer}.mlp.down_proj", hidden, inner, mlp_bias)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """The safetensors format: a little-endian u64 header length, a JSON header, the data in its order."""
    names = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": names[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor).tobytes())
