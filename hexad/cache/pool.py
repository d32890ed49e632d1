"""The page pool: which pages of KV are free, and how many hold each of the others.

A page is a number. The pool knows neither tokens nor sequences, and never touches memory.
"""

from __future__ import annotations

from collections.abc import Mapping

from hexad.cache.invariants import require


class PagePool:
    """`num_pages` pages under reference counting.

    A page is *free* (no holder), *in use* (a sequence holds it), or *idle* (only the prefix
    tree holds it, so it can be had back by eviction).
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._holders = [0] * num_pages
        self._cached = bytearray(num_pages)
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_in_use = 0

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_available(self) -> int:
        """Free or idle."""
        return self.num_pages - self._num_in_use

    def users(self, page: int) -> int:
        """Holders of `page` other than the prefix tree."""
        return self._holders[page] - self._cached[page]

    def take(self) -> int:
        """A free page, now held once. The last one freed comes first: its memory is warm."""
        page = self._free.pop()
        self._holders[page] = 1
        self._num_in_use += 1
        return page

    def retain(self, page: int) -> None:
        """One more holder of a page that is in use or idle."""
        if self.users(page) == 0:
            self._num_in_use += 1
        self._holders[page] += 1

    def release(self, page: int) -> None:
        """One user less; without holders the page is free."""
        self._holders[page] -= 1
        if self.users(page) == 0:
            self._num_in_use -= 1
            self._free_if_unheld(page)

    def cache(self, page: int) -> None:
        """The prefix tree becomes a holder of a page in use."""
        self._cached[page] = 1
        self._holders[page] += 1

    def uncache(self, page: int) -> None:
        """The prefix tree lets go."""
        self._cached[page] = 0
        self._holders[page] -= 1
        self._free_if_unheld(page)

    def _free_if_unheld(self, page: int) -> None:
        if self._holders[page] == 0:
            self._free.append(page)

    def check_invariants(self, users: Mapping[int, int], cached: Mapping[int, object]) -> None:
        """`users`: how often sequences hold each page; `cached`: the pages in the prefix tree."""
        free = set(self._free)
        require(len(free) == len(self._free), "I2", f"a page is twice in the free list {self._free}")
        for page in range(self.num_pages):
            expected = users.get(page, 0) + (page in cached)
            found = self._holders[page]
            require(found == expected, "I1", f"page {page} counts {found} holders and has {expected}")
            require(bool(self._cached[page]) == (page in cached), "I5", f"page {page} is wrongly marked as cached")
            require((page in free) == (found == 0), "I2", f"page {page} has {found} holders, free: {page in free}")
        in_use = sum(1 for count in users.values() if count)
        idle = sum(1 for page in cached if not users.get(page))
        require(self._num_in_use == in_use, "I3", f"{self._num_in_use} pages count as in use; {in_use} are")
        total = len(free) + idle + in_use
        require(total == self.num_pages, "I3", f"free, idle and used pages are {total}, of {self.num_pages}")
