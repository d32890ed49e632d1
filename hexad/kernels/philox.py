"""Counter-based noise: the Gumbel noise of a token is a pure function of (seed, position, token).

Philox4x32-10 from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The
key is the seed, the counter names the position and the token, so that a replayed, resumed or
verified token draws the same noise wherever it is computed. This module does not know logits.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """uint32 [..., 4] counters -> uint32 [..., 4] random bits, under a key of two uint32."""
    c0, c1, c2, c3 = (counter[..., lane].astype(np.uint64) for lane in range(4))
    for round_ in range(ROUNDS):
        k0, k1 = (np.uint64((key[lane] + round_ * _WEYL[lane]) & 0xFFFFFFFF) for lane in range(2))
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ k1,
            product0 & _LOW,
        )
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def gumbel_noise(seed: int, position: int, vocab_size: int) -> np.ndarray:
    """float64 [V]: the standard Gumbel noise of every token at one position of one sequence.

    Key: (seed low, seed high). Counter: (token // 4, position low, position high, 0), lane
    token % 4. A uniform of 24 bits, never 0 or 1: ((bits >> 8) + 0.5) / 2^24.
    """
    blocks = -(-vocab_size // 4)
    counter = np.zeros((blocks, 4), np.uint32)
    counter[:, 0] = np.arange(blocks)
    counter[:, 1] = position & 0xFFFFFFFF
    counter[:, 2] = (position >> 32) & 0xFFFFFFFF
    bits = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).reshape(-1)[:vocab_size]
    uniform = ((bits >> np.uint32(8)).astype(np.float64) + 0.5) * 2.0**-24
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
