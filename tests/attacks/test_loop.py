"""What one client sends is never paid for by others: no body, however large, holds up the event loop."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.conftest import OTHER, USER, Target, settled
from tests.server import raw
from tests.server.beside import answer_beside
from tests.server.running import AT_LAST_S, serving
from tests.server.variants import write_variant

SAID = {"role": "user", "content": "a"}
NAMED = {"model": "tiny-chat", "max_tokens": 1, "messages": [SAID]}
LONG = "hello world " * 1300
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "messages": ("/v1/chat/completions", {"messages": [SAID] * 400_000}),
    "messages for Claude": ("/v1/messages", NAMED | {"messages": [SAID] * 300_000}),
    "parts": ("/v1/messages", NAMED | {"messages": [SAID | {"content": [{"type": "text", "text": "a"}] * 300_000}]}),
    "items": ("/v1/responses", {"input": [SAID] * 300_000}),
    "messages for Ollama": ("/api/chat", {"model": "tiny-chat", "messages": [SAID] * 300_000}),
    "names": ("/v1/completions", {"prompt": "a"} | {f"k{i}": 1 for i in range(60_000)}),
    "biases": ("/v1/completions", {"prompt": "a", "logit_bias": {f"x{i}": "a" for i in range(60_000)}}),
    "prompts": ("/v1/completions", {"prompt": [LONG] * 1024, "max_tokens": 1}),
    "arrays": ("/v1/completions", {"prompt": "a", "metadata": {"a": [[1]] * 2_000_000}}),
    "tokens": ("/detokenize", {"tokens": [77] * 4_000_000}),
    "integers": ("/v1/completions", {"prompt": "a", "metadata": {"a": [1] * 11_000_000}}),
    "texts": ("/v1/completions", {"prompt": "a", "metadata": {"a": ["abc"] * 4_000_000}}),
    "keys": ("/v1/completions", {"prompt": "a", "metadata": {f"k{i}": 1 for i in range(1_500_000)}}),
    "a suffix": ("/v1/completions", {"prompt": "a", "suffix": "lighthouse " * 13_000, "max_tokens": 1}),
    "a tool": (
        "/v1/messages",
        NAMED | {"tools": [{"name": "f", "input_schema": {"enum": list(range(1_000_000))}}]},
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_large_body_holds_up_nobody(target: Target, name: str) -> None:
    answer = answer_beside(target, *BODIES[name], under_s=0.6, key=OTHER)
    assert answer.status_code == 400, answer.text[:300]


def test_many_large_tools_hold_up_nobody(tmp_path: Path) -> None:
    """With a template that shows none of them, so that all become a grammar."""
    choices = [f"value {number}" for number in range(8)]
    fields = {f"f{number}": {"type": "string", "enum": choices, "description": "About it. " * 9} for number in range(5)}
    model = write_variant(tmp_path / "tiny")
    template = "{#<tool_call>#}{{ messages[0].content }}"
    (model / "chat_template.jinja").write_text(template)

    deep = {f"g{number}": {"type": "object", "properties": fields} for number in range(12)}
    schema = {"type": "object", "properties": fields | deep, "required": list(fields)}
    functions = [{"name": f"tool_{number}", "strict": True, "parameters": schema} for number in range(128)]
    openai = [{"type": "function", "function": each} for each in functions]
    anthropic = [{"name": each["name"], "input_schema": each["parameters"]} for each in functions]
    said = {"model": "tiny", "messages": [SAID], "max_tokens": 1}
    with serving(model, tmp_path / "log", "--tool-format", "hermes") as server:
        for path, body in (
            ("/v1/chat/completions", said | {"tools": openai, "tool_choice": "required"}),
            ("/v1/messages", said | {"tools": anthropic, "tool_choice": {"type": "any"}}),
            ("/v1/responses", {"input": "a", "tools": [{"type": "function", **each} for each in functions]}),
            ("/api/chat", {"model": "tiny", "messages": [SAID], "tools": openai, "options": {"num_predict": 1}}),
        ):
            answer = answer_beside(server, path, body, under_s=0.2)
            assert settled(answer), answer.text[:300]


def test_tools_are_told_apart_and_counted_in_every_dialect(target: Target) -> None:
    said = {"model": "tiny-chat", "messages": [SAID], "max_tokens": 1}
    function = {"name": "f", "parameters": {"type": "object"}}
    dialects: dict[str, tuple[dict[str, Any], Any]] = {
        "/v1/chat/completions": (said, {"type": "function", "function": function}),
        "/v1/responses": ({"input": "a"}, {"type": "function", **function}),
        "/v1/messages": (said, {"name": "f", "input_schema": {"type": "object"}}),
        "/api/chat": ({"model": "tiny-chat", "messages": [SAID]}, {"type": "function", "function": function}),
    }
    for path, (body, tool) in dialects.items():
        for count, word in ((2, "two functions named 'f'"), (300, "at most 256")):
            answer = target.post(path, body | {"tools": [tool] * count})
            assert answer.status_code == 400 and word in answer.text, (path, count, answer.text)


def test_bodies_that_never_end_fill_no_memory(target: Target) -> None:
    """Nine of them together are over the bound; small requests are answered all the while, and large ones later."""
    part, before = b" " * 2**20, target.memory_mb()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nx-api-key: %b\r\nContent-Type: application/json\r\n"
    small = {"prompt": "a", "max_tokens": 1}
    with contextlib.ExitStack() as connections:
        for _ in range(14):
            sender = raw.sent(target, head % USER.encode() + b"Content-Length: 33000000\r\n\r\n")
            connections.enter_context(sender)
            with contextlib.suppress(OSError):
                for _ in range(30):
                    sender.sendall(part)
        assert target.memory_mb() - before < 340
        assert target.post("/v1/completions", small).status_code == 200
    deadline = time.monotonic() + AT_LAST_S
    while target.post("/v1/completions", small | {"metadata": {"a": "x" * 2**20}}).status_code != 200:
        assert time.monotonic() < deadline
