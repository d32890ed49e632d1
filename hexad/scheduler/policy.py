"""Who goes first, who gets how much, who must give way: pure functions over sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hexad.scheduler.sequence import Sequence
from hexad.types import Request

MAX_OVERTAKEN = 16
"""Times that later requests may pass a waiting one that does not fit; then the queue waits for it."""
LOOK_AHEAD = 32
"""Waiting requests that one step considers."""


class FairQueue:
    """Start tags for requests, so that clients who wait share the engine evenly, however much each has queued.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996) over tokens: a client's requests follow one another
    in virtual time, a newcomer's start now, and now is the latest tag that was admitted. The work of two clients
    who both wait never differs by more than one request of each.
    """

    def __init__(self) -> None:
        self._now = 0
        self._finish: dict[str, int] = {}

    def tag(self, request: Request, cost: int) -> int:
        start = max(self._now, self._finish.get(request.client, 0))
        self._finish[request.client] = start + cost
        return start

    def admitted(self, tag: int) -> None:
        self._now = max(self._now, tag)

    def gone(self, request: Request, cost: int) -> None:
        """It left without being served: its client gets the room back."""
        if request.client in self._finish:
            self._finish[request.client] -= cost

    def rest(self) -> None:
        """Nobody waits and nobody runs: all clients are equal again."""
        self._now = 0
        self._finish.clear()


def waiting_order(sequence: Sequence) -> tuple[int, bool, int, int]:
    """By priority; preempted ones first, for their work is half done; then by fair tag, then by arrival."""
    return sequence.request.priority, sequence.preemptions == 0, sequence.tag, sequence.arrival


def share_budget(budget: int, prompts: list[Sequence]) -> dict[Sequence, int]:
    """How many tokens each of `prompts` (in order) may compute.

    Half of the budget is given out in order, so that the oldest always advances; the other
    half to the shortest first, so that a short prompt is not stuck behind a long one.
    """
    grants = dict.fromkeys(prompts, 0)
    left = budget - _give(grants, prompts, (budget + 1) // 2)
    shortest_first = sorted(prompts, key=lambda s: (s.request.priority, s.remaining, s.arrival))
    _give(grants, shortest_first, left)
    return grants


def _give(grants: dict[Sequence, int], prompts: list[Sequence], budget: int) -> int:
    """Give each what it still lacks while the budget lasts; returns the tokens given."""
    left = budget
    for sequence in prompts:
        given = min(left, sequence.remaining - grants[sequence])
        grants[sequence] += given
        left -= given
    return budget - left


def cheapest_victim(candidates: Iterable[Sequence], users: Callable[[int], int], page_size: int) -> Sequence:
    """Whom to preempt: of the worst priority, the one that loses the least work and frees a page."""

    def cost(victim: Sequence) -> tuple[int, bool, int, int]:
        own = [index for index, page in enumerate(victim.pages) if users(page) == 1]
        lost = sum(min(page_size, max(0, victim.computed - index * page_size)) for index in own)
        return -victim.request.priority, not own, lost, -victim.arrival

    return min(candidates, key=cost)
