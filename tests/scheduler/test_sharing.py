"""Pages are shared by equal prefixes, computed once, and copied before they differ."""

from __future__ import annotations

import pytest

from hexad.scheduler.scheduler import SchedulerConfig

from .world import World, make_request

PAGE = 4
PREFIX = [0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 0]


def world(budget: int = 8, num_pages: int = 64, caching: bool = True) -> World:
    return World(SchedulerConfig(num_pages, 16, budget, 64, caching, PAGE))


@pytest.mark.parametrize("budget", [1, 3, 8, 64])
def test_a_prefix_shared_by_a_batch_is_computed_once(budget: int) -> None:
    shop = world(budget)
    for index in range(8):
        shop.add(make_request(f"r{index}", [*PREFIX, 5 + index], 1))
    shop.drain()
    assert shop.model.computed == len(PREFIX) + 8
    assert [shop.streams[f"r{index}", 0].cached for index in range(8)] == [0] + [len(PREFIX)] * 7


def test_without_a_cache_everything_is_computed() -> None:
    shop = world(caching=False)
    for index in range(3):
        shop.add(make_request(f"r{index}", [*PREFIX, 5 + index], 1))
    shop.drain()
    assert shop.model.computed == 3 * (len(PREFIX) + 1)
    assert shop.scheduler.stats().prefix_cache_queries == 0


def test_generated_text_is_found_as_well() -> None:
    """The second turn of a chat finds prompt and answer of the first."""
    shop = world()
    shop.add(make_request("turn 1", PREFIX, 9, ignore_eos=True))
    shop.run_to_end()
    answer = shop.streams["turn 1", 0].tokens
    shop.add(make_request("turn 2", [*PREFIX, *answer, 7], 1))
    shop.run_to_end()
    assert shop.streams["turn 2", 0].cached == (len(PREFIX) + 8) // PAGE * PAGE


def test_at_least_one_token_of_a_cached_prompt_is_computed() -> None:
    shop = world()
    for name in ("first", "again"):
        shop.add(make_request(name, PREFIX, 1))
        shop.run_to_end()
    assert shop.streams["again", 0].cached == len(PREFIX) - PAGE
    stats = shop.scheduler.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (2 * len(PREFIX), len(PREFIX) - PAGE)


def test_nothing_is_shared_across_salts_or_with_prompt_logprobs() -> None:
    shop = world()
    shop.add(make_request("plain", PREFIX, 1))
    shop.run_to_end()
    shop.add(make_request("salted", PREFIX, 1, cache_salt="s"))
    shop.add(make_request("scored", PREFIX, 1, prompt_logprobs=0))
    shop.run_to_end()
    assert shop.streams["salted", 0].cached == shop.streams["scored", 0].cached == 0
    assert shop.model.computed == 3 * len(PREFIX)


def test_what_is_computed_twice_is_kept_once() -> None:
    """A request with prompt_logprobs computes what is cached already, then shares the cached pages."""
    shop = world(budget=64)
    shop.add(make_request("plain", PREFIX, 1))
    shop.run_to_end()
    cached = len(shop.scheduler.memory.tree.nodes_by_page())
    shop.add(make_request("scored", PREFIX, 3, prompt_logprobs=0, ignore_eos=True))
    shop.step()
    assert len(shop.scheduler.memory.tree.nodes_by_page()) == cached
    assert shop.scheduler.stats().num_free_pages == 64 - cached
    shop.drain()


def test_forks_compute_their_prompt_once_and_copy_only_the_last_page() -> None:
    shop = world(budget=64)
    shop.add(make_request("r", [*PREFIX, 1], 3, n=3, ignore_eos=True))
    shop.step()
    assert shop.model.computed == len(PREFIX) + 1
    pages = [list(each.pages) for each in shop.scheduler.running]
    assert pages[0] == pages[1] == pages[2]
    plan = shop.begin()
    assert plan is not None
    last = pages[0][-1]
    assert [source for source, _ in plan.page_copies] == [last, last]
    targets = [each.pages[-1] for each in shop.scheduler.running]
    assert len(set(targets)) == 3
    assert last in targets
    shop.drain()


def test_forks_of_a_prompt_that_fills_its_pages_copy_nothing() -> None:
    shop = world(budget=64)
    shop.add(make_request("r", PREFIX, 3, n=2, ignore_eos=True))
    shop.step()
    plan = shop.begin()
    assert plan is not None
    assert plan.page_copies == ()
    shop.drain()


def test_a_reset_hides_what_is_still_being_computed() -> None:
    shop = world(budget=4)
    shop.add(make_request("before", PREFIX, 1))
    shop.step()
    shop.reset_prefix_cache()
    shop.run_to_end()
    shop.add(make_request("after", PREFIX, 1))
    shop.run_to_end()
    assert shop.streams["after", 0].cached == 0


@pytest.mark.parametrize(("priority", "waits"), [(0, True), (-1, False)])
def test_nobody_waits_for_a_page_of_somebody_less_urgent(priority: int, waits: bool) -> None:
    shop = world(budget=2)
    shop.add(make_request("owner", PREFIX, 1))
    shop.step()
    shop.add(make_request("other", [*PREFIX, 1], 1, priority=priority))
    shop.step()
    assert [each.key[0] for each in shop.scheduler.waiting] == (["other"] if waits else [])
    shop.drain()
