"""From a configuration to a model that runs: the family's file is found by its `model_type`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Protocol

from hexad import models
from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.weights import Tensors
from hexad.errors import CheckpointError
from hexad.kernels.ops import KV, Array, Dtype, Ops, Step
from hexad.kernels.precision import Precision


class Model(Protocol):
    """A decoder-only model with its weights bound."""

    def forward(self, step: Step, kvs: list[KV]) -> Array:
        """Logits float32 [R, V] of the rows `step.output_rows_R`; writes keys and values of all T tokens to `kvs`."""


def build(config: ModelConfig, weights: Tensors, ops: Ops, precision: Precision) -> Model:
    """Read, pack and bind all weights.

    Raises CheckpointError for a family without a file here, and for weights that are missing
    or of another shape than the configuration says.
    """
    known = families()
    if config.model_type not in known:
        raise CheckpointError(
            f"model_type is {config.model_type!r}; Hexad knows {', '.join(sorted(known))}. "
            "A fine-tune of one of these keeps its model_type in config.json",
            code="unsupported_model",
        )
    return known[config.model_type](config, weights, ops, precision)


def families() -> dict[str, Callable[[ModelConfig, Tensors, Ops, Precision], Model]]:
    """The `Decoder` of every file of this room that holds one, by the file's name."""
    names = (file.name for file in pkgutil.iter_modules(models.__path__) if file.name != "build")
    files = {name: importlib.import_module(f"hexad.models.{name}") for name in names}
    return {name: file.Decoder for name, file in files.items() if hasattr(file, "Decoder")}


def new_kvs(config: ModelConfig, ops: Ops, num_pages: int, dtype: Dtype) -> list[KV]:
    """One empty cache a layer, `num_pages` pages each."""
    return [ops.new_kv(num_pages, config.num_kv_heads, config.head_dim, dtype) for _ in range(config.num_layers)]
