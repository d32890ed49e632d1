"""Weights and activations as small integers: the definitions of `Ops.pack_linear`, in numpy.

Shared by the sets that are no C++; the native set has its own, which gives the same integers.
Knows no layout of any set.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

from hexad.kernels.ops import WeightFormat

GROUPS: dict[WeightFormat, int] = {"int4-128": 128, "int4-64": 64, "int4-32": 32}
"""Inputs that share a scale."""

_TINY = np.finfo(np.float32).tiny


class Quantized(NamedTuple):
    """Rows in groups of inputs: row r is values[r, g] * scales[r, g]. The last group is padded with 0."""

    values: np.ndarray
    """int8 [rows, groups, inputs of a group]"""
    scales: np.ndarray
    """float32 [rows, groups]"""


def quantize_weight(weight_NK: np.ndarray, format: WeightFormat) -> Quantized:
    """int8 (one group) or int4 of a float32, bfloat16 or float16 weight."""
    weight_NK = weight_NK.astype(np.float32)
    if format in GROUPS:
        return _quantize_int4(_grouped(weight_NK, GROUPS[format]))
    return quantize_rows(weight_NK, max(1, weight_NK.shape[1]))


def quantize_rows(x_TK: np.ndarray, group: int) -> Quantized:
    """int8: a group's scale is its greatest magnitude / 127."""
    x_TGK = _grouped(x_TK, group)
    greatest = np.abs(x_TGK).max(axis=-1, initial=0)
    finite = np.isfinite(greatest)
    scales = np.maximum(np.where(finite, greatest, 0) / np.float32(127), _TINY)
    values = np.rint(np.where(finite[..., None], x_TGK, 0) * (np.float32(1) / scales)[..., None])
    return Quantized(values.astype(np.int8), np.where(finite, scales, np.float32(np.nan)))


def _grouped(x: np.ndarray, group: int) -> np.ndarray:
    groups = -(-x.shape[1] // group)
    return np.pad(x, ((0, 0), (0, groups * group - x.shape[1]))).reshape(len(x), groups, group)


def _quantize_int4(weight_NGK: np.ndarray) -> Quantized:
    finite_NG = np.isfinite(weight_NGK).all(axis=-1)
    weight_NGK = np.where(finite_NG[..., None], weight_NGK, np.float32(0))
    at = np.abs(weight_NGK).argmax(axis=-1)[..., None]
    greatest_NG = np.take_along_axis(weight_NGK, at, axis=-1)[..., 0]
    tried = [_int4_by(weight_NGK, greatest_NG / np.float32(divisor)) for divisor in (-8, -9)]
    errors = [_squared_error(weight_NGK, q) for q in tried]
    better = errors[1] < errors[0]
    scales_NG = np.where(better, tried[1].scales, tried[0].scales)
    values_NGK = np.where(better[..., None], tried[1].values, tried[0].values)
    return Quantized(values_NGK, np.where(finite_NG, scales_NG, np.float32(np.nan)))


def _int4_by(weight_NGK: np.ndarray, scales_NG: np.ndarray) -> Quantized:
    rounded = scales_NG.astype(ml_dtypes.bfloat16).astype(np.float32)
    usable = np.abs(rounded) >= _TINY
    inverse = np.divide(np.float32(1), rounded, out=np.zeros_like(rounded), where=usable)
    values = np.rint(np.clip(weight_NGK * inverse[..., None], -8, 7))
    return Quantized(values.astype(np.int8), np.where(usable, rounded, np.float32(0)))


def _squared_error(weight_NGK: np.ndarray, q: Quantized) -> np.ndarray:
    """[N, groups] float32, summed in the order of the inputs."""
    error_NG = np.zeros(q.scales.shape, np.float32)
    with np.errstate(over="ignore"):  # huge weights: neither scale is better then
        for k in range(weight_NGK.shape[-1]):
            left = weight_NGK[..., k] - q.values[..., k] * q.scales
            error_NG += left * left
    return error_NG


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c of float32, rounded once.

    The product is exact in float64; the sum is rounded to odd there, so that rounding it again to
    float32 does no harm (Boldo and Melquiond, 2008). The error of the sum is Knuth's TwoSum.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        product, addend = a.astype(np.float64) * b, c.astype(np.float64)
        total = product + addend
        part = total - product
        error = (product - (total - part)) + (addend - part)
        inexact_and_even = (error != 0) & (total.view(np.int64) % 2 == 0)
        odd = np.where(inexact_and_even, np.nextafter(total, np.copysign(np.inf, error)), total)
        rounded: np.ndarray = odd.astype(np.float32)
    return rounded
