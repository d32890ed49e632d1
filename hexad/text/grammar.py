"""What an answer must look like, as llguidance's Lark: one text that stands for all kinds.

JSON comes out on one line, spaced as Python's json module writes it, as models have mostly read it: there is no
whitespace to choose and to loop on, and names and punctuation are forced, so that they cost no step. This module does
not know tokens, and does not compile what it writes.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection
from typing import Any

from hexad.errors import BadRequest
from hexad.text.json_schema import prepare_schema
from hexad.types import StructuredOutputs

MAX_CHARS = 2**20
"""Of a grammar as it is compiled."""
PARAM = "structured_outputs"
SPACING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""Of JSON, in answers and in calls. Without these spaces models lose their way: held to its own schemas, the built-in
model extracts fields right in 57 of 60 questions (freely in 56), and without them in none."""
_TEXT = "TEXT: /(?s:.*)/"
_JSON_OR_OTHER = re.compile(
    r'"(?:\\.|[^"\\\n])*"?|<[^<>\s]+>|(?://|#)[^\n]*|/(?:(?s:\\.)|[^/\\])+/?|(?P<json>%json\s*(?=\{))'
)
"""Where a schema begins in Lark, or else a string, a special token, a comment or a regex, in which none does."""


def to_grammar(wanted: StructuredOutputs, special_tokens: Collection[str] = ()) -> str:
    """What llguidance compiles; schemas are made ready for it. Raises BadRequest."""
    try:
        lark = _lark_of(wanted.grammar) if wanted.grammar is not None else ""
        text = _prepared(lark or f"%llguidance {{}}\nstart: {expression(wanted, special_tokens)}")
    except RecursionError:
        why = "is nested too deeply, or negates what refers to itself; use $defs and $ref without not, if and oneOf"
        raise BadRequest(f"structured_outputs {why}", param=PARAM) from None
    if len(text) > MAX_CHARS:
        raise BadRequest(
            f"structured_outputs has {len(text)} characters as a grammar; at most {MAX_CHARS} are read", param=PARAM
        )
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def expression(wanted: StructuredOutputs, special_tokens: Collection[str] = ()) -> str:
    """The same as a part of another Lark grammar. `special_tokens` may stand in structural tags. Raises BadRequest."""
    if wanted.json is not None or wanted.json_object:
        schema = {"type": "object"} if wanted.json_object else _parsed(wanted.json, "json")
        return "%json " + json.dumps({} if schema is True else {"not": {}} if schema is False else schema)
    if wanted.regex is not None:
        return _regex(wanted.regex)
    if wanted.choice is not None:
        if not wanted.choice:
            raise BadRequest("structured_outputs.choice is empty; give at least one text", param=PARAM)
        return f"({' | '.join(map(quoted, wanted.choice))})"
    if wanted.grammar is not None:
        return f"%lark {{\n{_lark_of(wanted.grammar)}\n}}"
    return f"%lark {{\n{_Tags(special_tokens).lark(_parsed(wanted.structural_tag, 'structural_tag'))}\n}}"


def quoted(text: str) -> str:
    """As a string of Lark."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _regex(pattern: str) -> str:
    spelled = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
    text = re.sub(r"(?s)\\.|[/\n]", lambda found: spelled.get(found[0], found[0]), pattern)
    return f"/{text}/" if text else '""'  # nothing between slashes would be a comment


def _parsed(value: Any, name: str) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise BadRequest(f"structured_outputs.{name} is not JSON: {error}", param=PARAM) from None


def _lark_of(grammar: str) -> str:
    if re.search(r"(?m)^[ \t]*(%llguidance\b|start\s*:)", grammar):
        return grammar
    lines = re.sub(r"\n\s*\n", "\n", grammar)  # the converter takes quadratic time for those that are empty
    try:
        return str(importlib.import_module("llguidance.gbnf_to_lark").any_to_lark(lines))
    except Exception as error:  # the converter raises bare Exception
        raise BadRequest(
            f"structured_outputs.grammar is neither Lark (it has no rule `start:`) nor GBNF: {error}", param=PARAM
        ) from None


def _prepared(lark: str) -> str:
    """With the schemas that stand in it made ready, but for those that are meant to be taken leniently."""
    parts, at = list[str](), 0
    while found := _JSON_OR_OTHER.search(lark, at):
        parts.append(lark[at : found.end()])
        at = found.end()
        if not found["json"]:
            continue
        try:
            schema, at = json.JSONDecoder().raw_decode(lark, at)
        except ValueError:  # llguidance will say where
            continue
        how = schema.pop("x-guidance", {})
        if not isinstance(how, dict):
            raise BadRequest("the JSON schema's x-guidance is not an object; leave it out", param=PARAM)
        schema = prepare_schema(schema, lenient=bool(how.get("lenient")))
        parts.append(json.dumps({**schema, "x-guidance": SPACING | schema.get("x-guidance", {}) | how}))
    return "".join(parts) + lark[at:]


class _Tags:
    """Structural tags, in the two forms that xgrammar reads: https://xgrammar.mlc.ai/docs/structural_tag/."""

    def __init__(self, special_tokens: Collection[str]) -> None:
        self._special = [token for token in special_tokens if re.fullmatch(r"<[^\s<>]+>", token)]
        self._rules = [_TEXT]

    def lark(self, tag: Any) -> str:
        try:
            if "format" in tag:
                form = tag["format"]
            else:
                tags = [{**each, "content": {"type": "json_schema", "json_schema": each["schema"]}}
                        for each in tag["structures"]]  # fmt: skip
                form = {"type": "triggered_tags", "triggers": tag["triggers"], "tags": tags}
            return "\n".join([f"start: {self._format(form)}", *self._rules])
        except (KeyError, TypeError, AttributeError) as error:
            raise BadRequest(
                f"structured_outputs.structural_tag lacks a field or has one of the wrong type ({error}); it is "
                '{"structures": [{begin, schema, end}], "triggers": [...]} or {"format": {"type": ...}}',
                param=PARAM,
            ) from None

    def _rule(self, body: str, attributes: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def _literal(self, text: str) -> str:
        """Strings and, between them, special tokens."""
        pieces = re.split("(" + "|".join(map(re.escape, self._special)) + ")", text) if self._special else [text]
        return " ".join(each if each in self._special else quoted(each) for each in pieces if each) or '""'

    def _format(self, form: dict[str, Any]) -> str:
        match form["type"]:
            case "const_string":
                return self._literal(form["value"])
            case "json_schema":
                return expression(StructuredOutputs(json=form["json_schema"]))
            case "regex":
                return _regex(form["pattern"])
            case "any_text":
                return "TEXT"
            case "sequence":
                return self._rule(" ".join(map(self._format, form["elements"])))
            case "or":
                return self._rule(" | ".join(map(self._format, form["elements"])))
            case "tag":
                return f"{self._literal(form['begin'])} {self._body(form)}"
            case "triggered_tags" if not form.get("excludes"):
                return self._triggered(form)
        raise BadRequest(
            f"structured_outputs.structural_tag holds a format of type {form['type']!r}; Hexad knows const_string, "
            "json_schema, regex, any_text, sequence, or, tag, and triggered_tags without excludes",
            param=PARAM,
        )

    def _body(self, tag: dict[str, Any]) -> str:
        """What follows its `begin`."""
        if tag["content"]["type"] == "any_text":
            return self._rule(f"/(?s:.*)/ {self._literal(tag['end'])}", "[lazy]")
        return f"{self._format(tag['content'])} {self._literal(tag['end'])}"

    def _triggered(self, form: dict[str, Any]) -> str:
        """Free text, in which a trigger can only be the beginning of one of the tags."""
        options = []
        if not form["tags"]:
            raise BadRequest("structured_outputs.structural_tag has no tags; give at least one", param=PARAM)
        for tag in form["tags"]:
            begin = tag["begin"]
            trigger = next((each for each in form["triggers"] if each and begin.startswith(each)), None)
            if trigger is None:
                raise BadRequest(
                    f"structured_outputs.structural_tag: no trigger is the start of {begin!r}; add one", param=PARAM
                )
            is_token = trigger in self._special
            head = f"TEXT {trigger}" if is_token else self._rule(f"TEXT {quoted(trigger)}", "[lazy]")
            options.append(f"{head} {self._literal(begin[len(trigger) :])} {self._body(tag)}")
        one, once = self._rule(" | ".join(options)), form.get("stop_after_first", False)
        if form.get("at_least_one", False):
            return one if once else f"{one}+ TEXT"
        return self._rule(f"{one} | TEXT") if once else f"{one}* TEXT"
