"""Which models make room for another: arithmetic on what is in memory.

It knows sizes and times of last use; it knows no engine and no clock, and it does not wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Resident(NamedTuple):
    """What one set of weights holds, with its KV cache."""

    size: int
    used: float
    """When it was last used; greater is later."""
    busy: bool = False
    """Requests run on it: it can leave, once they have ended."""
    leaving: bool = False
    """It leaves already."""
    fixed: bool = False
    """It must not leave."""


def make_room(residents: Sequence[Resident], size: int, budget: int) -> list[int] | None:
    """Indices of those to leave so that `size` more bytes fit into `budget`; None when nothing would make them fit.

    The idle leave before the busy, the longest unused first, and nobody leaves in vain. Those that leave already
    are waited for first.
    """
    missing = sum(resident.size for resident in residents) + size - budget
    chosen: list[int] = []
    order = sorted(range(len(residents)), key=lambda i: _rank(residents[i]))
    for index in order:
        if missing <= 0:
            break
        if residents[index].leaving or not residents[index].fixed:
            chosen.append(index)
            missing -= residents[index].size
    if missing > 0:
        return None
    for index in reversed(chosen):  # the last to be chosen is needed; those before it may not be
        if missing + residents[index].size <= 0:
            missing += residents[index].size
            chosen.remove(index)
    return chosen


def _rank(resident: Resident) -> tuple[bool, bool, float]:
    return not resident.leaving, resident.busy, resident.used
