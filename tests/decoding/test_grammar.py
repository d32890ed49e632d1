"""Walks through grammars: what may come is what the grammar says, and the same however one got there."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.decoding.grammar import Vocabulary, Walk
from hexad.errors import BadRequest, RequestFailed
from hexad.text.grammar import expression, to_grammar
from hexad.types import StructuredOutputs

from .schemas import admits, demo_vocabulary, on_a_line

TOKENIZER, VOCABULARY = demo_vocabulary()
NAMES = st.sampled_from(["a", "name", "a key", "é"])
ATOMS = st.sampled_from(
    [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "integer", "minimum": -3, "maximum": 40},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 2.5},
        {"type": "string", "maxLength": 5},
        {"type": "string", "pattern": "^[a-c]{1,4}$"},
        {"enum": ["red", 3, None, [1]]},
        {"const": {"x": "y"}},
        {"type": "string", "format": "date"},
        {"not": {"type": ["object", "array", "string", "number"]}},
    ]
)
SCHEMAS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 3}, inner),
        st.builds(
            lambda properties, count, more: {
                "type": "object",
                "properties": properties,
                "required": sorted(properties)[:count],
                "additionalProperties": False,
                **more,
            },
            st.dictionaries(NAMES, inner, max_size=3),
            st.integers(0, 3),
            st.sampled_from([{}, {"dependentRequired": {"a": ["name"]}}, {"if": {"required": ["a"]}, "then": True}]),
        ),
        st.builds(lambda one, other: {"anyOf": [one, other]}, inner, inner),
        st.builds(lambda one, other: {"oneOf": [{"type": "array", "items": one, "maxItems": 2}, other]}, inner, ATOMS),
        st.builds(lambda then, other: {"if": {"type": "integer"}, "then": then, "else": other}, inner, inner),
    ),
    max_leaves=6,
)


def start(wanted: StructuredOutputs, vocabulary: Vocabulary = VOCABULARY) -> Walk:
    return Walk(vocabulary.compile(vocabulary.grammar(wanted)))


def choices(walk: Walk) -> list[int]:
    bits = np.unpackbits(walk.allowed(), bitorder="little")
    return [token for token in np.flatnonzero(bits).tolist() if token < len(VOCABULARY.tokens)]


def wander(walk: Walk, rng: random.Random, most: int = 200) -> bool:
    """Random tokens to a whole answer; one that can end does so every other time."""
    while not walk.complete and len(walk.tokens) < most:
        free = choices(walk)
        ends = [token for token in free if token in VOCABULARY.special_token_ids]
        if ends and rng.random() < 0.5:
            return True
        walk.follow([*walk.tokens, rng.choice([token for token in free if token not in ends] or ends)])
    return walk.complete


def text_of(walk: Walk) -> str:
    return b"".join(VOCABULARY.tokens[token] for token in walk.tokens).decode()


@settings(max_examples=150)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_random_walks_are_valid(schema: dict[str, Any], seed: int) -> None:
    try:
        walk = start(StructuredOutputs(json=schema))
    except BadRequest:
        return
    if wander(walk, random.Random(seed)):
        value = json.loads(text_of(walk))
        assert jsonschema_rs.is_valid(schema, value, validate_formats=True)
        assert on_a_line(value).count(" ") == text_of(walk).count(" ")


@settings(max_examples=60)
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_a_walk_is_a_function_of_its_tokens(schema: dict[str, Any], seed: int) -> None:
    """Replayed at once, in pieces, or with jumps: the same may come next."""
    try:
        matcher = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    except BadRequest:
        return
    rng = random.Random(seed)
    walk = Walk(matcher)
    wander(walk, rng, most=40)
    for cut in range(len(walk.tokens) + 1):
        again, jumping = Walk(matcher), Walk(matcher)
        again.follow(walk.tokens[:cut])
        while len(jumping.tokens) < cut:
            jumping.follow(walk.tokens[: len(jumping.tokens) + 1])
            ahead = jumping.jump()
            assert jumping.tokens == walk.tokens[: len(jumping.tokens)] or len(jumping.tokens) > len(walk.tokens)
            assert not ahead or not jumping.forced
        if len(jumping.tokens) == cut:
            assert (jumping.forced, jumping.complete) == (again.forced, again.complete)
            assert jumping.complete or jumping.allowed().tobytes() == again.allowed().tobytes()


def test_forced_text_is_spelled_as_the_tokenizer_spells_it() -> None:
    schema = {"type": "object", "properties": {"favourite_colour": {"enum": [1, 2]}}, "required": ["favourite_colour"]}
    walk = start(StructuredOutputs(json={**schema, "additionalProperties": False}))
    assert walk.jump() == TOKENIZER.encode('{"favourite_colour": ', add_special_tokens=False)
    walk.follow([*walk.tokens, *TOKENIZER.encode("2", add_special_tokens=False)])
    assert TOKENIZER.decode(walk.jump()) == "}" and walk.complete


@pytest.mark.parametrize(
    ("wanted", "whole", "not_whole"),
    [
        (StructuredOutputs(regex=r"[a-c]+/\d{2}"), ["abc/12", "a/00"], ["abc/1", "d/12", "abc/123"]),
        (StructuredOutputs(regex=""), [""], ["a"]),
        (StructuredOutputs(regex="a\\\n\n/b"), ["a\n\n/b"], ["a\\n\n/b"]),
        (StructuredOutputs(choice=["%json {}", "%json true"]), ["%json {}"], ["{}", '%json "a"']),
        (StructuredOutputs(regex='x"?/%json {2}"'), ['x/%json  "'], ["x/{2}"]),
        (
            StructuredOutputs(grammar='start: "a" b // "%json {}\nb: %json {"const": "# %json {}"} # end'),
            ['a"# %json {}"'],
            ["a"],
        ),
        (StructuredOutputs(choice=["yes", 'no "', "\n\x7fé"]), ["yes", 'no "', "\n\x7fé"], ["no", ""]),
        (StructuredOutputs(json_object=True), ["{}", '{"a": [1, {}]}'], ["[]", '"a"', '{"a" :1}']),
        (StructuredOutputs(json='{"type":"integer"}'), ["1", "-20"], ["1.5", '"1"']),
        (StructuredOutputs(json=True), ["1", '"a"', "[null]"], ["a"]),
        (StructuredOutputs(grammar='start: "a" rest\nrest: /[0-9]/ | "x" rest'), ["a1", "axx2"], ["a", "ax"]),
        (StructuredOutputs(grammar='root ::= "a" [0-9]+ | foo-bar\nfoo-bar ::= "x"'), ["a12", "x"], ["a", "b"]),
        (StructuredOutputs(grammar='start: "<" %json {"not": {"type": "string"}} ">"'), ["<1>"], ['<"a">', "< 1>"]),
        (
            StructuredOutputs(
                structural_tag={
                    "type": "structural_tag",
                    "structures": [
                        {"begin": "<f=a>", "schema": {"type": "integer"}, "end": "</f>"},
                        {"begin": "<f=b>", "schema": {"type": "boolean"}, "end": "</f>"},
                    ],
                    "triggers": ["<f="],
                }
            ),
            ["hello", "hi <f=a>12</f> and <f=b>true</f>.", "a < f"],
            ["<f=a>x</f>", "<f=c>1</f>", "<f=a>12</f> and <f="],
        ),
        (
            StructuredOutputs(
                structural_tag={
                    "type": "structural_tag",
                    "format": {
                        "type": "sequence",
                        "elements": [
                            {"type": "tag", "begin": "<t>", "content": {"type": "any_text"}, "end": "</t>"},
                            {"type": "or", "elements": [
                                {"type": "const_string", "value": "no"},
                                {"type": "json_schema", "json_schema": {"type": "integer"}},
                                {"type": "regex", "pattern": "[x-z]/"},
                            ]},
                            {"type": "regex", "pattern": ""},
                            {"type": "regex", "pattern": "[.]?"},
                        ],
                    },
                }
            ),
            ["<t>so</t>no", "<t></t>7.", "<t>a</t>y/"],
            ["no", "<t>so</t>maybe", "<t>so"],
        ),
        (
            StructuredOutputs(
                structural_tag={
                    "format": {
                        "type": "triggered_tags",
                        "triggers": ["<|im_start|>"],
                        "tags": [{"begin": "<|im_start|>x", "content": {"type": "regex", "pattern": "a+"}, "end": "!"}],
                        "at_least_one": True,
                        "stop_after_first": True,
                    }
                }
            ),
            ["hey <|im_start|>xaa!"],
            ["hey", "hey <|im_start|>y", "<|im_start|>xa!<|im_start|>xa!"],
        ),
    ],
)  # fmt: skip
def test_each_kind(wanted: StructuredOutputs, whole: list[str], not_whole: list[str]) -> None:
    matcher = VOCABULARY.compile(VOCABULARY.grammar(wanted))
    for text in [*whole, *not_whole]:
        tokens = TOKENIZER.encode(text, add_special_tokens=False)
        walk = matcher.deep_copy()
        admitted = walk.try_consume_tokens(tokens) == len(tokens) and walk.is_accepting()
        assert admitted == (text in whole), text


def test_a_schema_is_found_behind_a_token_with_a_slash() -> None:
    wanted = StructuredOutputs(grammar='start: </t> %json {"uniqueItems": false} /b/')
    assert "uniqueItems" not in to_grammar(wanted)


def test_a_text_of_blank_lines_is_read_in_linear_time() -> None:
    started = time.thread_time()
    with pytest.raises(BadRequest, match="neither Lark"):
        expression(StructuredOutputs(grammar="\n" * 300_000 + "x"))
    assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, "nothing"),
        ({"regex": "a", "choice": ["b"]}, "regex and choice"),
        ({"choice": []}, "choice is empty"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": "(a"}, "unclosed group"),
        ({"grammar": "nothing of the kind"}, "neither Lark"),
        ({"grammar": "start: foo"}, "unknown name"),
        ({"json": "{"}, "not JSON"),
        ({"json": {"type": "string", "format": "regex"}}, "format 'regex' cannot"),
        ({"json": {"contains": {"const": 1}, "minContains": 9}}, "minContains"),
        ({"json": {"uniqueItems": True}}, "uniqueItems"),
        ({"json": {"type": ["string", "null"], "nullable": True}}, "nullable"),
        ({"json": {"minimum": "1 m"}}, "wrong type"),
        ({"json": {"format": "phone"}}, "format 'phone' cannot be enforced; say it as a pattern"),
        ({"json": {"prefixItems": [True], "additionalItems": False}}, "additionalItems"),
        ({"json": {"not": {"pattern": "a"}}}, "pattern cannot be negated"),
        ({"json": {"$ref": "file:///etc/passwd"}}, "nothing is fetched"),
        ({"structural_tag": {"format": {"type": "magic"}}}, "magic"),
        ({"structural_tag": {"structures": [], "triggers": 3}}, "structural_tag"),
        ({"structural_tag": {"structures": [{"begin": "a", "schema": True, "end": ""}], "triggers": []}}, "trigger"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_with_its_cause(fields: dict[str, Any], cause: str) -> None:
    with pytest.raises(BadRequest, match=cause) as caught:
        start(StructuredOutputs(**fields))
    assert caught.value.param == "structured_outputs"


def test_a_token_that_may_not_come_fails() -> None:
    walk = start(StructuredOutputs(regex="ab"))
    with pytest.raises(RequestFailed, match="position 0"):
        walk.follow(TOKENIZER.encode("x", add_special_tokens=False))


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "name": {"type": "string"}}, "required": ["kind"]}
CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        (
            {"oneOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/d"}], "$defs": {"c": CAT | CLOSED, "d": DOG | CLOSED}},
            ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "name": "x"}'],
            ['{"kind": "cat", "name": "x"}', '{"kind": "cow"}'],
        ),
        ({"type": "object", "propertyNames": {"type": "string"}}, ['{"anything":1}'], ["1"]),
        ({"type": "object", "propertyNames": {"enum": ["a", "b"], "type": "string"}}, ['{"b":1}'], ['{"c":1}']),
        ({"type": "object", "propertyNames": {"maxLength": 2}}, ['{"ab":1}'], ['{"abc":1}']),
        ({"type": "string", "not": {"enum": ["abc", "ab"]}}, ['"a"', '"abcd"', '"xb"', '""'], ['"abc"', '"ab"']),
        ({"type": "number", "not": {"const": 3}}, ["2", "3.5", "4"], ["3"]),
    ],
)
def test_schemas_as_libraries_write_them(schema: dict[str, Any], valid: list[str], invalid: list[str]) -> None:
    """pydantic's discriminated unions, zod's records, and a word that must not come."""
    matcher = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    for text in [*valid, *invalid]:
        assert jsonschema_rs.is_valid(schema, json.loads(text)) == (text in valid)
        assert admits(matcher, TOKENIZER, json.loads(text)) == (text in valid), text


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (StructuredOutputs(json={"type": "integer"}), "12"),
        (StructuredOutputs(json=True), "[1]"),
        (StructuredOutputs(regex="a/{2,3}b|c"), "a//b"),
        (StructuredOutputs(choice=["yes", "no"]), "no"),
        (StructuredOutputs(grammar='start: "{" x\nx: /[0-9]{2}/ "}"'), "{12}"),
        (StructuredOutputs(structural_tag={"format": {"type": "const_string", "value": "so"}}), "so"),
    ],
)
def test_each_kind_is_an_expression_in_another_grammar(wanted: StructuredOutputs, text: str) -> None:
    lark = f'start: "<" {expression(wanted)} ">" | "nothing"'
    matcher = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(grammar=lark)))
    for whole, is_right in ((f"<{text}>", True), ("nothing", True), (text, False), (f"<{text}", False)):
        tokens = TOKENIZER.encode(whole, add_special_tokens=False)
        walk = matcher.deep_copy()
        assert (walk.try_consume_tokens(tokens) == len(tokens) and walk.is_accepting()) == is_right, whole


KEYWORDS = st.sampled_from([
    "type", "const", "enum", "required", "properties", "patternProperties", "additionalProperties", "propertyNames",
    "items", "prefixItems", "contains", "minItems", "maxLength", "minimum", "multipleOf", "pattern", "format", "not",
    "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentRequired", "dependentSchemas",
    "unevaluatedProperties", "unevaluatedItems", "uniqueItems", "$ref", "$id", "$defs", "$dynamicRef",
    "$dynamicAnchor", "x-guidance", "nullable",
])  # fmt: skip
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 5)
    | st.floats()
    | st.sampled_from(["", "a", "#", "#/$defs/a", "string"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.sampled_from(["a", "b"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(schema=st.dictionaries(KEYWORDS, JUNK, max_size=4))
def test_any_schema_is_compiled_or_refused(schema: dict[str, Any]) -> None:
    try:
        VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    except BadRequest as error:
        assert error.param == "structured_outputs"


@settings(max_examples=200)
@given(tag=JUNK | st.dictionaries(st.sampled_from(["structures", "triggers", "format"]), JUNK, max_size=3))
def test_any_structural_tag_is_compiled_or_refused(tag: Any) -> None:
    try:
        VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(structural_tag=tag)))
    except BadRequest as error:
        assert error.param == "structured_outputs"
