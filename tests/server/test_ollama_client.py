"""The official `ollama` client against a running server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import httpx
import ollama
import pytest
from ollama import AsyncClient, ChatResponse, Client, GenerateResponse, ResponseError
from pydantic import BaseModel, TypeAdapter

from hexad.server.app import ROUTES
from hexad.server.ollama_types import Options
from tests.server.api.ollama import OPTIONS
from tests.server.conftest import MAX_MODEL_LEN
from tests.server.running import Server

MODEL = "tiny-chat"
PROMPT = "The lighthouse keeper wrote"
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
FIXED: Any = {"seed": 5, "num_predict": 24, "temperature": 1.0}
DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(host=server.url)


def lines(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The raw lines of a stream."""
    with httpx.stream("POST", server.url + path, json=body, timeout=60) as response:
        assert response.status_code == 200 and response.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in response.iter_lines()]


def known(model: type[BaseModel], answer: dict[str, Any]) -> None:
    """Nothing in an answer that the client has no field for."""
    extra = set(answer) - set(model.model_fields)
    assert not extra, extra
    model.model_validate(answer)


def test_a_chat_streams_what_it_answers(client: Client, server: Server) -> None:
    long = FIXED | {"num_predict": 300}
    whole = client.chat(MODEL, MESSAGES, options=long)
    streams = [list(client.chat(MODEL, MESSAGES, options=long, stream=True)) for _ in range(3)]
    for parts in streams:
        assert "".join(part.message.content or "" for part in parts) == whole.message.content != ""
        assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
        assert {part.message.role for part in parts} == {"assistant"} and {part.model for part in parts} == {MODEL}
        assert parts[-1].done_reason == whole.done_reason in ("stop", "length")
        assert parts[-1].eval_count == whole.eval_count and parts[-1].prompt_eval_count == whole.prompt_eval_count
    assert max(map(len, streams)) > 5, "a server that is behind sends several tokens as one, but it is not always"
    for line in lines(server, "/api/chat", {"model": MODEL, "messages": MESSAGES, "options": FIXED}):
        known(ChatResponse, line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line["created_at"])


def test_generate_streams_what_it_answers(client: Client, server: Server) -> None:
    asked: Any = {"system": "Be brief.", "options": FIXED}
    whole = client.generate(MODEL, "Who are you?", **asked)
    parts = list(client.generate(MODEL, "Who are you?", **asked, stream=True))
    assert "".join(part.response or "" for part in parts) == whole.response != ""
    assert whole.response == client.chat(MODEL, MESSAGES, options=FIXED).message.content
    for line in lines(server, "/api/generate", {"model": MODEL, "prompt": "x", "options": FIXED}):
        known(GenerateResponse, line)


def test_raw_is_the_prompt_as_it_stands(client: Client, server: Server) -> None:
    answer = client.generate(MODEL, PROMPT, raw=True, options=FIXED)
    same = server.client().completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, seed=5, temperature=1.0)
    assert answer.response == same.choices[0].text
    with pytest.raises(ResponseError, match="system"):
        client.generate(MODEL, PROMPT, raw=True, system="Be brief.")


def test_it_is_the_same_answer_as_openai_gives(client: Client, server: Server) -> None:
    same = server.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=24, seed=5, temperature=1.0
    )
    answer = client.chat(MODEL, MESSAGES, options=FIXED)
    assert answer.message.content == same.choices[0].message.content
    assert same.usage is not None and same.usage.prompt_tokens == answer.prompt_eval_count
    assert same.usage.completion_tokens == answer.eval_count


@pytest.mark.parametrize("stream", [False, True])
def test_durations_are_measured_and_add_up(client: Client, stream: bool) -> None:
    for _ in range(3):  # on a busy machine any moment may be long
        started = time.perf_counter_ns()
        if stream:
            *_, answer = client.chat(MODEL, MESSAGES, options={"num_predict": 1500, "seed": 1}, stream=True)
        else:
            answer = client.chat(MODEL, MESSAGES, options={"num_predict": 1500, "seed": 1})
        passed = time.perf_counter_ns() - started
        total, load, prompt, answering = [answer[name] for name in DURATIONS]
        assert min(total, prompt, answering) > 0 and load >= 0
        assert load + prompt + answering == pytest.approx(total, rel=0.01, abs=10**6) and total <= passed
        if answering > prompt:
            return
    pytest.fail("the first token takes longer than the others")


def test_an_answer_that_is_begun_goes_on(client: Client) -> None:
    free = client.chat(MODEL, MESSAGES, options={"temperature": 0, "num_predict": 20}).message.content or ""
    begun = [*MESSAGES, {"role": "assistant", "content": free[:8]}]
    rest = client.chat(MODEL, begun, options={"temperature": 0, "num_predict": 8}).message.content or ""
    assert free.startswith(free[:8] + rest[:4])


def test_num_predict(client: Client) -> None:
    assert client.generate(MODEL, PROMPT, options={"num_predict": 3}).eval_count == 3
    long = "lighthouse " * 450
    for unlimited, raw in ((-1, False), (-2, True), (10**6, False), (10**6, True)):
        options = {"num_predict": unlimited, "temperature": 1, "seed": 1}
        answer = client.generate(MODEL, long, raw=raw, options=options)
        assert answer.done_reason == "stop" or (answer.prompt_eval_count or 0) + (answer.eval_count or 0) == (
            MAX_MODEL_LEN
        )


def test_stop_and_penalties(client: Client) -> None:
    def answer(**options: Any) -> str:
        return client.generate(MODEL, PROMPT, options={"temperature": 0, "num_predict": 40} | options).response

    free = answer()
    stop = free[len(free) // 2 : len(free) // 2 + 3]
    assert answer(stop=[stop]) == free[: free.index(stop)]
    penalized = answer(repeat_penalty=1.5)
    assert penalized == answer(repeat_penalty=1.5, repeat_last_n=-1) != free
    assert answer(repeat_penalty=1.5, repeat_last_n=0) == answer(repeat_last_n=64) == free
    with pytest.raises(ResponseError, match=r"options.repeat_last_n is 64"):
        answer(repeat_penalty=1.5, repeat_last_n=64)


def test_logprobs(client: Client) -> None:
    asked: Any = {"options": {"temperature": 0, "num_predict": 8}, "logprobs": True, "top_logprobs": 3}
    whole = client.chat(MODEL, MESSAGES, **asked)
    assert whole.logprobs is not None and len(whole.logprobs) == whole.eval_count
    for found in whole.logprobs:
        assert found.top_logprobs is not None and len(found.top_logprobs) == 3
        assert found.logprob == max(top.logprob for top in found.top_logprobs) <= 0
    streamed = [found for part in client.chat(MODEL, MESSAGES, **asked, stream=True) for found in part.logprobs or ()]
    assert streamed == whole.logprobs


def test_what_clients_send_that_changes_no_answer(client: Client, server: Server) -> None:
    free = client.generate(MODEL, PROMPT, options=FIXED).response
    harmless = {"num_gpu": 99, "num_thread": 4, "num_ctx": 1024, "use_mmap": True, "num_batch": 512, "main_gpu": 0}
    off = {"mirostat": 0, "typical_p": 1, "tfs_z": 1.0, "penalize_newline": True, "mirostat_tau": 5.0, "num_keep": 4}
    assert client.generate(MODEL, PROMPT, options=FIXED | harmless | off).response == free
    # What Ollama's own command line sends: a Go struct with its empty fields.
    body = {"model": MODEL, "prompt": PROMPT, "suffix": "", "system": "", "template": "", "options": FIXED}
    assert lines(server, "/api/generate", body)[-1]["done"]
    assert lines(server, "/api/chat", {"model": MODEL, "messages": MESSAGES, "format": "", "options": None})


def test_an_empty_request_loads_the_model(client: Client) -> None:
    assert client.generate(MODEL).done_reason == "load"
    loaded = client.chat(MODEL, [], keep_alive="10m")
    assert loaded.done and loaded.done_reason == "load" and loaded.message.content == ""


def test_models(client: Client, server: Server) -> None:
    (listed,) = client.list().models
    (running,) = client.ps().models
    assert listed.model == running.model == f"{MODEL}:latest" and listed.digest == running.digest
    assert listed.digest is not None and re.fullmatch("[0-9a-f]{64}", listed.digest)
    assert listed.details is not None and listed.details.family == "llama" and (listed.size or 0) > 10**5
    assert running.context_length == MAX_MODEL_LEN and (running.size or 0) > (listed.size or 0)
    assert running.expires_at is not None and running.size_vram == 0
    shown = client.show(MODEL)
    assert shown.modelinfo is not None and shown.modelinfo["llama.context_length"] == MAX_MODEL_LEN
    assert shown.modelinfo["general.parameter_count"] > 10**5
    assert "<|im_start|>" in (shown.template or "") and "completion" in (shown.capabilities or [])
    for path in ("/api/version", "/api/tags"):
        assert server.http.head(server.url + path).status_code == 200
    assert re.fullmatch(r"\d+\.\d+\.\d+", server.http.get(server.url + "/api/version").json()["version"])


def test_a_name_with_its_tag_is_the_same_name(client: Client, server: Server) -> None:
    tagged = client.generate(f"{MODEL}:latest", PROMPT, options=FIXED)
    assert tagged.model == f"{MODEL}:latest"
    assert tagged.response == client.generate(MODEL, PROMPT, options=FIXED).response
    # There are clients that list models here and chat in another dialect.
    (listed,) = (model.model for model in client.list().models)
    asked = {"model": listed, "messages": MESSAGES[1:], "max_tokens": 2}
    for path in ("/v1/chat/completions", "/v1/messages"):
        assert server.post(path, asked).json()["model"] == MODEL
    assert server.client().models.retrieve(str(listed)).id == MODEL
    assert server.post("/v1/messages", asked | {"model": f"{MODEL}:7b"}).status_code == 404
    assert client.pull(MODEL).status == "success"
    assert [event.status for event in client.pull(f"{MODEL}:latest", stream=True)][-1] == "success"


def test_an_unknown_model_is_a_404_that_says_not_found(client: Client) -> None:
    asks = [
        lambda: client.generate("llama9", PROMPT),
        lambda: client.chat("llama9", MESSAGES),
        lambda: list(client.chat("llama9", MESSAGES, stream=True)),
        lambda: client.show("llama9"),
        lambda: client.pull("llama9"),
    ]
    for ask in asks:
        with pytest.raises(ResponseError, match="model 'llama9' not found") as refused:
            ask()
        assert refused.value.status_code == 404


def test_what_is_not_offered_says_so(client: Client, server: Server) -> None:
    asks = [
        lambda: client.embed(MODEL, "x"),
        lambda: client.embeddings(MODEL, "x"),
        lambda: client.create("mine", from_=MODEL),
        lambda: client.copy(MODEL, "other"),
        lambda: client.delete(MODEL),
        lambda: client.push(MODEL),
    ]
    for ask in asks:
        with pytest.raises(ResponseError, match="embeddings|hexad serve") as refused:
            ask()
        assert refused.value.status_code == 400


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"options": {"mirostat": 2}}, "options.mirostat must be left out or 0"),
    ({"options": {"typical_p": 0.5}}, "options.typical_p"),
    ({"options": {"num_ctx": 10**6}}, f"options.num_ctx is 1000000; .* {MAX_MODEL_LEN}"),
    ({"options": {"num_predict": 0}}, "options.num_predict must be above 0"),
    ({"options": {"repeat_penalty": 0}}, "options.repeat_penalty is refused"),
    ({"options": {"temperature": "hot"}}, "options.temperature must be a valid number"),
    ({"options": {"temprature": 1}}, "unknown parameter options.temprature"),
    ({"images": ["aGk="]}, "images must be left out"),
    ({"context": [1, 2]}, "context must be left out .* /api/chat"),
    ({"template": "{{ .Prompt }}"}, "template must be left out"),
    ({"keep_alive": "soon"}, "keep_alive must be .* 10m"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
    ({"frequency": 1}, "unknown parameter frequency"),
    ({"suffix": "the end"}, "suffix"),
]


@pytest.mark.parametrize(("given", "says"), WRONG, ids=[str(case[0])[:40] for case in WRONG])
def test_what_is_wrong_is_named(server: Server, given: dict[str, Any], says: str) -> None:
    for stream in (False, True):
        answer = server.post("/api/generate", {"model": MODEL, "prompt": PROMPT, "stream": stream} | given)
        assert answer.status_code == 400 and list(answer.json()) == ["error"]
        assert re.search(says, answer.json()["error"]), answer.json()


def test_a_body_without_a_type_is_read_unless_a_page_sends_it(server: Server) -> None:
    """curl -d, as in Ollama's examples, and a form on a page of somebody else."""
    body = json.dumps({"model": MODEL, "prompt": PROMPT, "stream": False, "options": FIXED})
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert server.http.post(server.url + "/api/generate", content=body, headers=headers).status_code == 200
    headers["origin"] = "https://elsewhere.example"
    refused = server.http.post(server.url + "/api/generate", content=body, headers=headers)
    assert refused.status_code in (403, 415)


def test_a_disconnect_in_the_middle_frees_the_request(server: Server) -> None:
    client = Client(host=server.url, headers={"x-request-id": "ollama-leaves"})

    def begun() -> Any:
        stream = client.generate(MODEL, PROMPT, stream=True, raw=True, options={"num_predict": 1900, "seed": 4})
        next(iter(stream))
        return stream

    with server.caught(begun) as stream:
        stream.close()
        assert "abort" in server.says("request_id=ollama-leaves .*client_disconnected")
    server.until_idle()


def test_the_async_client_and_many_streams_at_once(server: Server) -> None:
    async def streamed(client: AsyncClient, seed: int) -> str:
        options = {"seed": seed, "num_predict": 16, "temperature": 1.0}
        parts = await client.chat(MODEL, MESSAGES, stream=True, options=options)
        return "".join([part.message.content or "" async for part in parts])

    async def answers() -> list[str]:
        client = AsyncClient(host=server.url)
        return await asyncio.gather(*(streamed(client, seed) for seed in range(8)))

    together = asyncio.run(answers())
    assert together == asyncio.run(answers()) and len(set(together)) == 8
    client = ollama.Client(host=server.url)
    alone = client.chat(MODEL, MESSAGES, options={"seed": 3, "num_predict": 16, "temperature": 1.0})
    assert alone.message.content == together[3]


def test_every_option_is_in_the_table_of_parameters() -> None:
    named = {field.alias or name for name, field in Options.model_fields.items()}
    assert named == {row.name.partition(".")[2] for row in OPTIONS}
    assert set(ollama.Options.model_fields) <= named, "what the client can say"


def test_no_two_dialects_call_a_schema_the_same() -> None:
    """The OpenAPI page knows schemas by their names."""
    known: dict[str, Any] = {}
    for body in [route.body for route in ROUTES if route.body is not None]:
        for name, schema in TypeAdapter(body).json_schema().get("$defs", {}).items():
            assert known.setdefault(name, schema) == schema, name
