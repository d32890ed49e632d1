"""Faults 13 to 17: poisoned requests: grammars, templates, pictures and addresses."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.attacks.conftest import OTHER, Target, settled
from tests.server.beside import answer_beside, completion
from tests.server.outside import Quiet, answering

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def deep_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def named_schema(name: str, schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}}


BOMBS: dict[str, dict[str, Any]] = {
    "a deep schema": named_schema("deep", deep_schema(25)),
    "100,000 values": named_schema("wide", {"enum": [f"v{i}" for i in range(100_000)]}),
    "a schema that refers to itself": named_schema(
        "loop", {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    ),
    "a schema elsewhere": named_schema("remote", {"$ref": "http://127.0.0.1:9/schema.json"}),
    "a schema on this machine": named_schema("file", {"$ref": "file:///etc/passwd"}),
    "no schema at all": named_schema("none", {"type": "nonsense"}),
    "a schema nothing fits": named_schema("empty", {"type": "integer", "minimum": 3, "maximum": 2}),
    "a pattern with a million states": {"structured_outputs": {"regex": "(a{1000}){1000}"}},
    "nested repetition": {"structured_outputs": {"regex": "((((a{1,99}){1,99}){1,99}){1,99}){1,99}"}},
    "a pattern of choices": {"structured_outputs": {"regex": "(" + "|".join(f"x{i}.*y" for i in range(5000)) + ")"}},
    "a look-behind": {"structured_outputs": {"regex": "(?<=a)b"}},
    "half a pattern": {"structured_outputs": {"regex": "(["}},
    "a grammar without end": {"structured_outputs": {"grammar": "start: start start"}},
    "a grammar of nothing": {"structured_outputs": {"grammar": "start: undefined"}},
    "a grammar that is none": {"structured_outputs": {"grammar": "\0" * 1000}},
    "a long grammar": {"structured_outputs": {"grammar": "start: " + " | ".join(f'"w{i}"' for i in range(200_000))}},
    "a choice of everything": {"structured_outputs": {"choice": [f"choice {i}" for i in range(200_000)]}},
    "two shapes": {"structured_outputs": {"regex": "a", "choice": ["b"]}},
}


def shaped(target: Target, body: dict[str, Any]) -> httpx.Response:
    return target.http.post(target.url + "/v1/chat/completions", json=CHAT | body, timeout=60)


@pytest.mark.parametrize("name", BOMBS)
def test_a_grammar_bomb_is_refused_and_holds_up_nobody(target: Target, name: str) -> None:
    before = target.memory_mb()
    answer = answer_beside(target, "/v1/chat/completions", CHAT | BOMBS[name], 2, OTHER, completion)
    # What is not a bomb for this compiler is answered, with what was asked for; the others are refused by name.
    assert settled(answer), answer.text[:500]
    if name.startswith(("a schema", "no schema", "half", "a look", "a grammar", "two")):
        assert answer.status_code == 400, answer.text[:500]
    if answer.status_code == 400:
        assert answer.json()["error"]["param"], answer.text
    assert answer.elapsed.total_seconds() < 30
    assert target.memory_mb() - before < 300


def test_endless_unique_grammars_are_forgotten(target: Target) -> None:
    def ask(number: int) -> None:
        body = {"prompt": "a", "max_tokens": 1, "structured_outputs": {"regex": f"x{number}[a-z]{{1,20}}"}}
        assert target.post("/v1/completions", body).status_code == 200

    for number in range(50):
        ask(number)
    before = target.memory_mb()
    for number in range(50, 450):
        ask(number)
    assert target.memory_mb() - before < 80


INJECTIONS = [
    "{{ 7 * 7 }}",
    "{% for x in range(10**9) %}x{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ 'a' * 10**10 }}",
    "__import__('os').system('id')",
    "{{ lipsum.__globals__ }}",
    "{% raise_exception('x') %}",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_a_user_writes_is_no_template(target: Target, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    tokens = target.post("/tokenize", {"messages": messages}).json()["tokens"]
    assert text in target.post("/detokenize", {"tokens": tokens}).json()["prompt"]
    for name in ("chat_template", "chat_template_file", "template"):
        refused = target.post("/v1/chat/completions", CHAT | {name: text})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == name
    for name in ("messages", "tools", "add_generation_prompt"):
        refused = target.post("/v1/chat/completions", CHAT | {"chat_template_kwargs": {name: text}})
        assert refused.status_code == 400
    given = target.post("/v1/chat/completions", CHAT | {"chat_template_kwargs": {"unused": text}})
    assert given.status_code in (200, 400)


@pytest.fixture(scope="module")
def canary() -> Iterator[tuple[int, list[str]]]:
    """A web server that must never be asked."""
    hits: list[str] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            hits.append(self.path)
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
            self.end_headers()

        do_POST = do_HEAD = do_GET

    with answering(Handler) as port:
        yield port, hits


def addresses(port: int) -> list[str]:
    return [
        f"http://127.0.0.1:{port}/a.png",
        f"http://2130706433:{port}/a.png",
        f"http://[::1]:{port}/a.png",
        f"http://localhost:{port}/a.png",
        f"http://evil.example\\@127.0.0.1:{port}/a.png",
        f"http://127.1:{port}/a.png",
        "http://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA6mAAAOpgCAYAAAA=",
    ]


def test_no_address_in_a_request_is_ever_fetched(target: Target, canary: tuple[int, list[str]]) -> None:
    port, hits = canary
    for url in addresses(port):
        for part in (
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "input_image", "image_url": url},
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
            {"type": "file", "file": {"file_id": url}},
        ):
            refused = target.post("/v1/chat/completions", {"messages": [{"role": "user", "content": [part]}]})
            error = refused.json()["error"]
            assert refused.status_code == 400 and str(error["param"]).startswith("messages.0.content"), error
            assert "0x" not in error["message"] and "etc/passwd" not in refused.text.replace(url, "")
        for path, body in (
            ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
            ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]}),
            ("/v1/completions", {"prompt": "a", "max_tokens": 1, "prompt_embeds": url}),
            ("/v1/completions", {"prompt": "a", "max_tokens": 1, "model": url}),
        ):
            assert target.post(path, body).status_code in (400, 404)
    assert hits == []


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "tiny-chat/../x", "\0", "C:\\"]
)
def test_a_models_name_is_no_path(target: Target, name: str) -> None:
    answer = target.post("/v1/completions", {"prompt": "a", "max_tokens": 1, "model": name})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    for path in (f"/v1/models/{name}", f"/web/{name}", f"/v1/responses/{name}"):
        got = target.http.get(httpx.URL(target.url).copy_with(raw_path=path.replace("\0", "%00").encode()))
        assert got.status_code in (400, 404) and "root:" not in got.text


def test_a_tool_that_is_a_bomb(target: Target) -> None:
    def tool(name: str, parameters: Any) -> dict[str, Any]:
        return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": True}}

    for tools in (
        [tool("f", deep_schema(30))],
        [tool("f", {"enum": list(range(50_000))})],
        [tool(f"f{i}", {"type": "object", "properties": {}}) for i in range(5000)],
        [tool("__import__('os').system('id')", {"type": "object"})],
        [tool("f", {"$ref": "#"})],
        [tool("f" * 100_000, {"type": "object"})],
    ):
        for choice in ("auto", "required"):
            started = time.monotonic()
            answer = shaped(target, {"tools": tools, "tool_choice": choice})
            assert settled(answer), answer.text[:300]
            assert time.monotonic() - started < 20, json.dumps(tools)[:100]
