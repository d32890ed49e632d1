"""Random schemas, against a validator that nobody here wrote: what is accepted lets all valid values through, and only
these, in whatever spelling."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from hexad import StructuredOutputs
from hexad.errors import BadRequest

from .schemas import Bytes, admits, demo_vocabulary

TOKENIZER, VOCABULARY = demo_vocabulary()
BYTES = Bytes()
SCALARS: list[Any] = [None, False, True, -1, 0, 2, 3, 1.5, "", "a", "b", "aab"]
LISTS: list[Any] = [[], [0], ["a"], ["a", "b"], ["b", "a"], ["a", "a"], [2, "a"], [1.5, 3, "b"], [2, 2, 2, "a", True]]
LISTS += [["a", 0, "b", "a"], [[], ["a"]], [{"a": 2}, "b"]]
OBJECTS: list[Any] = [
    {},
    {"a": 0},
    {"a": "b"},
    {"b": 1.5},
    {"a": 3, "b": "a"},
    {"b": ["a"], "c": None},
    {"c": {"a": 2}},
]
VALUES = SCALARS + LISTS + OBJECTS
NUMBERS = [-10, -2.5, -1.25, -1.2, -1, -0.5, -0.25, -0.1, 0, 0.1, 0.12, 0.25, 0.5, 0.75, 1, 1.2, 1.5, 2, 2.5, 3, 6, 99]

names = st.sampled_from(["a", "b", "c"])
counts = st.integers(0, 3)
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
patterns = st.sampled_from(["^a", "b$", "^a*$", "^[ab]$", "a|b", "^.{2}$", "^c"])
rules = st.fixed_dictionaries
leaves = st.one_of(
    st.booleans(),
    rules({"type": types}),
    rules({"type": st.lists(types, min_size=1, max_size=2, unique=True)}),
    rules({"const": st.sampled_from(SCALARS)}),
    rules({"enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3)}),
    st.sampled_from([{"minimum": 2}, {"exclusiveMaximum": 2}, {"maxLength": 1}, {"minItems": 2}, {"multipleOf": 0.25}]),
    st.sampled_from([{"properties": {"c": {"$dynamicRef": "#y"}}}, {"items": {"$ref": "other"}}]),
    rules({}, optional={"minLength": counts, "maxLength": counts, "pattern": patterns}),
    rules({}, optional={"minItems": counts, "maxItems": counts}),
    rules({}, optional={"minProperties": st.integers(0, 1), "maxProperties": counts}),
    rules({"required": st.lists(names, max_size=2, unique=True)}),
)
references = st.sampled_from([{"$ref": "#/$defs/x"}, {"$dynamicRef": "#y"}, {"$ref": "other"}])


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few, some = st.lists(inner, min_size=1, max_size=2), st.dictionaries(names, inner, max_size=2)
    listed = st.one_of(leaves, rules({"enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3)}))
    return st.one_of(
        rules({"not": inner}),
        *(rules({key: few}) for key in ("allOf", "anyOf", "oneOf")),
        rules({"if": inner}, optional={"then": inner, "else": inner}),
        rules({}, optional={"prefixItems": few, "items": inner}),
        rules({"contains": inner}, optional={"minContains": counts, "maxContains": counts, "items": inner}),
        rules({"unevaluatedItems": inner, "contains": inner}, optional={"prefixItems": few, "anyOf": few}),
        rules({"unevaluatedItems": inner, "if": inner}, optional={"prefixItems": few, "oneOf": few}),
        rules({"uniqueItems": st.just(True), "items": listed}, optional={"prefixItems": few, "maxItems": counts}),
        rules({"properties": some}, optional={"required": st.lists(names, max_size=2, unique=True), "not": inner}),
        rules({"properties": some, "additionalProperties": inner}),
        rules({"patternProperties": st.dictionaries(patterns, inner, max_size=2), "anyOf": few, "properties": some}),
        rules({"patternProperties": st.dictionaries(patterns, inner, max_size=1), "$ref": st.just("#/$defs/x")}).map(
            lambda schema: {**schema, "additionalProperties": False}
        ),
        rules({"unevaluatedProperties": st.booleans(), "anyOf": few, "properties": some}),
        rules({"unevaluatedItems": st.booleans(), "dependentSchemas": some, "prefixItems": few}),
        rules({"dependentSchemas": some, "dependentRequired": st.dictionaries(names, st.lists(names, max_size=1))}),
    )


without_circles = st.recursive(leaves, grown, max_leaves=6)
schemas = st.recursive(leaves | references, grown, max_leaves=6)
ends = st.sampled_from([-2, -1.125, -1, -0.5, -0.25, 0, 0.1, 0.15, 0.5, 1, 1.25, 1.5, 2.75, 3, 10])
bounds = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
numeric = st.one_of(
    rules({}, optional=dict.fromkeys((*bounds[:2], "exclusiveMinimum"), ends)),
    rules({"type": st.sampled_from(["integer", "number"])}, optional=dict.fromkeys(bounds, ends)),
    rules({}, optional={"multipleOf": st.sampled_from([1, 2, 0.5, 1.5, 0.1, 0.25]), "minimum": ends}),
    rules({"enum": st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3)}, optional={"exclusiveMinimum": ends}),
    rules({"const": st.sampled_from(NUMBERS)}, optional={"exclusiveMaximum": ends}),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(inner, min_size=1, max_size=3)
    also = {"exclusiveMaximum": ends, "exclusiveMinimum": ends, "$ref": st.just("#/$defs/x")}
    many = (rules({key: few}, optional=also) for key in ("allOf", "anyOf", "oneOf"))
    return st.one_of(*many, rules({"not": inner}, optional=also), rules({"if": inner, "then": inner, "else": inner}))


def compiled(schema: Any) -> LLMatcher:
    return VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))


def assert_exact(schema: Any, values: list[Any]) -> None:
    """Of `values` those that are valid are admitted, and what is drawn byte by byte is valid."""
    try:
        matcher = compiled(schema)
    except BadRequest:
        assume(False)
    validator = jsonschema_rs.validator_for(schema)
    assert [admits(matcher, TOKENIZER, value) for value in values] == [validator.is_valid(value) for value in values]
    start = BYTES.vocabulary.compile(BYTES.vocabulary.grammar(StructuredOutputs(json=schema)))
    for seed in range(3):
        text = BYTES.answer(start, random.Random(seed), 40)
        assert text is None or validator.is_valid(json.loads(text)), text


OFTEN = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@OFTEN
@given(main=schemas, x=leaves, y=without_circles, other=without_circles)
def test_what_is_accepted_is_what_is_valid(main: Any, x: Any, y: Any, other: Any) -> None:
    """With references into the schema and into an embedded one, on whose way `#y` is another."""
    embedded = {"$id": "other", "allOf": [other], "$defs": {"y": {"$dynamicAnchor": "y", "type": ["string", "array"]}}}
    anchored = {"$dynamicAnchor": "y", "allOf": [y]}
    schema = {"$id": "https://a.test/main", "allOf": [main], "$defs": {"x": x, "y": anchored, "other": embedded}}
    assert_exact(schema, VALUES)


@OFTEN
@given(main=st.recursive(numeric, nested, max_leaves=5), x=numeric)
def test_numbers_lie_where_they_may(main: Any, x: Any) -> None:
    assert_exact({**main, "$defs": {"x": x}}, NUMBERS)


def takes(schema: Any, text: str) -> bool:
    tokens = TOKENIZER.encode(text, add_special_tokens=False, allow_special=False)
    walk = compiled(schema)
    return walk.try_consume_tokens(tokens) == len(tokens) and walk.is_accepting()


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"properties": {"b": {"type": "integer"}}}, r'{"b": 1, "\u0062": "x"}'),
        ({"properties": {"b": {"type": "integer"}}}, r'{"\u0062": "x"}'),
        ({"required": ["b"], "additionalProperties": {"type": "integer"}}, r'{"b": 1, "\u0062": "x"}'),
        ({"patternProperties": {"^b": {"type": "integer"}}}, r'{"\u0062c": "x"}'),
        ({"not": {"required": ["b"]}}, r'{"\u0062": 1}'),
        ({"dependentRequired": {"b": ["c"]}}, r'{"\u0062": 1}'),
        ({"properties": {"b": {"type": "integer"}}}, r'{"b": 1, "b": "x"}'),
        ({"allOf": [{"exclusiveMinimum": 0}, {"maximum": 0.5}]}, "0"),
        ({"maximum": 0.5, "not": {"maximum": 0}}, "0"),
        ({"minimum": -0.5, "not": {"minimum": 0}}, "-0"),
        ({"dependentSchemas": {"a": {"prefixItems": [{}]}}, "unevaluatedItems": False}, "[1]"),
    ],
)
def test_what_is_invalid_cannot_be_spelled(schema: Any, text: str) -> None:
    assert not jsonschema_rs.is_valid(schema, json.loads(text))
    assert not takes(schema, text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"maximum": 1.25}, "1.2"),
        ({"exclusiveMaximum": 1.25, "multipleOf": 0.1}, "1.2"),
        ({"minimum": 0.1, "maximum": 0.15}, "0.1"),
        ({"multipleOf": 0.25}, "2.5"),
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0.000000001"),
        ({"type": "integer", "exclusiveMinimum": 10**15}, "1000000000000001"),
        ({"type": "integer", "maximum": 2**63 - 1}, str(2**63 - 1)),
        ({"patternProperties": {"a": {}}, "anyOf": [{}], "additionalProperties": False}, '{"a": 1}'),
        ({"prefixItems": [{"type": "boolean"}] * 2, "uniqueItems": True, "items": False}, "[true, false]"),
        ({"prefixItems": [{"const": 1}] * 2, "uniqueItems": True, "items": False}, "[1]"),
        ({"properties": {"b": {"type": "string"}}, "additionalProperties": False}, r'{"b": "\u0007"}'),
    ],
)  # fmt: skip
def test_what_is_valid_can_be_written_as_it_mostly_is(schema: Any, text: str) -> None:
    assert jsonschema_rs.is_valid(schema, json.loads(text))
    assert takes(schema, text)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"const": 2**53 + 1}, "const holds an integer that would be rounded"),
        ({"enum": ["a", [1234567890123456789]]}, "enum holds an integer that would be rounded"),
        ({"type": "integer", "maximum": 2**53 + 3}, "maximum holds an integer that would be rounded"),
        ({"not": {"enum": [2**53 + 1]}}, "imum holds an integer that would be rounded"),
        ({"exclusiveMinimum": 10**400}, "too large"),
        ({"minimum": 1, "exclusiveMinimum": True}, "exclusiveMinimum is of draft 4"),
        ({"minProperties": 2}, "minProperties is above 1, and a name may come twice"),
        ({"minProperties": 3, "required": ["a"], "patternProperties": {"b": {}}}, "minProperties is above 2"),
        ({"not": {"maxProperties": 1}}, "minProperties is above 1"),
        ({"properties": {"a": {"const": "\x07"}}}, "additionalProperties is to be false"),
    ],
)
def test_what_could_not_be_enforced_is_refused_by_name(schema: Any, named: str) -> None:
    with pytest.raises(BadRequest, match=named):
        compiled(schema)
