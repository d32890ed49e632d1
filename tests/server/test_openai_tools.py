"""Tools, structured answers and reasoning with the official `openai` client: the demo model, and a random one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, ConfigDict

from hexad.server.chat import _delta
from hexad.server.conversation import conversation
from hexad.server.openai_types import ChatRequest
from hexad.text.reply import CallArguments, CallStart
from tests.server.running import Server, serving

QUESTION: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}


class Berth(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["ship", "boat"]
    number: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Path("demo"), tmp_path_factory.mktemp("demo") / "log") as running:
        yield running


def test_a_call_and_its_answer(demo: Server) -> None:
    client = demo.client()
    asked: Any = {"model": "demo", "tools": [WEATHER], "temperature": 0, "max_tokens": 60}
    (choice,) = client.chat.completions.create(messages=QUESTION, **asked).choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    # What the client makes of the message goes back as it is.
    said = [*QUESTION, choice.message, {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "rain"}'}]
    (answer,) = client.chat.completions.create(messages=said, **asked).choices
    assert answer.finish_reason == "stop" and "rain" in (answer.message.content or "")
    dumped = [*QUESTION, choice.message.model_dump(), said[2]]
    assert client.chat.completions.create(messages=dumped, **asked).choices[0].message.content == answer.message.content


def test_a_call_streams(demo: Server) -> None:
    asked: Any = {"model": "demo", "messages": QUESTION, "tools": [WEATHER], "temperature": 0, "max_tokens": 60}
    with demo.client().chat.completions.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds and kinds[-1] == "tool_calls.function.arguments.done"
    (call,) = final.choices[0].message.tool_calls or ()
    assert json.loads(call.function.arguments) == {"city": "Oslo"}


def test_the_token_that_ends_an_answer_is_not_told_with_its_text(demo: Server) -> None:
    """`guidance` puts a stream's text together from the tokens of the chunks that have some."""
    asked: Any = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0}
    choices = [chunk.choices[0] for chunk in demo.client().chat.completions.create(stream=True, logprobs=True, **asked)]
    text = "".join(choice.delta.content or "" for choice in choices)
    told = [
        "".join(each.token for each in choice.logprobs.content or ()) if choice.logprobs else "" for choice in choices
    ]
    assert text and text == "".join(told[:-1]) and told[-1] == "<|im_end|>"


def test_a_tool_that_may_not_be_called_is_not(demo: Server) -> None:
    other: Any = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}
    allowed["allowed_tools"]["tools"][0]["function"] = {"name": "other"}  # type: ignore[index]
    asked: Any = {"model": "demo", "messages": QUESTION, "tools": [WEATHER, other], "temperature": 0, "max_tokens": 60}
    for choice in ("none", allowed, {"type": "function", "function": {"name": "other"}}):
        message = demo.client().chat.completions.create(tool_choice=choice, **asked).choices[0].message
        assert "get_weather" not in [call.function.name for call in message.tool_calls or ()]  # type: ignore[union-attr]


def test_parse_gives_objects(demo: Server) -> None:
    client = demo.client()
    for options in ({}, {"tools": [openai.pydantic_function_tool(Berth)]}):
        given: Any = {"model": "demo", "messages": QUESTION, "max_tokens": 60, "seed": 2} | options
        (choice,) = client.chat.completions.parse(response_format=Berth, **given).choices
        calls = choice.message.tool_calls or ()
        if calls:
            assert isinstance(calls[0].function.parsed_arguments, Berth)
        else:
            assert isinstance(choice.message.parsed, Berth)


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the client's, about its own classes
def test_what_the_clients_helpers_add_to_an_answer_may_come_back(demo: Server) -> None:
    """Of the same words once more: `parsed`, `parsed_arguments`, the `index` of a call that streamed."""
    client = demo.client()
    asked: Any = {"model": "demo", "temperature": 0, "max_tokens": 60}
    tools: Any = [WEATHER | {"function": WEATHER["function"] | {"strict": True}}]
    with client.chat.completions.stream(messages=QUESTION, tools=tools, tool_choice="required", **asked) as stream:
        called = stream.get_final_completion().choices[0].message
    (call,) = called.tool_calls or ()
    told: Any = {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "rain"}'}
    plain: Any = {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type"})]}
    plain["tool_calls"][0]["function"] = call.function.model_dump(include={"name", "arguments"})
    answers = [
        client.chat.completions.create(messages=[*QUESTION, said, told], tools=tools, **asked).choices[0].message
        for said in (plain, called, called.model_dump())
    ]
    assert call.function.parsed_arguments and len({answer.content for answer in answers}) == 1
    parsed = client.chat.completions.parse(messages=QUESTION, response_format=Berth, **asked).choices[0].message
    assert parsed.parsed and client.chat.completions.create(messages=[*QUESTION, parsed, *QUESTION], **asked)  # type: ignore[list-item]


def test_what_openais_sdk_for_agents_says_twice(demo: Server) -> None:
    """It puts what a message says beside its content into the content's part, too."""
    said = {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]}
    twice: dict[str, Any] = {"role": "assistant", "refusal": None, "annotations": [], "tool_calls": []}
    asked: dict[str, Any] = {"temperature": 0, "max_tokens": 20, "return_token_ids": True}
    tokens = []
    for more in ({}, twice, {"prompt_cache_breakpoint": {"mode": "explicit"}}):
        message = said | {"content": [{"type": "text", "text": "Rain."} | more]}
        answer = demo.post("/v1/chat/completions", asked | {"messages": [*QUESTION, message, *QUESTION]})
        assert answer.status_code == 200, answer.text
        tokens.append(answer.json()["prompt_token_ids"])
    assert tokens[0] == tokens[1] == tokens[2]
    part = {"type": "text", "text": "Rain.", "reasoning_content": "Hm."}
    body = ChatRequest.model_validate({"messages": [{"role": "assistant", "content": [part]}]})
    assert conversation(body)["messages"]()[0]["reasoning_content"] == "Hm."


def test_a_cut_answer_says_so(demo: Server) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        demo.client().chat.completions.parse(model="demo", messages=QUESTION, response_format=Berth, max_tokens=2)


@pytest.mark.parametrize("stop", ["Oslo", "</tool_call>"])
def test_a_call_is_made_if_its_arguments_are_complete_where_a_stop_string_ends_it(demo: Server, stop: str) -> None:
    """In every dialect that takes stop strings, streaming and not."""
    is_half = stop == "Oslo"
    asked: Any = {"model": "demo", "temperature": 0}
    chat: Any = asked | {"messages": QUESTION, "tools": [WEATHER], "stop": stop, "max_tokens": 60}
    (choice,) = demo.client().chat.completions.create(**chat).choices
    (call,) = choice.message.tool_calls or ()
    assert choice.finish_reason == ("stop" if is_half else "tool_calls") and choice.stop_reason == stop  # type: ignore[attr-defined]
    assert call.function.arguments == ('{"city": "' if is_half else '{"city": "Oslo"}')  # type: ignore[union-attr]
    chunks = list(demo.client().chat.completions.create(**chat, stream=True))
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason

    tool = WEATHER["function"] | {"type": "function"}
    response = demo.client().responses.create(
        model="demo", input=QUESTION, tools=[tool], temperature=0, extra_body={"stop": stop}
    )
    assert [(item.type, item.status) for item in response.output] == [  # type: ignore[union-attr]
        ("function_call", "incomplete" if is_half else "completed")
    ]

    claude: Any = {"tools": [{"name": "get_weather", "input_schema": CITY}], "stop_sequences": [stop], "max_tokens": 60}
    message = demo.post("/v1/messages", asked | {"messages": QUESTION} | claude).json()
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", stop)
    assert [block["input"] for block in message["content"]] == [{} if is_half else {"city": "Oslo"}]

    ollama: Any = {"model": "demo", "messages": QUESTION, "tools": [WEATHER], "stream": False}
    done = demo.post("/api/chat", ollama | {"options": {"temperature": 0, "stop": [stop]}}).json()
    assert done["done_reason"] == "stop" and len(done["message"].get("tool_calls", ())) == (not is_half)


BUDGETS = [0, 7]


@pytest.mark.parametrize("budget", BUDGETS)
def test_reasoning_keeps_to_its_budget(thinking_server: Server, budget: int) -> None:
    client: OpenAI = thinking_server.client()
    asked: Any = {"model": "tiny-thinker", "messages": QUESTION, "max_tokens": 60, "seed": 1}
    free = client.chat.completions.create(**asked, extra_body={"ignore_eos": True})
    bound = client.chat.completions.create(**asked, extra_body={"ignore_eos": True, "thinking_budget": budget})
    end = len(thinking_server.post("/tokenize", {"prompt": "</think>"}).json()["tokens"])

    def reasoning(answer: Any) -> int:
        counted: int = answer.usage.completion_tokens_details.reasoning_tokens
        return counted

    assert reasoning(bound) == budget + end or (budget == 0 and reasoning(bound) == 0)
    assert reasoning(free) > reasoning(bound) and bound.choices[0].message.content
    said = getattr(bound.choices[0].message, "reasoning_content", "")
    assert free.choices[0].message.reasoning_content.startswith(said.rstrip("\ufffd"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
    ({"tools": [WEATHER, WEATHER]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"thinking_budget": 5}, "thinking_budget"),
    ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": False}}}, "response_format"),
    ({"guided_regex": "("}, "guided_regex"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "x"}}}]},
        "tools",
    ),
]


@pytest.mark.parametrize(("given", "param"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_cannot_be_is_named(demo: Server, given: dict[str, Any], param: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        demo.client().chat.completions.create(model="demo", messages=QUESTION, extra_body=given, stream=stream)
    assert refused.value.param is not None and refused.value.param.startswith(param), refused.value.message


def test_calls_of_one_delta_stand_in_their_order() -> None:
    """As when a server that is behind sends the end of one call and the beginning of the next together."""
    ((first, second),) = _delta([CallArguments(0, "}"), CallStart(1, "f"), CallArguments(1, "{")]).values()
    assert (first["index"], first["function"]) == (0, {"arguments": "}"})
    assert (second["index"], second["function"]) == (1, {"name": "f", "arguments": "{"})
