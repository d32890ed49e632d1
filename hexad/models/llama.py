"""Llama 1 to 3 (Touvron et al., 2023), and the many models that took over its architecture.

Rotary positions, grouped queries, a SiLU-gated MLP, RMSNorm before each. Llama itself has no window and no norm of
queries and keys; biases, windows and norms are the configuration's to say.
"""

from __future__ import annotations

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import KV, Array, Ops, Step
from hexad.kernels.precision import Precision
from hexad.layers.attention import Attention, Heads
from hexad.layers.embedding import Embedding
from hexad.layers.linear import Linear, Part
from hexad.layers.mlp import MLP
from hexad.layers.norm import RMSNorm
from hexad.layers.rotary import rope_table
from hexad.models.names import EMBEDDING, FINAL_NORM, HEAD, LayerNames


class Block:
    """Attention and MLP, each behind a norm, each added to the residual stream."""

    def __init__(
        self, config: ModelConfig, index: int, weights: Tensors, ops: Ops, precision: Precision, cos_sin: Array
    ) -> None:
        names = LayerNames(index)
        width, eps = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(ops, weights, names.attention_norm, width, eps)
        self.attention = Attention(
            ops,
            weights,
            qkv=names.qkv,
            output=names.attention_output,
            hidden=width,
            heads=Heads(config.num_heads, config.num_kv_heads, config.head_dim),
            bias=config.attention_bias,
            output_bias=config.output_bias,
            cos_sin=cos_sin,
            qk_norms=[RMSNorm(ops, weights, name, config.head_dim, eps) for name in names.qk_norms if config.qk_norm],
            window=config.windows[index],
            format=precision.linear,
        )
        self.mlp_norm = RMSNorm(ops, weights, names.mlp_norm, width, eps)
        self.mlp = MLP(
            ops,
            weights,
            gate=names.gate,
            up=names.up,
            down=names.down,
            hidden=width,
            intermediate=config.intermediate_size,
            bias=config.mlp_bias,
            format=precision.linear,
        )

    def __call__(self, update: Array | None, residual: Array, step: Step, kv: KV) -> Array:
        """`update` is what the block before did not add to `residual` yet; returns this block's own."""
        x = self.attention_norm(residual) if update is None else self.attention_norm.after_adding(update, residual)
        x = self.attention(x, step, kv)
        return self.mlp(self.mlp_norm.after_adding(x, residual))


class Decoder:
    """Token ids [T] -> logits [R, V] float32."""

    def __init__(self, config: ModelConfig, weights: Tensors, ops: Ops, precision: Precision) -> None:
        vocab, width = config.vocab_size, config.hidden_size
        cos_sin = ops.array(rope_table(config.rope, config.head_dim, config.max_position))
        self.ops = ops
        self.embedding = Embedding(ops, weights, EMBEDDING, vocab, width, precision.table)
        self.blocks = [Block(config, i, weights, ops, precision, cos_sin) for i in range(config.num_layers)]
        self.norm = RMSNorm(ops, weights, FINAL_NORM, width, config.rms_norm_eps)
        head = EMBEDDING if config.tie_word_embeddings else HEAD
        self.head = Linear(ops, weights, [Part(head, vocab)], width, precision.head)

    def forward(self, step: Step, kvs: list[KV]) -> Array:
        residual = self.embedding(step.token_ids_T)
        update = None
        for block, kv in zip(self.blocks, kvs, strict=True):
            update = block(update, residual, step, kv)
        update = self.ops.take_rows(update, step.output_rows_R)
        residual = self.ops.take_rows(residual, step.output_rows_R)
        return self.head(self.norm.after_adding(update, residual))
