"""Model shapes for benchmarks: a directory with a config.json, no weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hexad.errors import ConfigError

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
def shape_directory(name: str) -> Iterator[Path]:
    """A temporary model directory of that shape, to be loaded with `load_format="dummy"`."""
    if name not in SHAPES:
        raise ConfigError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}", param="shape")
    with tempfile.TemporaryDirectory(prefix="hexad-shape-") as folder:
        directory = Path(folder)
        (directory / "config.json").write_text(json.dumps(SHAPES[name]))
        yield directory
