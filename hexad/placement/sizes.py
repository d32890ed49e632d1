"""How much memory a model takes, by arithmetic on its configuration, before anything is loaded."""

from __future__ import annotations

import itertools

from hexad.checkpoints.config import ModelConfig
from hexad.kernels.ops import LEAVES, TILE_OUTPUTS, Dtype, WeightFormat
from hexad.kernels.precision import Precision

ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def weight_bytes(config: ModelConfig, precision: Precision, *, mapped_table: bool) -> int:
    """Linears, head and embedding table as `precision` says; norms, biases and rotary table in float32.

    A tied head is packed into tiles of its own, and counts. A `mapped_table` is left in the
    checkpoint's file, of which the system keeps what is used and can drop it again: it does not.
    """
    c = config
    packed = c.num_layers * sum(packed_bytes(*linear, precision.linear) for linear in _linears(c))
    packed += packed_bytes(c.vocab_size, c.hidden_size, 1, precision.head)
    table = 0 if mapped_table else c.vocab_size * c.hidden_size * ITEM_BYTES[precision.table]
    return packed + table + 4 * (_num_floats(c) + c.max_position * c.head_dim)


def num_parameters(config: ModelConfig) -> int:
    """As people count them: all that is trained, a tied table once."""
    table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    return num_linear_weights(config) + table + _num_floats(config)


def _num_floats(c: ModelConfig) -> int:
    """Biases and norms."""
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    biases = (
        (queries + 2 * keys) * c.attention_bias
        + c.hidden_size * c.output_bias
        + (2 * c.intermediate_size + c.hidden_size) * c.mlp_bias
    )
    return c.num_layers * (biases + 2 * c.hidden_size + 2 * c.head_dim * c.qk_norm) + c.hidden_size


def num_linear_weights(config: ModelConfig) -> int:
    """Weights of all linears and the head, without padding."""
    layer = sum(outputs * inputs for outputs, inputs, _ in _linears(config))
    return config.num_layers * layer + config.vocab_size * config.hidden_size


def _linears(config: ModelConfig) -> list[tuple[int, int, int]]:
    """Outputs, inputs and leaves of the linears of a layer."""
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    return [
        (queries + 2 * keys, config.hidden_size, 1),
        (config.hidden_size, queries, LEAVES),
        (2 * config.intermediate_size, config.hidden_size, 1),
        (config.hidden_size, config.intermediate_size, LEAVES),
    ]


def kv_bytes_per_token(config: ModelConfig, dtype: Dtype) -> int:
    """A key and a value for each key-value head of each layer."""
    return config.num_layers * 2 * config.num_kv_heads * config.head_dim * ITEM_BYTES[dtype]


def scratch_bytes(config: ModelConfig, max_tokens: int) -> int:
    """The most that a step's float32 activations take at once, when the logits of every token are wanted.

    A row holds the residual and a normed or updated copy of it (D each), and then the widest
    of: fused q, k, v with normed keys, the rotated q and the attention's output; gate and up
    with their product; or, for a row whose logits are wanted, two more D and the logits.
    """
    c = config
    queries, keys = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    attention = (queries + 2 * keys) + keys + 2 * queries + c.hidden_size
    mlp = 3 * c.intermediate_size + c.hidden_size
    logits = 2 * c.hidden_size + c.vocab_size
    return 4 * max_tokens * (2 * c.hidden_size + max(attention, mlp, logits))


def packed_bytes(outputs: int, inputs: int, leaves: int, format: WeightFormat) -> int:
    """Of a linear in whole tiles, as native/weights.h lays them out, with scales and sums.

    bfloat16: inputs in pairs, leaf by leaf. int8: inputs in fours; a float32 scale and an int32 sum
    an output. int4: inputs in eights; a bfloat16 scale an output and group.
    """
    if format == "float32":
        row = 4 * inputs
    elif format == "bfloat16":
        bounds = [leaf * inputs // leaves for leaf in range(leaves + 1)]
        row = sum(4 * -(-(high - low) // 2) for low, high in itertools.pairwise(bounds))
    elif format == "int8":
        row = 4 * -(-inputs // 4) + 8
    else:
        group = int(format.removeprefix("int4-"))
        row = 4 * -(-inputs // 8) + 2 * -(-inputs // group)
    return -(-outputs // TILE_OUTPUTS) * TILE_OUTPUTS * row
