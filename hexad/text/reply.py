"""A model's raw reply, in pieces of any size, to content, reasoning and tool calls.

Where the reply was cut into pieces makes no difference, the work is linear in its length, and only text that may still
become a marker or the beginning of a call is held back. What is no call of the format comes out as content exactly as
it was written, markers included. A call has begun when its name and the beginning of its arguments were read; from
there on arguments are passed on as the model writes them, so a reply that is cut off leaves a call with incomplete
arguments, and broken JSON stays broken for the reader to find. A call may name a tool that nobody offered, except
where no marker tells that it is a call. Whitespace beside a marker belongs to the marker. This module does not know
tokens or dialects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hexad.text.formats import Format
from hexad.text.formats import Tool as Tool
from hexad.text.json_refs import parts_of, values_of
from hexad.text.reader import SPACE, Malformed, Markers, Reader, Sink, Steps, ignore, python_literal

MAX_NAME = 256
"""Characters of a tool's name."""

_NAME_END = re.compile(r"[^\w.:/-]")
_KIND_OF = {"{": "object", "[": "array", '"': "string", "t": "boolean", "f": "boolean", "n": "null", "": "number"}
_CALL_KEYS = ("name", "arguments", "parameters", "id", "type")
_HEADER_END = Markers("<|message|>")
_BODY_END = Markers("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_RECIPIENT = re.compile(r"to=functions\.([\w.:/-]+)")


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the content."""

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
    """A piece of a call's arguments; the pieces add up to one JSON object."""

    index: int
    text: str


Event = Text | Reasoning | CallStart | CallArguments


class ReplyParser:
    """Reads one reply. `push` and `finish` return the events that became certain."""

    def __init__(self, format: Format, *, tools: Sequence[Tool], thinking: bool, prompt_tail: str = "") -> None:
        """Without `tools` no call is looked for. A reasoning section stands at the beginning of a reply: it is looked
        for with `thinking`, and in any case if the prompt, whose end is `prompt_tail`, has already opened it.
        """
        self._format = format
        self._tools = {tool.name: tool for tool in tools}
        self._is_opened = format.opens_reasoning(prompt_tail)
        self._reasoning = format.reasoning if thinking or self._is_opened else None
        self._reader = Reader()
        self._events: list[Event] = []
        self._num_calls = 0
        self.has_called = False
        """There are calls, and the newest is complete."""
        self._has_begun = False
        """A call of the current section."""
        self._has_said = False
        """Content, from which more of it stays apart as it was written."""
        self._steps = self._harmony() if format.style == "harmony" else self._reply()

    def push(self, text: str) -> list[Event]:
        self._reader.feed(text)
        return self._advance()

    def finish(self, *, cut: bool = False) -> list[Event]:
        """What was held back, once no more text comes. `cut`: it was not the model that ended the reply."""
        self._reader.is_final, self._is_cut = True, cut
        return self._advance()

    def _advance(self) -> list[Event]:
        next(self._steps, None)
        events, self._events = self._events, []
        return events

    def _say(self, text: str) -> None:
        self._has_said |= bool(text)
        if text:
            self._events.append(Text(text))

    def _think(self, text: str) -> None:
        if text:
            self._events.append(Reasoning(text))

    def _untake(self) -> str:
        """What was read of something that is no call."""
        text = "".join(self._reader.taken)
        self._reader.taken = []
        return text

    def _reply(self) -> Steps[None]:
        read, form = self._reader, self._format
        space = yield from self._thought()
        if not self._tools or form.style == "none":
            self._say(space)
            yield from read.text_until(Markers(), self._say, trims="")
            return
        if form.bare and (yield from read.peek()) == form.bare:
            space = yield from self._section(space, "")
        markers = Markers(*filter(None, [form.trigger]))
        while True:
            space, marker = yield from read.text_until(markers, self._say, space)
            if not marker:
                return
            space = yield from self._section(space, marker)

    def _thought(self) -> Steps[str]:
        """The reasoning section, if there is one. Returns whitespace that may belong to the content."""
        read = self._reader
        if self._reasoning is None:
            yield from read.skip_space()
            return self._untake()
        begin, end = self._reasoning
        try:
            if not self._is_opened:
                yield from read.choose(begin)
        except Malformed:
            return self._untake()
        yield from read.skip_space()
        yield from read.text_until(Markers(end), self._think)
        yield from read.skip_space()
        read.taken = []
        return ""

    def _section(self, space: str, marker: str) -> Steps[str]:
        """From a marker, just read, to the end of its calls. Returns whitespace that may belong to the content."""
        read = self._reader
        read.taken = [space, marker]
        self._has_begun = False
        try:
            yield from self._calls(marker)
        except Malformed:
            text = self._untake()
            if self._has_begun:
                text = "" if read.is_final and not (yield from read.peek()) else text.lstrip(SPACE)
            if text:
                self._say(text)
                return ""
        read.taken = []
        more = yield from read.skip_space()
        space = self._untake()
        return space if more and self._has_said else ""

    def _calls(self, marker: str) -> Steps[None]:
        read, form = self._reader, self._format
        begin, end = form.section
        for word in begin.removeprefix(marker).split():
            yield from read.choose(word)
        if begin and form.open:
            yield from read.choose(form.open.strip())
        another = [word for word in (form.separator.strip() or (begin and form.open.strip()), end) if word]
        call = {"object": self._object, "named": self._named, "python": self._python, "xml": self._xml}[form.style]
        while True:
            yield from call(bool(form.bare) and not marker)
            self.has_called = True
            read.taken = []
            if form.close:
                yield from read.choose(form.close.strip())
            if not another or (yield from read.choose(*another)) == end:
                return

    def _checked(self, name: str, must_be_known: bool = False) -> str:
        """The name of a tool. Raises Malformed for what cannot be one."""
        if name in self._tools or not (must_be_known or not 0 < len(name) <= MAX_NAME or _NAME_END.search(name)):
            return name
        raise Malformed

    def _begin(self, name: str) -> Sink:
        """A call begins. Returns what takes its arguments."""
        index = self._num_calls
        self._num_calls += 1
        self._has_begun, self.has_called = True, False
        self._events.append(CallStart(index, name))

        def take(text: str) -> None:
            self._reader.taken = []
            if text:
                self._events.append(CallArguments(index, text))

        return take

    def _object(self, must_be_known: bool) -> Steps[None]:
        """`{"name": "f", "arguments": {...}}`, in any order; other keys are passed over."""
        read = self._reader
        yield from read.choose("{")
        name, early, has_arguments = "", list[str](), False
        while True:
            key = yield from read.json_string()
            yield from read.choose(":")
            if key == "name" and not name:
                name = self._checked((yield from read.json_string()), must_be_known)
            elif key in ("arguments", "parameters") and not has_arguments:
                has_arguments = True
                yield from self._arguments(name, early.append)
            elif must_be_known and key not in _CALL_KEYS:
                raise Malformed
            else:
                yield from read.json_value(ignore)
            if (yield from read.choose(",", "}")) == "}":
                break
        if not name:
            raise Malformed
        if early or not has_arguments:
            self._begin(name)("".join(early) or "{}")

    def _arguments(self, name: str, early: Sink) -> Steps[None]:
        """An object, an object written as a string, or null; `early` takes it while the name is not known."""
        read = self._reader
        first = yield from read.skip_space()
        if first == "{":
            yield from read.json_value(self._begin(name) if name else early)
        else:
            text = yield from (read.json_string() if first == '"' else read.choose("null"))
            (self._begin(name) if name else early)(text if first == '"' and text else "{}")
        self.has_called |= bool(name)

    def _name(self) -> Steps[str]:
        yield from self._reader.skip_space()
        pieces: list[str] = []
        yield from self._reader.copy_to(_NAME_END, pieces.append)
        return "".join(pieces)

    def _named(self, must_be_known: bool) -> Steps[None]:
        """A name, for Mistral perhaps an id, a marker, and an object."""
        read, form = self._reader, self._format
        name = re.sub(f"{form.extra}$", "", (yield from self._name()))
        self._checked(name, must_be_known)
        between = form.between.strip()
        while (yield from read.choose(between, *form.hidden)) != between:
            yield from self._name()
        if (yield from read.skip_space()) != "{":
            raise Malformed
        yield from read.json_value(self._begin(name))

    def _python(self, must_be_known: bool) -> Steps[None]:
        """`f(a=1, b="x")`. It begins when it was read as a whole, for its values have to be understood."""
        read = self._reader
        name = self._checked((yield from self._name()), must_be_known)
        yield from read.choose("(")
        items: list[str] = []
        while (yield from read.skip_space()) != ")":
            key = yield from self._name()
            yield from read.choose("=")
            items.append(f"{_quoted(key)}: " + (yield from read.python_value()))
            if (yield from read.skip_space()) != ")":
                yield from read.choose(",")
        yield from read.choose(")")
        self._begin(name)("{" + ", ".join(items) + "}")

    def _xml(self, must_be_known: bool) -> Steps[None]:
        """`<function=f><parameter=a>value</parameter></function>`: the tool's schema tells what is no string."""
        read, form = self._reader, self._format
        begin, named, end = map(str.strip, form.function)
        before, between, _ = form.parameter
        yield from read.choose(begin)
        name = self._checked((yield from self._name()), must_be_known)
        yield from read.choose(named)
        marker = yield from read.choose(before, end)
        take = self._begin(name)
        tool = self._tools.get(name, Tool(name=name))
        described = parameters_of(tool)
        opening = "{"
        while marker == before:
            key: list[str] = []
            yield from read.copy_to(re.compile(between[0]), key.append)
            for word in between.split():
                yield from read.choose(word)
            take(f"{opening}{_quoted(''.join(key))}: ")
            yield from self._parameter(kinds_of(described.get("".join(key)), tool), take)
            opening = ", "
            marker = yield from read.choose(before, end)
        take("}" if opening == ", " else "{}")

    def _parameter(self, kinds: set[str], take: Sink) -> Steps[None]:
        """A value up to its end tag. One newline at each end is not part of it where the format puts them there."""
        read = self._reader
        _, between, behind = self._format.parameter
        end = Markers(behind.rstrip(), behind.strip())
        if between.endswith("\n") and (yield from read.peek()) == "\n":
            read.take()
        if kinds == {"string"}:
            take('"')
            _, marker = yield from read.text_until(end, lambda text: take(_quoted(text)[1:-1]), trims="")
            value = '"'
        else:
            pieces: list[str] = []
            _, marker = yield from read.text_until(end, pieces.append, trims="")
            value = _typed("".join(pieces), kinds)
        if not marker:
            raise Malformed
        take(value)

    def _harmony(self) -> Steps[None]:
        """Messages of OpenAI's harmony: a header names channel and recipient, then comes the body."""
        read = self._reader
        while (yield from read.peek()):
            read.taken = []
            header: list[str] = []
            try:
                header.append((yield from read.choose("<|start|>", "<|channel|>", "assistant", "to=")))
                _, marker = yield from read.text_until(_HEADER_END, header.append, trims="")
                header.append(marker)
            except Malformed:
                self._say(self._untake())
                yield from read.text_until(_BODY_END, self._say, trims="")
                continue
            recipient = _RECIPIENT.search("".join(header))
            say: Sink = self._think if "<|channel|>analysis" in "".join(header) else self._say
            if not marker or recipient and not self._tools:
                self._say("".join(header))
            elif recipient:
                say, first = self._begin(recipient[1]), (yield from read.skip_space())
                if first == "<" or not (first or self._is_cut):
                    say("{}")
                    self.has_called = True
                elif first == "{":
                    with suppress(Malformed):
                        yield from read.json_value(say)
                        self.has_called = True
                        yield from read.skip_space()
                    say = self._say
            yield from read.text_until(_BODY_END, say, trims="")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def parameters_of(tool: Tool) -> dict[str, Any]:
    """The schemas of its parameters."""
    found = [part.get("properties") for part in parts_of(tool.parameters, tool.parameters)]
    return {name: schema for each in found if isinstance(each, dict) for name, schema in each.items()}


def kinds_of(schema: Any, tool: Tool) -> set[str]:
    """The types of JSON that a parameter's schema names; for one that is not described: a string."""
    if schema is None:
        return {"string"}
    kinds = set[str]()
    for part in parts_of(schema, tool.parameters):
        named = part["type"] if isinstance(part.get("type"), list) else [part.get("type")]
        of_values = {_KIND_OF.get(json.dumps(value)[0], "number") for value in values_of(part)}
        kinds |= {kind for kind in named if isinstance(kind, str)} or of_values or set(_KIND_OF.values())
    return kinds


def _typed(text: str, kinds: set[str]) -> str:
    """A parameter's text as JSON: a literal of the types that are asked for, or else a string."""
    try:
        value = python_literal(text)
    except Malformed:
        return _quoted(text)
    kind = _KIND_OF.get(value[0], "number")
    is_asked = kind in kinds or kind == "number" and "integer" in kinds
    return value if is_asked and kind != "string" else _quoted(text)
