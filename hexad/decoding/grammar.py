"""Which tokens an answer may go on with: llguidance over Hexad's tokenizers.

What may come next is a pure function of a grammar and the tokens generated so far: `Walk` only
remembers what it would otherwise work out again from the first token on. Where the grammar
leaves no choice, its text is spelled in tokens once, when the walk comes there, and these are then the
only ones allowed, one after another; so it does not matter whether they are drawn or taken at once.

This module does not know requests, logits or schedules. It is loaded when a grammar is first
used, because llguidance takes 45 ms to import (`hexad/engine/grammars.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from hexad.errors import BadRequest, RequestFailed, Unsatisfiable
from hexad.text.grammar import to_grammar
from hexad.text.tokenizer import Tokenizer
from hexad.types import StructuredOutputs

Bits = NDArray[np.uint8]
"""Eight tokens a byte, the lowest bit first."""

LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""llguidance's own, but for the states that a walk may grow to (1 to 2 kB each)."""
MAX_JUMP = 256
"""Tokens that are taken at once."""
MAX_TRIED = 16
"""First tokens that a new grammar is tried with."""
MAX_FORCED = 4096
"""Tokens that an answer may begin with by force: a grammar that goes round and round forces ever more."""


class Vocabulary:
    """A model's tokens as llguidance wants them: their bytes, and which of them are special.

    `eos_token_ids` may be empty, or lie beyond the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: Iterable[int]) -> None:
        size = tokenizer.max_token_id + 1
        # One more, that the model never draws: llguidance wants to end somehow.
        self.tokens = [*map(tokenizer.token_bytes, range(size)), b"<end>"]
        known = [token for token in eos_token_ids if token < size]
        self.special_token_ids = sorted({*tokenizer.special_token_ids, *known, size})
        self.eos_token_id = (known or [size])[0]
        self.bos_token_id = tokenizer.bos_token_id
        self.is_tokenizer_wrapper = True
        self._tokenizer = tokenizer
        self._ll = LLTokenizer(self, eos_token=known or [size])  # type: ignore[arg-type]

    def __call__(self, text: str) -> list[int]:
        """How the model would spell `text` in the middle of an answer."""
        found = self._tokenizer.encode_inside(text)
        return self._ll.greedy_tokenize(text) if found is None else found

    def grammar(self, wanted: StructuredOutputs) -> str:
        """Raises BadRequest for what cannot be written as a grammar."""
        special = [self.tokens[token].decode("utf-8", "replace") for token in self.special_token_ids]
        return to_grammar(wanted, special)

    def compile(self, grammar: str) -> LLMatcher:
        """Raises BadRequest for a grammar that is wrong, too large, or matches nothing at all."""
        matcher = LLMatcher(self._ll, grammar, log_level=0, limits=LIMITS)
        if problem := _cause(matcher) or (not matcher.is_accepting() and self._try(matcher.deep_copy())):
            raise BadRequest(f"the grammar cannot be served: {problem}", param="structured_outputs")
        return matcher

    def _try(self, matcher: LLMatcher) -> str:
        """What is wrong with some first steps: some limits are met only there."""
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        bits[[*range(len(self.tokens), len(bits)), *self._ll.eos_tokens]] = 0
        if not bits.any():
            return "it matches no text at all"
        if len(forced := matcher.compute_ff_tokens()) > MAX_FORCED:
            return f"it forces {len(forced)} tokens in a row, and may have no end; at most {MAX_FORCED} may be forced"
        choices = np.flatnonzero(bits).tolist()
        for token in choices[:: 1 + len(choices) // MAX_TRIED]:
            step = matcher.deep_copy()
            step.consume_token(token)
            step.compute_bitmask()
            if problem := _cause(step):
                return problem
        return ""


class Walk:
    """A grammar, and the tokens that it has taken."""

    def __init__(self, start: LLMatcher) -> None:
        self._start = start
        self._begin()

    def _begin(self) -> None:
        self._matcher = self._start.deep_copy()
        self.tokens: list[int] = []
        self.forced: list[int] = []
        """What must come next. Empty where there is a choice."""
        self._look()

    @property
    def complete(self) -> bool:
        """Nothing may follow."""
        return not self.forced and self._matcher.is_stopped()

    def follow(self, tokens: Sequence[int]) -> None:
        """Come to `tokens`: from here, or from the beginning. Raises RequestFailed for one that may not come."""
        if self.tokens != tokens[: len(self.tokens)]:
            self._begin()
        for token in tokens[len(self.tokens) :]:
            self._take(token)

    def _take(self, token: int) -> None:
        if not self._matcher.consume_token(token) or (self.forced and token != self.forced[0]):
            raise RequestFailed(
                f"token {token} at position {len(self.tokens)} of the answer does not follow its grammar: "
                f"{_cause(self._matcher) or 'another one must come'}"
            )
        self.tokens.append(token)
        self.forced = self.forced[1:]
        self._look()

    def _look(self) -> None:
        if not self.forced and not self._matcher.is_stopped():
            found = self._matcher.compute_ff_tokens()
            self.forced = found[: self._matcher.validate_tokens(found)]

    def jump(self) -> list[int]:
        """Take the tokens that must come; returns them."""
        taken: list[int] = []
        while self.forced and len(taken) < MAX_JUMP:
            taken.append(self.forced[0])
            self._take(self.forced[0])
        return taken

    def allowed(self) -> Bits:
        """The tokens that may come next; from here on one bit each. Raises Unsatisfiable where a limit is reached."""
        if self.forced:
            bits = np.zeros(self.forced[0] // 8 + 1, np.uint8)
            bits[-1] = 1 << self.forced[0] % 8
            return bits
        mask = self._matcher.compute_bitmask()
        if problem := _cause(self._matcher):
            raise Unsatisfiable(f"the grammar cannot be followed any further: {problem}")
        return np.frombuffer(mask, np.uint8)


def _cause(matcher: LLMatcher) -> str:
    """Why it does not go on, in one line, without the grammar and the parser's state; nothing where it does."""
    error = re.split(r"\n +1 \| |<state>", matcher.get_error())[0] if matcher.is_error() else ""
    return " ".join(error.removeprefix("at 2(8): ").split())[:300]
