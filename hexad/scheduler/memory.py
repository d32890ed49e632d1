"""The pages of sequences: found in the cache, taken, copied on write, published, given back.

Decides nothing: who gets pages and who must give them up is the scheduler's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hexad.cache.invariants import require
from hexad.cache.pool import PagePool
from hexad.cache.tree import Node, PageName, PrefixTree
from hexad.scheduler.sequence import Sequence

PageCopy = tuple[int, int]
"""(source, target)"""


class Memory:
    """A page pool with a prefix tree, spoken to in sequences."""

    def __init__(self, num_pages: int, page_size: int, prefix_caching: bool) -> None:
        self.page_size = page_size
        self.pool = PagePool(num_pages)
        self.tree = PrefixTree(self.pool, page_size)
        self._caching = prefix_caching

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def claim(self, sequence: Sequence) -> int:
        """Pages that a running sequence will want beyond those it has: for its known tokens, and one to grow into.

        Without that one, whoever is admitted last is soon preempted again by the growth of the others.
        """
        return self.pages_for(len(sequence.tokens)) + 1 - len(sequence.pages)

    # The prefix cache.

    def reads_cache(self, sequence: Sequence) -> bool:
        """Log-probabilities of the prompt can only be had by computing it."""
        return self._caching and sequence.request.params.prompt_logprobs is None

    def match(self, sequence: Sequence) -> Node | None:
        """The deepest cached node on its path that leaves at least one token to compute."""
        if not self._caching:
            return None
        salt = sequence.request.cache_salt
        if not self.reads_cache(sequence):
            return self.tree.root(salt)
        return self.tree.match(salt, sequence.tokens, (len(sequence.tokens) - 1) // self.page_size)

    def page_to_find(self, sequence: Sequence, match: Node | None) -> PageName | None:
        """The page that a waiting sequence would find next, were it in the cache."""
        if match is None or not self.reads_cache(sequence):
            return None
        if match.depth >= (len(sequence.tokens) - 1) // self.page_size:
            return None
        return self.tree.name_of_next(match, sequence.tokens)

    def page_to_publish(self, sequence: Sequence) -> PageName | None:
        """The page of known tokens that a running sequence is working on."""
        node = sequence.node
        if node is None or len(sequence.tokens) < (node.depth + 1) * self.page_size:
            return None
        return self.tree.name_of_next(node, sequence.tokens)

    def demand(self, sequence: Sequence, match: Node | None) -> int:
        """Available pages that admitting it takes: new ones, and matched ones that now are idle."""
        matched = match.pages() if match else []
        idle = sum(1 for page in matched if self.pool.users(page) == 0)
        return self.pages_for(len(sequence.tokens)) - len(matched) + idle

    def would_fit(self, sequence: Sequence, match: Node | None, running: list[Sequence]) -> bool:
        """Whether it could be admitted if of all the running only `running` were left."""
        held = {page for other in running for page in other.pages}
        matched = match.pages() if match else []
        needed = self.pages_for(len(sequence.tokens)) - sum(1 for page in matched if page in held)
        return needed + sum(map(self.claim, running)) <= self.pool.num_pages - len(held)

    def adopt(self, sequence: Sequence, match: Node | None) -> None:
        """Start it from what the cache holds."""
        sequence.node = match
        sequence.pages = match.pages() if match else []
        sequence.computed = len(sequence.pages) * self.page_size
        for page in sequence.pages:
            self.pool.retain(page)

    def publish(self, sequence: Sequence) -> None:
        """Give its full, computed pages to the tree; where the tree has an equal page already, share that."""
        while sequence.node is not None and (sequence.node.depth + 1) * self.page_size <= sequence.computed:
            index = sequence.node.depth
            page = sequence.pages[index]
            sequence.node = self.tree.publish(sequence.node, sequence.tokens, page)
            if sequence.node.page != page:
                self.pool.retain(sequence.node.page)
                self.pool.release(page)
                sequence.pages[index] = sequence.node.page

    def forget(self, running: Iterable[Sequence]) -> None:
        """Empty the cache. What is running goes on, but publishes nothing that was computed before."""
        self.tree.clear()
        for sequence in running:
            sequence.node = None

    # Pages of the running.

    def _must_copy(self, sequence: Sequence) -> bool:
        """Its next token goes into a page that others hold too."""
        return sequence.computed % self.page_size != 0 and self.pool.users(sequence.pages[-1]) > 1

    def room(self, sequence: Sequence) -> int:
        """Tokens that it could compute now without anybody giving up a page."""
        pages = self.pool.num_available
        tail = len(sequence.pages) * self.page_size - sequence.computed
        if tail and self._must_copy(sequence):
            pages -= 1
        return tail + pages * self.page_size if pages >= 0 else 0

    def extend(self, sequence: Sequence, count: int) -> PageCopy | None:
        """Take the pages for `count` <= room() more tokens; a shared last page is replaced by a copy."""
        copy = None
        if self._must_copy(sequence):
            source, target = sequence.pages[-1], self._take()
            sequence.pages[-1] = target
            self.pool.release(source)
            copy = (source, target)
        while len(sequence.pages) * self.page_size < sequence.computed + count:
            sequence.pages.append(self._take())
        return copy

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """The child shares all that the parent has computed."""
        child.node = parent.node
        child.computed = parent.computed
        child.num_cached = parent.num_cached
        child.pages = list(parent.pages)
        for page in child.pages:
            self.pool.retain(page)

    def release(self, sequence: Sequence) -> None:
        """Give back all pages; the published ones stay in the cache until they are evicted."""
        for page in sequence.pages:
            self.pool.release(page)
        if sequence.node is not None:
            self.tree.leave(sequence.node)
        sequence.pages = []
        sequence.node = None
        sequence.computed = 0

    def _take(self) -> int:
        if self.pool.num_free == 0:
            self.tree.evict()
        return self.pool.take()

    def check_invariants(self, running: Iterable[Sequence]) -> None:
        users: Counter[int] = Counter()
        for sequence in running:
            users.update(sequence.pages)
            self._check_sequence(sequence)
        self.tree.check_invariants()
        self.pool.check_invariants(users, self.tree.nodes_by_page())

    def _check_sequence(self, sequence: Sequence) -> None:
        who = f"{sequence.key}: pages {sequence.pages}, computed {sequence.computed}"
        require(len(set(sequence.pages)) == len(sequence.pages), "I4", f"{who}: a page twice")
        require(len(sequence.pages) >= self.pages_for(sequence.computed), "I4", f"{who}: too few pages")
        require(sequence.computed < len(sequence.tokens), "I7", f"{who}: none of {len(sequence.tokens)} tokens is left")
        node = sequence.node
        if node is None:
            return
        path = node.pages()
        require(path == sequence.pages[: len(path)], "I6", f"{who}: the tree's path is {path}")
        require(len(path) * self.page_size <= sequence.computed, "I5", f"{who}: published beyond what is computed")
        root = node
        while root.parent is not None:
            found, tokens = root.key, self.tree.key(sequence.tokens, root.depth - 1)
            require(found == tokens, "I6", f"{who}: shares a page of {found}, and has {tokens}")
            root = root.parent
        salt = sequence.request.cache_salt
        require(root.key == salt, "I6", f"{who}: shares pages of salt {root.key!r}, and has {salt!r}")
