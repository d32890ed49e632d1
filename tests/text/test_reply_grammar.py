"""What a reply grammar allows: random walks through llguidance's masks, read by the parser, checked by jsonschema-rs.

Every vocabulary is the demo model's, with a format's markers as special tokens, as plain added tokens, or as text.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import time
from typing import Any, Literal

import jsonschema_rs
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from hexad.checkpoints.hub import DEMO_DIRECTORY
from hexad.errors import BadRequest
from hexad.text.formats import FORMATS, Format, Tool
from hexad.text.grammar import to_grammar
from hexad.text.reply_grammar import reply_grammar
from hexad.types import StructuredOutputs
from tests.text.replies import WRITERS, Said, parse

Markers = Literal["special", "added", "text"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Oslo", "a <b> 'c'", "日本"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 99},
        "exact": {"type": "boolean"},
        "unit": {"$ref": "#/$defs/unit"},
        "places": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}, "maxItems": 2},
    },
    "required": ["days"],
    "additionalProperties": False,
    "$defs": {"unit": {"type": "integer", "enum": [1, 20]}},
}
NOTHING = {"type": "object", "additionalProperties": False}
TOOLS = [Tool(name="get_weather", parameters=SCHEMA, strict=True), Tool(name="noop", parameters=NOTHING)]
CALLING = [name for name, row in FORMATS.items() if row.style != "none"]


class Vocabulary:
    def __init__(self, format: Format, markers: Markers) -> None:
        description = json.loads((DEMO_DIRECTORY / "tokenizer.json").read_text())
        if markers == "text":
            description["added_tokens"] = [each for each in description["added_tokens"] if each["special"]]
        self.backend = Backend.from_str(json.dumps(description))
        new = [AddedToken(marker, normalized=False) for marker in sorted(format.markers) if not self.id(marker)]
        if markers == "special":
            self.backend.add_special_tokens(new)
        elif markers == "added":
            self.backend.add_tokens(new)
        self.tokens = format.tokens(self.id) if markers != "text" else {}
        self.ll = LLTokenizer(self.backend.to_str())
        ends = [end for _, end in [format.reasoning or ("", ""), format.section, ("", format.open)] if end.strip()]
        self.hints = [self.encode(end) for end in [*ends, format.parameter[2] or "\n"]]
        """What ends a free text, that a walk would not come across."""

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def id(self, text: str) -> int | None:
        found: int | None = self.backend.token_to_id(text)
        return found

    def walk(self, grammar: str, rng: random.Random, steps: int = 300) -> str | None:
        """What a model that draws any allowed token might say; None if it came to no end."""
        matcher = LLMatcher(self.ll, grammar)
        assert not matcher.is_error(), matcher.get_error()
        ids: list[int] = []
        while not (matcher.is_accepting() and (matcher.is_stopped() or rng.random() < 0.2)):
            if len(ids) >= steps:
                return None
            bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            bits[self.ll.eos_token] = 0
            hint = rng.choice(self.hints)
            is_hinted = rng.random() < 0.2 and matcher.validate_tokens(hint) == len(hint)
            chosen = hint if is_hinted else [rng.choice(np.flatnonzero(bits).tolist())]
            assert matcher.consume_tokens(chosen), matcher.get_error()
            ids += chosen
        text: str = self.backend.decode(ids, skip_special_tokens=False)
        return text

    def allows(self, grammar: str, text: str) -> bool:
        matcher = LLMatcher(self.ll, grammar)
        return matcher.consume_tokens(self.encode(text)) and matcher.is_accepting()


@functools.cache
def vocabulary(format: str, markers: Markers) -> Vocabulary:
    return Vocabulary(FORMATS[format], markers)


def written(format: str, markers: Markers = "special", **wishes: Any) -> str:
    grammar = reply_grammar(FORMATS[format], tokens=vocabulary(format, markers).tokens, **wishes)
    assert grammar is not None
    return to_grammar(StructuredOutputs(grammar=grammar))


def check_calls(said: Said) -> None:
    for name, arguments in said.calls:
        (tool,) = (tool for tool in TOOLS if tool.name == name)
        jsonschema_rs.validator_for(tool.parameters).validate(json.loads(arguments))


def walks(format: str, markers: Markers, grammar: str, **reading: Any) -> list[Said]:
    rng = random.Random(format)
    replies = [vocabulary(format, markers).walk(grammar, rng) for _ in range(12)]
    found = [parse(format, reply, TOOLS, **reading) for reply in replies if reply is not None]
    assert len(found) > 3
    for said in found:
        check_calls(said)
    return found


@pytest.mark.parametrize("format", CALLING)
@pytest.mark.parametrize("markers", ["special", "added", "text"])
@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "one"])
def test_required_calls_are_made(format: str, markers: Markers, parallel: bool) -> None:
    grammar = written(format, markers, tools=TOOLS, choice="required", parallel=parallel, thinking=False)
    for said in walks(format, markers, grammar):
        assert said.calls and not said.content and not said.reasoning
        assert parallel or len(said.calls) == 1


@pytest.mark.parametrize("format", CALLING)
@pytest.mark.parametrize("markers", ["special", "added", "text"])
def test_calls_come_after_a_reasoning_that_may_be_anything(format: str, markers: Markers) -> None:
    grammar = written(format, markers, tools=TOOLS, choice="required", thinking=True)
    begin = FORMATS[format].reasoning
    assert begin is not None
    found = walks(format, markers, grammar)
    opened = written(format, markers, tools=TOOLS, choice="required", prompt_tail=begin[0] + "\n")
    found += walks(format, markers, opened, prompt_tail=begin[0] + "\n") if format != "harmony" else []
    assert any(said.reasoning for said in found)
    for said in found:
        assert said.calls and not said.content


@pytest.mark.parametrize("format", CALLING)
@pytest.mark.parametrize("markers", ["special", "added", "text"])
def test_strict_tools_are_strict_where_the_model_may_also_talk(format: str, markers: Markers) -> None:
    grammar = written(format, markers, tools=TOOLS, choice="auto", thinking=False)
    for said in walks(format, markers, grammar):
        trigger = FORMATS[format].trigger
        assert not trigger or trigger not in said.content
    allows = functools.partial(vocabulary(format, markers).allows, grammar)
    write = WRITERS[format][1]
    assert allows(write("", "Just 5 < 6 words.", [])) or format == "harmony"
    for days, is_allowed in ((5, True), ("five", False)):
        assert allows(write("", "", [("get_weather", {"days": days})]).lstrip().removesuffix("<|call|>")) is is_allowed


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("markers", ["special", "text"])
def test_an_answer_has_its_form_behind_a_free_reasoning(format: str, markers: Markers) -> None:
    digit = {"type": "integer", "minimum": 0, "maximum": 9}
    schema = NOTHING | {"properties": {"n": digit}, "required": ["n"]}
    for said in walks(format, markers, written(format, markers, answer=f"%json {json.dumps(schema)}")):
        jsonschema_rs.validator_for(schema).validate(json.loads(said.content))
    if format not in ("plain", "llama3", "pythonic"):
        both = written(format, markers, answer="/[0-9]{3}/", tools=TOOLS, thinking=False)
        found = walks(format, markers, both)
        assert all(bool(said.calls) != (said.content.isdigit() and len(said.content) == 3) for said in found)


def test_free_replies_have_no_grammar() -> None:
    relaxed = [Tool(name="noop")]
    for choice, tools in (("auto", relaxed), ("none", TOOLS), ("auto", [])):
        assert reply_grammar(FORMATS["hermes"], tools=tools, choice=choice, tokens={}) is None  # type: ignore[arg-type]
    assert reply_grammar(FORMATS["plain"], tools=TOOLS, tokens={}) is None


def test_what_cannot_be_forced_is_refused() -> None:
    with pytest.raises(BadRequest, match="tool_format"):
        reply_grammar(FORMATS["plain"], tools=TOOLS, choice="required", tokens={})
    with pytest.raises(BadRequest, match="no tool"):
        reply_grammar(FORMATS["hermes"], choice="required", tokens={})
    pattern = Tool(name="f", parameters={"properties": {"a": {"type": "string", "pattern": "a+"}}}, strict=True)
    with pytest.raises(BadRequest, match="pattern of its text a"):
        reply_grammar(FORMATS["qwen3-coder"], tools=[pattern], choice="required", tokens={})


PRICE = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]}
"""As pydantic writes a Decimal."""


@pytest.mark.parametrize("format", CALLING)
def test_what_cannot_be_enforced_is_refused_only_where_it_is_strict(format: str) -> None:
    """In a parameter that is a text too, where the format has tags."""
    for strict in (True, False):
        properties = {"price": PRICE, "address": {"type": "object", "properties": {"ip": {"format": "ipvany"}}}}
        tool = Tool(name="f", parameters={"type": "object", "properties": properties}, strict=strict)
        try:
            matcher = LLMatcher(vocabulary(format, "special").ll, written(format, tools=[tool], choice="required"))
        except BadRequest as error:
            assert strict and ("ipvany" in str(error) or "pattern" in str(error))
        else:
            assert not strict and not matcher.is_error(), matcher.get_error()


CITY = {
    "type": "object",
    "properties": {"name": {"const": "Oslo"}},
    "required": ["name"],
    "additionalProperties": False,
}
REFERRING: dict[str, dict[str, Any]] = {
    "as pydantic writes Optional of a model and of an enum": {
        "type": "object",
        "properties": {
            "near": {"anyOf": [{"$ref": "#/$defs/City"}, {"type": "null"}]},
            "color": {"anyOf": [{"$ref": "#/$defs/Color"}, {"type": "null"}], "default": None, "title": "Color"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["near", "color"],
        "$defs": {"City": CITY, "Color": {"enum": ["red", "dark blue"], "type": "string"}},
    },
    "as zod writes a schema that comes twice": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "a": CITY,
            "b": {"$ref": "#/properties/a"},
            "c": {"type": "array", "items": [{"const": 1}, CITY]},
        },
        "required": ["b", "c"],
    },
    "as pydantic and msgspec write a model that holds itself": {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {"n": {"type": "integer", "maximum": 9}, "next": {"$ref": "#/$defs/Rest"}},
                "required": ["n"],
            },
            "Rest": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Node"}]},
        },
    },
    "as TypeBox writes it": {
        "$id": "Node",
        "type": "object",
        "properties": {
            "n": {"enum": [1, 2, None]},
            "kids": {"type": "array", "items": {"$ref": "Node"}, "maxItems": 1},
        },
        "required": ["n", "kids"],
    },
}


@pytest.mark.parametrize("format", CALLING)
@pytest.mark.parametrize("kind", REFERRING)
@pytest.mark.parametrize("strict", [True, False])
def test_a_parameter_may_refer_to_another(format: str, kind: str, strict: bool) -> None:
    tool = Tool(name="f", parameters=REFERRING[kind], strict=strict)
    grammar = written(format, tools=[tool], choice="required", parallel=False, thinking=False)
    rng = random.Random(kind)
    replies = [vocabulary(format, "special").walk(grammar, rng, steps=500) for _ in range(6)]
    assert any(replies)
    for reply in filter(None, replies):
        (call,) = parse(format, reply, [tool], thinking=False).calls
        validator = jsonschema_rs.validator_for(tool.parameters)
        assert not strict and kind.startswith("as zod") or validator.is_valid(json.loads(call[1])), reply


def test_arguments_that_tags_and_keywords_cannot_write_are_refused_where_they_are_strict() -> None:
    options = [{"properties": {name: {"type": "integer"}}, "required": [name]} for name in "ab"]
    for format, more in itertools.product(("qwen3-coder", "pythonic"), ({"anyOf": options}, {"minProperties": 1})):
        parameters = {"type": "object", "properties": {"c": {"type": "integer"}}, **more}
        with pytest.raises(BadRequest, match="of its arguments"):
            written(format, tools=[Tool(name="f", parameters=parameters, strict=True)], choice="required")
        grammar = written(format, tools=[Tool(name="f", parameters=parameters)], choice="required", thinking=False)
        call = {"qwen3-coder": "<tool_call>\n<function=f>\n</function>\n</tool_call>", "pythonic": "[f()]"}[format]
        assert vocabulary(format, "special").allows(grammar, call)


def test_the_demo_model_can_only_write_its_marker_as_one_token() -> None:
    demo = vocabulary("hermes", "added")
    grammar = written("hermes", "added", tools=TOOLS, choice="required", thinking=False)
    bits = np.unpackbits(np.frombuffer(LLMatcher(demo.ll, grammar).compute_bitmask(), np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [demo.id("<tool_call>")]


def test_a_tool_of_many_parameters_takes_no_time() -> None:
    """Also one whose alternatives multiply, or whose references form a chain: this is done beside other requests."""
    chain = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(5000)}
    values = {"x": {"anyOf": [{"const": str(i)} for i in range(5000)]}}
    wide = {f"p{i}": {"type": "integer"} for i in range(2000)}
    started = time.thread_time()
    for properties in (wide, {"a": {"$ref": "#/$defs/d0"}}, {f"p{i}": {"$ref": "#/$defs/x"} for i in range(50)}):
        tool = Tool(name="f", parameters={"type": "object", "properties": properties, "$defs": chain | values})
        grammar = reply_grammar(FORMATS["qwen3-coder"], tools=[tool], choice="required", tokens={})
        assert grammar is not None and len(grammar) < 2**20
    assert time.thread_time() - started < 2
