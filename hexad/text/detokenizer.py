"""Text of a growing list of tokens, never half a character.

A token is a string of bytes, so streaming is incremental UTF-8 decoding: constant time a
token, at most three bytes held back, and an invalid byte is replaced (U+FFFD) as soon as it
is known to be invalid. Does not know stop strings or where the tokens come from.

The pieces add up to what `Tokenizer.decode` gives for all the tokens, with one exception:
in a run of byte tokens (SentencePiece) that is not valid UTF-8, `decode` replaces the whole
run, even characters that were complete; they are kept here, for they have been sent.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from hexad.text.tokenizer import Tokenizer


class Detokenizer:
    """The text that one answer's tokens add to its prompt."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int] = (),
        skip_special_tokens: bool = True,
        visible: frozenset[int] = frozenset(),
    ) -> None:
        """`prompt_ids` decide whether a leading space is text, and complete a character cut at the prompt's end.

        `visible` special tokens are not skipped.
        """
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_token_ids - visible if skip_special_tokens else frozenset()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._spaces_to_drop = tokenizer.rules.leading_spaces
        self._replay(prompt_ids)

    def _replay(self, prompt_ids: Sequence[int]) -> None:
        """The state after the prompt: the last three bytes decide it, and whether there was any text."""
        tail = b""
        for token_id in reversed(prompt_ids):
            tail = self._bytes(token_id) + tail
            if len(tail) >= 3:
                break
        self._text_of(tail)

    def _bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._skipped else self._tokenizer.token_bytes(token_id)

    def _text_of(self, new: bytes, final: bool = False) -> str:
        text = self._decoder.decode(new, final)
        while text and self._spaces_to_drop:
            self._spaces_to_drop -= 1
            if not text.startswith(" "):
                self._spaces_to_drop = 0
            text = text.removeprefix(" ")
        return text

    def push(self, token_id: int) -> str:
        """The text that is certain now; "" while a character is incomplete."""
        return self._text_of(self._bytes(token_id))

    def finish(self) -> str:
        """What was held back: nothing, or U+FFFD for a character that was never completed."""
        return self._text_of(b"", final=True)
