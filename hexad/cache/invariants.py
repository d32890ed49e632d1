"""The error of a structure whose own books do not balance."""

from __future__ import annotations


class InvariantBroken(AssertionError):
    """`check_invariants()` found a contradiction; the message starts with the invariant's name.

    Raised explicitly, so it also works under `python -O`.
    """


def require(holds: bool, name: str, detail: str) -> None:
    if not holds:
        raise InvariantBroken(f"{name}: {detail}")
