"""A scheduler over the fake model, and an auditor who writes down what a client would see.

The invariants have the names I1 to I15. `Scheduler.check_invariants()` holds I1 to I9 between
calls, the fake model I12; the others are held here, without looking at how the scheduler works;
but I10, the bound on being overtaken, has its own test in test_policy.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from hexad.cache.invariants import require
from hexad.scheduler.plan import Plan
from hexad.scheduler.scheduler import Scheduler, SchedulerConfig
from hexad.testing.fake_model import FakeModel, is_complete, prefix_hashes, sequential_oracle
from hexad.types import Request, SamplingParams, SequenceOutput

VOCAB = 4
EOS, STOP = 2, 3
"""Prompts are made of the tokens 0 and 1."""


@dataclass
class Stream:
    """All that came out for one choice."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    ends: list[SequenceOutput] = field(default_factory=list)
    prompt_logprobs: dict[int, int] = field(default_factory=dict)
    cached: int = 0


def make_request(request_id: str, prompt: list[int], max_tokens: int = 4, **fields: object) -> Request:
    """`fields` go to the request or to its parameters."""
    names = Request.__struct_fields__
    params = {name: value for name, value in fields.items() if name not in names}
    rest = {name: value for name, value in fields.items() if name in names}
    return Request(
        request_id=request_id,
        prompt_token_ids=prompt,
        params=SamplingParams(max_tokens=max_tokens, **params),  # type: ignore[arg-type]
        **rest,  # type: ignore[arg-type]
    )


class World:
    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.scheduler = Scheduler(config)
        self.model = FakeModel(config.num_pages, VOCAB, config.page_size)
        self.streams: dict[tuple[str, int], Stream] = {}
        self.plan: Plan | None = None
        self.trace: list[object] = []
        """Every plan in plain numbers."""

    def add(self, request: Request) -> None:
        self.scheduler.add(request)
        for choice in range(request.choice, request.choice + request.params.n):
            self.streams[request.request_id, choice] = Stream(request)
        self.check()

    def abort(self, request_id: str, choice: int | None = None) -> None:
        live = {
            key
            for key, stream in self.streams.items()
            if key[0] == request_id and choice in (None, key[1]) and not stream.ends
        }
        outputs = self.scheduler.abort(request_id, choice)
        ended = [(output.request_id, output.choice) for output in outputs]
        require(sorted(ended) == sorted(live), "I13", f"abort of {request_id} ended {ended}; alive were {live}")
        require(all(output.finish_reason == "abort" for output in outputs), "I13", "an abort that does not say so")
        self._receive(outputs)
        self.check()

    def reset_prefix_cache(self) -> None:
        self.scheduler.reset_prefix_cache()
        self.check()

    def begin(self) -> Plan | None:
        """Plan a step and leave it in flight."""
        scheduler = self.scheduler
        first = scheduler.running[0] if scheduler.running else None
        before = first.preemptions if first else 0
        best_waiting = min((each.request.priority for each in scheduler.waiting), default=99)
        self.plan = scheduler.next_plan()
        if first and first.request.priority <= best_waiting:
            require(first.preemptions == before, "I11", f"{first.key}, the first in order, was preempted")
        require((self.plan is not None) == scheduler.has_work, "I11", "there is work, and nothing is planned")
        if self.plan is not None:
            budget = self.config.max_num_batched_tokens
            require(1 <= self.plan.num_tokens <= budget, "I8", f"{self.plan.num_tokens} tokens in a budget of {budget}")
            self.check()
            self.trace.append(describe(self.plan))
        return self.plan

    def finish(
        self, broken: Collection[tuple[str, int]] = (), unsampled: Collection[tuple[str, int]] = ()
    ) -> list[SequenceOutput]:
        """Run the step in flight and commit it."""
        assert self.plan is not None
        result = self.model.run(self.plan, broken=broken, unsampled=unsampled)
        outputs = self.scheduler.commit(self.plan, result)
        self.plan = None
        self._receive(outputs)
        self.check()
        return outputs

    def step(self) -> list[SequenceOutput]:
        return self.finish() if self.begin() else []

    def drain(self) -> int:
        """Step until nothing is left, and audit that; returns the steps."""
        steps = self.run_to_end()
        self._check_drained()
        return steps

    def run_to_end(self) -> int:
        """Step until nothing is left, which must come to an end; returns the steps."""
        if self.plan is not None:
            self.finish()
        limit, steps = self._work_bound(), 0
        while self.scheduler.has_work:
            self.step()
            steps += 1
            require(steps <= limit, "I11", f"{steps} steps, and still not done; every step computes a token")
        return steps

    def check(self) -> None:
        self.scheduler.check_invariants()
        order = [
            (each.request.priority, 0 if each.preemptions else 1, each.tag, each.arrival)
            for each in self.scheduler.waiting
        ]
        require(order == sorted(order), "I9", f"the queue is {order}")
        seats = sum(1 + len(each.forks) for each in self.scheduler.running)
        require(seats <= self.config.max_num_seqs, "I8", f"{seats} choices run")

    def _work_bound(self) -> int:
        """Tokens that may have to be computed: each choice's own, again after each of its preemptions.

        One is only preempted when those before it have taken another page, or have been admitted.
        """
        live = [stream for stream in self.streams.values() if not stream.ends]
        lengths = [len(each.request.prompt_token_ids) + (each.request.params.max_tokens or 0) for each in live]
        pages = sum(-(-length // self.config.page_size) + 1 for length in lengths)
        return sum(lengths) * (1 + pages)

    def _receive(self, outputs: list[SequenceOutput]) -> None:
        for output in outputs:
            key = output.request_id, output.choice
            require(key in self.streams, "I13", f"an output for {key}, which nobody asked for")
            stream = self.streams[key]
            require(not stream.ends, "I13", f"an output for {key} after its end")
            cached = output.num_cached_tokens
            require(not (cached and stream.tokens), "I13", f"{key} reports cached tokens after its first output")
            known = stream.request.prompt_token_ids + stream.request.generated
            require(cached < len(known), "I7", f"{key}: {cached} of {len(known)} known tokens were cached")
            stream.cached += cached
            stream.tokens += output.token_ids
            for index, entry in enumerate(output.prompt_logprobs or ()):
                stream.prompt_logprobs[output.prompt_logprobs_start + index] = entry.token_ids[0]
            if output.finish_reason:
                stream.ends.append(output)
                self._check_stream(key[1], stream)

    def _check_stream(self, choice: int, stream: Stream) -> None:
        request, end = stream.request, stream.ends[0]
        expected = sequential_oracle(request, choice, VOCAB)
        got = request.generated + stream.tokens
        if end.finish_reason in ("abort", "error"):
            require((end.finish_reason == "error") == (end.error is not None), "I13", f"{end} has no cause")
            require(got == expected[: len(got)], "I14", f"{request.request_id}: {got} is not the start of {expected}")
            return
        require(got == expected, "I14", f"{request.request_id}, {choice}: {got}; alone it is {expected}")
        params = request.params
        enders = {*params.stop_token_ids, *([] if params.ignore_eos else request.eos_token_ids)}
        ends_early = got[-1] in enders and len(got) >= params.min_tokens
        complete = request.grammar and is_complete(
            prefix_hashes(request.prompt_token_ids + got, request.cache_salt)[-1]
        )
        require(end.finish_reason == ("stop" if ends_early or complete else "length"), "I13", f"{got} ended as {end}")
        require(end.stop_reason == (STOP if got[-1] == STOP and ends_early else None), "I13", f"{got} ended as {end}")
        if params.prompt_logprobs is not None:
            require(stream.cached == 0, "I7", "prompt log-probabilities of tokens that were not computed")
            if choice == request.choice:
                asked = dict(enumerate(request.prompt_token_ids[1:], 1))
                require(stream.prompt_logprobs == asked, "I14", f"prompt logprobs {stream.prompt_logprobs}")

    def _check_drained(self) -> None:
        for key, stream in self.streams.items():
            require(len(stream.ends) == 1, "I13", f"{key} has ended {len(stream.ends)} times")
        memory, stats = self.scheduler.memory, self.scheduler.stats()
        require(stats.num_free_pages == self.config.num_pages, "I15", f"pages are missing: {stats}")
        require(stats.num_running == stats.num_waiting == 0, "I15", f"somebody is left: {stats}")
        self.reset_prefix_cache()
        require(memory.pool.num_free == self.config.num_pages, "I15", "pages are still cached after a reset")
        require(not self.scheduler._live, "I15", "finished requests are still known")


def describe(plan: Plan) -> object:
    chunks = [
        (chunk.sequence.key, chunk.start, chunk.count, tuple(chunk.sequence.pages), tuple(s.key for s in chunk.samples))
        for chunk in plan.chunks
    ]
    return tuple(chunks), plan.page_copies
