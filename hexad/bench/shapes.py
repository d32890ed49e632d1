"""Model shapes for benchmarks: a config.json alone, or a checkpoint of random weights with a tokenizer."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import tokenizers

from hexad.errors import ConfigError
from hexad.testing.zoo import weight_shapes, write_safetensors

SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.5b": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "vocab_size": 32000,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "hidden_act": "silu",
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
}


@contextmanager
def shape_directory(name: str, **changes: Any) -> Iterator[Path]:
    """A temporary model directory of that shape, `changes` over it, to be loaded with `load_format="dummy"`."""
    shape = {**known_shape(name), **changes}
    with tempfile.TemporaryDirectory(prefix="hexad-shape-") as folder:
        directory = Path(folder)
        (directory / "config.json").write_text(json.dumps(shape))
        yield directory


def known_shape(name: str) -> dict[str, Any]:
    if name not in SHAPES:
        raise ConfigError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}", param="shape")
    return SHAPES[name]


def random_checkpoint(name: str, directory: Path) -> Path:
    """Write a checkpoint of that shape to `directory` unless it is there: bfloat16, N(0, 0.02), norms 1."""
    if directory.is_dir():
        return directory
    shape = known_shape(name)
    unfinished = directory.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    generator = np.random.default_rng(0)
    weights = {
        tensor: (
            np.ones(size, np.float32)
            if len(size) == 1
            else generator.standard_normal(size, np.float32) * np.float32(0.02)
        ).astype(ml_dtypes.bfloat16)
        for tensor, size in weight_shapes(shape).items()
    }
    write_safetensors(unfinished / "model.safetensors", weights)
    config = {**shape, "torch_dtype": shape["dtype"], "initializer_range": 0.02, "use_cache": True}
    (unfinished / "config.json").write_text(json.dumps(config))
    ends = {"bos_token_id": shape["bos_token_id"], "eos_token_id": shape["eos_token_id"]}
    (unfinished / "generation_config.json").write_text(json.dumps(ends))
    _write_tokenizer(unfinished, shape["vocab_size"])
    unfinished.rename(directory)
    return directory


def _write_tokenizer(directory: Path, vocab_size: int) -> None:
    """Byte-level BPE over Qwen's split, so that converters know the family; its words are pairs of bytes, in order."""
    special = ["<|im_start|>", "<|im_end|>"]
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = list(itertools.islice(itertools.product(letters, letters), vocab_size - len(special) - len(letters)))
    words = [*special, *letters, *(a + b for a, b in merges)]
    model = tokenizers.models.BPE({word: i for i, word in enumerate(words)}, merges)
    tokenizer = tokenizers.Tokenizer(model)
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    split += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(split), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": special[0], "eos_token": special[1]}
    (directory / "tokenizer_config.json").write_text(json.dumps(kind))
