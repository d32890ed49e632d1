"""Everything that OpenAI's endpoints answer is what OpenAI's own API description says, and streams add up to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from tests.server.api.openai import NAMED, OTHER, SCHEMA, TOOL
from tests.server.openai_schemas import check
from tests.server.running import Server

SAYS = [{"role": "user", "content": "What is 1 + 2?"}]
FORM = {"type": "json_schema", "json_schema": {"name": "pair", "schema": SCHEMA, "strict": True}}
CALLED = [
    *SAYS,
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", **NAMED}]},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
]
CALLED[1]["tool_calls"][0]["function"] = {"name": "add", "arguments": '{"a": 1}'}  # type: ignore[index]
CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": {"n": 2, "logprobs": True, "top_logprobs": 2},
    "no logprobs at all": {"max_tokens": 1, "logprobs": True},
    "called": {"tools": [TOOL, OTHER], "tool_choice": "required", "max_tokens": 300},
    "named": {"tools": [TOOL, OTHER], "tool_choice": NAMED, "max_tokens": 300, "n": 2},
    "one call": {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 300},
    "free": {"tools": [TOOL, OTHER]},
    "after a call": {"messages": CALLED, "tools": [TOOL]},
    "structured": {"response_format": FORM, "max_tokens": 200},
    "structured or called": {"response_format": FORM, "tools": [TOOL], "max_tokens": 200},
    "json": {"response_format": {"type": "json_object"}},
    "vllm": {"return_token_ids": True, "prompt_logprobs": 1, "structured_outputs": {"choice": ["yes", "no"]}},
}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "several": {"prompt": ["a", "b"], "n": 2, "logprobs": 2},
    "regex": {"guided_regex": "[0-9]{3}", "return_token_ids": True},
}


def _events(server: Server, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with server.http.stream("POST", server.url + path, json=body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    yield from map(json.loads, lines)


def _added(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Chat deltas put together, as every client does it."""
    answers: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            found = answers.setdefault(choice["index"], {"content": "", "reasoning": "", "calls": {}, "logprobs": []})
            assert "finish_reason" not in found, "nothing follows the end"
            delta = choice["delta"]
            assert ("role" in delta) == (found.setdefault("deltas", 0) == 0), "the role comes first, and once"
            found["deltas"] += 1
            found["content"] += delta.get("content") or ""
            found["reasoning"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                if "id" in call:
                    assert call["function"]["name"] and call["type"] == "function"
                    found["calls"][call["index"]] = {"name": call["function"]["name"], "arguments": ""}
                found["calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            found["logprobs"] += (choice["logprobs"] or {}).get("content") or []
            if choice["finish_reason"] is not None:
                found["finish_reason"] = choice["finish_reason"]
    return answers


def _chat(server: Server, more: dict[str, Any]) -> dict[str, Any]:
    body = {"messages": SAYS, "max_tokens": 12, "seed": 4, "stream_options": {"include_usage": True}} | more
    whole = server.post("/v1/chat/completions", {k: v for k, v in body.items() if k != "stream_options"})
    assert whole.status_code == 200, whole.text
    answer: dict[str, Any] = whole.json()
    check("CreateChatCompletionResponse", answer)
    chunks = list(_events(server, "/v1/chat/completions", body))
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
        assert (chunk["id"], chunk["system_fingerprint"]) == (chunks[0]["id"], answer["system_fingerprint"])
    # What was cached differs from the first time to the second.
    counted = {**chunks[-1]["usage"], "prompt_tokens_details": answer["usage"]["prompt_tokens_details"]}
    assert chunks[-1]["choices"] == [] and counted == answer["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    for index, added in _added(chunks).items():
        choice = answer["choices"][index]
        message = choice["message"]
        assert added["content"] == (message["content"] or "")
        assert added["reasoning"] == message.get("reasoning_content", "")
        assert list(added["calls"].values()) == [call["function"] for call in message.get("tool_calls", ())]
        assert added["finish_reason"] == choice["finish_reason"]
        assert added["logprobs"] == (choice["logprobs"] or {}).get("content", [])
    return answer


@pytest.mark.parametrize("more", CHATS.values(), ids=CHATS)
def test_a_chat(server: Server, more: dict[str, Any]) -> None:
    answer = _chat(server, more)
    for choice in answer["choices"]:
        calls = choice["message"].get("tool_calls", ())
        assert (choice["finish_reason"] == "tool_calls") == (bool(calls) and choice["finish_reason"] != "length")
        if more.get("tool_choice") and choice["finish_reason"] != "length":
            assert calls
        for call in calls:
            if call["function"]["name"] == "add" and choice["finish_reason"] == "tool_calls":
                jsonschema_rs.validate(SCHEMA, json.loads(call["function"]["arguments"]))
        if "response_format" in more and not calls and choice["finish_reason"] == "stop":
            jsonschema_rs.validate(SCHEMA, json.loads(choice["message"]["content"]))


EFFORTS: list[dict[str, Any]] = [
    {},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "low", "response_format": FORM, "max_tokens": 400},
    {"thinking_budget": 5, "max_tokens": 30},
    {"enable_thinking": False, "tools": [TOOL], "tool_choice": "required", "max_tokens": 300},
    {"tools": [TOOL], "tool_choice": "required", "thinking_budget": 4, "max_tokens": 300},
]


@pytest.mark.parametrize("more", EFFORTS, ids=lambda more: " ".join(more))
def test_a_chat_with_reasoning(thinking_server: Server, more: dict[str, Any]) -> None:
    answer = _chat(thinking_server, more)
    message = answer["choices"][0]["message"]
    tokens = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    if more.get("reasoning_effort") == "none" or more.get("enable_thinking") is False:
        assert tokens == 0 and "reasoning_content" not in message
    else:
        assert 0 < tokens <= answer["usage"]["completion_tokens"] and message["reasoning_content"]


@pytest.mark.parametrize("more", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_completion(server: Server, more: dict[str, Any]) -> None:
    body = {"prompt": "The keeper", "max_tokens": 8, "seed": 3} | more
    answer = server.post("/v1/completions", body).json()
    check("CreateCompletionResponse", answer)
    texts = {choice["index"]: "" for choice in answer["choices"]}
    for chunk in _events(server, "/v1/completions", body):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
            # The description has no word for an answer that is not over; the official client's types do.
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        check("CreateCompletionResponse", chunk)
    assert texts == {choice["index"]: choice["text"] for choice in answer["choices"]}


def test_the_best_of_several(server: Server) -> None:
    body = {"prompt": "The keeper", "max_tokens": 6, "seed": 3, "ignore_eos": True, "return_token_ids": True}
    scored = server.post("/v1/completions", body | {"n": 5, "logprobs": 0}).json()["choices"]
    best = sorted(scored, key=lambda choice: -sum(choice["logprobs"]["token_logprobs"]))
    answer = server.post("/v1/completions", body | {"n": 2, "best_of": 5}).json()
    assert [choice["token_ids"] for choice in answer["choices"]] == [choice["token_ids"] for choice in best[:2]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 30, "all that was generated is counted"


def test_what_else_is_answered(server: Server) -> None:
    listed = server.http.get(server.url + "/v1/models").json()
    check("ListModelsResponse", listed)
    check("Model", server.http.get(f"{server.url}/v1/models/{listed['data'][0]['id']}").json())
    for path, body in (
        ("/v1/chat/completions", {}),
        ("/v1/completions", []),
        ("/v1/nothing", {}),
        ("/v1/responses", {}),
    ):
        refused = server.post(path, body)
        assert refused.status_code >= 400
        check("ErrorResponse", refused.json())
