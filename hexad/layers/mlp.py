"""The gated feed-forward block: silu(gate(x)) * up(x), projected down."""

from __future__ import annotations

from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import LEAVES, Array, Ops, WeightFormat
from hexad.layers.linear import Linear, Part


class MLP:
    """[T, D] -> [T, D] through `intermediate` units."""

    def __init__(
        self,
        ops: Ops,
        weights: Tensors,
        *,
        gate: str,
        up: str,
        down: str,
        hidden: int,
        intermediate: int,
        bias: bool,
        format: WeightFormat,
    ) -> None:
        self.ops = ops
        parts = [Part(gate, intermediate, bias), Part(up, intermediate, bias)]
        self.gate_up = Linear(ops, weights, parts, hidden, format)
        self.down = Linear(ops, weights, [Part(down, hidden, bias)], intermediate, format, leaves=LEAVES)

    def __call__(self, x: Array) -> Array:
        return self.down(self.ops.silu_mul(self.gate_up(x)))
