"""From a configuration to a model that runs: the family's file is found by its `model_type`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

from hexad import models
from hexad.checkpoints.config import ModelConfig
from hexad.errors import CheckpointError
from hexad.kernels.ops import KV, Array, Dtype, Ops, Step
from hexad.kernels.precision import Precision
from hexad.layers.weights import Weights


class Model(Protocol):
    """A decoder-only model with its weights bound."""

    def forward(self, step: Step, kvs: list[KV]) -> Array:
        """Logits float32 [R, V] of the rows `step.output_rows_R`; writes keys and values of all T tokens to `kvs`."""


class Family(Protocol):
    """How a family's file offers its model, under the name `Decoder`."""

    def __call__(self, config: ModelConfig, weights: Weights, ops: Ops, precision: Precision) -> Model: ...


def build(config: ModelConfig, weights: Weights, ops: Ops, precision: Precision) -> Model:
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


def families() -> dict[str, Family]:
    """Every file of this room that holds a `Decoder`, by name."""
    found: dict[str, Family] = {}
    for file in pkgutil.iter_modules(models.__path__):
        if file.name != "build":
            family = getattr(importlib.import_module(f"hexad.models.{file.name}"), "Decoder", None)
            if family is not None:
                found[file.name] = family
    return found


def new_kvs(config: ModelConfig, ops: Ops, num_pages: int, dtype: Dtype) -> list[KV]:
    """One empty cache a layer, `num_pages` pages each."""
    return [ops.new_kv(num_pages, config.num_kv_heads, config.head_dim, dtype) for _ in range(config.num_layers)]
