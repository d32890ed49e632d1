"""How model families write reasoning and tool calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    name: str


FORMATS = {"plain": Format("plain")}


def detect(template_source: str) -> Format:
    """The format whose markers a chat template writes."""
    return FORMATS["plain"]
