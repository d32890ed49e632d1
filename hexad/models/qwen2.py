"""Qwen2 and Qwen2.5 (Yang et al., 2024): Llama with biases on queries, keys and values, as its configuration says.

Upper layers may have a sliding window, where the checkpoint asks for it.
"""

from hexad.models.llama import Decoder as Decoder
