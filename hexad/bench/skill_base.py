"""What every skill is made of: an example, the split into training and held out, and words that nobody has seen.

It does not know any skill.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from hexad.bench.harbour import ADJECTIVES, CITIES, FIRST_NAMES, LAST_NAMES, NOUNS

Message = dict[str, object]
Tool = dict[str, object]
Maker = Callable[[random.Random], str | int]

HELD_OUT_PERCENT = 10


@dataclass(frozen=True)
class Example:
    """Messages to send, with the tools on offer, and the one right answer. `key` decides the split."""

    skill: str
    messages: list[Message]
    tools: list[Tool] | None
    answer: str
    key: str


def is_held_out(skill: str, key: str) -> bool:
    """True for about a tenth of all keys, the same tenth everywhere and for ever."""
    digest = hashlib.blake2b(f"{skill}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def pick_key(skill: str, held_out: bool, draw: Callable[[], str]) -> str:
    """Draws until a key falls on the wanted side of the split."""
    while is_held_out(skill, key := draw()) != held_out:
        pass
    return key


# Words and strings that nobody has seen


def pseudo_word(rng: random.Random) -> str:
    """A word that is in no list, such as `trelomi`."""
    onsets = ("b", "br", "ch", "d", "dr", "f", "g", "gl", "h", "j", "k", "kr", "l", "m", "n", "p", "qu", "r", "s", "sh",
              "st", "t", "tr", "v", "w", "y", "z")  # fmt: skip
    ends = ("", "", "", "l", "m", "n", "r", "s", "t", "x")
    return "".join(rng.choice(onsets) + rng.choice("aeiou") + rng.choice(ends) for _ in range(rng.randint(2, 3)))


def code(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """Random capitals and digits, such as `K7QX2`."""
    return "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(shortest, longest)))


def number(rng: random.Random) -> str:
    """A whole number of one to five digits, every length as likely."""
    return str(rng.randrange(10 ** rng.randint(1, 5)))


def full_name(rng: random.Random) -> str:
    """A first and a last name; a third of the names are invented."""
    if rng.random() < 0.35:
        return f"{pseudo_word(rng)} {pseudo_word(rng)}".title()
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def place(rng: random.Random) -> str:
    """A city, a third of the time an invented one."""
    return pseudo_word(rng).title() if rng.random() < 0.35 else rng.choice(CITIES)


def phrase(rng: random.Random, longest: int) -> str:
    """Plain words from the lists, such as `quiet amber harbor`."""
    return " ".join(rng.choices(ADJECTIVES + NOUNS, k=rng.randint(1, longest)))


def small(low: int, high: int) -> Maker:
    return lambda rng: rng.randint(low, high)


def one_of(*words: str) -> Maker:
    return lambda rng: rng.choice(words)


def clock(rng: random.Random) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"
