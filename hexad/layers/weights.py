"""Where a layer's weights come from, as far as a layer needs to know: names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from hexad.kernels.ops import Ops, WeightFormat


class Weights(Protocol):
    """The tensors of a checkpoint, by name."""

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A host array, float32, bfloat16 or float16, of exactly `shape`.

        Raises CheckpointError, naming the tensor, if it is missing or of another shape.
        """

    def pack(self, ops: Ops, outputs: Mapping[str, int], inputs: int, format: WeightFormat, leaves: int) -> Any:
        """The tensors [outputs, inputs] one below the other, as `ops.pack_linear` binds them. Raises as `take`."""
