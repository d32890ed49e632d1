"""Schemas as libraries write them: what comes out is read by the library that asked, and by a validator."""

from __future__ import annotations

import datetime
import enum
import json
import random
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import numpy as np
import pytest
from pydantic import UUID4, Base64Bytes, BaseModel, Field, SecretStr, TypeAdapter, conint, constr

from hexad.decoding.grammar import Walk
from hexad.errors import BadRequest
from hexad.types import StructuredOutputs

from .schemas import admits, demo_vocabulary

TOKENIZER, VOCABULARY = demo_vocabulary()
ENDS = [token for token in VOCABULARY.special_token_ids if token < len(VOCABULARY.tokens)]
CLOSING = np.array([any(char in b'"]}' for char in token) for token in VOCABULARY.tokens])


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat", "lion"]
    lives: conint(ge=0, lt=10)  # type: ignore[valid-type]
    model_config = {"extra": "forbid"}


class Dog(BaseModel):
    kind: Literal["dog"]
    names: list[constr(pattern="^[A-Z][a-z]{1,8}$")]  # type: ignore[valid-type]
    model_config = {"extra": "forbid"}


class Tree(BaseModel):
    color: Color | None = None
    kids: Annotated[list[Tree], Field(max_length=1)] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
WRITTEN: dict[str, Any] = {
    "a discriminated union, of more words than one": Pet,
    "a list of them": Annotated[list[Pet], Field(max_length=2)],
    "a model in itself": Tree,
    "a set of an enum": set[Color],
    "a set of words": Annotated[set[Literal["a", "b", "c", "d", "e"]], Field(min_length=2)],
    "a set of one": Annotated[set[int], Field(max_length=1)],
    "a set of flags": frozenset[bool],
    "a map from an enum": dict[Color, int],
    "an id": UUID4,
    "a path": Path,
    "bytes": Base64Bytes,
    "raw bytes": bytes,
    "a secret": SecretStr,
    "dates": tuple[datetime.date, ...],
    "a tuple": tuple[int, str, uuid.UUID | None],
}


def drawn(start: Any, seed: int, steps: int = 400) -> str | None:
    """What a model that draws any allowed token might say; None if it came to no end."""
    walk, rng = Walk(start), random.Random(seed)
    while len(walk.tokens) < steps and not walk.complete:
        if walk.jump():
            continue
        bits = np.unpackbits(walk.allowed(), bitorder="little")[: len(VOCABULARY.tokens)]
        may_end, bits[ENDS] = bool(bits[ENDS].any()), 0
        choices = np.flatnonzero(bits)
        if may_end and (not len(choices) or rng.random() < 0.3):
            break
        closing = choices[CLOSING[choices]]
        few = closing if len(closing) and rng.random() < 0.4 else choices
        walk.follow([*walk.tokens, int(few[rng.randrange(len(few))])])
    else:
        if not walk.complete:
            return None
    return b"".join(VOCABULARY.tokens[token] for token in walk.tokens).decode()


@pytest.mark.parametrize("name", WRITTEN)
def test_pydantic_reads_what_it_asked_for(name: str) -> None:
    adapter = TypeAdapter[Any](WRITTEN[name])
    schema = adapter.json_schema()
    start = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    texts = [text for seed in range(12) if (text := drawn(start, seed)) is not None]
    assert len(texts) > 3
    for text in texts:
        jsonschema_rs.validator_for(schema).validate(json.loads(text))
        adapter.validate_json(text)


TAGS = [{"required": ["t"], "properties": {"t": {"const": tag}}} for tag in "ab"]
VALUES: list[Any] = [None, 5, "x", "a", [], ["a"], ["a", "a"], ["a", "b"], ["b", "a"], ["b", 1], ["a", 1, 2], [True, 1]]
VALUES += [{}, {"t": "a"}, {"t": "c"}, {"a": "x"}, {"b": 1}, {"a": "x", "b": 1}, {"c": 1}]
X = {"x": {"const": "x"}}


@pytest.mark.parametrize(
    ("schema", "same"),
    [
        ({"oneOf": TAGS}, None),
        ({"oneOf": [{"type": "object", **TAGS[0]}, TAGS[1]]}, None),
        ({"oneOf": [{"const": "a", "title": "A"}, {"const": "x"}, {"type": "object", "properties": {}}]}, None),
        ({"oneOf": [{"anyOf": [{"const": "a"}, {"$ref": "#/$defs/x"}]}, {"enum": ["x", 5]}], "$defs": X}, None),
        ({"uniqueItems": True, "items": {"enum": ["a", "b", 1]}}, None),
        ({"uniqueItems": True, "items": {"anyOf": [{"const": True}, {"const": 1}, {"const": 1.0}]}}, None),
        ({"uniqueItems": True, "items": {"enum": ["a", "b", 1, 2, 3, 4, 5, 6, 7, 8]}, "maxItems": 2}, None),
        ({"uniqueItems": True, "maxItems": 1}, None),
        ({"type": "array", "items": [{"type": "string"}, {"type": "integer"}]}, {"prefixItems": "items"}),
        (
            {"items": [{"type": "string"}], "additionalItems": False},
            {"prefixItems": "items", "items": "additionalItems"},
        ),
    ],
)  # fmt: skip
def test_what_is_accepted_is_what_is_valid(schema: dict[str, Any], same: dict[str, str] | None) -> None:
    """`same`: what 2020-12 calls the words of an earlier draft."""
    start = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    modern = {key: value for key, value in schema.items() if same is None or key not in same.values()}
    modern |= {key: schema[old] for key, old in (same or {}).items()}
    validator = jsonschema_rs.validator_for(modern)
    assert [admits(start, TOKENIZER, each) for each in VALUES] == [validator.is_valid(each) for each in VALUES]


@pytest.mark.parametrize(
    "items", [{"type": "string"}, {"enum": ["a", "b", "c", "d", "e", "f"]}, {"enum": [["a"]]}, True]
)
def test_a_set_that_is_not_listed_is_refused_by_name(items: Any) -> None:
    with pytest.raises(BadRequest, match="uniqueItems"):
        VOCABULARY.grammar(StructuredOutputs(json={"items": items, "uniqueItems": True}))


def test_a_format_of_somebody_else_is_a_comment_beside_a_pattern() -> None:
    """As zod writes its own."""
    schema = {"type": "string", "format": "cuid", "pattern": "^[cC][0-9a-z]{6,}$"}
    start = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
    assert admits(start, TOKENIZER, "cabcdef") and not admits(start, TOKENIZER, "abcdef")


@pytest.mark.parametrize("bounds", [(0, 0.5), (10, 10.25), (-1.5, -1), (-0.5, 0), (0, 1), (1, 1.5)])
@pytest.mark.parametrize("ends", ["exclusiveMinimum maximum", "exclusiveMinimum exclusiveMaximum", "minimum maximum"])
def test_an_excluded_bound_is_excluded(bounds: tuple[float, float], ends: str) -> None:
    """As pydantic writes confloat(gt=0, le=0.5)."""
    for names in (ends, ends.replace("exclusiveMinimum maximum", "minimum exclusiveMaximum")):
        schema = {"type": "number", **dict(zip(names.split(), bounds, strict=True))}
        start = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json=schema)))
        values = [low + part for low in bounds for part in (-1, -0.1, 0, 0.1, 1)]
        validator = jsonschema_rs.validator_for(schema)
        for value in values:
            assert admits(start, TOKENIZER, value) == validator.is_valid(value), (schema, value)


@pytest.mark.parametrize(
    "schema",
    [
        {"maximum": 2.5, "not": {"type": "integer"}},
        {"maximum": 2.5, "not": {"maximum": 2}},
        {"minimum": -2.5, "not": {"enum": [-2, 0]}},
        {"allOf": [{"exclusiveMinimum": 0}, {"maximum": 0.5}]},
        {"exclusiveMaximum": 0, "$ref": "#/$defs/a", "$defs": {"a": {"minimum": -0.5}}},
        {"exclusiveMaximum": -1, "$ref": "#/$defs/a", "$defs": {"a": {"minimum": -1.5}}},
        {"exclusiveMinimum": 10**7, "anyOf": [{"exclusiveMaximum": 10**7 + 0.5}]},
        {"minimum": 1.5, "exclusiveMaximum": 2},
    ],
)
def test_a_bound_that_another_schema_excludes_is_excluded(schema: dict[str, Any]) -> None:
    start = VOCABULARY.compile(VOCABULARY.grammar(StructuredOutputs(json={"type": "number", **schema})))
    validator = jsonschema_rs.validator_for(schema)
    values = [whole + part for whole in (-3, -2, -1, 0, 1, 2, 3, 10**7) for part in (0, 0.25, 0.9)]
    assert [admits(start, TOKENIZER, value) for value in values] == [validator.is_valid(value) for value in values]
