"""What is written in a conversation stays text: the spelling of a control token there never becomes that token.

The spellings are marked before a chat template sees them, and the prompt is tokenized around the marks. This module
does not know templates.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from hexad.text.tokenizer import Tokenizer


class Literals:
    """One conversation's marks, which nobody can guess. Noncharacters: no template has a rule about them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._mark = f"\ufdd0{secrets.token_hex(8)}\ufdd1"
        self._special = re.compile("|".join(map(re.escape, tokenizer.control_words)) or "(?!)")

    def marked(self, value: Any) -> Any:
        """`value`, any JSON, with a mark on both sides of each spelling."""
        if isinstance(value, str):
            return self._special.sub(lambda match: self._mark + match[0] + self._mark, value)
        if isinstance(value, list):
            return [self.marked(item) for item in value]
        if isinstance(value, dict):
            return {name: self.marked(item) for name, item in value.items()}
        return value

    def unmarked(self, prompt: str) -> str:
        return prompt.replace(self._mark, "")

    def encode(self, prompt: str, add_special_tokens: bool) -> list[int]:
        """The tokens of a marked prompt."""
        ids: list[int] = []
        for index, part in enumerate(prompt.split(self._mark)):
            ids += self._tokenizer.encode(
                part, add_special_tokens=add_special_tokens and not index, allow_special=not index % 2
            )
        return ids
