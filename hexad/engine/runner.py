"""A plan becomes arrays, arrays become logits, logits become tokens.

The runner holds no request state: all it needs is in the plan and in the KV pages. So a step
can be run again, whole or in parts, and gives the same bits; that is how a chunk that cannot
be run is found and failed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

import msgspec
import numpy as np

from hexad.decoding.sampler import Pick, pick, prompt_logprobs
from hexad.decoding.state import RowState
from hexad.engine.grammars import Grammars
from hexad.errors import RequestFailed
from hexad.kernels.ops import KV, PAGE_SIZE, Array, Ops, Step
from hexad.scheduler.plan import Chunk, Plan, Result, StepResult
from hexad.scheduler.sequence import Sequence
from hexad.types import Failure, TokenLogprobs


class Runner(msgspec.Struct, frozen=True):
    ops: Ops
    forward: Callable[[Step], Array]
    """Logits float32 [R, V]; writes keys and values to `kvs`. The logits stay as they are until the next call."""
    kvs: list[KV]
    grammars: Grammars

    def run(self, plan: Plan) -> StepResult:
        """Never raises for what one chunk did: a chunk that fails is reported in `failed`, the others go on."""
        result = StepResult()
        self._copy_pages(plan.page_copies)
        self._run_or_split(plan.chunks, result)
        return result

    def _run_or_split(self, chunks: tuple[Chunk, ...], result: StepResult) -> None:
        try:
            self._run_chunks(chunks, result)
        except Exception as error:
            if len(chunks) == 1:
                result.failed[chunks[0].sequence.key] = Failure.of(error)
                return
            middle = len(chunks) // 2
            self._run_or_split(chunks[:middle], result)
            self._run_or_split(chunks[middle:], result)

    def _run_chunks(self, chunks: tuple[Chunk, ...], result: StepResult) -> None:
        drawn = [(sequence, chunk.sequence.tokens) for chunk in chunks for sequence in chunk.samples]
        states = [
            RowState.of(sequence.request, sequence.choice, tokens, self.grammars.allowed(sequence, tokens))
            for sequence, tokens in drawn
        ]
        logits_RV = self.forward(make_step(self.ops, chunks))
        rows: list[int] = []
        prompts: dict[tuple[str, int], list[TokenLogprobs]] = {}
        row = 0
        for chunk in chunks:
            scored = prompt_rows(chunk)
            if scored:
                prompts[chunk.sequence.key] = self._score_prompt(chunk, logits_RV[row : row + scored])
            row += len(output_offsets(chunk))
            rows += [row - 1] * len(chunk.samples)
        picks = self._pick(logits_RV, rows, states)
        result.prompt_logprobs.update(prompts)
        for (sequence, _), picked in zip(drawn, picks, strict=True):
            result.sampled[sequence.key] = self._result(sequence, picked)

    def _result(self, sequence: Sequence, picked: Pick) -> Result:
        if picked.error is not None or not sequence.request.grammar:
            return Result(picked.token_id, picked.logprobs, picked.error)
        try:
            forced, complete = self.grammars.gained(sequence, picked.token_id)
        except RequestFailed as error:
            return Result(error=Failure.of(error))
        return Result(picked.token_id, picked.logprobs, forced=forced, complete=complete)

    def _pick(self, logits_RV: Array, rows: list[int], states: list[RowState]) -> list[Pick]:
        if not rows:
            return []
        if rows != list(range(len(logits_RV))):
            logits_RV = self.ops.take_rows(logits_RV, self.ops.array(np.array(rows, np.int32)))
        return pick(self.ops, logits_RV, states)

    def _score_prompt(self, chunk: Chunk, logits_RV: Array) -> list[TokenLogprobs]:
        first = chunk.start + 1
        tokens = chunk.sequence.tokens[first : first + len(logits_RV)]
        return prompt_logprobs(self.ops, logits_RV, tokens, chunk.sequence.request.params.prompt_logprobs or 0)

    def _copy_pages(self, copies: Seq[tuple[int, int]]) -> None:
        if not copies:
            return
        sources, targets = (self.ops.array(np.array(side, np.int32)) for side in zip(*copies, strict=True))
        for kv in self.kvs:
            self.ops.copy_pages(kv, sources, targets)


def prompt_rows(chunk: Chunk) -> int:
    """Rows of the chunk, from its first on, whose logits score the next prompt token."""
    if chunk.sequence.request.params.prompt_logprobs is None:
        return 0
    return max(0, min(chunk.start + chunk.count, chunk.sequence.num_prompt - 1) - chunk.start)


def output_offsets(chunk: Chunk) -> range:
    """Rows of the chunk whose logits are wanted, as offsets into it."""
    last = chunk.count if chunk.samples else prompt_rows(chunk)
    first = 0 if prompt_rows(chunk) else chunk.count - 1
    return range(first, last)


def make_step(ops: Ops, chunks: tuple[Chunk, ...]) -> Step:
    """Lay the chunks' tokens one after another."""
    tokens: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    starts = [0]
    ends: list[int] = []
    outputs: list[int] = []
    table = np.zeros((len(chunks), max([len(chunk.sequence.pages) for chunk in chunks])), np.int32)
    for i, chunk in enumerate(chunks):
        pages, here, end = chunk.sequence.pages, starts[-1], chunk.start + chunk.count
        tokens += chunk.sequence.tokens[chunk.start : end]
        positions += range(chunk.start, end)
        slots += [pages[at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE for at in range(chunk.start, end)]
        outputs += [here + offset for offset in output_offsets(chunk)]
        starts.append(here + chunk.count)
        ends.append(end)
        table[i, : len(pages)] = pages

    def array(values: list[int]) -> Array:
        return ops.array(np.array(values, np.int32))

    return Step(
        token_ids_T=array(tokens),
        positions_T=array(positions),
        slots_T=array(slots),
        query_starts_S1=array(starts),
        context_lens_S=array(ends),
        page_table_SP=ops.array(table),
        output_rows_R=array(outputs),
    )
