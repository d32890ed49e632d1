"""What an answer must look like, as llguidance writes it down: one text that stands for all kinds.

JSON comes out compact (no spaces, no line breaks): there is nothing to loop on, and names and punctuation are
forced, so that they cost no step. This module does not know tokens; it is loaded when a grammar is first used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from hexad.errors import BadRequest
from hexad.text.json_schema import prepare_schema
from hexad.types import StructuredOutputs

MAX_CHARS = 2**20
"""Of a schema or grammar as it is written."""
PARAM = "structured_outputs"


def to_grammar(wanted: StructuredOutputs, special_tokens: Collection[str] = ()) -> str:
    """`special_tokens` may stand in structural tags. Raises BadRequest."""
    try:
        text = _to_grammar(wanted, special_tokens)
    except RecursionError:
        raise BadRequest("structured_outputs is nested too deeply; use $defs and $ref", param=PARAM) from None
    if len(text) > MAX_CHARS:
        raise BadRequest(
            f"structured_outputs has {len(text)} characters as a grammar; at most {MAX_CHARS} are read", param=PARAM
        )
    return text


def _to_grammar(wanted: StructuredOutputs, special_tokens: Collection[str]) -> str:
    if wanted.json is not None:
        return _schema_grammar(_parsed(wanted.json, "json"))
    if wanted.json_object:
        return _schema_grammar({"type": "object"})
    if wanted.regex is not None:
        return str(LLMatcher.grammar_from_regex(wanted.regex))
    if wanted.choice is not None:
        if not wanted.choice:
            raise BadRequest("structured_outputs.choice is empty; give at least one text", param=PARAM)
        return _lark("start: " + " | ".join(map(_quoted, wanted.choice)))
    if wanted.grammar is not None:
        try:
            return _lark(any_to_lark(wanted.grammar))
        except Exception as error:  # the converter raises bare Exception
            raise BadRequest(
                f"structured_outputs.grammar is neither Lark (it has no rule `start:`) nor GBNF: {error}", param=PARAM
            ) from None
    return _lark(_Tags(special_tokens).lark(_parsed(wanted.structural_tag, "structural_tag")))


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadRequest(f"structured_outputs.{name} is not JSON: {error}", param=PARAM) from None


def _schema_grammar(schema: Any) -> str:
    return json.dumps({"grammars": [{"json_schema": _compact(schema)}]})


def _compact(schema: Any) -> Any:
    schema = prepare_schema(schema)
    return {**schema, "x-guidance": {"whitespace_flexible": False}} if isinstance(schema, dict) else schema


def _lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def _quoted(text: str) -> str:
    """As a string of Lark."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


class _Tags:
    """Structural tags, in the two forms that xgrammar reads, as Lark.

    Both are https://xgrammar.mlc.ai/docs/structural_tag/: `structures` with `triggers`, and `format`.
    """

    def __init__(self, special_tokens: Collection[str]) -> None:
        self._special = [token for token in special_tokens if re.fullmatch(r"<[^\s<>]+>", token)]
        self._rules: list[str] = []

    def lark(self, tag: Any) -> str:
        try:
            if "format" in tag:
                start = self._format(tag["format"])
            else:
                tags = [{**each, "content": {"type": "json_schema", "json_schema": each["schema"]}}
                        for each in tag["structures"]]  # fmt: skip
                start = self._format({"type": "triggered_tags", "triggers": tag["triggers"], "tags": tags})
        except (KeyError, TypeError, AttributeError) as error:
            raise BadRequest(
                f"structured_outputs.structural_tag lacks a field or has one of the wrong type ({error}); it is "
                '{"structures": [{begin, schema, end}], "triggers": [...]} or {"format": {"type": ...}}',
                param=PARAM,
            ) from None
        return "\n".join(["%llguidance {}", f"start: {start}", *self._rules])

    def _rule(self, body: str, attributes: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{attributes}: {body}")
        return name

    def _text(self, text: str) -> str:
        """Strings and, between them, special tokens."""
        if not text:
            return '""'
        pieces = re.split("(" + "|".join(map(re.escape, self._special)) + ")", text) if self._special else [text]
        return " ".join(piece if piece in self._special else _quoted(piece) for piece in pieces if piece)

    def _format(self, format: dict[str, Any]) -> str:
        kind = format["type"]
        if kind == "const_string":
            return self._text(format["value"])
        if kind == "json_schema":
            return "%json " + json.dumps(_compact(format["json_schema"]))
        if kind == "regex":
            return self._rule("/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", format["pattern"]) + "/")
        if kind == "any_text":
            return self._rule(r"/(?s:.*)/")
        if kind == "sequence":
            return self._rule(" ".join(map(self._format, format["elements"])))
        if kind == "or":
            return self._rule(" | ".join(map(self._format, format["elements"])))
        if kind == "tag":
            return self._rule(f"{self._text(format['begin'])} {self._body(format)}")
        if kind == "triggered_tags" and not format.get("excludes"):
            return self._triggered(format)
        raise BadRequest(
            f"structured_outputs.structural_tag holds a format of type {kind!r}; Hexad knows const_string, "
            "json_schema, regex, any_text, sequence, or, tag, and triggered_tags without excludes",
            param=PARAM,
        )

    def _body(self, tag: dict[str, Any]) -> str:
        """What follows its `begin`."""
        end = self._text(tag["end"])
        if tag["content"]["type"] == "any_text":
            return self._rule(f"/(?s:.*)/ {end}", "[lazy]")
        return self._rule(f"{self._format(tag['content'])} {end}")

    def _triggered(self, format: dict[str, Any]) -> str:
        """Free text, in which a trigger can only be the beginning of one of the tags."""
        options = []
        for tag in format["tags"]:
            trigger = next((each for each in format["triggers"] if each and tag["begin"].startswith(each)), None)
            if trigger is None:
                raise BadRequest(
                    f"structured_outputs.structural_tag: no trigger is the start of {tag['begin']!r}; add one",
                    param=PARAM,
                )
            rest = f"{self._text(tag['begin'][len(trigger) :])} {self._body(tag)}"
            if trigger in self._special:
                options.append(f"TEXT {trigger} {rest}")
            else:
                options.append(f"{self._rule(f'TEXT {_quoted(trigger)}', '[lazy]')} {rest}")
        if "TEXT: /(?s:.*)/" not in self._rules:
            self._rules.append("TEXT: /(?s:.*)/")
        one, once = self._rule(" | ".join(options)), format.get("stop_after_first", False)
        if format.get("at_least_one", False):
            return one if once else f"{one}+ TEXT"
        return self._rule(f"{one} | TEXT") if once else f"{one}* TEXT"
