"""Seeded bugs: each is one small wrong thing that the state machine must notice.

A mutant is a function that patches the scheduler or its cache through pytest's monkeypatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest import MonkeyPatch

from hexad.cache.pool import PagePool
from hexad.cache.tree import Node, PrefixTree
from hexad.scheduler import draft, lifecycle, scheduler
from hexad.scheduler.draft import Draft
from hexad.scheduler.memory import Memory
from hexad.scheduler.plan import Plan
from hexad.scheduler.scheduler import Scheduler

Mutant = Callable[[MonkeyPatch], None]


def _method(owner: Any, name: str, wrong: Callable[..., Any]) -> Mutant:
    """`wrong` gets the right method first, then its arguments."""

    def apply(patch: MonkeyPatch) -> None:
        right = getattr(owner, name)
        patch.setattr(owner, name, lambda *args: wrong(right, *args))

    return apply


def _leak_on_release(right: Any, memory: Memory, sequence: Any) -> None:
    if sequence.finished and len(sequence.pages) > 1:
        sequence.pages.pop()
    right(memory, sequence)


def _double_free(right: Any, memory: Memory, sequence: Any) -> None:
    if sequence.finished and sequence.pages:
        memory.pool.release(sequence.pages[-1])
    right(memory, sequence)


def _full_prompt_hit(right: Any, memory: Memory, sequence: Any) -> Any:
    if not memory.reads_cache(sequence):
        return right(memory, sequence)
    depth = len(sequence.tokens) // memory.page_size
    return memory.tree.match(sequence.request.cache_salt, sequence.tokens, depth)


def _evict_in_use(right: Any, tree: PrefixTree) -> bool:
    for node in tree._nodes():
        if not node.children:
            tree._remove(node)
            while tree._pool.users(node.page):
                tree._pool.release(node.page)
            return True
    return False


def _parentless_key(right: Any, tree: PrefixTree, salt: str, tokens: Any, max_pages: int) -> Node:
    node: Node = right(tree, salt, tokens, max_pages)
    if node.depth < max_pages:
        wanted = tree.key(tokens, node.depth)
        for other in tree._nodes():
            if other.key == wanted and other.depth == node.depth + 1:
                return other
    return node


def _stale_after_eviction(right: Any, tree: PrefixTree, leaf: Node) -> None:
    parent, key = leaf.parent, leaf.key
    right(tree, leaf)
    if parent is not None and isinstance(key, tuple):
        parent.children[key] = leaf


def _publish_before_compute(right: Any, memory: Memory, sequence: Any, count: int) -> Any:
    copy = right(memory, sequence, count)
    sequence.computed += count
    memory.publish(sequence)
    sequence.computed -= count
    return copy


def _publish_partial_page(right: Any, memory: Memory, sequence: Any) -> None:
    right(memory, sequence)
    node = sequence.node
    if node is not None and sequence.computed > node.depth * memory.page_size:
        memory.tree.publish(node, sequence.tokens[: sequence.computed], sequence.pages[node.depth])


def _fold_leaks(right: Any, memory: Memory, sequence: Any) -> None:
    before = list(sequence.pages)
    right(memory, sequence)
    for old, new in zip(before, sequence.pages, strict=True):
        if old != new:
            memory.pool._free.remove(old)


def _fork_without_reference(right: Any, memory: Memory, parent: Any, child: Any) -> None:
    right(memory, parent, child)
    for page in child.pages[-1:]:
        memory.pool.release(page)


def _plan_without_copies(right: Any, made: Draft) -> Plan | None:
    plan = right(made)
    return plan and Plan(plan.chunks)


def _free_in_flight(right: Any, self: Scheduler, sequence: Any) -> None:
    plan, self.in_flight = self.in_flight, None
    right(self, sequence)
    self.in_flight = plan


def _end_twice(right: Any, self: Scheduler, sequence: Any) -> None:
    right(self, sequence)
    self._live.setdefault(sequence.request.request_id, []).append(sequence)


def _lose_the_preempted(right: Any, self: Scheduler, victim: Any, made: Draft) -> None:
    right(self, victim, made)
    self.waiting.remove(victim)


def _keep_computed(right: Any, memory: Memory, sequence: Any) -> None:
    computed = sequence.computed
    right(memory, sequence)
    sequence.computed = computed


def _reset_keeps_places(right: Any, memory: Memory, running: Any) -> None:
    memory.tree.clear()


def _sample_too_early(right: Any, sequence: Any, tokens: int) -> Any:
    chunk = right(sequence, tokens)
    return type(chunk)(sequence, chunk.start, chunk.count, chunk.samples or (sequence,))


def _forget_a_victim_in_the_plan(right: Any, made: Draft, victim: Any) -> None:
    made.preempted = True


def _retain_keeps_idle(right: Any, pool: PagePool, page: int) -> None:
    in_use = pool._num_in_use
    right(pool, page)
    pool._num_in_use = in_use


def _extend_without_looking(sequence: Any, gained: Any, max_new: int) -> Any:
    sequence.tokens += [gained.token_id, *gained.forced]
    reason, stop_token = lifecycle.ending(sequence, max_new)
    return ("stop", None) if gained.complete and reason is None else (reason, stop_token)


def _forget_the_forced(right: Any, self: Scheduler, sequence: Any, result: Any) -> Any:
    gained = result.sampled.get(sequence.key)
    if gained is not None and gained.complete:
        gained.forced = gained.forced[:-1]
    return right(self, sequence, result)


def _never_complete(right: Any, self: Scheduler, sequence: Any, result: Any) -> Any:
    if sequence.key in result.sampled:
        result.sampled[sequence.key].complete = False
    return right(self, sequence, result)


def _answer_lost(right: Any, self: Scheduler, *args: Any) -> Any:
    outputs = right(self, *args)
    return outputs[:-1] if len(outputs) > 1 else outputs


MUTANTS: dict[str, Mutant] = {
    "a page leaks when a sequence ends": _method(Memory, "release", _leak_on_release),
    "a page is freed twice": _method(Memory, "release", _double_free),
    "one token above the budget": _method(Draft, "__init__", lambda right, made, budget: right(made, budget + 1)),
    "the whole prompt from the cache": _method(Memory, "match", _full_prompt_hit),
    "a page in use is evicted": _method(PrefixTree, "evict", _evict_in_use),
    "the salt is ignored": _method(PrefixTree, "root", lambda right, tree, salt: right(tree, "")),
    "a page is found without its parents": _method(PrefixTree, "match", _parentless_key),
    "an evicted page is still found": _method(PrefixTree, "_remove", _stale_after_eviction),
    "the preempted go to the back": lambda patch: patch.setattr(
        scheduler, "waiting_order", lambda each: (each.request.priority, False, each.tag, each.arrival)
    ),
    "priority is ignored": lambda patch: patch.setattr(
        scheduler, "waiting_order", lambda each: (0, each.preemptions == 0, each.tag, each.arrival)
    ),
    "clients are served in order of arrival": lambda patch: patch.setattr(
        scheduler, "waiting_order", lambda each: (each.request.priority, each.preemptions == 0, each.arrival)
    ),
    "a page is published before it is computed": _method(Memory, "extend", _publish_before_compute),
    "a page is published before it is full": _method(Memory, "publish", _publish_partial_page),
    "a duplicate page is not given back": _method(Memory, "publish", _fold_leaks),
    "a shared page is written": _method(Memory, "_must_copy", lambda right, memory, sequence: False),
    "a shared page is replaced, not copied": _method(Draft, "plan", _plan_without_copies),
    "a fork does not count as holder": _method(Memory, "fork", _fork_without_reference),
    "pages of a step in flight are freed": _method(Scheduler, "_end", _free_in_flight),
    "a choice ends twice": _method(Scheduler, "_end", _end_twice),
    "a preempted sequence is lost": _method(Scheduler, "_preempt", _lose_the_preempted),
    "a preempted sequence is thought computed": _method(Memory, "release", _keep_computed),
    "a victim stays in the plan": _method(Draft, "drop", _forget_a_victim_in_the_plan),
    "places in the tree outlive a reset": _method(Memory, "forget", _reset_keeps_places),
    "a token is drawn before the prompt is done": lambda patch: patch.setattr(
        draft, "_chunk", lambda *args, right=draft._chunk: _sample_too_early(right, *args)
    ),
    "an idle page is handed out and still counts as idle": _method(PagePool, "retain", _retain_keeps_idle),
    "prompt log-probabilities from the cache": _method(Memory, "reads_cache", lambda right, *args: True),
    "seats are not counted": _method(Scheduler, "_free_seats", lambda right, *args: 99),
    "min_tokens and stop tokens are ignored": lambda patch: patch.setattr(
        lifecycle, "ending", lambda each, most: ("length" if each.num_generated >= most else None, None)
    ),
    "the victim may be anybody": _method(Scheduler, "_cheapest", lambda right, self, behind: right(self, self.running)),
    "forced tokens behind the end are kept": lambda patch: patch.setattr(scheduler, "extend", _extend_without_looking),
    "forced tokens are lost": _method(Scheduler, "_append", _forget_the_forced),
    "a complete answer goes on": _method(Scheduler, "_append", _never_complete),
    "an output is lost": _method(Scheduler, "_commit_chunk", _answer_lost),
}
