"""What the scheduler hands to the runner, and what it gets back.

A sequence is one choice of one request. The runner reads the plan and never changes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hexad.scheduler.sequence import Sequence
from hexad.types import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, start + count) of `sequence` run in this step.

    `samples` are the sequences that draw a token from the logits of the last position:
    none while a prompt is still being computed; the sequence itself; or, when a prompt
    with n > 1 is complete, the sequence and its forks. Forks share `sequence`'s tokens.
    """

    sequence: Sequence
    start: int
    count: int
    samples: tuple[Sequence, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """One step. Copies are done first, then the chunks run together."""

    chunks: tuple[Chunk, ...]
    page_copies: tuple[tuple[int, int], ...] = ()
    """(source, target) pages: copy on write after a fork. All sources are read before a target is written."""

    @property
    def num_tokens(self) -> int:
        return sum(chunk.count for chunk in self.chunks)


@dataclass(slots=True)
class Result:
    """What one sampled sequence gained: a token, or the error that fails it alone."""

    token_id: int = -1
    logprobs: TokenLogprobs | None = None
    error: str | None = None


@dataclass(slots=True)
class StepResult:
    """Keyed by sequence identity (request_id, choice)."""

    sampled: dict[tuple[str, int], Result] = field(default_factory=dict)
    prompt_logprobs: dict[tuple[str, int], list[TokenLogprobs]] = field(default_factory=dict)
    """For a chunk [start, start + count): prompt positions start + 1 up to start + count, as
    far as the prompt goes."""
    failed: dict[tuple[str, int], str] = field(default_factory=dict)
    """Sequences whose chunk could not be run at all, with the cause."""
