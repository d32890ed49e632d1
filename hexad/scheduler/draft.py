"""A plan while it is being made: tokens are given out, and taken back from whoever is preempted."""

from __future__ import annotations

from hexad.scheduler.memory import PageCopy
from hexad.scheduler.plan import Chunk, Plan
from hexad.scheduler.sequence import Sequence


class Draft:
    """`budget` tokens are left to give."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.preempted = False
        self._shares: dict[Sequence, tuple[int, PageCopy | None]] = {}

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence in self._shares

    def add(self, sequence: Sequence, tokens: int, copy: PageCopy | None) -> None:
        self._shares[sequence] = tokens, copy
        self.budget -= tokens

    def drop(self, victim: Sequence) -> None:
        """Take back what a preempted sequence was given, if anything."""
        self.preempted = True
        tokens, _ = self._shares.pop(victim, (0, None))
        self.budget += tokens

    def plan(self) -> Plan | None:
        if not self._shares:
            return None
        return Plan(
            chunks=tuple([_chunk(sequence, tokens) for sequence, (tokens, _) in self._shares.items()]),
            page_copies=tuple([copy for _, copy in self._shares.values() if copy]),
        )


def _chunk(sequence: Sequence, tokens: int) -> Chunk:
    if tokens < sequence.remaining:
        return Chunk(sequence, sequence.computed, tokens)
    for fork in sequence.forks:
        fork.tokens = sequence.tokens.copy()
    samples = tuple([each for each in (sequence, *sequence.forks) if not each.finished])
    return Chunk(sequence, sequence.computed, tokens, samples)
