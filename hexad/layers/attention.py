"""Multi-head attention with grouped queries, over paged keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import KV, LEAVES, Array, Ops, Step, WeightFormat
from hexad.layers.linear import Linear, Part
from hexad.layers.norm import RMSNorm


class Heads(msgspec.Struct, frozen=True):
    """H query heads share G key-value heads; each head is E wide."""

    query: int
    key_value: int
    width: int


class Attention:
    """[T, D] -> [T, D]; writes this step's keys and values, then attends over all that are known.

    `qkv` are the projections in this order; `cos_sin` is the table of `rotary.py` as an
    `Array`; `window` 0 attends to everything; `qk_norms`, if any, are those of queries and of keys,
    and act on each head.
    """

    def __init__(
        self,
        ops: Ops,
        weights: Tensors,
        *,
        qkv: Sequence[str],
        output: str,
        hidden: int,
        heads: Heads,
        bias: bool,
        output_bias: bool,
        cos_sin: Array,
        qk_norms: Sequence[RMSNorm],
        window: int,
        format: WeightFormat,
    ) -> None:
        self.ops, self.heads, self.window, self.cos_sin = ops, heads, window, cos_sin
        self.qk_norms = qk_norms
        self.scale = heads.width**-0.5
        widths = (heads.query * heads.width, heads.key_value * heads.width, heads.key_value * heads.width)
        parts = [Part(name, width, bias) for name, width in zip(qkv, widths, strict=True)]
        self.qkv = Linear(ops, weights, parts, hidden, format)
        self.output = Linear(ops, weights, [Part(output, hidden, output_bias)], widths[0], format, leaves=LEAVES)

    def __call__(self, x: Array, step: Step, kv: KV) -> Array:
        heads = self.heads
        k_start = heads.query * heads.width
        v_start = k_start + heads.key_value * heads.width
        qkv = self.qkv(x)
        q = qkv[:, :k_start].reshape(-1, heads.query, heads.width)
        k = qkv[:, k_start:v_start].reshape(-1, heads.key_value, heads.width)
        v = qkv[:, v_start:].reshape(-1, heads.key_value, heads.width)
        if self.qk_norms:
            q_norm, k_norm = self.qk_norms
            q, k = q_norm(q), k_norm(k)
        q = self.ops.rope_kv_write(q, k, v, self.cos_sin, step, kv)
        return self.output(self.ops.attention(q, step, kv, self.scale, self.window))
