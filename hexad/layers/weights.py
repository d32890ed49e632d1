"""Where a layer's weights come from, as far as a layer needs to know: a name and a shape."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Weights(Protocol):
    """The tensors of a checkpoint, by name."""

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A host array, float32, bfloat16 or float16, of exactly `shape`.

        Raises CheckpointError, naming the tensor, if it is missing or of another shape.
        """
