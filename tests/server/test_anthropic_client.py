"""The official `anthropic` client against a running server; every event is checked against its own types."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import types

from tests.server.conftest import MAX_MODEL_LEN
from tests.server.running import Server, serving
from tests.server.variants import write_variant

EVENT = pydantic.TypeAdapter[Any](types.RawMessageStreamEvent)
MESSAGE = pydantic.TypeAdapter(types.Message)
ASKED: dict[str, Any] = {
    "model": "tiny-chat",
    "max_tokens": 24,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Who are you?"}],
}
GREEDY: Any = {"temperature": 0}
LIST = {"type": "array", "items": {"type": "integer"}, "minItems": 300, "maxItems": 300}
LONG: dict[str, Any] = ASKED | {
    "max_tokens": 1800,
    "output_config": {"format": {"type": "json_schema", "schema": LIST}},
}
"""Its answer cannot end early."""
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather in a place",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
BROKEN = WEATHER | {"input_schema": {"type": "object", "properties": {"city": {"$ref": "#/$defs/nowhere"}}}}
OSLO: dict[str, Any] = {
    "model": "demo",
    "max_tokens": 80,
    "tools": [WEATHER],
    "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
}


def _client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def client(server: Server) -> anthropic.Anthropic:
    return _client(server)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    log = tmp_path_factory.mktemp("demo") / "log"
    with serving(Path("demo"), log, "--kv-memory", "64MiB") as server:
        yield _client(server)


def exact(adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    """`value` is what the client declares: nothing missing, nothing that it does not know."""
    parsed = adapter.validate_python(value)
    _no_extras(parsed)
    return parsed


def _no_extras(found: Any) -> None:
    if isinstance(found, pydantic.BaseModel):
        assert not found.model_extra, (type(found).__name__, found.model_extra)
        for name in type(found).model_fields:
            _no_extras(getattr(found, name))
    for item in found if isinstance(found, list) else ():
        _no_extras(item)


def events(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """As they come over the wire; each is named by its type."""
    found = []
    with anthropic.DefaultHttpxClient(timeout=60) as http:
        text = http.post(f"{url}/v1/messages", json=body | {"stream": True}).text
    assert text.endswith("\n\n")
    for block in text[:-2].split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def check_order(found: list[dict[str, Any]]) -> None:
    """Anthropic's: one block after the other, each begun and ended, between the message's own events."""
    assert [event["type"] for event in found[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in found[-2:]] == ["message_delta", "message_stop"]
    opened = -1
    is_open = False
    for event in found[2:-2]:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == opened + 1
            opened, is_open = opened + 1, True
        else:
            assert is_open and event["index"] == opened
            is_open = event["type"] != "content_block_stop"
    assert not is_open
    for event in found:
        if event["type"] != "ping":
            exact(EVENT, event)


def test_a_message_streams_what_it_answers(client: anthropic.Anthropic, server: Server) -> None:
    body = ASKED | GREEDY
    raw = server.post("/v1/messages", body).json()
    answer = exact(MESSAGE, raw)
    assert (answer.role, answer.model, answer.stop_sequence) == ("assistant", "tiny-chat", None)
    found = events(server.url, body)
    check_order(found)
    with client.messages.stream(**ASKED, extra_body=GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == answer.content[0].text == final.content[0].text  # type: ignore[union-attr]
    assert (final.stop_reason, final.usage.output_tokens) == (answer.stop_reason, answer.usage.output_tokens)
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == 24
    assert answer.id.startswith("msg_") and answer.id != final.id


def test_what_is_counted_is_what_is_used(client: anthropic.Anthropic) -> None:
    asked = {name: value for name, value in ASKED.items() if name != "max_tokens"} | {"tools": [WEATHER]}
    asked["messages"] = [{"role": "user", "content": "lighthouse " * 40}]
    counted = client.messages.count_tokens(**asked).input_tokens
    first = client.messages.create(**asked, max_tokens=1).usage
    again = client.messages.create(**asked, max_tokens=1).usage
    for usage in (first, again):
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) == counted
    assert again.cache_read_input_tokens == counted // 16 * 16 - (16 if counted % 16 == 0 else 0) > 0


def test_a_conversation_reaches_the_template(client: anthropic.Anthropic, server: Server) -> None:
    """Its prompt has as many tokens as the same conversation in OpenAI's words, and answers the same."""
    cached: Any = {"type": "ephemeral"}
    failed: Any = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "no"}]}
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Weather?", "cache_control": cached}]},
        {"role": "user", "content": "In Oslo."},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
        },
        {
            "role": "user",
            "content": [failed | {"is_error": True}, {"type": "text", "text": "And now?"}],
        },
    ]
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": cached}, {"type": "text", "text": "Be kind."}]
    asked: Any = {"model": "tiny-chat", "messages": messages, "system": system, "tools": [WEATHER]}
    call = {"id": "t1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    function = {"name": WEATHER["name"], "description": WEATHER["description"], "parameters": WEATHER["input_schema"]}
    same = {
        "messages": [
            {"role": "system", "content": "Be brief.\nBe kind."},
            {"role": "user", "content": "Weather?\nIn Oslo."},
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "Error: no"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": function}],
    }
    tokens = server.post("/tokenize", same).json()["count"]
    assert client.messages.count_tokens(**asked).input_tokens == tokens
    answer = server.post("/v1/messages", asked | GREEDY | {"max_tokens": 12, "tool_choice": {"type": "none"}})
    other = server.post("/v1/chat/completions", same | {"max_tokens": 12, "temperature": 0, "tool_choice": "none"})
    assert answer.json()["content"][0]["text"] == other.json()["choices"][0]["message"]["content"]


def test_a_prefilled_answer_goes_on(client: anthropic.Anthropic, server: Server) -> None:
    answer = client.messages.create(**ASKED, extra_body=GREEDY).content[0].text  # type: ignore[union-attr]
    head = answer[: len(answer) // 2].rstrip()
    messages = [*ASKED["messages"], {"role": "assistant", "content": head}]
    prompt = server.post("/apply-template", {"messages": ASKED["messages"]}).json()["prompt"]
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    completion = {"prompt": system + prompt + head, "max_tokens": 8, "temperature": 0}
    expected = server.post("/v1/completions", completion).json()["choices"][0]["text"]
    found = server.post("/v1/messages", ASKED | GREEDY | {"messages": messages, "max_tokens": 8}).json()
    assert found["content"][0]["text"] == expected
    called = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}
    refused = server.post("/v1/messages", ASKED | {"messages": [*ASKED["messages"], called]})
    assert refused.status_code == 400 and "tool_result" in refused.text


def test_stop_sequences(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ASKED, extra_body=GREEDY).content[0].text  # type: ignore[union-attr]
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    given: Any = ASKED | {"stop_sequences": ["never", stop], "extra_body": GREEDY}
    answer = client.messages.create(**given)
    assert answer.content[0].text == whole[: whole.index(stop)]  # type: ignore[union-attr]
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    with client.messages.stream(**given) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.stop_sequence) == ("stop_sequence", stop)


def test_more_than_the_context_holds(client: anthropic.Anthropic, server: Server) -> None:
    """Anthropic's models stop with the context since Claude 4.5; only a prompt that is too long is refused."""
    asked: Any = ASKED | {"messages": [{"role": "user", "content": "lighthouse " * 900}], "max_tokens": 100_000}
    answer = client.messages.create(**asked, extra_body=GREEDY)
    used = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) + answer.usage.output_tokens
    assert answer.stop_reason == "model_context_window_exceeded" and used == MAX_MODEL_LEN
    asked["messages"] = [{"role": "user", "content": "lighthouse " * 3000}]
    with pytest.raises(anthropic.BadRequestError, match=str(MAX_MODEL_LEN)):
        client.messages.create(**asked)


def test_the_demo_model_calls_a_tool_and_reads_its_result(demo: anthropic.Anthropic) -> None:
    answer = demo.messages.create(**OSLO, extra_body=GREEDY)
    (call,) = answer.content
    assert answer.stop_reason == "tool_use" and call.type == "tool_use" and call.id.startswith("toolu_")
    assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
    streams = [events(str(demo.base_url).rstrip("/"), OSLO | GREEDY) for _ in range(3)]
    pieces = []
    for found in streams:
        check_order(found)
        pieces.append([event["delta"]["partial_json"] for event in found if event["type"] == "content_block_delta"])
        assert json.loads("".join(pieces[-1])) == call.input
    assert max(map(len, pieces)) > 1, "a server that is behind sends several as one, but it is not always"
    with demo.messages.stream(**OSLO, extra_body=GREEDY) as stream:
        assert stream.get_final_message().content[0].input == call.input  # type: ignore[union-attr]
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain, 7 degrees"}
    # The client's own block goes back as it came.
    messages: Any = [*OSLO["messages"], answer.to_param(), {"role": "user", "content": [result]}]
    last = demo.messages.create(**(OSLO | {"messages": messages}), extra_body=GREEDY)
    assert last.stop_reason == "end_turn" and "7" in last.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_own_loop_over_tools(demo: anthropic.Anthropic, stream: bool) -> None:
    """It asks for a thread kept by the server, and sends whole conversations when told that there are none."""
    called: list[str] = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Weather in a place"""
        called.append(city)
        return "rain, 7 degrees"

    asked: Any = OSLO | {"tools": [get_weather], "stream": stream, "extra_body": GREEDY}
    last = demo.beta.messages.tool_runner(**asked).until_done()
    assert called == ["Oslo"] and "7" in last.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_forced_call(demo: anthropic.Anthropic, choice: Any) -> None:
    asked: Any = OSLO | {"messages": [{"role": "user", "content": "Hello!"}], "tool_choice": choice}
    answer = demo.messages.create(**asked, extra_body=GREEDY)
    assert answer.stop_reason == "tool_use"
    assert [block.name for block in answer.content if block.type == "tool_use"][0] == "get_weather"


def test_a_call_that_is_cut_off_ends_early(demo: anthropic.Anthropic) -> None:
    asked: Any = OSLO | {"max_tokens": 18}
    answer = demo.messages.create(**asked, extra_body=GREEDY)
    with demo.messages.stream(**asked, extra_body=GREEDY) as stream:
        final = stream.get_final_message()
    assert answer.stop_reason == final.stop_reason == "max_tokens"
    assert answer.content[0].input == final.content[0].input  # type: ignore[union-attr]


def test_an_answer_in_a_form(client: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "schema": schema}
    for given in ({"output_config": {"format": form}}, {"output_format": form}):
        answer = client.messages.create(**ASKED, extra_body=given | {"temperature": 2})
        assert json.loads(answer.content[0].text)["n"] in (1, 2)  # type: ignore[union-attr]


def test_thinking(thinking_server: Server) -> None:
    thinker = _client(thinking_server)
    asked: Any = {"model": "tiny-thinker", "max_tokens": 40, "messages": [{"role": "user", "content": "Why?"}]}
    budget: Any = {"type": "enabled", "budget_tokens": 10}
    answer = thinker.messages.create(**asked, thinking=budget, extra_body=GREEDY)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.usage.output_tokens_details is not None
    assert 10 <= answer.usage.output_tokens_details.thinking_tokens < 20
    found = events(thinking_server.url, asked | {"thinking": budget} | GREEDY)
    check_order(found)
    kinds = {event["delta"]["type"] for event in found if event["type"] == "content_block_delta"}
    assert kinds == {"thinking_delta", "signature_delta", "text_delta"}
    ends = [at for at, event in enumerate(found) if event["type"] == "content_block_stop"]
    assert found[ends[0] - 1]["delta"] == {"type": "signature_delta", "signature": ""}, "Vercel's client waits for it"
    hidden = thinker.messages.create(**asked, thinking=budget | {"display": "omitted"}, extra_body=GREEDY)
    assert hidden.content[0].thinking == "" and hidden.content[1] == answer.content[1]  # type: ignore[union-attr]
    silent = thinker.messages.create(**asked, thinking={"type": "disabled"}, extra_body=GREEDY)
    assert [block.type for block in silent.content] == ["text"]
    # What was thought can be sent back.
    told: Any = [*asked["messages"], answer.to_param(), {"role": "user", "content": "Go on."}]
    assert thinker.messages.create(**(asked | {"messages": told})).usage.output_tokens > 0


@pytest.mark.parametrize(
    "wrong, named",
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "'document'"),
        ({"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]}, "redacted"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}]}, "tool_result"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}]},
            "0.content.0.foo of a text;",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "0.content.0.text must be a"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [WEATHER | {"name": ""}]}, "tools.0.name"),
        ({"tools": [WEATHER | {"input_schema": {"type": "string"}}]}, "tools: 'get_weather' takes string"),
        ({"tools": [BROKEN], "tool_choice": {"type": "any"}}, "tools: .*/.defs/nowhere"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}}, "other"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "budget_tokens"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"container": "x"}, "container"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"stop_sequences": [""]}, "stop"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "strin"}}}}, "strin"),
    ],
    ids=str,
)
def test_refusals(client: anthropic.Anthropic, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=named) as refused:
        client.messages.create(**(ASKED | {"extra_body": wrong}))
    assert isinstance(refused.value.body, dict)
    error = exact(pydantic.TypeAdapter(types.ErrorResponse), refused.value.body)
    assert error.error.type == "invalid_request_error"


def test_errors_are_the_clients_own(client: anthropic.Anthropic, server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError, match="claude-9") as missing:
        client.messages.create(**(ASKED | {"model": "claude-9"}))
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.ContentTooLargeError) as large:
        client.messages.create(**(ASKED | {"system": "x" * (33 * 2**20)}))
    assert large.value.body["error"]["type"] == "request_too_large"  # type: ignore[index]


def test_keys_and_a_full_queue(chat_model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me:a-key-of-my-own-1\n")
    limits = ("--api-keys", str(keys), "--max-num-seqs", "1", "--max-queue", "1", "--kv-memory", "32MiB")
    with serving(chat_model, tmp_path / "log", *limits) as server:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            _client(server).messages.create(**ASKED)
        assert unknown.value.type == "authentication_error"
        client = anthropic.Anthropic(base_url=server.url, api_key="a-key-of-my-own-1", max_retries=0)
        with ThreadPoolExecutor(6) as pool:
            with server.standing_still():
                asked = [pool.submit(client.messages.create, **LONG) for _ in range(6)]
                wait(asked, return_when=FIRST_EXCEPTION)
            refused = [error for each in asked if (error := each.exception()) is not None]
        assert 1 <= len(refused) < 6
        for error in refused:
            assert isinstance(error, anthropic.RateLimitError) and error.type == "rate_limit_error"
            assert error.response.headers["retry-after"]


def test_models(client: anthropic.Anthropic) -> None:
    listed = client.models.list()
    (model,) = listed.data
    assert not listed.has_next_page() and listed.first_id == listed.last_id == "tiny-chat"
    _no_extras(model)
    assert (model.id, model.type, model.max_input_tokens) == ("tiny-chat", "model", MAX_MODEL_LEN)
    assert model.created_at.tzinfo is not None and client.models.retrieve("tiny-chat") == model
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("claude-9")
    assert client.models.list(limit=1000).data == [model] == list(client.models.list(limit=1))
    for query in ({"limit": 0}, {"limit": "٣x"}, {"after_id": "tiny-chat"}):
        with pytest.raises(anthropic.BadRequestError, match=next(iter(query))):
            client.models.list(extra_query=query)


def test_a_request_has_an_id(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ASKED, extra_headers={"x-request-id": "mine-7"})
    assert answer._request_id == "mine-7"
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**(ASKED | {"model": "claude-9"}))
    assert missing.value.request_id


def test_a_client_that_goes_away_frees_its_pages(client: anthropic.Anthropic, server: Server) -> None:
    def begun() -> anthropic.Stream[Any]:
        stream = client.messages.create(**LONG, stream=True, extra_headers={"x-request-id": "anthropic-leaves"})
        assert any(event.type == "content_block_delta" for event in stream)
        return stream

    with server.caught(begun) as stream:
        stream.close()
        assert "abort" in server.says("request_id=anthropic-leaves .*client_disconnected")
    server.until_idle()


def test_a_stream_outlives_its_engine_process(client: anthropic.Anthropic, server: Server) -> None:
    whole = client.messages.create(**LONG, extra_body=GREEDY)
    with client.messages.stream(**LONG, extra_body=GREEDY) as stream:
        next(iter(stream.text_stream))
        engine = server.engine_pid()
        os.kill(engine, signal.SIGKILL)
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert final.stop_reason == whole.stop_reason and final.usage.output_tokens == whole.usage.output_tokens > 600
    assert server.engine_pids() != [engine]


def test_a_stream_that_cannot_go_on_raises(tmp_path: Path) -> None:
    """Its engine is killed and its model is gone, so that no other can be started."""
    model = write_variant(tmp_path / "lost", context=32768)
    form = {"format": {"type": "json_schema", "schema": {"type": "string", "minLength": 100_000}}}
    endless = ASKED | {"model": "lost", "max_tokens": 32_000, "output_config": form}
    with serving(model, tmp_path / "log", "--kv-memory", "64MiB") as server:
        (model / "config.json").unlink()
        with _client(server).messages.stream(**endless) as stream:
            next(iter(stream.text_stream))
            os.kill(server.engine_pid(), signal.SIGKILL)
            with pytest.raises(anthropic.APIStatusError, match="could not be restarted") as broken:
                stream.get_final_message()
        assert broken.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
