"""Qwen3 (Yang et al., 2025): Llama whose queries and keys are normalised head by head before they are rotated.

The head width is a number of its own, not hidden size / heads.
"""

from hexad.models.llama import Decoder as Decoder
