"""Who goes first, who waits, who gives way."""

from __future__ import annotations

import pytest

from hexad.scheduler import scheduler as scheduler_module
from hexad.scheduler.plan import Result, StepResult
from hexad.scheduler.policy import LOOK_AHEAD, MAX_OVERTAKEN, cheapest_victim, share_budget, waiting_order
from hexad.scheduler.scheduler import Scheduler, SchedulerConfig
from hexad.scheduler.sequence import Sequence

from .world import World, make_request


def sequence(name: str, arrival: int, length: int, priority: int = 0) -> Sequence:
    return Sequence(make_request(name, [0] * length, priority=priority), 0, arrival, [0] * length)


def world(
    num_pages: int = 64, max_num_seqs: int = 8, budget: int = 16, page_size: int = 4, caching: bool = True
) -> World:
    return World(SchedulerConfig(num_pages, max_num_seqs, budget, num_pages * page_size, caching, page_size))


def ended(world: World, name: str) -> bool:
    return all(stream.ends for (request_id, _), stream in world.streams.items() if request_id == name)


def unlike(seed: int, length: int) -> list[int]:
    """A prompt that shares no page with that of another seed."""
    return [10 + seed] * length


def test_the_oldest_prompt_gets_half_and_the_shortest_the_rest() -> None:
    old, young, short = sequence("old", 0, 1000), sequence("young", 1, 900), sequence("short", 2, 20)
    assert share_budget(256, [old, young, short]) == {old: 128, young: 108, short: 20}
    assert share_budget(1, [old, young, short])[old] == 1
    assert share_budget(2000, [old, young, short]) == {old: 1000, young: 900, short: 20}
    assert share_budget(60, [short, old]) == {short: 20, old: 40}


def test_a_better_priority_is_not_slowed_by_shorter_prompts() -> None:
    urgent, short = sequence("urgent", 5, 100, priority=-1), sequence("short", 0, 10)
    assert share_budget(64, [urgent, short]) == {urgent: 64, short: 0}


def test_a_short_request_is_not_stuck_behind_a_long_prompt() -> None:
    """A prompt of 2000 tokens takes 32 steps alone; a short one that comes later is served in its first step."""
    busy = World(SchedulerConfig(300, 8, 64, 4000, True, 16))
    busy.add(make_request("long", unlike(0, 2000), 1))
    busy.step()
    busy.add(make_request("short", unlike(1, 30), 1, ignore_eos=True))
    busy.step()
    assert ended(busy, "short")
    steps = 2
    while not ended(busy, "long"):
        busy.step()
        steps += 1
    assert steps == 32


def test_decodes_go_on_while_a_long_prompt_is_computed() -> None:
    busy = world(budget=4)
    busy.add(make_request("talker", [0], 20, ignore_eos=True))
    busy.step()
    busy.add(make_request("long", unlike(1, 80), 1))
    while not ended(busy, "talker"):
        outputs = busy.step()
        assert "talker" in [output.request_id for output in outputs]
    assert not ended(busy, "long")


@pytest.mark.parametrize("limit", [MAX_OVERTAKEN, 10**9])
def test_one_that_does_not_fit_is_overtaken_a_bounded_number_of_times(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I10: small requests keep coming; the big one needs the whole pool. Without the limit it starves."""
    monkeypatch.setattr(scheduler_module, "MAX_OVERTAKEN", limit)
    busy = world(num_pages=8, max_num_seqs=4, budget=16, page_size=4, caching=False)
    busy.add(make_request("small", [0] * 4, 3, ignore_eos=True))
    busy.step()
    busy.add(make_request("big", [0] * 28, 4, ignore_eos=True))
    steps = 0
    while not ended(busy, "big") and steps < 100:
        busy.add(make_request(f"small {steps}", [0] * 4, 3, ignore_eos=True))
        busy.step()
        steps += 1
    assert ended(busy, "big") == (limit == MAX_OVERTAKEN)
    if ended(busy, "big"):
        assert sum(ended(busy, f"small {step}") for step in range(steps)) <= MAX_OVERTAKEN
        assert steps <= MAX_OVERTAKEN + LOOK_AHEAD


def test_those_who_wait_go_by_priority_then_preempted_then_arrival() -> None:
    fresh, preempted, urgent = sequence("fresh", 1, 4), sequence("preempted", 5, 4), sequence("urgent", 9, 4, -1)
    preempted.preemptions = 1
    assert sorted([fresh, preempted, urgent], key=waiting_order) == [urgent, preempted, fresh]


def test_one_seat_is_taken_in_order_of_priority_and_arrival() -> None:
    busy = world(max_num_seqs=1)
    for name, priority in (("late", 1), ("early", 0), ("next", 0), ("last", 1)):
        busy.add(make_request(name, [0] * 4, 1, priority=priority))
    order = []
    while busy.scheduler.has_work:
        order += [output.request_id for output in busy.step()]
    assert order == ["early", "next", "late", "last"]


def test_a_better_priority_takes_the_seat_of_a_worse_one() -> None:
    busy = world(max_num_seqs=1, budget=8)
    busy.add(make_request("patient", [0] * 4, 6, priority=1, ignore_eos=True))
    busy.step()
    busy.add(make_request("equal", [1] * 4, 2, priority=1, ignore_eos=True))
    busy.step()
    assert busy.scheduler.running[0].key[0] == "patient"
    busy.add(make_request("urgent", [1] * 4, 2, ignore_eos=True))
    busy.step()
    assert [each.key[0] for each in busy.scheduler.running] == ["urgent"]
    busy.step()
    assert ended(busy, "urgent")
    busy.step()
    assert [each.key[0] for each in busy.scheduler.running] == ["patient"]
    busy.drain()


def test_nobody_is_preempted_for_one_who_would_not_fit_anyway() -> None:
    busy = world(num_pages=8, budget=64, page_size=4, caching=False)
    busy.add(make_request("first", unlike(0, 20), 8, priority=-1, ignore_eos=True))
    busy.add(make_request("patient", unlike(1, 4), 4, priority=1, ignore_eos=True))
    busy.step()
    busy.add(make_request("big", unlike(2, 24), 4, ignore_eos=True))
    busy.step()
    assert busy.scheduler.stats().num_preemptions == 0
    busy.drain()


def victims() -> list[Sequence]:
    """Over pages of 4; page 7 is shared by two."""
    lean, rich, sharing = sequence("lean", 1, 9), sequence("rich", 2, 9), sequence("sharing", 3, 9)
    lean.pages, lean.computed = [0, 1], 5
    rich.pages, rich.computed = [2, 3], 8
    sharing.pages, sharing.computed = [7, 4], 6
    return [lean, rich, sharing]


def users(page: int) -> int:
    return 2 if page == 7 else 1


def test_the_victim_is_the_one_that_loses_the_least_work() -> None:
    lean, rich, sharing = victims()
    assert cheapest_victim([lean, rich, sharing], users, 4) is sharing
    assert cheapest_victim([lean, rich], users, 4) is lean
    lean.computed = 8
    assert cheapest_victim([lean, rich], users, 4) is rich
    unhelpful = sequence("unhelpful", 9, 9)
    unhelpful.pages, unhelpful.computed = [7], 4
    assert cheapest_victim([lean, unhelpful], users, 4) is lean


def test_the_victim_has_the_worst_priority_whatever_it_costs() -> None:
    lean, rich, _ = victims()
    costly = sequence("costly", 0, 40, priority=1)
    costly.pages, costly.computed = [5, 6, 8, 9], 16
    assert cheapest_victim([lean, costly, rich], users, 4) is costly


def test_the_first_in_order_is_never_preempted_and_each_only_a_few_times() -> None:
    """I11: six requests fight for a pool that holds one and a half of them."""
    busy = world(num_pages=12, max_num_seqs=6, budget=32, page_size=2, caching=False)
    for index in range(6):
        busy.add(make_request(f"r{index}", [index % 2] * 4, 12, ignore_eos=True))
    busy.drain()
    stats = busy.scheduler.stats()
    assert 0 < stats.num_preemptions <= 18
    finished = [key[0] for key, stream in busy.streams.items() if stream.ends[0].finish_reason == "length"]
    assert len(finished) == 6


@pytest.mark.parametrize("caching", [True, False])
def test_little_is_computed_twice_when_memory_is_short(caching: bool) -> None:
    """40 requests want 19 pages each, of 100. Without a page kept for each to grow into, the work is 1.8-fold."""
    scheduler = Scheduler(SchedulerConfig(100, 64, 512, 1024, caching))
    for index in range(40):
        scheduler.add(make_request(f"r{index}", unlike(index, 100), 200))
    while plan := scheduler.next_plan():
        sampled = {sample.key: Result(1) for chunk in plan.chunks for sample in chunk.samples}
        scheduler.commit(plan, StepResult(sampled))
    assert scheduler.stats().num_computed_tokens <= 1.5 * 40 * 299
