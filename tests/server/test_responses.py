"""/v1/responses with the official client: whole, streamed, stored, gone on from."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from hexad.errors import NotFound
from hexad.server.responses_store import ResponseStore
from tests.server.api.openai import FLAT, FLAT_FORM, FLAT_NAME, ITEMS, SCHEMA
from tests.server.openai_schemas import check
from tests.server.running import Server, serving
from tests.server.variants import write_variant

MODEL = "tiny-chat"
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "stops by itself": {"text": FLAT_FORM, "max_output_tokens": 300},
    "logprobs": {"top_logprobs": 2},
    "called": {"tools": [FLAT], "tool_choice": "required", "max_output_tokens": 300},
    "named": {"tools": [FLAT], "tool_choice": FLAT_NAME, "parallel_tool_calls": False, "max_output_tokens": 300},
    "items": {"input": ITEMS, "instructions": "Be brief.", "metadata": {"a": "b"}, "store": False, "user": "me"},
}
PAIRS = {
    "response.output_item.added": "response.output_item.done",
    "response.content_part.added": "response.content_part.done",
}


def _events(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    with server.http.stream("POST", server.url + "/v1/responses", json=body | {"stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = list(answer.iter_lines())
    named = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert named == [event["type"] for event in events]
    return events


def _plain(response: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two runs: ids, times, what was cached."""
    text = json.dumps({**response, "id": 0, "created_at": 0, "completed_at": 0, "usage": 0})
    for item in response["output"]:
        for name in ("id", "call_id"):
            text = text.replace(item.get(name, "no such id"), name)
    plain: dict[str, Any] = json.loads(text)
    return plain


def _check_order(events: list[dict[str, Any]]) -> None:
    """Numbered without a gap; every item and part opens before its deltas and closes after them."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    opened: list[str] = []
    text = ""
    for event in events[2:-1]:
        kind = event["type"]
        if kind in PAIRS:
            opened.append(PAIRS[kind])
            text = ""
        elif kind in PAIRS.values():
            assert opened.pop() == kind
        elif kind.endswith(".delta"):
            assert opened
            text += event["delta"]
        else:
            assert event.get("text", event.get("arguments")) == text, "done tells what the deltas added up to"
    assert not opened


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("fixture", ["server", "thinking_server"])
def test_a_response_streams_what_it_answers(
    asked: dict[str, Any], fixture: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(fixture)
    body = {"input": "What is 1 + 2?", "max_output_tokens": 12, "temperature": 0} | asked
    answer = server.post("/v1/responses", body)
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    check("Response", whole)
    events = _events(server, body)
    for event in events:
        check("ResponseStreamEvent", event)
    _check_order(events)
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{whole['status']}"
    assert _plain(last) == _plain(whole)
    assert last["output"] == [event["item"] for event in events if event["type"] == "response.output_item.done"]
    if whole["status"] == "completed":
        for item in whole["output"]:
            if item["type"] == "function_call":
                jsonschema_rs.validate(SCHEMA, json.loads(item["arguments"]))
            elif item["type"] == "message" and "text" in asked:
                jsonschema_rs.validate(SCHEMA, json.loads(item["content"][0]["text"]))
    if fixture == "thinking_server":
        assert whole["output"][0]["type"] == "reasoning"
        assert whole["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


def test_logprobs_spell_the_text(server: Server) -> None:
    body = {"input": "hi", "max_output_tokens": 20, "temperature": 0, "include": ["message.output_text.logprobs"]}
    (part,) = server.post("/v1/responses", body).json()["output"][0]["content"]
    spelled = b"".join(bytes(token["bytes"]) for token in part["logprobs"]).decode("utf-8", "replace")
    assert part["text"] and spelled.startswith(part["text"])


def test_a_stored_response_is_gone_on_from(server: Server) -> None:
    client = server.client()
    first = client.responses.create(model=MODEL, input="I am Ada.", instructions="Be kind.", max_output_tokens=6)
    second = client.responses.create(
        model=MODEL, input="Who am I?", previous_response_id=first.id, max_output_tokens=4, temperature=0
    )
    assert client.responses.retrieve(second.id).output_text == second.output_text
    listed = list(client.responses.input_items.list(second.id, limit=2, order="asc"))
    assert [item.type for item in listed] == ["message"] * 3
    assert listed[0].content[0].text == "I am Ada." and listed[1].content[0].text == first.output_text  # type: ignore
    page = server.http.get(f"{server.url}/v1/responses/{second.id}/input_items?limit=1").json()
    check("ResponseItemList", page)
    assert page["has_more"] and page["data"][0]["content"][0]["text"] == "Who am I?"
    # The same conversation in one piece: instructions are not carried over.
    said = [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": first.output_text}]
    same: Any = [*said, {"role": "user", "content": "Who am I?"}]
    whole = client.responses.create(model=MODEL, input=same, max_output_tokens=4, temperature=0)
    assert whole.output_text == second.output_text
    assert whole.usage and second.usage and whole.usage.input_tokens == second.usage.input_tokens
    client.responses.delete(first.id)
    for gone in (lambda: client.responses.retrieve(first.id), lambda: client.responses.delete(first.id)):
        with pytest.raises(openai.NotFoundError):
            gone()
    with pytest.raises(openai.NotFoundError) as refused:
        client.responses.create(model=MODEL, input="And?", previous_response_id=second.id)
    assert refused.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(second.id)


def test_an_item_may_be_referred_to(server: Server) -> None:
    """As Vercel's SDK does with what the assistant said, from the second turn on."""
    client = server.client()
    asked: Any = {"role": "user", "content": "hi"}
    short: Any = {"model": MODEL, "max_output_tokens": 4, "temperature": 0}
    first = client.responses.create(input=[asked], **short)
    texts, tokens = [], []
    for said in (first.output[0].model_dump(), {"type": "item_reference", "id": first.output[0].id}):
        answer = client.responses.create(input=[asked, said, asked], **short)
        assert answer.usage
        texts.append(answer.output_text)
        tokens.append(answer.usage.input_tokens)
    assert texts[0] == texts[1] and tokens[0] == tokens[1]
    client.responses.delete(first.id)
    followed = client.responses.create(input="And?", previous_response_id=answer.id, **short)
    assert [item.type for item in client.responses.input_items.list(followed.id)] == ["message"] * 5, "it was copied"
    unstored = client.responses.create(input=[asked], store=False, **short)
    for unknown in (first.output[0].id, unstored.output[0].id, answer.output[0].id + "1", "msg_x", "x"):
        with pytest.raises(openai.NotFoundError, match=unknown) as refused:
            client.responses.create(input=[{"type": "item_reference", "id": unknown}], **short)
        assert refused.value.param == "input"


ITEM_TYPES = "'message', 'function_call', 'function_call_output', 'item_reference', 'reasoning'"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"input": [{"type": "reasoning", "text": "x"}]}, "input.0.text", "unknown parameter input.0.text of a reasoning"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id", "input.0.call_id is missing"),
    ({"input": [{"type": "web_search_call"}]}, "input.0", f"'web_search_call'; this server knows {ITEM_TYPES}"),
    ({"input": [{"type": 5}]}, "input.0", f"input.0 is of type '5'; this server knows {ITEM_TYPES}"),
    ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "'developer'; found \"tool\""),
    ({"input": [{"role": "user", "content": 5}]}, "input.0.content", "a valid list; found 5"),
    ({"input": ["hi"]}, "input.0", 'input.0 must be an object; found "hi"'),
    ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools.0.name", "tools.0.name is missing"),
    ({"tools": [{"name": "x"}]}, "tools.0", "tools.0 must be an object with a type; found an object"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice", "this server knows 'function', 'allowed_tools'"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "text.format.schema is missing"),
    ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "metadata must be of at most 16 items"),
    ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens is 0; it must be in"),
    ({"max_output_tokens": 10**6}, "max_output_tokens", "lower max_output_tokens to at most"),
    ({"seeds": 5}, "seeds", "unknown parameter seeds; did you mean seed?"),
]


@pytest.mark.parametrize(("given", "param", "says"), WRONG, ids=[case[2][:40] for case in WRONG])
def test_what_is_wrong_is_named(server: Server, given: dict[str, Any], param: str, says: str) -> None:
    refused = server.post("/v1/responses", {"input": "hi"} | given)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["param"] == param and says in error["message"], error


def test_what_is_not_to_be_stored_is_not(server: Server) -> None:
    client = server.client()
    answer = client.responses.create(model=MODEL, input="hi", store=False, max_output_tokens=2)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(answer.id)
    with pytest.raises(openai.NotFoundError, match="/tokenize"):
        client.responses.input_tokens.count(model=MODEL, input="hi")


def test_a_stream_that_breaks_ends_in_an_error(tmp_path: Path) -> None:
    """Its engine is killed and its model is gone, so that no other can be started."""
    form = {"type": "json_schema", "name": "long", "schema": {"type": "string", "minLength": 100_000}}
    body = {"input": "hi", "stream": True, "text": {"format": form}}
    events: list[dict[str, Any]] = []
    model = write_variant(tmp_path / "lost", context=32768)
    with (
        serving(model, tmp_path / "log", "--kv-memory", "64MiB") as server,
        server.http.stream("POST", server.url + "/v1/responses", json=body) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        for line in answer.iter_lines():
            if line.startswith("data: "):
                if not events:
                    (model / "config.json").unlink()
                    os.kill(server.engine_pid(), signal.SIGKILL)
                events.append(json.loads(line.removeprefix("data: ")))
    failed, error = events[-2:]
    for event in (failed, error):
        check("ResponseStreamEvent", event)
    assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
    assert error["type"] == "error" and error["sequence_number"] == failed["sequence_number"] + 1


class Pair(BaseModel):
    model_config = {"extra": "forbid"}
    name: str
    count: int


def test_parse_and_stream_helpers(server: Server) -> None:
    client: OpenAI = server.client()
    found = client.responses.parse(model=MODEL, input="hi", text_format=Pair, max_output_tokens=400, temperature=0)
    assert (found.output_parsed is not None) == (found.status == "completed")
    asked: Any = {"role": "user", "content": "hi"}
    again = [asked, *(item.model_dump() for item in found.output), asked]  # with `parsed`, as the client adds it
    assert client.responses.create(model=MODEL, input=again, max_output_tokens=2)
    with client.responses.stream(model=MODEL, input="hi", max_output_tokens=8, temperature=0) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and "response.output_text.delta" in kinds
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model=MODEL, input="hi", stream=True, text={"format": {"type": "json_schema",
            "name": "x", "schema": {"type": "no such type"}}})  # fmt: skip
    assert refused.value.param == "text.format"


def test_the_store_keeps_within_its_bound() -> None:
    def response(name: str) -> dict[str, Any]:
        return {"id": name, "previous_response_id": None, "output": ["x" * 100]}

    store = ResponseStore(max_bytes=1000)
    store.put("small", response("kept"), [])
    for number in range(50):
        store.put("big", response(f"r{number}"), [])
    assert store.get("small", "kept").previous is None, "one client does not push another's out"
    assert store.get("big", "r49")
    for client, name in (("big", "r0"), ("small", "r49"), ("nobody", "kept")):
        with pytest.raises(NotFound):
            store.get(client, name)
    with pytest.raises(NotFound):
        store.delete("nobody", "kept")
