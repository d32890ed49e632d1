"""Grammars of whole replies: calls that must be made, or obey their schema, and answers that follow a reasoning.

Written in llguidance's Lark, in the model's own format, so that `ReplyParser` reads what they force. A marker that is
one token can only be that token. This module does not know tokenizers, and does not compile what it writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

from hexad.errors import BadRequest
from hexad.text.formats import MARKER, Format, Tool
from hexad.text.grammar import SPACING, quoted
from hexad.text.json_refs import parts_of, values_of
from hexad.text.json_schema import ANNOTATIONS
from hexad.text.reply import kinds_of, parameters_of

_FREE_TEXT = ANNOTATIONS | {"type"}
"""What the schema of a string may say where its value stands unquoted."""
_NAMES = _FREE_TEXT | {"properties", "required", "additionalProperties", "$defs", "definitions", "$schema", "$id"}
"""What the schema of arguments may say where each has a tag or a keyword."""
_SPACE = r"/[ \n]{0,4}/"


def reply_grammar(
    format: Format,
    *,
    tools: Sequence[Tool] = (),
    choice: Literal["auto", "none", "required"] = "auto",
    parallel: bool = True,
    only: bool = False,
    answer: str = "",
    thinking: bool = True,
    prompt_tail: str = "",
    tokens: Mapping[str, int],
) -> str | None:
    """What the raw reply must look like; None where it is free.

    `tools` may be called: one with choice "required", or several if `parallel`; with "auto" the model is free not to,
    and with `only` a call of another tool, or one too many, is impossible all the same. Schemas of `strict` tools are
    enforced to the letter, others as far as llguidance knows their keywords. `answer`
    is a Lark expression for a reply that is no call (`%json {...}`, `%lark {...}`, `/regex/`). A reasoning section
    may come first with `thinking`, and does if `prompt_tail` has opened it. `tokens` are `Format.tokens`.

    Raises BadRequest where the model's format of calls is unknown, and for what the format cannot express.
    """
    callable_tools = list(tools) if choice != "none" else []
    if choice == "required" and not callable_tools:
        raise BadRequest("tool_choice requires a call, and no tool may be called; offer one", param="tool_choice")
    if choice == "required" and format.style == "none":
        raise BadRequest(
            "tool_choice requires a call, and how this model writes calls is not known; set tool_format",
            param="tool_choice",
        )
    is_free = choice != "required" and not answer
    held = callable_tools and (only or any(tool.strict for tool in callable_tools))
    if is_free and not held or format.style == "none" and not answer:
        return None
    write = _Writer(format, tokens)
    content = write.content(callable_tools if format.style != "none" else [], parallel, choice, answer)
    return write.grammar(write.reasoning(thinking, format.opens_reasoning(prompt_tail)), content)


class _Writer:
    """Rules of one grammar. Every method returns an expression."""

    def __init__(self, format: Format, tokens: Mapping[str, int]) -> None:
        self._format = format
        self._tokens = tokens
        self._rules: list[str] = []

    def grammar(self, *parts: str) -> str:
        return "\n".join(["%llguidance {}", f"start: {' '.join(parts)}", *self._rules]) + "\n"

    def _rule(self, body: str, name: str = "r", attributes: str = "") -> str:
        name += str(len(self._rules))
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def _literal(self, text: str) -> str:
        pieces = re.split(f"({MARKER.pattern})", text)
        return " ".join(f"<[{self._tokens[p]}]>" if p in self._tokens else quoted(p) for p in pieces if p) or '""'

    def _text(self, without: str, pattern: str = "(?s:.*)") -> str:
        """Any text, of a pattern, in which a marker does not stand."""
        excluded = re.escape(without).replace("/", r"\/")
        return self._rule(f"/{pattern}/" + (f" & ~/(?s:.*){excluded}(?s:.*)/" if without else ""), "TEXT")

    def _text_to(self, literal: str) -> str:
        """Any text, and the literal that ends it."""
        marker = MARKER.match(literal)
        if marker and marker[0] in self._tokens:
            return f"{self._text(marker[0])} {self._literal(literal)}"
        return self._rule(f"/(?s:.*)/ {quoted(literal)}", attributes="[lazy]")

    def reasoning(self, thinking: bool, is_opened: bool) -> str:
        if self._format.reasoning is None or not (thinking or is_opened):
            return '""'
        begin, end = self._format.reasoning
        rest = f"{self._text_to(end)} {_SPACE}"
        line = r'"\n"?' if self._format.style != "harmony" else ""  # GLM begins one
        return rest if is_opened else f"({line} {self._literal(begin)} {rest})?"

    def content(self, tools: Sequence[Tool], parallel: bool, choice: str, answer: str) -> str:
        form = self._format
        opening = self._literal(form.answer) if form.answer else ""
        if not tools:
            return f"{opening} {answer}"
        if choice == "required":
            return self._calls(tools, parallel, is_free=False)
        if answer:
            return self._rule(f"{self._calls(tools, parallel, is_free=False)} | {opening} {answer}")
        if form.trigger and not form.bare and form.style != "harmony":
            repeat = "*" if parallel and not form.section[0] else "?"
            return f"({self._calls(tools, False, is_free=True)}){repeat} {self._text(form.trigger)}"
        no_call = rf"([ \t\r\n]*[^ \t\r\n{re.escape(form.bare)}](?s:.*))?" if form.bare else "(?s:.*)"
        text = self._text(form.trigger, no_call)
        return self._rule(f"{self._calls(tools, parallel, is_free=False)} | {opening} {text}")

    def _calls(self, tools: Sequence[Tool], parallel: bool, is_free: bool) -> str:
        """`is_free`: any text may come before."""
        form = self._format
        first, last = form.section
        opening = "" if form.bare else form.open
        closing = form.close if form.style != "harmony" else ""
        one = self._rule(" | ".join(map(self._call, tools)))
        further = self._literal(form.separator + opening)
        again = f"({further} {one} {self._literal(closing)})*" if parallel and form.style != "harmony" else ""
        begin = (self._text_to if is_free else self._literal)(first + opening)
        return f"{begin} {one} {self._literal(closing)} {again} {self._literal(last)}"

    def _call(self, tool: Tool) -> str:
        form = self._format
        if form.style == "python":
            return f"{quoted(tool.name + '(')} {self._keywords(tool)} {quoted(')')}"
        if form.style == "xml":
            parameters = " ".join(self._parameter(tool, *item) for item in _properties(tool))
            begin, named, end = map(self._literal, form.function)
            return f"{begin} {quoted(tool.name)} {named} {parameters} {end}"
        arguments = _json(tool)
        if form.style == "object":
            head = f'{{"name": {quoted(tool.name)}, "{form.arguments}": '
            return f"{quoted(head)} {arguments} {f'(/{form.extra}/)?' if form.extra else ''} {quoted('}')}"
        extra = f"/{form.extra}/" if form.extra else ""
        if form.style == "named":
            extra += "".join(f"({self._literal(marker)} /[a-zA-Z0-9]{{1,40}}/)?" for marker in form.hidden)
        return f"{quoted(tool.name)} {extra} {self._literal(form.between)} {arguments}"

    def _keywords(self, tool: Tool) -> str:
        """`a=1, b=2`: those that are required, then any of the others."""
        required: list[str] = []
        optional: list[str] = []
        for name, schema, is_required in _properties(tool):
            is_boolean = kinds_of(schema, tool) == {"boolean"}
            value = '("True" | "False")' if is_boolean else _json(tool, schema)
            (required if is_required else optional).append(f"{quoted(name + '=')} {value}")
        firsts, tail = list[str](), '""'
        for item in reversed(optional):
            firsts.append(f"{item} {tail}")
            tail = self._rule(f'(", " {item})? {tail}')
        if required:
            return ' ", " '.join(required) + " " + tail
        return f"({' | '.join(firsts)})?" if firsts else '""'

    def _parameter(self, tool: Tool, name: str, schema: dict[str, Any], is_required: bool) -> str:
        """`<parameter=a>`, its value and its end: text stands as it is, everything else is JSON."""
        begin, named, end = self._format.parameter
        parts = parts_of(schema, tool.parameters)
        if "string" not in kinds_of(schema, tool):
            value = f"{_json(tool, schema)} {self._literal(end)}"
        elif all(values := [values_of(part) for part in parts]):
            words = [each if isinstance(each, str) else json.dumps(each) for some in values for each in some]
            value = f"({' | '.join(map(quoted, words))}) {self._literal(end)}"
        else:
            _check(tool, f"its text {name}", set[str]().union(*parts), _FREE_TEXT)
            value = self._text_to(end)
        body = f"{self._literal(begin)} {quoted(name)} {self._literal(named)} {value}"
        return body if is_required else f"({body})?"


def _check(tool: Tool, part: str, said: Set[str], allowed: Set[str]) -> None:
    if tool.strict and (keys := sorted(said - allowed)):
        why = f"says {keys[0]} of {part}, which this model's format of calls cannot express"
        raise BadRequest(f"the strict tool {tool.name} {why}; leave it out, or set strict to false", param="tools")


def _properties(tool: Tool) -> list[tuple[str, dict[str, Any], bool]]:
    """Name, schema, and whether it is required."""
    parts = parts_of(tool.parameters, tool.parameters)
    _check(tool, "its arguments", parts[0].keys() if len(parts) == 1 else {"alternatives"}, _NAMES)
    needed = [part["required"] if isinstance(part.get("required"), list) else [] for part in parts]
    found = {name: schema if isinstance(schema, dict) else {} for name, schema in parameters_of(tool).items()}
    return [(name, schema, all(name in names for names in needed)) for name, schema in found.items()]


def _json(tool: Tool, parameter: dict[str, Any] | None = None) -> str:
    """JSON of a tool's arguments, or of one of them, whose schema may refer to the tool's."""
    schema = {"type": "object"} | tool.parameters if parameter is None else parameter
    if parameter is not None and '"$ref"' in json.dumps(parameter):
        root = {"$id": "tool:"} | tool.parameters
        given = root.get("$defs")
        root["$defs"] = (given if isinstance(given, dict) else {}) | {"value of an argument": parameter}
        schema = {"$ref": f"{root['$id']}#/$defs/value of an argument", "$defs": {"tool": root}}
    return "%json " + json.dumps(schema | {"x-guidance": SPACING | {"lenient": not tool.strict}})
