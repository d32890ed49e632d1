"""The prefix tree against a naive one: a dictionary of whole prefixes, searched linearly."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.cache.pool import PagePool
from hexad.cache.tree import Node, PrefixTree

SIZE = 2


def publish(tree: PrefixTree, pool: PagePool, tokens: list[int], salt: str = "") -> Node:
    """What a sequence does: take what is there, compute the rest, publish, and stay."""
    node = tree.match(salt, tokens, len(tokens) // SIZE)
    for page in node.pages():
        pool.retain(page)
    while node.depth < len(tokens) // SIZE:
        if pool.num_free == 0:
            assert tree.evict()
        node = tree.publish(node, tokens, pool.take())
    return node


def leave(tree: PrefixTree, pool: PagePool, node: Node) -> None:
    for page in node.pages():
        pool.release(page)
    tree.leave(node)


def test_match_finds_the_longest_prefix_of_full_pages() -> None:
    pool = PagePool(8)
    tree = PrefixTree(pool, SIZE)
    node = publish(tree, pool, [1, 2, 3, 4, 5])
    assert node.depth == 2
    assert tree.match("", [1, 2, 3, 4, 9, 9], 3).pages() == node.pages()
    assert tree.match("", [1, 2, 3, 4], 1).depth == 1
    assert tree.match("", [1, 2, 9, 4], 2).depth == 1
    assert tree.match("", [3, 4], 1).depth == 0
    assert tree.match("salt", [1, 2], 1).depth == 0


def test_leaves_are_evicted_before_their_parents_and_the_oldest_first() -> None:
    pool = PagePool(5)
    tree = PrefixTree(pool, SIZE)
    a = publish(tree, pool, [0, 0, 1, 1])
    b = publish(tree, pool, [0, 0, 2, 2])
    c = publish(tree, pool, [3, 3])
    for node in (a, b, c):
        leave(tree, pool, node)
    leave(tree, pool, publish(tree, pool, [0, 0, 1, 1]))
    freed = []
    cached = set(tree.nodes_by_page())
    while tree.evict():
        left = set(tree.nodes_by_page())
        freed += sorted(cached - left)
        cached = left
        tree.check_invariants()
    root_page = a.parent.page if a.parent else None
    assert freed == [b.page, c.page, a.page, root_page]
    assert pool.num_free == 5


def test_what_is_in_use_is_never_evicted() -> None:
    pool = PagePool(3)
    tree = PrefixTree(pool, SIZE)
    held = publish(tree, pool, [0, 0])
    other = publish(tree, pool, [0, 0, 1, 1])
    leave(tree, pool, other)
    assert tree.evict()
    assert not tree.evict()
    assert list(tree.nodes_by_page()) == [held.page]


def test_an_empty_root_does_not_stay() -> None:
    pool = PagePool(2)
    tree = PrefixTree(pool, SIZE)
    for salt in map(str, range(50)):
        tree.match(salt, [1, 2], 1)
        leave(tree, pool, publish(tree, pool, [1, 2], salt))
    assert len(tree._roots) == 2
    tree.clear()
    assert not tree._roots
    assert pool.num_free == 2


def test_the_eviction_queue_does_not_grow_with_the_number_of_uses() -> None:
    pool = PagePool(4)
    tree = PrefixTree(pool, SIZE)
    for _ in range(100):
        leave(tree, pool, publish(tree, pool, [1, 2, 3, 4]))
    assert len(tree._leaves) <= len(tree.nodes_by_page())


@dataclass
class NaiveCache:
    """Prefixes, when each was last used, and how many use it; every question is a linear scan."""

    capacity: int
    last_used: dict[tuple[int, ...], int] = field(default_factory=dict)
    users: dict[tuple[int, ...], int] = field(default_factory=dict)
    clock: int = 0

    def enter(self, tokens: tuple[int, ...]) -> None:
        prefixes = [tokens[: (i + 1) * SIZE] for i in range(len(tokens) // SIZE)]
        for prefix in prefixes:
            if prefix in self.last_used:
                self.users[prefix] += 1
        for prefix in prefixes:
            if prefix not in self.last_used:
                if len(self.last_used) == self.capacity:
                    self._evict()
                self.last_used[prefix], self.users[prefix] = 0, 1

    def leave(self, tokens: tuple[int, ...]) -> None:
        self.clock += 1
        for i in range(len(tokens) // SIZE):
            self.users[tokens[: (i + 1) * SIZE]] -= 1
            self.last_used[tokens[: (i + 1) * SIZE]] = self.clock

    def _evict(self) -> None:
        leaves = [
            prefix
            for prefix in self.last_used
            if not self.users[prefix]
            and not any(other != prefix and other[: len(prefix)] == prefix for other in self.last_used)
        ]
        del self.last_used[min(leaves, key=lambda prefix: self.last_used[prefix])]


@settings(max_examples=300)
@given(
    st.integers(5, 8),
    st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=SIZE, max_size=4 * SIZE), st.integers(0, 3)), max_size=40),
)
def test_equals_the_naive_cache(capacity: int, uses: list[tuple[list[int], int]]) -> None:
    """Each use stays until `stay` others have come; what is cached must be the same all the time."""
    pool = PagePool(capacity)
    tree, naive = PrefixTree(pool, SIZE), NaiveCache(capacity)
    present: list[tuple[int, tuple[int, ...], Node]] = []
    for now, (tokens, stay) in enumerate(uses):
        for entry in [entry for entry in present if entry[0] <= now]:
            present.remove(entry)
            naive.leave(entry[1])
            leave(tree, pool, entry[2])
        needed = len(tokens) // SIZE - tree.match("", tokens, 99).depth
        idle_match = sum(1 for page in tree.match("", tokens, 99).pages() if pool.users(page) == 0)
        if needed > pool.num_available - idle_match:
            continue
        naive.enter(tuple(tokens))
        present.append((now + stay, tuple(tokens), publish(tree, pool, tokens)))
        tree.check_invariants()
        cached = {tuple(prefix(node)) for node in tree.nodes_by_page().values()}
        assert cached == set(naive.last_used)


def prefix(node: Node) -> list[int]:
    digits: list[int] = []
    while node.parent is not None:
        assert isinstance(node.key, tuple)
        digits[:0] = node.key
        node = node.parent
    return digits
