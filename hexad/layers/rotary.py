"""The table of rotary angles (Su et al., 2021) and its ways of reaching beyond the trained context.

Frequencies are computed in float32, operation by operation as `modeling_rope_utils.py` of
Hugging Face transformers computes them, because models are published with those roundings.
"""

from __future__ import annotations

import math

import numpy as np

from hexad.checkpoints.config import Rope
from hexad.errors import CheckpointError


def rope_table(rope: Rope, head_dim: int, max_position: int) -> np.ndarray:
    """float32 [max_position, E]: the cosines of E/2 angles, then their sines."""
    frequencies, amplitude = rope_frequencies(rope, head_dim)
    angles = np.arange(max_position, dtype=np.float32)[:, None] * frequencies
    table = np.empty((max_position, 2 * len(frequencies)), np.float32)
    np.cos(angles, out=table[:, : len(frequencies)])
    np.sin(angles, out=table[:, len(frequencies) :])
    table *= np.float32(amplitude)
    return table


def rope_frequencies(rope: Rope, head_dim: int) -> tuple[np.ndarray, float]:
    """float32 [E/2] radians a position, and what cosines and sines are multiplied by."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    wavelengths = np.power(rope.theta, exponents.astype(np.float64)).astype(np.float32)
    plain = np.float32(1) / wavelengths
    if rope.kind == "default":
        return plain, 1.0
    if rope.kind == "linear":
        return plain / np.float32(rope.factor), 1.0
    if rope.kind == "llama3":
        return _llama3(rope, plain), 1.0
    if rope.kind == "yarn":
        return _yarn(rope, wavelengths, head_dim), yarn_amplitude(rope)
    raise CheckpointError(f"rope kind is {rope.kind!r}; known are default, linear, llama3 and yarn")


def _llama3(rope: Rope, plain: np.ndarray) -> np.ndarray:
    """Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended."""
    context = rope.original_max_position
    wavelengths = np.float32(2 * math.pi) / plain
    slow = wavelengths > np.float32(context / rope.low_freq_factor)
    fast = wavelengths < np.float32(context / rope.high_freq_factor)
    smooth = (np.float32(context) / wavelengths - np.float32(rope.low_freq_factor)) / np.float32(
        rope.high_freq_factor - rope.low_freq_factor
    )
    blended = (1 - smooth) * plain / np.float32(rope.factor) + smooth * plain
    frequencies: np.ndarray = np.where(slow, plain / np.float32(rope.factor), np.where(fast, plain, blended))
    return frequencies


def _yarn(rope: Rope, wavelengths: np.ndarray, head_dim: int) -> np.ndarray:
    """YaRN (Peng et al., 2023): a ramp over the dimensions from extrapolation to interpolation."""

    def dimension_of(rotations: float) -> float:
        context = rope.original_max_position
        return head_dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    keep = np.float32(1) - ramp
    interpolated = np.float32(1) / (np.float32(rope.factor) * wavelengths)
    extrapolated = np.float32(1) / wavelengths
    frequencies: np.ndarray = interpolated * (1 - keep) + extrapolated * keep
    return frequencies


def yarn_amplitude(rope: Rope) -> float:
    """YaRN's attention factor, as transformers derives it when the checkpoint does not give it."""

    def mscale(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return mscale(rope.mscale) / mscale(rope.mscale_all_dim)
    return mscale(1.0)
