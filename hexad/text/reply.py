"""What a model's raw reply is made of: content, reasoning, tool calls.

This module knows text; it does not know tokens, templates or wire formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hexad.text.formats import Format


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    """JSON schema of its arguments, an object."""
    strict: bool = False
    """Calls must match `parameters`."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of JSON; the pieces of a call are one object."""

    index: int
    text: str


Event = Text | Reasoning | CallStart | CallArguments


class ReplyParser:
    """One answer's parser. `prompt_tail`: how the prompt ended, for it may have begun the reasoning."""

    def __init__(self, format: Format, *, tools: Sequence[Tool], thinking: bool, prompt_tail: str = "") -> None:
        pass

    def push(self, text: str) -> list[Event]:
        return [Text(text)] if text else []

    def finish(self) -> list[Event]:
        return []
