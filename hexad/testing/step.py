"""Steps built by hand, and token lists run through a model without a scheduler.

For tests and tools: what the engine's runner does with a plan, this does with plain lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hexad.checkpoints.config import ModelConfig
from hexad.kernels.ops import KV, PAGE_SIZE, Dtype, Ops, Step
from hexad.models.build import Model, new_kvs


class Piece(NamedTuple):
    """The tokens of one sequence that run in a step: positions `start`, `start` + 1, ..."""

    token_ids: Sequence[int]
    start: int
    pages: Sequence[int]
    """All pages of the sequence, in order, including those that this step writes."""


def make_step(ops: Ops, pieces: Sequence[Piece], *, all_rows: bool = False) -> Step:
    """A step of the pieces one after another; logits of each piece's last row, or of all rows."""
    starts = np.cumsum([0] + [len(piece.token_ids) for piece in pieces])
    positions = [np.arange(piece.start, piece.start + len(piece.token_ids)) for piece in pieces]
    slots = [
        np.asarray(piece.pages)[at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE
        for piece, at in zip(pieces, positions, strict=True)
    ]
    table = np.zeros((len(pieces), max(len(piece.pages) for piece in pieces)), np.int32)
    for row, piece in enumerate(pieces):
        table[row, : len(piece.pages)] = piece.pages
    outputs = np.arange(starts[-1]) if all_rows else starts[1:] - 1

    def array(values: np.ndarray) -> np.ndarray:
        return ops.array(np.ascontiguousarray(values, np.int32))  # type: ignore[no-any-return]

    return Step(
        token_ids_T=array(np.concatenate([np.asarray(piece.token_ids, np.int32) for piece in pieces])),
        positions_T=array(np.concatenate(positions)),
        slots_T=array(np.concatenate(slots)),
        query_starts_S1=array(starts),
        context_lens_S=array(np.array([at[-1] + 1 for at in positions])),
        page_table_SP=array(table),
        output_rows_R=array(outputs),
    )


class Replay:
    """Runs token lists through a model, over caches of its own with the pages in a shuffled order."""

    def __init__(self, config: ModelConfig, model: Model, ops: Ops, dtype: Dtype, *, num_pages: int = 1024) -> None:
        self.ops = ops
        self.kvs: list[KV] = new_kvs(config, ops, num_pages, dtype)
        self.forward = ops.compile(model.forward, self.kvs)
        self.free_pages = [int(page) for page in np.random.default_rng(0).permutation(num_pages)]

    def logits(
        self, prompts: Sequence[Sequence[int]], chunk: int | None = None, *, ragged: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """[len(prompt), V] for each, all in one batch; a step takes up to `chunk` tokens of each.

        With `ragged`, each takes a random number of tokens between none and `chunk` in each step,
        so that prompt chunks of all sizes and single tokens run side by side.
        """
        chunk = chunk or max(map(len, prompts))
        pages = [self._take_pages(len(prompt)) for prompt in prompts]
        gained: list[list[np.ndarray]] = [[] for _ in prompts]
        done = [0] * len(prompts)
        while any(start < len(prompt) for start, prompt in zip(done, prompts, strict=True)):
            pieces: dict[int, Piece] = {}
            for i, prompt in enumerate(prompts):
                count = chunk if ragged is None else int(ragged.integers(chunk + 1))
                if tokens := prompt[done[i] : done[i] + count]:
                    pieces[i] = Piece(tokens, done[i], pages[i])
                    done[i] += len(tokens)
            if pieces:
                step = make_step(self.ops, list(pieces.values()), all_rows=True)
                rows = self.ops.to_host(self.forward(step))
                for i, piece in pieces.items():
                    gained[i].append(np.array(rows[: len(piece.token_ids)]))
                    rows = rows[len(piece.token_ids) :]
        self._give_back(pages)
        return [np.concatenate(parts) for parts in gained]

    def greedy(self, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
        """The `count` tokens that follow each prompt, all in one batch."""
        known = [list(prompt) for prompt in prompts]
        pages = [self._take_pages(len(prompt) + count) for prompt in prompts]
        done = [0] * len(prompts)
        for _ in range(count):
            pieces = [Piece(tokens[at:], at, mine) for tokens, at, mine in zip(known, done, pages, strict=True)]
            logits = self.ops.to_host(self.forward(make_step(self.ops, pieces)))
            for i, row in enumerate(logits):
                done[i] = len(known[i])
                known[i].append(int(np.argmax(row)))
        self._give_back(pages)
        return [tokens[len(prompt) :] for tokens, prompt in zip(known, prompts, strict=True)]

    def _take_pages(self, tokens: int) -> list[int]:
        return [self.free_pages.pop() for _ in range(-(-tokens // PAGE_SIZE))]

    def _give_back(self, pages: list[list[int]]) -> None:
        for taken in pages:
            self.free_pages[:0] = taken
