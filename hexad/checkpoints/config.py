"""What a decoder model is, read from a Hugging Face `config.json`.

This module knows numbers and names only: no arrays, no weights.
"""

from __future__ import annotations

from typing import Literal

import msgspec

CheckpointDtype = Literal["float32", "bfloat16", "float16"]


class Rope(msgspec.Struct, frozen=True):
    """Rotary embedding; the fields of a scaling kind other than `kind` are unused."""

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0
    original_max_position: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True


class ModelConfig(msgspec.Struct, frozen=True):
    """The dimensions of a decoder-only model.

    `windows[i]` is the sliding window of layer i, 0 where it attends to everything.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float
    rope: Rope
    windows: tuple[int, ...]
    tie_word_embeddings: bool
    attention_bias: bool
    """A bias on q, k and v."""
    output_bias: bool
    """A bias on the attention's output projection."""
    mlp_bias: bool
    qk_norm: bool
    """Queries and keys are normalised head by head before they are rotated."""
    dtype: CheckpointDtype
    """What the weights are stored in."""
