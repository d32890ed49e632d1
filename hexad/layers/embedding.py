"""The token embedding, and the head that turns hidden states back into logits."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import Array, Dtype, Ops


class Embedding:
    """Token ids [T] -> [T, D] float32, from a table [V, D] of `dtype`.

    Where the checkpoint holds it so, it stays a mapped file: of that, only rows that are used take memory.
    """

    def __init__(self, ops: Ops, weights: Tensors, name: str, vocab_size: int, width: int, dtype: Dtype) -> None:
        table = weights.take(f"{name}.weight", (vocab_size, width))
        held = np.float32 if dtype == "float32" else ml_dtypes.bfloat16
        self.ops = ops
        self.table: Array = ops.array(np.ascontiguousarray(table, held))

    def __call__(self, token_ids: Array) -> Array:
        return self.ops.embedding(self.table, token_ids)
