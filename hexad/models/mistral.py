"""Mistral (Jiang et al., 2023): Llama with a sliding window on every layer, as its configuration says.

A token sees the `window` tokens up to itself; what lies further back reaches it through the layers below.
"""

from hexad.models.llama import Decoder as Decoder
