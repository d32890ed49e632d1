"""Finds stop strings in text that arrives in pieces. Does not know tokens.

The match that is complete first wins, and of two that end together the longer one, so the
result does not depend on how the text was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """One answer's stop strings. Each is an automaton of Knuth, Morris and Pratt (1977).

    Only text that could still become a stop string is held back.
    """

    def __init__(self, stops: Sequence[str], include_stop: bool = False) -> None:
        """`include_stop`: the stop string itself is part of the emitted text. Stops must not be empty."""
        self._stops = sorted(stops, key=len, reverse=True)
        self._include_stop = include_stop
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        """Of each stop, the characters that the text ends with."""
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that can be shown, and the stop string that ended it, if any. After a stop, push no more."""
        if not self._stops:
            return text, None
        text = self._held + text
        for end in range(len(self._held), len(text)):
            stop = self._advance(text[end])
            if stop is not None:
                self._held = ""
                return text[: end + 1 if self._include_stop else end + 1 - len(stop)], stop
        sure = len(text) - max(self._matched)
        self._held = text[sure:]
        return text[:sure], None

    def _advance(self, char: str) -> str | None:
        """The longest stop that `char` completes."""
        found = None
        for index, stop in enumerate(self._stops):
            length = self._matched[index]
            while length and stop[length] != char:
                length = self._borders[index][length - 1]
            if stop[length] == char:
                length += 1
            if length == len(stop):
                found = found or stop
                length = self._borders[index][length - 1]
            self._matched[index] = length
        return found

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _borders(pattern: str) -> list[int]:
    """Of each prefix, the length of its longest proper suffix that is also a prefix."""
    borders = [0] * len(pattern)
    length = 0
    for index in range(1, len(pattern)):
        while length and pattern[index] != pattern[length]:
            length = borders[length - 1]
        if pattern[index] == pattern[length]:
            length += 1
        borders[index] = length
    return borders
