"""Rotary tables against the module that Hugging Face transformers builds for the same numbers."""

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hexad.checkpoints.config import Rope
from hexad.layers.rotary import rope_frequencies, rope_table

CASES: dict[str, tuple[Rope, dict[str, Any]]] = {
    "default": (Rope(theta=500000.0), {"rope_type": "default", "rope_theta": 500000.0}),
    "linear": (Rope(kind="linear", factor=3.0), {"rope_type": "linear", "factor": 3.0}),
    "llama3": (
        Rope(theta=5e5, kind="llama3", factor=32.0, original_max_position=8192),
        {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "yarn": (
        Rope(theta=1e6, kind="yarn", factor=4.0, original_max_position=8192),
        {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 8192},
    ),
    "yarn mscale": (
        Rope(kind="yarn", factor=40.0, original_max_position=4096, mscale=0.9, mscale_all_dim=0.7, beta_fast=20.0),
        {
            "rope_type": "yarn",
            "factor": 40.0,
            "original_max_position_embeddings": 4096,
            "mscale": 0.9,
            "mscale_all_dim": 0.7,
            "beta_fast": 20.0,
        },
    ),
    "yarn not truncated": (
        Rope(kind="yarn", factor=8.0, original_max_position=2048, truncate=False, attention_factor=0.8, beta_slow=2.0),
        {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 2048,
            "truncate": False,
            "attention_factor": 0.8,
            "beta_slow": 2.0,
        },
    ),
}


@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("case", CASES)
def test_frequencies_and_table_are_those_of_transformers(case: str, head_dim: int) -> None:
    """Frequencies to one unit in the last place of float32; tables as far as that carries at position 32767."""
    rope, parameters = CASES[case]
    config = LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=32768,
        rope_parameters={"rope_theta": 10000.0, **parameters},
    )
    oracle = LlamaRotaryEmbedding(config)
    frequencies, amplitude = rope_frequencies(rope, head_dim)
    np.testing.assert_allclose(frequencies, oracle.inv_freq.numpy(), rtol=1.2e-7)
    assert amplitude == pytest.approx(oracle.attention_scaling, rel=1e-12)
    cos, sin = oracle(torch.zeros(1), torch.arange(32768)[None])
    expected = torch.cat((cos[0, :, : head_dim // 2], sin[0, :, : head_dim // 2]), dim=1).numpy()
    table = rope_table(rope, head_dim, 32768)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table[:1000], expected[:1000], atol=1e-4)
    np.testing.assert_allclose(table, expected, atol=2e-3)
