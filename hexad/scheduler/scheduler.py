"""The scheduler: requests come in, plans go out, results come back, outputs leave.

One loop without phases: each step gives each running sequence some of its remaining tokens
under one token budget. One plan is in flight at a time. Equal calls give equal plans.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import count

from msgspec.structs import replace

from hexad.cache.tree import Node
from hexad.errors import BadRequest
from hexad.scheduler.audit import check_memory, check_plan, check_queues
from hexad.scheduler.draft import Draft
from hexad.scheduler.lifecycle import SchedulerConfig, extend, max_new_tokens, refuse_unservable
from hexad.scheduler.memory import Memory
from hexad.scheduler.plan import Chunk, Plan, Result, StepResult
from hexad.scheduler.policy import LOOK_AHEAD, MAX_OVERTAKEN, FairQueue, cheapest_victim, share_budget, waiting_order
from hexad.scheduler.sequence import Sequence
from hexad.types import EngineStats, Failure, FinishReason, Request, SequenceOutput

__all__ = ["Scheduler", "SchedulerConfig"]


class Scheduler:
    """Decides what each step computes. Call `next_plan`, run it, `commit`; `add` and `abort` at any moment."""

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.memory = Memory(config.num_pages, config.page_size, config.prefix_caching)
        self.waiting: list[Sequence] = []
        """Sorted by `waiting_order`; they hold no pages."""
        self.running: list[Sequence] = []
        """Sorted by `Sequence.order`."""
        self.in_flight: Plan | None = None
        self.admitted: list[str] = []
        """Requests that have left the queue for the first time; whoever reports them empties it."""
        self._live: dict[str, list[Sequence]] = {}
        """Choices whose terminal output is not out yet, by request id."""
        self._arrivals = count()
        self._fair = FairQueue()
        self._counters = EngineStats(num_pages=config.num_pages)

    # Coming and going.

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def add(self, request: Request) -> None:
        """Queue a request; BadRequest or ContextTooLong for one that could never be served."""
        refuse_unservable(request, self.config)
        choices = range(request.choice, request.choice + request.params.n)
        live = self._live.get(request.request_id, [])
        taken = [sequence.choice for sequence in live if sequence.choice in choices]
        if taken:
            raise BadRequest(
                f"request {request.request_id!r} is running already, with choices {taken}; use another id",
                param="request_id",
            )
        if not self.has_work:
            self._fair.rest()
        tag = self._fair.tag(request, self._cost(request))
        first, *forks = (Sequence(request, choice, next(self._arrivals), [], tag) for choice in choices)
        first.tokens = request.prompt_token_ids + request.generated
        first.forks = forks
        for fork in forks:
            fork.parent = first
        self._live[request.request_id] = [*live, first, *forks]
        insort(self.waiting, first, key=waiting_order)

    def _cost(self, request: Request) -> int:
        """Most tokens that it may have computed."""
        return len(request.prompt_token_ids) + request.params.n * max_new_tokens(request, self.config)

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        """End the live choices of a request (or one of them); unknown ids are fine."""
        live = self._live.get(request_id, ())
        chosen = [sequence for sequence in live if choice is None or sequence.choice == choice]
        return [self._finish(sequence, "abort") for sequence in chosen]

    def reset_prefix_cache(self) -> None:
        """Nothing computed so far will be found again."""
        self.memory.forget(self.running)

    def stats(self) -> EngineStats:
        """Gauges and counters as they are now; the caller's own copy."""
        return replace(
            self._counters,
            num_running=len(self.running),
            num_waiting=len(self.waiting),
            num_free_pages=self.memory.pool.num_available,
        )

    def check_invariants(self) -> None:
        """A linear scan of all books; raises InvariantBroken with the name of what does not hold."""
        check_memory(self.memory, self.running, self.waiting)
        check_queues(self.running, self.waiting, self.config)
        if self.in_flight is not None:
            check_plan(self.in_flight, self.memory, self.running, self.config)

    # A step.

    def next_plan(self) -> Plan | None:
        """What the next step computes; None if there is nothing to do."""
        if self.in_flight is not None:
            raise RuntimeError("next_plan() before the last plan was committed; call commit() first")
        draft = Draft(self.config.max_num_batched_tokens)
        self._continue_decodes(draft)
        self._admit_waiting(draft)
        self._advance_prompts(draft)
        self.in_flight = draft.plan()
        return self.in_flight

    def _continue_decodes(self, draft: Draft) -> None:
        for sequence in self.running:
            if draft.budget == 0:
                break
            if sequence.remaining == 1:
                self._schedule(sequence, 1, draft)

    def _advance_prompts(self, draft: Draft) -> None:
        if draft.budget == 0:
            return
        prompts = [sequence for sequence in self.running if sequence not in draft]
        for sequence, grant in share_budget(draft.budget, prompts).items():
            if grant and sequence.running:
                self._schedule(sequence, grant, draft)

    def _schedule(self, sequence: Sequence, grant: int, draft: Draft) -> None:
        """Give it up to `grant` tokens: fewer if pages are scarce, none if even those behind it have no more."""
        while not (room := self.memory.room(sequence)):
            behind = self.running[bisect_left(self.running, sequence.order, key=_order) + 1 :]
            if not behind:
                return
            self._preempt(self._cheapest(behind), draft)
        tokens = min(grant, room)
        draft.add(sequence, tokens, self.memory.extend(sequence, tokens))

    def _cheapest(self, candidates: list[Sequence]) -> Sequence:
        return cheapest_victim(candidates, self.memory.pool.users, self.config.page_size)

    def _preempt(self, victim: Sequence, draft: Draft) -> None:
        """Back to the queue without pages; its tokens are known and will be computed again."""
        draft.drop(victim)
        self._stop_running(victim)
        victim.preemptions += 1
        self._counters.num_preemptions += 1
        insort(self.waiting, victim, key=waiting_order)

    def _stop_running(self, sequence: Sequence) -> None:
        self.memory.release(sequence)
        sequence.running = False
        del self.running[bisect_left(self.running, sequence.order, key=_order)]

    # Admission.

    def _admit_waiting(self, draft: Draft) -> None:
        """Let in those who fit, in order; not in a step that had to preempt.

        One whose next page is just being computed by another, of no worse priority, waits for that
        page instead of computing it again.
        """
        if draft.budget == 0 or draft.preempted or not self._may_admit():
            return
        owners = {self.memory.page_to_publish(owner): owner for owner in reversed(self.running)}
        passed: list[Sequence] = []
        for sequence in self.waiting[:LOOK_AHEAD]:
            match = self.memory.match(sequence)
            awaited = self.memory.page_to_find(sequence, match)
            if awaited and awaited in owners and owners[awaited].request.priority <= sequence.request.priority:
                continue
            if self._fits(sequence, match) or self._make_way(sequence, match, draft):
                self._admit(sequence, match)
                owners[self.memory.page_to_publish(sequence)] = sequence
                for other in passed:
                    other.overtaken += 1
            elif sequence.overtaken >= MAX_OVERTAKEN:
                break
            else:
                passed.append(sequence)

    def _may_admit(self) -> bool:
        """Whether anybody could be let in at all; cheap, for every step asks."""
        if not self.waiting:
            return False
        if not self.running or self.waiting[0].request.priority < self.running[-1].request.priority:
            return True
        return self._free_seats(self.running) > 0 and self._spare_pages(self.running) > 0

    def _free_seats(self, running: list[Sequence]) -> int:
        return self.config.max_num_seqs - sum(sequence.seats for sequence in running)

    def _spare_pages(self, running: list[Sequence]) -> int:
        """Available pages that the running do not claim."""
        return self.memory.pool.num_available - sum(map(self.memory.claim, running))

    def _fits(self, sequence: Sequence, match: Node | None) -> bool:
        if sequence.seats > self._free_seats(self.running):
            return False
        return self.memory.demand(sequence, match) <= self._spare_pages(self.running)

    def _make_way(self, sequence: Sequence, match: Node | None, draft: Draft) -> bool:
        """Preempt running ones of worse priority until it fits; nobody, if that would not be enough."""
        priority = sequence.request.priority
        better = [other for other in self.running if other.request.priority <= priority]
        if len(better) == len(self.running) or sequence.seats > self._free_seats(better):
            return False
        if not self.memory.would_fit(sequence, match, better):
            return False
        while not self._fits(sequence, match):
            self._preempt(self._cheapest(self.running[len(better) :]), draft)
        return True

    def _admit(self, sequence: Sequence, match: Node | None) -> None:
        del self.waiting[bisect_left(self.waiting, waiting_order(sequence), key=waiting_order)]
        insort(self.running, sequence, key=_order)
        sequence.running = True
        self._fair.admitted(sequence.tag)
        if sequence.preemptions == 0:
            self.admitted.append(sequence.request.request_id)
        self.memory.adopt(sequence, match)
        if sequence.preemptions == 0 and self.memory.reads_cache(sequence):
            sequence.num_cached = min(sequence.computed, sequence.num_prompt)
            self._counters.prefix_cache_queries += sequence.num_prompt
            self._counters.prefix_cache_hits += sequence.num_cached

    # Results.

    def commit(self, plan: Plan, result: StepResult) -> list[SequenceOutput]:
        """Take in what the plan in flight has computed."""
        if plan is not self.in_flight:
            raise RuntimeError("commit() of a plan that is not in flight; commit each plan once, before the next")
        outputs = [output for chunk in plan.chunks for output in self._commit_chunk(chunk, result)]
        self.in_flight = None
        for sequence in [each for each in self.running if each.finished and not each.forks]:
            self._stop_running(sequence)
        self._counters.num_steps += 1
        self._counters.num_computed_tokens += plan.num_tokens
        return outputs

    def _commit_chunk(self, chunk: Chunk, result: StepResult) -> list[SequenceOutput]:
        sequence = chunk.sequence
        alive = [each for each in (sequence, *sequence.forks) if not each.finished]
        if not alive:
            return []
        if sequence.key in result.failed:
            return [self._finish(each, "error", result.failed[sequence.key]) for each in alive]
        sequence.computed += chunk.count
        self.memory.publish(sequence)
        if chunk.samples:
            self._fork(sequence)
        outputs = [self._append(each, result) for each in chunk.samples if not each.finished]
        if sequence in alive and (found := result.prompt_logprobs.get(sequence.key)):
            if not outputs:
                outputs.append(SequenceOutput(request_id=sequence.request.request_id, choice=sequence.choice))
            outputs[0].prompt_logprobs = found
            outputs[0].prompt_logprobs_start = chunk.start + 1
        return outputs

    def _fork(self, parent: Sequence) -> None:
        """The prompt is computed: from here on each choice is a sequence of its own."""
        for child in parent.forks:
            self.memory.fork(parent, child)
            child.parent = None
            child.running = True
            insort(self.running, child, key=_order)
        parent.forks = []

    def _append(self, sequence: Sequence, result: StepResult) -> SequenceOutput:
        gained = result.sampled.get(sequence.key, Result(error=Failure("the runner returned no token for it")))
        if gained.error is not None:
            return self._finish(sequence, "error", gained.error)
        is_first = sequence.num_generated == len(sequence.request.generated)
        before = len(sequence.tokens)
        reason, stop_token = extend(sequence, gained, max_new_tokens(sequence.request, self.config))
        if reason is not None:
            self._end(sequence)
        return SequenceOutput(
            request_id=sequence.request.request_id,
            choice=sequence.choice,
            token_ids=sequence.tokens[before:],
            logprobs=None if gained.logprobs is None else [gained.logprobs],
            num_cached_tokens=sequence.num_cached if is_first else 0,
            finish_reason=reason,
            stop_reason=stop_token,
        )

    def _finish(self, sequence: Sequence, reason: FinishReason, error: Failure | None = None) -> SequenceOutput:
        self._end(sequence)
        request_id, choice = sequence.key
        return SequenceOutput(request_id=request_id, choice=choice, finish_reason=reason, error=error)

    def _end(self, sequence: Sequence) -> None:
        """Its last output is on the way. What a step in flight still uses is released when that is committed."""
        sequence.finished = True
        request_id = sequence.request.request_id
        self._live[request_id].remove(sequence)
        if not self._live[request_id]:
            del self._live[request_id]
        holder = sequence
        if sequence.parent is not None:
            holder = sequence.parent
            holder.forks.remove(sequence)
        if not holder.finished or holder.forks:
            return
        if not holder.running:
            if holder.preemptions == 0:
                self._fair.gone(holder.request, self._cost(holder.request))
            del self.waiting[bisect_left(self.waiting, waiting_order(holder), key=waiting_order)]
        elif self.in_flight is None:
            self._stop_running(holder)


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
