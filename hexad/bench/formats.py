"""What Hexad's, OpenVINO's and llama.cpp's linears can hold: arrays rounded to the formats of weights and inputs.

The others' are written from their definitions: `weight_compression` of NNCF 3.4, which is OpenVINO's converter, and
`quantize_row_*_ref` of ggml. All functions take and return float32 [rows, K]; a row knows nothing of the others. This
file knows no engine and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hexad.errors import ConfigError
from hexad.kernels.ops import WeightFormat
from hexad.kernels.quantize import Quantized, quantize_rows, quantize_weight

Rounding = Callable[[np.ndarray], np.ndarray]

_EPSILON = np.finfo(np.float32).eps


@dataclass(frozen=True, slots=True)
class HeldFormat:
    """A way to keep a weight, and the bits that one takes with its share of scales and zero points."""

    round: Rounding
    bits: Callable[[int], float]
    """Of the number of inputs."""


def openvino_int8(weight_NK: np.ndarray) -> np.ndarray:
    """INT8_ASYM: 0..255 with a float16 scale and a zero point an output."""
    low, high = weight_NK.min(axis=1, keepdims=True), weight_NK.max(axis=1, keepdims=True)
    scale = (high - low) / np.float32(255)
    scale = np.where(scale < _EPSILON, _EPSILON, scale)
    zero = np.clip(-np.rint(low / scale), 0, 255)
    values = np.clip(np.rint(weight_NK / scale + zero), 0, 255)
    held: np.ndarray = (values - zero) * _float16(scale)
    return held


def openvino_int4(weight_NK: np.ndarray, group: int = 128) -> np.ndarray:
    """INT4_SYM: -8..7 with a float16 scale for each 128 inputs, such that the end of greater magnitude becomes -8."""
    weight_NGK = _groups(weight_NK, group)
    low, high = weight_NGK.min(axis=2, keepdims=True), weight_NGK.max(axis=2, keepdims=True)
    scale = np.where(np.abs(low) >= high, np.abs(low), -high) / np.float32(8)
    scale = np.where(np.abs(scale) < _EPSILON, _EPSILON, scale)
    values = np.clip(np.rint(weight_NGK / scale), -8, 7)
    held: np.ndarray = (values * _float16(scale)).reshape(weight_NK.shape)
    return held


def ggml_q8_0(x: np.ndarray) -> np.ndarray:
    """Blocks of 32: -127..127 with a float16 scale of the greatest magnitude / 127; halves round away from zero."""
    blocks = _groups(x, 32)
    scale = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    scaled = blocks * _inverse(scale)
    values = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled)
    held: np.ndarray = (values * _float16(scale)).reshape(x.shape)
    return held


def ggml_q4_0(weight_NK: np.ndarray) -> np.ndarray:
    """Blocks of 32: -8..7 with a float16 scale of the element of greatest magnitude / -8."""
    blocks = _groups(weight_NK, 32)
    at = np.abs(blocks).argmax(axis=2, keepdims=True)
    scale = np.take_along_axis(blocks, at, axis=2) / np.float32(-8)
    values = np.minimum(np.trunc(blocks * _inverse(scale) + np.float32(8.5)), 15) - np.float32(8)
    held: np.ndarray = (values * _float16(scale)).reshape(weight_NK.shape)
    return held


def openvino_inputs(x_TK: np.ndarray) -> np.ndarray:
    """Dynamic quantization, the CPU plugin's default: int8 with a float32 scale for each 32 inputs of a row."""
    return _held(quantize_rows(x_TK, 32), x_TK.shape)


def _own(format: WeightFormat) -> Rounding:
    def rounded(weight_NK: np.ndarray) -> np.ndarray:
        return _held(quantize_weight(weight_NK, format), weight_NK.shape)

    return rounded


def _held(q: Quantized, shape: tuple[int, ...]) -> np.ndarray:
    rows, groups, size = q.values.shape
    held: np.ndarray = (q.values * q.scales[..., None]).reshape(rows, groups * size)[:, : shape[1]]
    return held


INT8 = HeldFormat(_own("int8"), lambda inputs: 8 + 64 / inputs)
INT4 = HeldFormat(_own("int4-128"), lambda _: 4 + 16 / 128)
OPENVINO_INT8 = HeldFormat(openvino_int8, lambda inputs: 8 + 24 / inputs)
OPENVINO_INT4 = HeldFormat(openvino_int4, lambda _: 4 + 16 / 128)
GGML_Q8_0 = HeldFormat(ggml_q8_0, lambda _: 8 + 16 / 32)
GGML_Q4_0 = HeldFormat(ggml_q4_0, lambda _: 4 + 16 / 32)


def _groups(x: np.ndarray, size: int) -> np.ndarray:
    rows, inputs = x.shape
    if inputs % size:
        raise ConfigError(f"a linear has {inputs} inputs; this format needs a multiple of {size}", param="model")
    return x.astype(np.float32, copy=False).reshape(rows, inputs // size, size)


def _float16(scale: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = scale.astype(np.float16).astype(np.float32)
    return rounded


def _inverse(scale: np.ndarray) -> np.ndarray:
    inverse: np.ndarray = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    return inverse
