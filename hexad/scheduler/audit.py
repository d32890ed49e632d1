"""What must hold between any two calls to the scheduler, as a linear scan.

The names I1 to I9 are those of the invariants of a paged KV cache and its scheduler:

- I1 a page's count equals its holders; I2 free xor held; I3 free, idle and used pages are all pages
- I4 no page twice in a sequence, as many as its tokens need; those who wait hold none
- I5 tree and pages agree; what is published is full and computed; no empty nodes
- I6 shared pages only under equal salt and equal tokens; I7 at least one token is left to compute
- I8 budget and seats are kept; I9 waiting order is (priority, preempted first, fair tag, arrival)
"""

from __future__ import annotations

from collections.abc import Sequence as Many

from hexad.cache.invariants import require
from hexad.scheduler.lifecycle import SchedulerConfig
from hexad.scheduler.memory import Memory
from hexad.scheduler.plan import Plan
from hexad.scheduler.policy import waiting_order
from hexad.scheduler.sequence import Sequence


def check_memory(memory: Memory, running: Many[Sequence], waiting: Many[Sequence]) -> None:
    memory.check_invariants(running)
    for sequence in waiting:
        held = sequence.pages or sequence.computed or sequence.node or sequence.running
        require(not held, "I4", f"{sequence.key} waits and holds pages {sequence.pages}")
        for fork in sequence.forks:
            require(not fork.pages, "I4", f"{fork.key} is not forked yet and holds pages {fork.pages}")


def check_queues(running: Many[Sequence], waiting: Many[Sequence], config: SchedulerConfig) -> None:
    seats = sum(sequence.seats for sequence in running)
    require(seats <= config.max_num_seqs, "I8", f"{seats} choices run; max_num_seqs is {config.max_num_seqs}")
    orders = [waiting_order(sequence) for sequence in waiting]
    require(orders == sorted(orders), "I9", f"the queue is out of order: {orders}")
    ranks = [sequence.order for sequence in running]
    require(ranks == sorted(set(ranks)), "I9", f"the running are out of order: {ranks}")
    require(all(sequence.running for sequence in running), "I9", "one that runs is not marked as running")


def check_plan(plan: Plan, memory: Memory, running: Many[Sequence], config: SchedulerConfig) -> None:
    """A plan in flight: within the budget, and on pages that its sequences hold."""
    budget = config.max_num_batched_tokens
    require(0 < plan.num_tokens <= budget, "I8", f"{plan.num_tokens} tokens planned; the budget is {budget}")
    planned = [chunk.sequence.key for chunk in plan.chunks]
    require(len(set(planned)) == len(planned), "I8", f"a sequence is planned twice: {planned}")
    for chunk in plan.chunks:
        sequence, end = chunk.sequence, chunk.start + chunk.count
        who = f"{sequence.key}, tokens [{chunk.start}, {end})"
        require(sequence in running, "I4", f"{who}: in flight and not running")
        require(chunk.count >= 1 and chunk.start == sequence.computed, "I8", f"{who}: computed {sequence.computed}")
        require(end <= len(sequence.tokens), "I8", f"{who}: only {len(sequence.tokens)} are known")
        require(len(sequence.pages) == memory.pages_for(end), "I4", f"{who}: pages {sequence.pages}")
        for page in sequence.pages[chunk.start // memory.page_size :]:
            require(memory.pool.users(page) == 1, "I6", f"{who}: writes to page {page}, which others use too")
