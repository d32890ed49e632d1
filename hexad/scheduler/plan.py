"""What the scheduler hands to the runner, and what it gets back.

A sequence is one choice of one request. The runner reads the plan and never changes it.
"""

from __future__ import annotations

import msgspec

from hexad.scheduler.sequence import Sequence
from hexad.types import Failure, TokenLogprobs


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Tokens [start, start + count) of `sequence` run in this step.

    `samples` are the sequences that draw a token from the logits of the last position:
    none while a prompt is still being computed; the sequence itself; or, when a prompt
    with n > 1 is complete, the sequence and its forks. Forks share `sequence`'s tokens.
    """

    sequence: Sequence
    start: int
    count: int
    samples: tuple[Sequence, ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """One step. Copies are done first, then the chunks run together."""

    chunks: tuple[Chunk, ...]
    page_copies: tuple[tuple[int, int], ...] = ()
    """(source, target) pages: copy on write after a fork. All sources are read before a target is written."""

    @property
    def num_tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)


class Result(msgspec.Struct):
    """What one sampled sequence gained: a token, or the error that fails it alone."""

    token_id: int = -1
    logprobs: TokenLogprobs | None = None
    error: Failure | None = None
    forced: list[int] = []
    """Tokens that must follow it, and are taken without a step."""
    complete: bool = False
    """Nothing may follow them."""


class StepResult(msgspec.Struct):
    """Keyed by sequence identity (request_id, choice)."""

    sampled: dict[tuple[str, int], Result] = {}
    prompt_logprobs: dict[tuple[str, int], list[TokenLogprobs]] = {}
    """For a chunk [start, start + count): prompt positions start + 1 up to start + count, as
    far as the prompt goes."""
    failed: dict[tuple[str, int], Failure] = {}
    """Sequences whose chunk could not be run at all, with the cause."""
