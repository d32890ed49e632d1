"""Linear layers: weights that are multiplied with the same input are bound as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import Array, Ops, WeightFormat


class Part(NamedTuple):
    """One weight of a (fused) linear: `name`.weight [outputs, K] and, with `bias`, `name`.bias [outputs]."""

    name: str
    outputs: int
    bias: bool = False


class Linear:
    """x [T, K] -> [T, N] float32, N being the parts' outputs one after another."""

    def __init__(
        self, ops: Ops, weights: Tensors, parts: Sequence[Part], inputs: int, format: WeightFormat, *, leaves: int = 1
    ) -> None:
        outputs = {f"{part.name}.weight": part.outputs for part in parts}
        self.ops = ops
        self.weight: Any = weights.pack(ops, outputs, inputs, format, leaves)
        self.bias: Array | None = None
        if any(part.bias for part in parts):
            biases = [
                weights.take(f"{part.name}.bias", (part.outputs,)).astype(np.float32)
                if part.bias
                else np.zeros(part.outputs, np.float32)
                for part in parts
            ]
            self.bias = ops.array(np.concatenate(biases))

    def __call__(self, x: Array) -> Array:
        return self.ops.linear(x, self.weight, self.bias)
