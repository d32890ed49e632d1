"""Which tokens an answer may go on with: llguidance over Hexad's tokenizers.

What may come next is a pure function of a grammar and the tokens generated so far: `Walk` only
remembers what it would otherwise work out again from the first token on. Where the grammar
leaves no choice, its text is spelled in tokens once, when the walk comes there, and these are then the
only ones allowed, one after another; so it does not matter whether they are drawn or taken at once.

This module does not know requests, logits or schedules. It is loaded when a grammar is first
used, because llguidance takes 45 ms to import (`hexad/engine/grammars.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from hexad.errors import BadRequest, RequestFailed
from hexad.text.grammar import to_grammar
from hexad.text.tokenizer import Tokenizer
from hexad.types import StructuredOutputs

Bits = NDArray[np.uint8]
"""Eight tokens a byte, the lowest bit first."""

LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
"""llguidance's own, but for the states that a walk may grow to (1 to 2 kB each)."""


class Vocabulary:
    """A model's tokens as llguidance wants them: their bytes, and which of them are special.

    `eos_token_ids` may be empty, or lie beyond the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, eos_token_ids: Iterable[int]) -> None:
        size = tokenizer.max_token_id + 1
        # One more, that the model never draws: llguidance wants to end somehow.
        self.tokens = [*map(tokenizer.token_bytes, range(size)), b"<end>"]
        self.special_token_ids = [*sorted(tokenizer.special_token_ids), size]
        known = [token for token in eos_token_ids if token < size]
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
        if matcher.is_error():
            raise BadRequest(f"the grammar cannot be served: {_cause(matcher)}", param="structured_outputs")
        if not matcher.is_accepting() and not any(matcher.compute_bitmask()):
            raise BadRequest("the grammar matches no text at all; relax it", param="structured_outputs")
        return matcher


class Walk:
    """A grammar, and the tokens that it has taken."""

    def __init__(self, start: LLMatcher) -> None:
        self._matcher = start.deep_copy()
        self.tokens: list[int] = []
        self.forced: list[int] = []
        """What must come next. Empty where there is a choice."""
        self._look()

    @property
    def complete(self) -> bool:
        """Nothing may follow."""
        return not self.forced and self._matcher.is_stopped()

    def leads_to(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` go on from here."""
        return self.tokens == tokens[: len(self.tokens)]

    def follow(self, tokens: Sequence[int]) -> None:
        """Take all of `tokens` that it has not. Raises RequestFailed for one that may not come."""
        for token in tokens[len(self.tokens) :]:
            self._take(token)

    def _take(self, token: int) -> None:
        if not self._matcher.consume_token(token) or (self.forced and token != self.forced[0]):
            raise RequestFailed(
                f"token {token} at position {len(self.tokens)} of the answer does not follow its grammar: "
                f"{_cause(self._matcher)}"
            )
        self.tokens.append(token)
        self.forced = self.forced[1:]
        self._look()

    def _look(self) -> None:
        if not self.forced and not self._matcher.is_stopped():
            found = self._matcher.compute_ff_tokens()
            self.forced = found[: self._matcher.validate_tokens(found)]

    def jump(self) -> list[int]:
        """Take all tokens that must come; returns them."""
        taken: list[int] = []
        while self.forced:
            taken.append(self.forced[0])
            self._take(self.forced[0])
        return taken

    def allowed(self) -> Bits:
        """The tokens that may come next; from here on one bit each. Raises RequestFailed where a limit is reached."""
        if self.forced:
            bits = np.zeros(self.forced[0] // 8 + 1, np.uint8)
            bits[-1] = 1 << self.forced[0] % 8
            return bits
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise RequestFailed(f"the grammar cannot be followed any further: {_cause(self._matcher)}")
        return np.frombuffer(mask, np.uint8)


def _cause(matcher: LLMatcher) -> str:
    """The first line: what follows is the parser's state."""
    return (matcher.get_error() or "another token must come").strip().split("\n")[0]
