"""The prefix tree: pages of KV found again by the tokens they were computed from.

A radix tree whose digit is a full page of token ids (the idea is SGLang's RadixAttention,
https://arxiv.org/abs/2312.07104, on vLLM's fixed pages). Whole keys are compared, never
hashes of them, so no collision can hand out a foreign page. The tree knows tokens and page
numbers, not sequences.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import count

from hexad.cache.invariants import require
from hexad.cache.pool import PagePool

PageName = tuple[object, tuple[int, ...]]
"""A page not yet in the tree: where it will hang, and its tokens."""


class Node:
    """A cached page; a root has no page, and the salt as its key."""

    __slots__ = ("children", "depth", "key", "last_used", "page", "parent", "queued")

    def __init__(self, parent: Node | None, key: tuple[int, ...] | str, page: int) -> None:
        self.parent = parent
        self.key = key
        self.page = page
        self.depth: int = parent.depth + 1 if parent else 0
        """Pages from the root to here, this one included."""
        self.children: dict[tuple[int, ...], Node] = {}
        self.last_used = 0
        self.queued = False
        """Has its one entry in the eviction heap."""

    def pages(self) -> list[int]:
        """The pages from the root to here, in the order of their tokens."""
        path = []
        node = self
        while node.parent is not None:
            path.append(node.page)
            node = node.parent
        path.reverse()
        return path


class PrefixTree:
    """One root a salt; holds one reference to each of its pages.

    Whoever uses a node's page uses those of all its ancestors too, so the idle pages are
    exactly those that evicting leaf after leaf can free.
    """

    def __init__(self, pool: PagePool, page_size: int) -> None:
        self._pool = pool
        self._page_size = page_size
        self._roots: dict[str, Node] = {}
        self._clock = count(1)
        self._serial = count()
        self._leaves: list[tuple[int, int, Node]] = []
        """Heap of (last use, tie-break, node). An entry's stamp may be too old, and its node in use
        or no leaf any more; that is put right when it comes up. Every idle leaf has an entry."""

    def key(self, tokens: Sequence[int], index: int) -> tuple[int, ...]:
        """The tokens of the page at `index`."""
        return tuple(tokens[index * self._page_size : (index + 1) * self._page_size])

    def root(self, salt: str) -> Node:
        """A root without children is not kept here: it joins with its first page."""
        return self._roots.get(salt) or Node(None, salt, -1)

    def match(self, salt: str, tokens: Sequence[int], max_pages: int) -> Node:
        """The deepest node whose path equals `tokens`, at most `max_pages` deep."""
        node = self.root(salt)
        while node.depth < max_pages:
            child = node.children.get(self.key(tokens, node.depth))
            if child is None:
                break
            node = child
        return node

    def name_of_next(self, node: Node, tokens: Sequence[int]) -> PageName:
        """What the page of `tokens` after `node` will be called."""
        return (node.key if node.parent is None else node), self.key(tokens, node.depth)

    def publish(self, node: Node, tokens: Sequence[int], page: int) -> Node:
        """The child of `node` for the next page of `tokens`, which is computed and lies in `page`.

        If it is there already, its page is another one with the same content: the caller's
        `page` is not kept, and the caller had better use the node's.
        """
        if node.parent is None:
            assert isinstance(node.key, str)
            node = self._roots.setdefault(node.key, node)
        key = self.key(tokens, node.depth)
        child = node.children.get(key)
        if child is None:
            child = node.children[key] = Node(node, key, page)
            self._pool.cache(page)
        return child

    def leave(self, node: Node) -> None:
        """A user that released the pages up to `node` has gone: this is when they were last used."""
        if node.parent is None:
            return
        node.last_used = next(self._clock)
        self._queue_leaf(node)

    def evict(self) -> bool:
        """Free the least recently used idle leaf; False if nothing is idle."""
        while self._leaves:
            stamp, serial, node = self._leaves[0]
            if node.children or self._pool.users(node.page):
                heapq.heappop(self._leaves)
                node.queued = False
            elif stamp < node.last_used:
                heapq.heapreplace(self._leaves, (node.last_used, serial, node))
            else:
                heapq.heappop(self._leaves)
                self._remove(node)
                return True
        return False

    def clear(self) -> None:
        """Forget everything. Pages in use stay with their users, who must not publish under old nodes."""
        for node in self._nodes():
            self._pool.uncache(node.page)
        self._roots.clear()
        self._leaves.clear()

    def _queue_leaf(self, node: Node) -> None:
        if not node.queued and not node.children:
            node.queued = True
            heapq.heappush(self._leaves, (node.last_used, next(self._serial), node))

    def _remove(self, leaf: Node) -> None:
        parent = leaf.parent
        assert parent is not None and isinstance(leaf.key, tuple)
        del parent.children[leaf.key]
        self._pool.uncache(leaf.page)
        if parent.parent is not None:
            self._queue_leaf(parent)
        elif not parent.children:
            assert isinstance(parent.key, str)
            del self._roots[parent.key]

    def _nodes(self) -> Iterator[Node]:
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            if node.parent is not None:
                yield node
            stack.extend(node.children.values())

    def nodes_by_page(self) -> dict[int, Node]:
        """A linear scan, for checks."""
        return {node.page: node for node in self._nodes()}

    def check_invariants(self) -> None:
        pages = set()
        queued = {id(node) for _, _, node in self._leaves}
        for salt, root in self._roots.items():
            require(bool(root.children), "I5", f"the root of salt {salt!r} is empty")
            require(root.parent is None and root.key == salt and root.depth == 0, "I5", f"{salt!r} is not a root")
        for node in self._nodes():
            where = f"node of page {node.page}, key {node.key!r}"
            parent = node.parent
            require(parent is not None and parent.children.get(node.key) is node, "I5", f"{where}: not its parent's")  # type: ignore[arg-type]
            require(len(node.key) == self._page_size, "I5", f"{where}: the page is not full")
            require(node.depth == len(node.pages()), "I5", f"{where}: depth {node.depth} is not its path's length")
            require(node.page not in pages, "I5", f"{where}: the page is in the tree twice")
            pages.add(node.page)
            users = self._pool.users(node.page)
            above = self._pool.users(parent.page) if parent is not None and parent.parent is not None else users
            require(above >= users, "I5", f"{where}: {users} users, but its parent has {above}")
            idle_leaf = not node.children and users == 0
            require(not idle_leaf or id(node) in queued, "I5", f"{where}: an idle leaf that eviction cannot find")
