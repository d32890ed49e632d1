"""JSON-Schema-Test-Suite, draft 2020-12: what is accepted is enforced, what cannot be enforced is refused by name."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from llguidance import LLMatcher

from hexad import LLM, SamplingParams, StructuredOutputs
from hexad.decoding.grammar import Vocabulary
from hexad.errors import BadRequest
from hexad.text.grammar import to_grammar
from hexad.text.json_schema import WITHIN
from hexad.text.tokenizer import Tokenizer

from .schemas import DEMO, Case, admits, demo_vocabulary, suite

SHARE = 0.91
"""Of the schemas that have a valid instance in the suite, those that are accepted. May only rise."""
UNDER = "is only an annotation by default"
"""Valid instances that cannot be produced: Hexad enforces the formats that it knows. Nothing else."""


class Suite:
    def __init__(self) -> None:
        self.tokenizer, vocabulary = demo_vocabulary()
        self.accepted: list[tuple[Case, LLMatcher]] = []
        self.refused: list[tuple[Case, str]] = []
        for case in suite():
            try:
                grammar = vocabulary.grammar(StructuredOutputs(json=case.schema))
                self.accepted.append((case, vocabulary.compile(grammar)))
            except BadRequest as error:
                self.refused.append((case, str(error)))


@pytest.fixture(scope="module")
def judged() -> Suite:
    return Suite()


def test_valid_instances_can_be_produced_and_invalid_ones_cannot(judged: Suite) -> None:
    wrong = [
        f"{case.name}: {test['description']}"
        for case, matcher in judged.accepted
        for test in case.tests
        if admits(matcher, judged.tokenizer, test["data"]) != (test["valid"] and UNDER not in test["description"])
    ]
    assert not wrong, wrong
    assert sum(len(case.tests) for case, _ in judged.accepted) > 900


def test_the_share_of_accepted_schemas(judged: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    empty = [case for case, _ in judged.refused if not any(test["valid"] for test in case.tests)]
    share = len(judged.accepted) / (len(judged.accepted) + len(judged.refused) - len(empty))
    with capsys.disabled():
        print(f"\nJSON-Schema-Test-Suite: {share:.1%} of the schemas that can be met are accepted")
    assert share >= SHARE


def test_a_refusal_names_the_keyword(judged: Suite) -> None:
    for case, message in judged.refused:
        named = [key for key in _keywords(case.schema) if key in message]
        unmeetable = any(word in message for word in ("Unsatisfiable", "matches no text"))
        assert named or unmeetable or "not disjoint" in message, message


def test_what_nothing_can_match_is_refused() -> None:
    _, vocabulary = demo_vocabulary()
    for schema in (
        False,
        {"not": {}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"], "additionalProperties": False},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"enum": []},
        {"type": "array", "items": False, "minItems": 1},
    ):
        with pytest.raises(BadRequest):
            vocabulary.compile(vocabulary.grammar(StructuredOutputs(json=schema)))


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"$ref": "https://a.test/b"}, "$ref to 'https://a.test/b'"),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a": {}}}, "$ref to '#/$defs/a~1b'"),
        ({"prefixItems": [{"$ref": "#/prefixItems/-1"}]}, "$ref to '#/prefixItems/-1'"),
        ({"$dynamicRef": "#a"}, "$dynamicRef to '#a'"),
        ({"$id": "a#b"}, "$id 'a#b' has a fragment"),
        ({"$anchor": "a", "not": {"$anchor": "a"}}, "$anchor 'a' stands at two schemas"),
        ({"$schema": "https://a.test/dialect"}, "$schema is 'https://a.test/dialect'"),
        ({"contains": {"const": 1}, "minContains": 9}, "minContains is 9; at most 8"),
        ({"contains": {"minimum": 0, "multipleOf": 2}, "maxContains": 1}, "multipleOf cannot be negated"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "not": {"$ref": "#/$defs/a"}}, "refers to itself"),
        (
            {"allOf": [{"contains": {"contains": {"contains": {"contains": {"const": 1}}}}}] * 9},
            "more than 20000 parts",
        ),
    ],
)
def test_a_refusal_says_what_and_why(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(named)):
        to_grammar(StructuredOutputs(json=schema))


def test_thousands_of_references_take_no_time() -> None:
    chain = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(6000)}
    started = time.thread_time()
    to_grammar(StructuredOutputs(json={"$ref": "#/$defs/d0", "$defs": chain | {"d6000": {"type": "string"}}}))
    assert time.thread_time() - started < 2


def test_what_contains_counts_stands_among_the_first_items() -> None:
    tokenizer, vocabulary = demo_vocabulary()
    schema = {"contains": {"const": "x"}, "minContains": 2, "maxContains": 3}
    matcher = vocabulary.compile(vocabulary.grammar(StructuredOutputs(json=schema)))
    for places in itertools.chain.from_iterable(itertools.combinations(range(WITHIN), n) for n in range(5)):
        value = ["x" if i in places else "y" for i in range(WITHIN + 4)]
        assert admits(matcher, tokenizer, value) == (2 <= len(places) <= 3)
    assert not admits(matcher, tokenizer, ["x", *"y" * (WITHIN - 1), "x"])


def test_a_format_stands_beside_a_pattern() -> None:
    tokenizer, vocabulary = demo_vocabulary()
    schema = {"format": "json-pointer", "pattern": "b$"}
    matcher = vocabulary.compile(vocabulary.grammar(StructuredOutputs(json=schema)))
    assert [admits(matcher, tokenizer, text) for text in ("/a/b", "/a", "a/b")] == [True, False, False]


def _keywords(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(_keywords, value.values()))
    return set().union(*map(_keywords, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("model", ["demo", "random"])
def test_answers_are_valid(judged: Suite, model: str, tiny_model: Path) -> None:
    """Of models that know nothing of schemas, at temperature 1.5."""
    llm = LLM(str(DEMO) if model == "demo" else str(tiny_model), threads=1, kv_memory="16MiB", max_model_len=256)
    cases = [case for case, _ in judged.accepted if "format" not in case.name]
    params = [
        SamplingParams(temperature=1.5, seed=i, max_tokens=100, structured_outputs=StructuredOutputs(json=case.schema))
        for i, case in enumerate(cases)
    ]
    outputs = llm.generate([[5, 9, 2, 7]] * len(cases), params)
    complete = 0
    for case, output in zip(cases, outputs, strict=True):
        answer = output.outputs[0]
        if answer.finish_reason != "stop":
            continue
        complete += 1
        value = json.loads(answer.text.removesuffix("\x01"))  # the end of the random model, whose tokens are bytes
        if "Infinity" not in json.dumps(value):  # 1e99999 is JSON, and no number of Python's
            assert jsonschema_rs.is_valid(case.schema, value), (case.name, value)
    assert complete > len(cases) / 3


def test_a_tokenizer_of_bytes_is_as_good(judged: Suite) -> None:
    tokenizer = Tokenizer.of_bytes()
    vocabulary = Vocabulary(tokenizer, [])
    for case, _ in judged.accepted[::10]:
        matcher = vocabulary.compile(vocabulary.grammar(StructuredOutputs(json=case.schema)))
        for test in case.tests:
            assert admits(matcher, tokenizer, test["data"]) == test["valid"] or UNDER in test["description"]
