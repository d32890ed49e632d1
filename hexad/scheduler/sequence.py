"""A sequence is a few integers over its tokens and pages; everything else is derived."""

from __future__ import annotations

import msgspec

from hexad.cache.tree import Node
from hexad.types import Request


class Sequence(msgspec.Struct, eq=False):
    """One choice of one request.

    `tokens` are known (prompt and generated); the KV of the first `computed` of them lies in
    `pages`. The loop's whole job is to let `computed` catch up with `len(tokens)`.
    """

    request: Request
    choice: int
    arrival: int
    """Position in the order of arrival, unique; forks follow their parent's."""
    tokens: list[int]
    tag: int = 0
    """Start in the virtual time of `FairQueue`."""
    computed: int = 0
    pages: list[int] = []
    num_cached: int = 0
    """Prompt tokens whose KV was found in the cache when it was first admitted."""
    node: Node | None = None
    """The deepest node of the prefix tree on this sequence's path, while it runs. None: it neither
    reads nor publishes."""
    forks: list[Sequence] = []
    """The other choices, until the prompt that they share is computed."""
    parent: Sequence | None = None
    """Whose fork it will be."""
    running: bool = False
    finished: bool = False
    """Its terminal output is out; it lives on only to compute the prompt of its forks."""
    preemptions: int = 0
    overtaken: int = 0
    """How often a later request was admitted while this one did not fit."""

    @property
    def key(self) -> tuple[str, int]:
        return self.request.request_id, self.choice

    @property
    def order(self) -> tuple[int, int]:
        """Smaller is served first."""
        return self.request.priority, self.arrival

    @property
    def seats(self) -> int:
        """Running choices that it stands for."""
        return 1 + len(self.forks)

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def remaining(self) -> int:
        """Known tokens that are not computed yet; 1 while decoding."""
        return len(self.tokens) - self.computed
