"""A model for tests of whatever schedules pages: its next token is a hash of the whole prefix.

Each slot of its KV cache holds the hash of the tokens up to and including its own (a canary).
Before a chunk runs, all that it would attend to is read and compared; so a stale, foreign or
unwritten page is found at the first read, and a wrong page table cannot give a right token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b

from hexad.kernels.ops import PAGE_SIZE
from hexad.scheduler.plan import Chunk, Plan, Result, StepResult
from hexad.scheduler.sequence import Sequence
from hexad.types import Failure, Request, TokenLogprobs


class CanaryDied(AssertionError):
    """I12: a slot does not hold the KV of the prefix that is read from it."""


def prefix_hashes(tokens: Iterable[int], salt: str) -> list[bytes]:
    """The hash of each non-empty prefix of `tokens`.

    The salt is hashed too, as if it made equal tokens mean different KV: so sharing across salts shows.
    """
    state = blake2b(salt.encode(), digest_size=8)
    hashes = []
    for token in tokens:
        state.update(token.to_bytes(8, "little"))
        hashes.append(state.digest())
    return hashes


class FakeModel:
    """Runs plans on pages of canaries; equal prefixes give equal tokens, whatever the plan."""

    def __init__(self, num_pages: int, vocab_size: int, page_size: int = PAGE_SIZE) -> None:
        self._page_size = page_size
        self._vocab_size = vocab_size
        self._slots: list[bytes | None] = [None] * (num_pages * page_size)
        self.computed = 0
        """Tokens run so far."""

    def run(
        self, plan: Plan, *, broken: Collection[tuple[str, int]] = (), unsampled: Collection[tuple[str, int]] = ()
    ) -> StepResult:
        """`broken` sequences fail before they run (their pages are left full of rubbish); `unsampled`
        ones when their token is drawn. Raises CanaryDied."""
        result = StepResult()
        copied = [self._page(source) for source, _ in plan.page_copies]
        for (_, target), content in zip(plan.page_copies, copied, strict=True):
            self._slots[target * self._page_size : (target + 1) * self._page_size] = content
        writes = [slot for chunk in plan.chunks for slot in self._chunk_slots(chunk)]
        if len(set(writes)) != len(writes):
            raise CanaryDied(f"I12: two chunks of one step write to the same slot: {sorted(writes)}")
        for chunk in plan.chunks:
            self._run_chunk(chunk, result, broken, unsampled)
        return result

    def _run_chunk(
        self,
        chunk: Chunk,
        result: StepResult,
        broken: Collection[tuple[str, int]],
        unsampled: Collection[tuple[str, int]],
    ) -> None:
        sequence, end = chunk.sequence, chunk.start + chunk.count
        if sequence.key in broken:
            for slot in self._chunk_slots(chunk):
                self._slots[slot] = b"rubbish!"
            result.failed[sequence.key] = Failure("the chunk broke")
            return
        hashes = prefix_hashes(sequence.tokens[:end], sequence.request.cache_salt)
        for position in range(chunk.start):
            if self._slots[self._slot(sequence.pages, position)] != hashes[position]:
                raise CanaryDied(
                    f"I12: {sequence.key} reads position {position} of {chunk.start} from {sequence.pages}"
                )
        for position in range(chunk.start, end):
            self._slots[self._slot(sequence.pages, position)] = hashes[position]
        self.computed += chunk.count
        if sequence.request.params.prompt_logprobs is not None:
            last = min(end + 1, sequence.num_prompt)
            result.prompt_logprobs[sequence.key] = [
                TokenLogprobs([token], [0.0], 1) for token in sequence.tokens[chunk.start + 1 : last]
            ]
        for sample in chunk.samples:
            if sample.tokens != sequence.tokens:
                raise CanaryDied(f"I12: {sample.key} samples after {sequence.key}, and knows other tokens")
            gained = self._draw(sample)
            gained.error = Failure("the sampler broke") if sample.key in unsampled else None
            result.sampled[sample.key] = gained

    def _draw(self, sample: Sequence) -> Result:
        """A token and, where the request has a grammar, those that must follow: some, as a hash has it."""
        request, drawn = sample.request, list[int]()
        while True:
            last = prefix_hashes(sample.tokens + drawn, request.cache_salt)[-1]
            if drawn and (not request.grammar or is_complete(last) or last[1] % 2):
                break
            drawn.append(next_token(last, sample.choice, self._vocab_size))
        return Result(drawn[0], forced=drawn[1:], complete=bool(request.grammar) and is_complete(last))

    def _chunk_slots(self, chunk: Chunk) -> list[int]:
        return [self._slot(chunk.sequence.pages, chunk.start + index) for index in range(chunk.count)]

    def _slot(self, pages: list[int], position: int) -> int:
        return pages[position // self._page_size] * self._page_size + position % self._page_size

    def _page(self, page: int) -> list[bytes | None]:
        return self._slots[page * self._page_size : (page + 1) * self._page_size]


def next_token(prefix_hash: bytes, choice: int, vocab_size: int) -> int:
    """What `choice` draws after a prefix: a hash, as its noise depends on the choice."""
    return int.from_bytes(blake2b(prefix_hash, digest_size=8, key=b"%d" % choice).digest(), "little") % vocab_size


def is_complete(prefix_hash: bytes) -> bool:
    """Whether a grammar allows nothing more after a prefix."""
    return prefix_hash[0] % 8 == 0


def sequential_oracle(request: Request, choice: int, vocab_size: int) -> list[int]:
    """All tokens that `choice` of `request` must generate: one request, no pages, no batch.

    `max_tokens` must be set.
    """
    params = request.params
    assert params.max_tokens is not None
    generated: list[int] = []
    while len(generated) < params.max_tokens:
        last = prefix_hashes(request.prompt_token_ids + generated, request.cache_salt)[-1]
        generated.append(next_token(last, choice, vocab_size))
        known = prefix_hashes(request.prompt_token_ids + generated, request.cache_salt)[-1]
        if request.grammar and is_complete(known):
            break
        if len(generated) < params.min_tokens:
            continue
        if (generated[-1] in request.eos_token_ids and not params.ignore_eos) or generated[-1] in params.stop_token_ids:
            break
    return generated
