"""JSON Schema's own test suite, and what a grammar lets through, token by token."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from llguidance import LLMatcher

from hexad.checkpoints.generation import read_generation_defaults
from hexad.decoding.grammar import Vocabulary
from hexad.text.tokenizer import Tokenizer

SUITE = Path(__file__).parents[1] / "data" / "json_schema_suite"
DEMO = Path(__file__).parents[2] / "hexad" / "checkpoints" / "demo"
MAX_ORDERS = 200
STRUCTURE = b'"\\u0061-.e[]{},: btrfnl5'
"""What sampled answers are mostly made of: what opens, closes and escapes."""


class Case(NamedTuple):
    name: str
    schema: Any
    tests: list[dict[str, Any]]


def suite() -> list[Case]:
    return [
        Case(f"{path.stem}: {case['description']}", case["schema"], case["tests"])
        for path in sorted(SUITE.glob("*.json"))
        for case in json.loads(path.read_text())
    ]


def demo_vocabulary() -> tuple[Tokenizer, Vocabulary]:
    tokenizer = Tokenizer.load(DEMO)
    return tokenizer, Vocabulary(tokenizer, read_generation_defaults(DEMO).eos_token_ids)


def on_a_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def spellings(value: Any) -> Iterator[Any]:
    """The same JSON value with its keys in other orders: a grammar has one for those that the schema names. Numbers are
    spelled as integers where they are: 1.0 is 1."""
    if isinstance(value, dict):
        for values in itertools.product(*(list(spellings(each)) for each in value.values())):
            yield from map(dict, itertools.permutations(zip(value, values, strict=True)))
    elif isinstance(value, list):
        yield from map(list, itertools.product(*(list(spellings(each)) for each in value)))
    else:
        yield int(value) if isinstance(value, float) and value.is_integer() else value


def admits(matcher: LLMatcher, tokenizer: Tokenizer, value: Any) -> bool:
    """Whether some spelling of `value` is a whole answer."""
    for spelling in itertools.islice(spellings(value), MAX_ORDERS):
        tokens = tokenizer.encode(on_a_line(spelling), add_special_tokens=False, allow_special=False)
        walk = matcher.deep_copy()
        if walk.try_consume_tokens(tokens) == len(tokens) and walk.is_accepting():
            return True
    return False


class Bytes:
    """A vocabulary of single bytes, in which every spelling can be met."""

    def __init__(self) -> None:
        self.vocabulary = Vocabulary(Tokenizer.of_bytes(), [])
        self._token = {each: i for i, each in reversed(list(enumerate(self.vocabulary.tokens))) if len(each) == 1}

    def answer(self, start: LLMatcher, rng: random.Random, size: int = 60) -> str | None:
        """Drawn under the mask, byte by byte; None where it is not complete after `size` bytes."""
        walk, text = start.deep_copy(), b""
        while not (walk.is_accepting() and (walk.is_stopped() or rng.random() < 0.4)):
            bits = np.unpackbits(np.frombuffer(walk.compute_bitmask(), np.uint8), bitorder="little")
            allowed = [each for each, token in self._token.items() if bits[token]]
            if not allowed or len(text) == size:
                assert walk.is_accepting() or allowed, f"nothing may follow {text!r}"
                return text.decode() if walk.is_accepting() else None
            closing = [each for each in allowed if each in b'"]}'] if len(text) > size / 2 else []
            text += rng.choice(closing or [each for each in allowed if each in STRUCTURE] or allowed)
            walk.consume_token(self._token[text[-1:]])
        return text.decode()
