"""Reads a text that arrives in pieces, as if it were there already: markers, JSON and Python literals.

Each method is a coroutine that is suspended where the text ends and goes on when more was fed, so a grammar is
written as plain calls. Every character is looked at a bounded number of times; nothing recurses deeper than
`MAX_DEPTH`. This module does not know replies or tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""A coroutine that is resumed when there is more text, and in the end returns T."""
Sink = Callable[[str], object]

MAX_DEPTH = 64
"""Of Python lists and dicts inside each other. JSON, which is copied and not converted, may nest as it likes."""
SPACE = " \t\r\n"

_VISIBLE = re.compile(r"[^ \t\r\n]")
_IN_STRING = {quote: re.compile(rf"[{quote}\\]") for quote in "\"'"}
_IN_JSON = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[\s,:{}\[\]()\"'=]")
_CLOSERS = {"{": "}", "[": "]"}
_WORDS = {"True": "true", "False": "false", "None": "null"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0", "\n": ""}


class Malformed(Exception):
    """The text is not what it was read as."""


class Markers:
    """Literals to be found in running text. `partial` finds the longest end of a text that may still become one."""

    def __init__(self, *literals: str) -> None:
        nothing = r"(?!)"
        self.pattern = re.compile("|".join(map(re.escape, literals)) or nothing)
        self.partial = re.compile(f"(?:{'|'.join(map(_beginning, literals)) or nothing})\\Z")
        self.longest = max(map(len, literals), default=0)


def _beginning(literal: str) -> str:
    """A pattern for every beginning: that of `<th` is `<(?:t(?:h)?)?`."""
    pattern = ""
    for char in reversed(literal):
        pattern = re.escape(char) + (f"(?:{pattern})?" if pattern else "")
    return pattern


class Reader:
    def __init__(self) -> None:
        self._buffer, self._at = "", 0
        self.is_final = False
        """No more text comes."""
        self.taken: list[str] = []
        """All that was read, by any method but `text_until`, since the caller emptied it."""

    def feed(self, text: str) -> None:
        self._buffer = self._buffer[self._at :] + text
        self._at = 0

    @property
    def is_unread(self) -> bool:
        return self._at < len(self._buffer)

    def take(self, count: int = 1) -> str:
        """Characters that have arrived."""
        text = self._buffer[self._at : self._at + count]
        self._at += len(text)
        self.taken.append(text)
        return text

    def peek(self) -> Steps[str]:
        """The next character, which stays, or "" at the end."""
        while self._at == len(self._buffer):
            if self.is_final:
                return ""
            yield
        return self._buffer[self._at]

    def copy_to(self, stop: re.Pattern[str], sink: Sink) -> Steps[str]:
        """Copy what stands before a character of a class; that character, which stays, or "" at the end."""
        while (yield from self.peek()):
            found = stop.search(self._buffer, self._at)
            end = found.start() if found else len(self._buffer)
            if end > self._at:
                sink(self.take(end - self._at))
            if found:
                return found[0]
        return ""

    def skip_space(self) -> Steps[str]:
        """The next character that is no whitespace, which stays, or "" at the end."""
        return (yield from self.copy_to(_VISIBLE, ignore))

    def choose(self, *literals: str) -> Steps[str]:
        """Skip whitespace and read one of the literals. Raises Malformed for anything else."""
        yield from self.skip_space()
        while True:
            for literal in literals:
                if self._buffer.startswith(literal, self._at):
                    return self.take(len(literal))
            is_short = [self._buffer[self._at :] for each in literals if len(each) > len(self._buffer) - self._at]
            if not any(literal.startswith(rest) for rest in is_short[:1] for literal in literals):
                raise Malformed
            if self.is_final:
                self.take(len(self._buffer))
                raise Malformed
            yield

    def text_until(self, markers: Markers, sink: Sink, held: str = "", trims: str = SPACE) -> Steps[tuple[str, str]]:
        """Copy text up to the next marker; (the whitespace before it, the marker), or ("", "") at the end.

        Whitespace (`trims`) is held back while a marker may follow; `held` was held back before.
        """
        space = [held]
        while True:
            found = markers.pattern.search(self._buffer, self._at)
            end = found.start() if found else len(self._buffer)
            if not found and not self.is_final:
                partial = markers.partial.search(self._buffer, max(self._at, end - markers.longest))
                end = partial.start() if partial else end
            text = self._buffer[self._at : end]
            self._at = found.end() if found else end
            if body := text.rstrip(trims) if trims else text:
                sink("".join([*space, body]))
                space = []
            space.append(text[len(body) :])
            if found:
                return "".join(space), found[0]
            if self.is_final:
                sink("".join(space))
                return "", ""
            yield

    def json_value(self, sink: Sink) -> Steps[None]:
        """Copy one value, knowing strings, escapes and brackets only. Raises Malformed at the end of the text."""
        first = yield from self.skip_space()
        if first not in _CLOSERS:
            yield from self.quoted('"', sink) if first == '"' else self.copy_to(_SCALAR_END, sink)
            return
        closers: list[str] = []
        while True:
            char = yield from self.copy_to(_IN_JSON, sink)
            if char == '"':
                yield from self.quoted(char, sink)
                continue
            if char in _CLOSERS:
                closers.append(_CLOSERS[char])
            elif char != closers.pop():
                raise Malformed
            sink(self.take())
            if not closers:
                return

    def quoted(self, quote: str, sink: Sink) -> Steps[None]:
        """Copy a string as it is written, quotes included. Raises Malformed at the end of the text."""
        yield from self.choose(quote)
        sink(quote)
        while (yield from self.copy_to(_IN_STRING[quote], sink)) == "\\":
            sink(self.take())
            sink(self.take(len((yield from self.peek()))))
        sink((yield from self.choose(quote)))

    def json_string(self) -> Steps[str]:
        """What a string says. Raises Malformed for anything else, and for what is no valid Unicode."""
        pieces: list[str] = []
        yield from self.quoted('"', pieces.append)
        try:
            text: str = json.loads("".join(pieces), strict=False)
            text.encode()
        except ValueError:
            raise Malformed from None
        return text

    def python_value(self, depth: int = 0) -> Steps[str]:
        """A literal of Python or JSON, as JSON. Raises Malformed for anything else."""
        first = yield from self.skip_space()
        if not first or depth > MAX_DEPTH:
            raise Malformed
        if first in _IN_STRING:
            pieces: list[str] = []
            yield from self.quoted(first, pieces.append)
            return json.dumps(_unescape("".join(pieces)[1:-1]), ensure_ascii=False)
        if first not in _CLOSERS:
            word: list[str] = []
            yield from self.copy_to(_SCALAR_END, word.append)
            return _as_json(_WORDS.get("".join(word), "".join(word)))
        closer = _CLOSERS[first]
        self.take()
        items: list[str] = []
        while (yield from self.skip_space()) != closer:
            item = yield from self.python_value(depth + 1)
            if first == "{":
                if not item.startswith('"'):
                    raise Malformed
                yield from self.choose(":")
                item += ": " + (yield from self.python_value(depth + 1))
            items.append(item)
            if (yield from self.skip_space()) != closer:
                yield from self.choose(",")
        self.take()
        return first + ", ".join(items) + closer


def ignore(text: str) -> None:
    """A sink for what is passed over."""


def python_literal(text: str) -> str:
    """A whole text that is one literal of Python or JSON, as JSON. Raises Malformed."""
    reader = Reader()
    reader.feed(text)
    reader.is_final = True
    try:
        next(reader.python_value())
    except StopIteration as done:
        value: str = done.value
    if reader.is_unread:
        raise Malformed
    return value


def _as_json(text: str) -> str:
    """The text itself if it is one JSON value. Raises Malformed."""
    try:
        json.loads(text, parse_constant=_refuse)
    except ValueError:
        raise Malformed from None
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _unescape(text: str) -> str:
    """A Python string's escapes. Raises Malformed for half a surrogate pair."""

    def said(escape: re.Match[str]) -> str:
        code = escape[1] or escape[2] or escape[3]
        return chr(int(code, 16)) if code else _ESCAPED.get(escape[4], escape[4])

    try:
        return _ESCAPE.sub(said, text).encode("utf-16", "surrogatepass").decode("utf-16")
    except (ValueError, OverflowError):
        raise Malformed from None
