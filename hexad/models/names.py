"""The names of the weights in a Hugging Face checkpoint, apart from the math.

The families here share them; `qk_norms` exist in Qwen3 only.
"""

from __future__ import annotations

EMBEDDING = "model.embed_tokens"
FINAL_NORM = "model.norm"
HEAD = "lm_head"


class LayerNames:
    """The modules of layer `index`; a module's tensors are its name and `.weight` or `.bias`."""

    def __init__(self, index: int) -> None:
        layer = f"model.layers.{index}"
        self.attention_norm = f"{layer}.input_layernorm"
        self.qkv = tuple(f"{layer}.self_attn.{part}_proj" for part in "qkv")
        self.qk_norms = tuple(f"{layer}.self_attn.{part}_norm" for part in "qk")
        self.attention_output = f"{layer}.self_attn.o_proj"
        self.mlp_norm = f"{layer}.post_attention_layernorm"
        self.gate = f"{layer}.mlp.gate_proj"
        self.up = f"{layer}.mlp.up_proj"
        self.down = f"{layer}.mlp.down_proj"
