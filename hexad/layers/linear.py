"""Linear layers: weights that are multiplied with the same input are bound as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hexad.kernels.ops import Array, Dtype, Ops
from hexad.layers.weights import Weights


class Part(NamedTuple):
    """One weight of a (fused) linear: `name`.weight [outputs, K] and, with `bias`, `name`.bias [outputs]."""

    name: str
    outputs: int
    bias: bool = False


class Linear:
    """x [T, K] -> [T, N] float32, N being the parts' outputs one after another."""

    def __init__(
        self, ops: Ops, weights: Weights, parts: Sequence[Part], inputs: int, dtype: Dtype, *, leaves: int = 1
    ) -> None:
        matrices = [weights.take(f"{part.name}.weight", (part.outputs, inputs)) for part in parts]
        self.ops = ops
        self.weight: Any = ops.pack_linear(_joined(matrices), dtype, leaves=leaves)
        self.bias: Array | None = None
        if any(part.bias for part in parts):
            biases = [
                weights.take(f"{part.name}.bias", (part.outputs,)).astype(np.float32)
                if part.bias
                else np.zeros(part.outputs, np.float32)
                for part in parts
            ]
            self.bias = ops.array(_joined(biases))

    def __call__(self, x: Array) -> Array:
        return self.ops.linear(x, self.weight, self.bias)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One array as it is (it may be a mapped file), several as a copy."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
