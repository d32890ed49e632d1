"""RMSNorm (Zhang and Sennrich, 2019), alone or fused with the residual addition before it."""

from __future__ import annotations

import numpy as np

from hexad.checkpoints.weights import Tensors
from hexad.kernels.ops import Array, Ops


class RMSNorm:
    """Over the last axis, with a float32 weight `name`.weight [width]."""

    def __init__(self, ops: Ops, weights: Tensors, name: str, width: int, eps: float) -> None:
        self.ops = ops
        self.weight: Array = ops.array(weights.take(f"{name}.weight", (width,)).astype(np.float32))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return self.ops.rms_norm(x, self.weight, self.eps)

    def after_adding(self, x: Array, residual: Array) -> Array:
        """residual += x, in place; returns the norm of the sum."""
        return self.ops.add_rms_norm(x, residual, self.weight, self.eps)
