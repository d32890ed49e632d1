"""How much memory a model takes, by arithmetic on its configuration, before anything is loaded."""

from __future__ import annotations

from hexad.checkpoints.config import ModelConfig
from hexad.kernels.ops import TILE_OUTPUTS, Dtype

ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def weight_bytes(config: ModelConfig, dtype: Dtype) -> int:
    """Linears, embedding table and head in `dtype`; norms, biases and rotary table in float32.

    A tied head is packed into tiles of its own beside the embedding table, so it counts too.
    """
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    linears = [  # (outputs, inputs) a layer
        (queries + 2 * keys, c.hidden_size),
        (c.hidden_size, queries),
        (2 * c.intermediate_size, c.hidden_size),
        (c.hidden_size, c.intermediate_size),
    ]
    packed = c.num_layers * sum(_packed(outputs, inputs) for outputs, inputs in linears)
    packed += _packed(c.vocab_size, c.hidden_size)
    embedding = c.vocab_size * c.hidden_size
    biases = (
        (queries + 2 * keys) * c.attention_bias
        + c.hidden_size * c.output_bias
        + (2 * c.intermediate_size + c.hidden_size) * c.mlp_bias
    )
    norms = 2 * c.hidden_size + 2 * c.head_dim
    rotary = c.max_position * c.head_dim
    floats = c.num_layers * (biases + norms) + c.hidden_size + rotary
    return (packed + embedding) * ITEM_BYTES[dtype] + 4 * floats


def kv_bytes_per_token(config: ModelConfig, dtype: Dtype) -> int:
    """A key and a value for each key-value head of each layer."""
    return config.num_layers * 2 * config.num_kv_heads * config.head_dim * ITEM_BYTES[dtype]


def scratch_bytes(config: ModelConfig, max_tokens: int, max_logit_rows: int | None = None) -> int:
    """The most that a step's float32 activations take at once; `max_logit_rows` defaults to every token.

    A row holds the residual and a normed or updated copy of it (D each), and then the widest
    of: fused q, k, v with normed keys, the rotated q and the attention's output; gate and up
    with their product; or, for a row whose logits are wanted, two more D and the logits.
    """
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    attention = (queries + 2 * keys) + keys + 2 * queries + c.hidden_size
    mlp = 3 * c.intermediate_size + c.hidden_size
    rows = max_tokens if max_logit_rows is None else max_logit_rows
    logits = rows * (2 * c.hidden_size + c.vocab_size)
    return 4 * (max_tokens * 2 * c.hidden_size + max(max_tokens * max(attention, mlp), logits))


def _packed(outputs: int, inputs: int) -> int:
    """Elements of a weight whose outputs are filled up to whole tiles."""
    return -(-outputs // TILE_OUTPUTS) * TILE_OUTPUTS * inputs
