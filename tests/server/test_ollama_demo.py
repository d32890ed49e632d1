"""The official `ollama` client against the built-in model: tools and structure, as its users write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from ollama import Client, ResponseError
from ollama._utils import convert_function_to_tool
from pydantic import BaseModel, ConfigDict, Field

from hexad.server.ollama_types import OllamaMessage
from tests.server.running import Server, serving


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Path("demo"), tmp_path_factory.mktemp("log") / "server.log", "--kv-memory", "64MiB") as running:
        yield running
        running.until_idle()


@pytest.fixture(scope="module")
def client(demo: Server) -> Client:
    return Client(host=demo.url)


def get_weather(city: str) -> str:
    """Get the weather of a city.

    Args:
        city: the city

    Returns:
        str: the weather
    """
    return json.dumps({"temperature": 21, "sky": "sunny"})


TOOL = convert_function_to_tool(get_weather).model_dump(exclude_none=True)
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY: Any = {"temperature": 0}


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_told(client: Client, demo: Server, stream: bool) -> None:
    asked: Any = {"model": "demo", "messages": ASKED, "tools": [get_weather], "options": GREEDY}
    parts = list(client.chat(**asked, stream=True)) if stream else [client.chat(**asked)]
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert call.function.name == "get_weather" and call.function.arguments == {"city": "Paris"}
    assert "".join(part.message.content or "" for part in parts) == "" and parts[-1].done_reason == "stop"
    message = next(part.message for part in parts if part.message.tool_calls)
    result: Any = {"role": "tool", "tool_name": "get_weather", "content": get_weather(**call.function.arguments)}
    told = client.chat("demo", [*ASKED, message, result], tools=[get_weather], options=GREEDY)
    assert "21 degrees" in (told.message.content or "") and not told.message.tool_calls
    older = {"role": "tool", "name": "get_weather", "content": result["content"]}  # as Ollama's first examples say it
    assert OllamaMessage.model_validate(older) == OllamaMessage.model_validate(result)
    body: Any = {"model": "demo", "messages": [*ASKED, message.model_dump(exclude_none=True), older], "stream": False}
    answer = demo.post("/api/chat", body | {"tools": [TOOL], "options": GREEDY}).json()
    assert (
        answer["message"]["content"] == told.message.content and answer["prompt_eval_count"] == told.prompt_eval_count
    )


def test_a_call_that_is_cut_off_is_no_call(client: Client) -> None:
    cut = client.chat("demo", ASKED, tools=[get_weather], options=GREEDY | {"num_predict": 14})
    assert cut.done_reason == "length" and not cut.message.tool_calls


class Place(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: Annotated[str, Field(max_length=12)]
    degrees: Annotated[int, Field(ge=-50, le=60)]
    sunny: bool


def test_format_is_a_schema_that_holds(client: Client) -> None:
    for seed in range(3):
        asked: Any = {"format": Place.model_json_schema(), "options": {"seed": seed, "temperature": 1.5}}
        answer = client.chat("demo", ASKED, **asked)
        Place.model_validate_json(answer.message.content or "")
        raw = client.generate("demo", "The weather in Paris as JSON?", raw=True, **asked)
        Place.model_validate_json(raw.response)
        streamed = client.generate("demo", ASKED[0]["content"], stream=True, **asked)
        Place.model_validate_json("".join(part.response or "" for part in streamed))


def test_format_json_is_any_object(client: Client) -> None:
    answer = client.chat("demo", ASKED, format="json", options={"num_predict": 200, "seed": 1, "temperature": 0.5})
    assert answer.done_reason == "length" or isinstance(json.loads(answer.message.content or ""), dict)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ({"name": "f", "parameters": {"type": ["string", "null"]}}, "'f' takes ['string', 'null']"),
        ({"name": ""}, "tools.0.function.name"),
    ],
)
def test_a_tool_that_cannot_be_called_is_refused(demo: Server, function: dict[str, Any], says: str) -> None:
    refused = demo.post("/api/chat", {"model": "demo", "messages": ASKED, "tools": [{"function": function}]})
    assert refused.status_code == 400 and says in refused.json()["error"]


def test_a_schema_that_cannot_be_held_is_refused(client: Client) -> None:
    with pytest.raises(ResponseError, match="format: .* strnig") as refused:
        client.chat("demo", ASKED, format={"type": "strnig"})
    assert refused.value.status_code == 400


def test_what_the_model_cannot_do_is_told(client: Client) -> None:
    assert client.show("demo").capabilities == ["completion", "tools"]
    with pytest.raises(ResponseError, match="think") as refused:
        client.chat("demo", ASKED, think=True)
    assert refused.value.status_code == 400
    assert client.chat("demo", ASKED, think=False, options=GREEDY).message.thinking is None
