"""Random schemas, against a validator that nobody here wrote: what is accepted lets all valid values through, and only
these."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hexad import StructuredOutputs
from hexad.errors import BadRequest

from .schemas import admits, demo_vocabulary

TOKENIZER, VOCABULARY = demo_vocabulary()
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

names = st.sampled_from(["a", "b", "c"])
counts = st.integers(0, 3)
types = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
leaves = st.one_of(
    st.booleans(),
    st.fixed_dictionaries({"type": types}),
    st.fixed_dictionaries({"type": st.lists(types, min_size=1, max_size=2, unique=True)}),
    st.fixed_dictionaries({"const": st.sampled_from(SCALARS)}),
    st.fixed_dictionaries({"enum": st.lists(st.sampled_from(SCALARS), min_size=1, max_size=3)}),
    st.sampled_from([{"minimum": 2}, {"exclusiveMaximum": 2}, {"maxLength": 1}, {"minItems": 2}, {"pattern": "^a"}]),
    st.sampled_from([{"properties": {"c": {"$dynamicRef": "#y"}}}, {"items": {"$ref": "other"}}]),
)
references = st.sampled_from([{"$ref": "#/$defs/x"}, {"$dynamicRef": "#y"}, {"$ref": "other"}])


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few, some = st.lists(inner, min_size=1, max_size=2), st.dictionaries(names, inner, max_size=2)
    rules = st.fixed_dictionaries
    return st.one_of(
        rules({"not": inner}),
        *(rules({key: few}) for key in ("allOf", "anyOf", "oneOf")),
        rules({"if": inner}, optional={"then": inner, "else": inner}),
        rules({}, optional={"prefixItems": few, "items": inner}),
        rules({"contains": inner}, optional={"minContains": counts, "maxContains": counts, "items": inner}),
        rules({"unevaluatedItems": inner, "contains": inner}, optional={"prefixItems": few, "anyOf": few}),
        rules({"unevaluatedItems": inner, "if": inner}, optional={"prefixItems": few, "oneOf": few}),
        rules({"properties": some}, optional={"required": st.lists(names, max_size=2, unique=True), "not": inner}),
        rules({"properties": some, "additionalProperties": inner}),
        rules({"unevaluatedProperties": st.booleans(), "anyOf": few, "properties": some}),
    )


without_circles = st.recursive(leaves, grown, max_leaves=6)
schemas = st.recursive(leaves | references, grown, max_leaves=6)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(main=schemas, x=leaves, y=without_circles, other=without_circles)
def test_what_is_accepted_is_what_is_valid(main: Any, x: Any, y: Any, other: Any) -> None:
    """With references into the schema and into an embedded one, on whose way `#y` is another."""
    embedded = {"$id": "other", "allOf": [other], "$defs": {"y": {"$dynamicAnchor": "y", "type": ["string", "array"]}}}
    anchored = {"$dynamicAnchor": "y", "allOf": [y]}
    schema = {"$id": "https://a.test/main", "allOf": [main], "$defs": {"x": x, "y": anchored, "other": embedded}}
    try:
        matcher = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    except BadRequest:
        assume(False)
    validator = jsonschema_rs.validator_for(schema)
    valid = [validator.is_valid(value) for value in VALUES]
    assert [admits(matcher, TOKENIZER, value) for value in VALUES] == valid
