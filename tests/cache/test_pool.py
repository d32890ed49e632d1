from __future__ import annotations

import pytest

from hexad.cache.invariants import InvariantBroken
from hexad.cache.pool import PagePool


def test_a_page_is_free_only_when_nobody_holds_it() -> None:
    pool = PagePool(2)
    page = pool.take()
    pool.retain(page)
    pool.release(page)
    assert (pool.num_free, pool.users(page)) == (1, 1)
    pool.release(page)
    assert pool.num_free == 2
    pool.check_invariants({}, {})


def test_a_cached_page_is_available_when_only_the_tree_holds_it() -> None:
    pool = PagePool(2)
    page = pool.take()
    pool.cache(page)
    assert (pool.num_free, pool.num_available, pool.users(page)) == (1, 1, 1)
    pool.release(page)
    assert (pool.num_free, pool.num_available) == (1, 2)
    pool.retain(page)
    assert pool.num_available == 1
    pool.uncache(page)
    assert (pool.num_free, pool.users(page)) == (1, 1)
    pool.release(page)
    assert pool.num_free == 2
    pool.check_invariants({}, {})


def test_the_last_page_freed_is_taken_first() -> None:
    pool = PagePool(4)
    pages = [pool.take() for _ in range(3)]
    assert pages == [0, 1, 2]
    for page in (0, 2):
        pool.release(page)
    assert [pool.take(), pool.take(), pool.take()] == [2, 0, 3]


@pytest.mark.parametrize(
    ("users", "cached", "name"),
    [({}, {}, "I1"), ({0: 2}, {}, "I1"), ({0: 1, 1: 1}, {}, "I1"), ({0: 1}, {1: None}, "I1")],
)
def test_the_audit_compares_with_the_real_holders(users: dict[int, int], cached: dict[int, object], name: str) -> None:
    pool = PagePool(2)
    pool.take()
    with pytest.raises(InvariantBroken, match=f"^{name}"):
        pool.check_invariants(users, cached)


def test_the_audit_finds_a_page_that_is_both_free_and_held() -> None:
    pool = PagePool(2)
    pool._free.append(pool.take())
    with pytest.raises(InvariantBroken, match="^I2"):
        pool.check_invariants({0: 1}, {})
