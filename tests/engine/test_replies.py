"""Calls and reasoning of the built-in model itself: what it says is read, and what is forced on it is what it says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from hexad.bench.skill_tools import tools as tool_examples
from hexad.checkpoints.hub import DEMO_DIRECTORY
from hexad.engine.llm import LLM
from hexad.errors import BadRequest
from hexad.text.formats import FORMATS, Tool
from hexad.text.reply import ReplyParser
from hexad.text.reply_grammar import reply_grammar
from hexad.types import SamplingParams, StructuredOutputs
from tests.text.replies import Said, put_together


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("demo", threads=1)


def demo_with(directory: Path, name: str, change: Callable[[str], str]) -> LLM:
    """The built-in model with one of its files changed."""
    for path in DEMO_DIRECTORY.iterdir():
        (directory / path.name).symlink_to(path)
    (directory / name).unlink()
    (directory / name).write_text(change((DEMO_DIRECTORY / name).read_text()))
    return LLM(str(directory), threads=1)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    """Told by its template that it reasons. It never learned to stop."""
    opening = "{%- if add_generation_prompt and enable_thinking %}{{ '<think>\\n' }}{% endif %}"
    return demo_with(tmp_path_factory.mktemp("thinker"), "chat_template.jinja", lambda source: source + opening)


def tools_of(schemas: list[dict[str, Any]], strict: bool = False) -> list[Tool]:
    functions = [schema["function"] for schema in schemas]
    return [Tool(name=each["name"], parameters=each["parameters"], strict=strict) for each in functions]


def answer(llm: LLM, messages: Any, schemas: Any, params: SamplingParams) -> Said:
    """As the server asks and reads, token by token."""
    prompt = llm.frontend.render(messages, tools=schemas)
    stream = llm.submit(prompt, params, add_special_tokens=False, markers=True)
    parser = ReplyParser(llm.frontend.format, tools=tools_of(schemas or []), thinking=True, prompt_tail=prompt)
    events, read = [], 0
    for _ in llm.run([stream]):
        text = stream.output.outputs[0].text
        events += parser.push(text[read:])
        read = len(text)
    assert stream.error is None
    return put_together([*events, *parser.finish()])


def test_the_demo_model_calls_tools_and_is_read(llm: LLM) -> None:
    assert llm.frontend.format.name == "hermes" and llm.frontend.format.reasoning is None
    rng = random.Random(5)
    right = called = 0
    while called < 12:
        example = tool_examples(rng, held_out=True)
        if not example.answer.startswith("<tool_call>"):
            continue
        called += 1
        said = answer(llm, example.messages, example.tools, SamplingParams(temperature=0.0, max_tokens=120))
        call = json.loads(example.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        read = [(name, json.loads(arguments)) for name, arguments in said.calls]
        right += read == [(call["name"], call["arguments"])] and not said.content
    assert right >= 9


def test_markers_that_are_special_tokens_are_read_and_shown_to_nobody_else(llm: LLM, tmp_path: Path) -> None:
    def all_special(source: str) -> str:
        tokenizer = json.loads(source)
        for token in tokenizer["added_tokens"]:
            token["special"] = True
        return json.dumps(tokenizer)

    special = demo_with(tmp_path, "tokenizer.json", all_special)
    examples = (tool_examples(random.Random(seed), held_out=True) for seed in range(99))
    example = next(example for example in examples if "<tool_call>" in example.answer)
    params = SamplingParams(temperature=0.0, max_tokens=120)
    said = answer(special, example.messages, example.tools, params)
    assert said.calls and said == answer(llm, example.messages, example.tools, params)
    (output,) = special.chat(example.messages, params, tools=example.tools)
    assert '{"name"' in output.outputs[0].text and "<tool_call>" not in output.outputs[0].text


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_call_that_is_required_is_made_and_obeys_its_schema(llm: LLM, temperature: float) -> None:
    """Also by a model that is asked something else altogether, at a temperature where it rambles."""
    schemas = tool_examples(random.Random(1), held_out=False).tools
    tools = tools_of(schemas, strict=True)
    tokens = llm.frontend.format.tokens(llm.frontend.tokenizer.token_id)
    grammar = reply_grammar(llm.frontend.format, tools=tools, choice="required", parallel=False, tokens=tokens)
    for seed in range(4):
        params = SamplingParams(
            temperature=temperature, max_tokens=200, seed=seed, structured_outputs=StructuredOutputs(grammar=grammar)
        )
        said = answer(llm, [{"role": "user", "content": "Hello, who are you?"}], schemas, params)
        ((name, arguments),) = said.calls
        assert not said.content
        (tool,) = (tool for tool in tools if tool.name == name)
        jsonschema_rs.validator_for(tool.parameters).validate(json.loads(arguments))


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_reasoning_ends_within_its_budget(thinker: LLM, budget: int) -> None:
    tokenizer, end = thinker.frontend.tokenizer, FORMATS["hermes"].reasoning
    assert end is not None and thinker.frontend.format.reasoning == end
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = thinker.frontend.render(messages, enable_thinking=True)
    params = SamplingParams(temperature=0.0, max_tokens=40, min_tokens=40, thinking_budget=budget)
    (output,) = thinker.chat(messages, params, chat_template_kwargs={"enable_thinking": True})
    tokens = output.outputs[0].token_ids
    forced = tokenizer.encode(end[1], add_special_tokens=False)
    assert tokens[budget : budget + len(forced)] == forced
    parser = ReplyParser(thinker.frontend.format, tools=[], thinking=True, prompt_tail=prompt)
    said = put_together([*parser.push(output.outputs[0].text), *parser.finish()])
    assert said.content and bool(said.reasoning) == bool(budget)


def test_a_budget_is_refused_by_a_model_that_does_not_reason(llm: LLM) -> None:
    with pytest.raises(BadRequest, match="shows no reasoning") as refusal:
        llm.generate("Hello", SamplingParams(thinking_budget=5))
    assert refusal.value.param == "thinking_budget"
