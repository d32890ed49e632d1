"""Who may take one more place where places are few."""

from __future__ import annotations

from collections import Counter

from hexad.errors import Overloaded


def check_places(taken: Counter[str], client: str, places: int, what: str, limit: str) -> None:
    """Raises Overloaded when all `places` are taken, or this client's share of them; `taken` says how many by whom.

    A named client may hold no more places than are still free (Choudhury and Hahne's dynamic threshold, 1998), so that
    there is always room for another.
    """
    held, free = taken[client], places - taken.total()
    if free <= 0:
        raise Overloaded(f"{taken.total()} {what}, as many as {limit}; try again later")
    if client and held >= free:
        raise Overloaded(
            f"of {client}, {held} {what}, and {free} places are free; the rest is kept for others; try again later",
            code="client_queue_full",
        )
