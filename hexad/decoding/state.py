"""What the choice of one token may depend on, beside its logits.

This module knows one sequence at one position. It does not know other rows, pages, text, or the
scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import msgspec
import numpy as np
from numpy.typing import NDArray

from hexad.types import Request, SamplingParams


class RowState(msgspec.Struct, frozen=True):
    """One sequence at the moment when the token at index `position` is drawn.

    `tokens` may be the sequence's own growing list: only its first `position` entries are
    ever read, so nothing has to be copied for a row that no processor touches.
    """

    request: Request
    params: SamplingParams
    tokens: Sequence[int]
    """Prompt, then generated tokens."""
    num_prompt: int
    position: int
    """Index in `tokens` of the token to be drawn."""
    seed: int
    """uint64: the key of this choice's noise."""
    allowed: Future[NDArray[np.uint8]] | None = None
    """The tokens that a grammar allows, a bit each, the lowest of a byte first: computed beside the logits."""

    @staticmethod
    def of(
        request: Request, choice: int, tokens: Sequence[int], allowed: Future[NDArray[np.uint8]] | None = None
    ) -> RowState:
        """Answer `choice` of `request` when `tokens`, the prompt's and the generated, are known.

        Raises ValueError where the request was accepted without a seed.
        """
        seed = request.params.seed
        if seed is None:
            raise ValueError(f"request {request.request_id} has no seed; it is drawn when a request is accepted")
        num_prompt, seed = len(request.prompt_token_ids), (seed + choice) % 2**64
        return RowState(request, request.params, tokens, num_prompt, len(tokens), seed, allowed)

    @property
    def num_generated(self) -> int:
        return self.position - self.num_prompt

    @property
    def known(self) -> Sequence[int]:
        """Prompt and generated tokens."""
        return self.tokens[: self.position]

    @property
    def generated(self) -> Sequence[int]:
        return self.tokens[self.num_prompt : self.position]
