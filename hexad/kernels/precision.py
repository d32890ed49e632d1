"""What the setting `dtype` means for each part of a model. Knows no arrays and no models."""

from __future__ import annotations

from typing import cast

import msgspec

from hexad.kernels.ops import Dtype, WeightFormat

FLOATS: tuple[Dtype, ...] = ("float32", "bfloat16")


class Precision(msgspec.Struct, frozen=True):
    """What is held in which format. Activations are float32 between ops, whatever this says."""

    linear: WeightFormat
    """The linears of the layers."""
    head: WeightFormat
    """The output head: what it rounds away goes straight into the logits, so it keeps at least 8 bits."""
    table: Dtype
    """The embedding table: of a row a token is read, so that few bits would save no time."""
    kv: Dtype

    @classmethod
    def of(cls, dtype: str, checkpoint: str) -> Precision:
        """`dtype` is a setting but `auto`; `checkpoint` what the weights are stored in.

        A float dtype holds for all parts. With quantized weights the table stays as it is stored
        (float16 becomes bfloat16) and the KV cache is bfloat16.
        """
        for float_dtype in FLOATS:
            if dtype == float_dtype:
                return cls(float_dtype, float_dtype, float_dtype, float_dtype)
        linear = cast(WeightFormat, "int4-128" if dtype == "int4" else dtype)
        return cls(linear, "int8", "float32" if checkpoint == "float32" else "bfloat16", "bfloat16")

    def __str__(self) -> str:
        if self.linear == self.head == self.table == self.kv:
            return self.linear
        return f"{self.linear} (head {self.head}, embedding {self.table}, KV {self.kv})"
