"""Claude Code, Codex, opencode and Qwen Code: what they send, recorded, against a running server.

The recordings in `clients/recorded/` are one request each, with a call and its result where the agent could be led to
one; long texts are replaced by their length, ids by short ones. docs/clients.md says how the agents are set up.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.openai_schemas import check
from tests.server.running import Server, serving
from tests.server.variants import write_variant

RECORDED = Path(__file__).parent / "clients" / "recorded"
SHORT: dict[str, dict[str, Any]] = {
    "claude_code": {"model": "thinker", "max_tokens": 24},
    "codex": {"model": "thinker", "max_output_tokens": 24},
    "opencode": {"model": "plain", "max_tokens": 24},
    "qwen_code": {"model": "plain", "max_tokens": 24},
}
LAST = {"message_stop", "response.completed", "response.incomplete", "[DONE]"}
SAYS = {"role": "user", "content": "hi"}
RULE = {"role": "system", "content": "Rule two."}
LATE = re.compile(r"role .{0,2}system", re.IGNORECASE)
"""With this, a 400 and "not supported", Claude Code (2.1.197) asks again without a late system message."""
TOO_LONG = re.compile(r"prompt is too long[^0-9]*(\d+)\s*tokens?\s*>\s*(\d+)", re.IGNORECASE)
"""What Claude Code reads the numbers from; opencode looks for the words."""
REFUSES = """{%- for message in messages -%}{%- if message.role == 'system' and not loop.first -%}
{{ raise_exception('System message must be at the beginning.') }}{%- endif -%}{%- endfor -%}"""
DROPS = """{%- for message in messages -%}{%- if message.role != 'system' or loop.first -%}
{{ message.content }}{%- endif -%}{%- endfor -%}"""


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("agents")
    template = (write_variant(root / "plain", context=32768) / "chat_template.jinja").read_text()
    think = "{% if add_generation_prompt and enable_thinking is not false %}<think>\n{% endif %}"
    templates = {
        "thinker": template.rstrip() + think,
        "strict": REFUSES + template,
        "deaf": DROPS,
    }
    for name, text in templates.items():
        shutil.copytree(root / "plain", root / name)
        (root / name / "chat_template.jinja").write_text(text)
    models = [f"{name}={root / name}" for name in ("plain", *templates)]
    with serving(models, root / "log", "--kv-memory", "64MiB") as server:
        yield server


def _data(server: Server, path: str, body: dict[str, Any], headers: dict[str, str]) -> list[str]:
    with server.http.stream("POST", server.url + path, json=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        return [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]


@pytest.mark.parametrize("agent", SHORT)
def test_what_an_agent_sends_is_answered(agents: Server, agent: str) -> None:
    recorded = json.loads((RECORDED / f"{agent}.json").read_text())
    data = _data(agents, recorded["path"], recorded["body"] | SHORT[agent], recorded["headers"])
    assert len(data) > 3
    assert data[-1] in LAST or json.loads(data[-1])["type"] in LAST
    if agent == "codex":
        for event in data:
            check("ResponseStreamEvent", json.loads(event))


def test_a_function_in_a_namespace_is_called_and_answered(agents: Server) -> None:
    body = json.loads((RECORDED / "codex.json").read_text())["body"] | {"model": "plain", "reasoning": None}
    name = {"type": "function", "name": "multi_agent_v1__close_agent"}
    forced = body | {"tool_choice": name, "parallel_tool_calls": False, "max_output_tokens": 2000, "stream": False}
    answer = agents.post("/v1/responses", forced).json()
    check("Response", answer)
    (call,) = answer["output"]
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "multi_agent_v1", "close_agent")
    assert set(json.loads(call["arguments"])) == {"target"}
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "closed"}
    stored = agents.post("/v1/responses", forced | {"store": True}).json()
    (again,) = stored["output"]
    follows = {"model": "plain", "input": [result | {"call_id": again["call_id"]}], "max_output_tokens": 2}
    shown = agents.post("/v1/responses", follows | {"previous_response_id": stored["id"]})
    assert shown.status_code == 200, shown.text
    # With the name that the model knows, the call costs the same as in a plain function.
    plain = {key: value for key, value in call.items() if key != "namespace"} | {"name": name["name"]}
    used = [
        agents.post("/v1/responses", {"input": [SAYS, item, result], "max_output_tokens": 1}).json()["usage"]
        for item in (call, plain)
    ]
    assert used[0]["input_tokens"] == used[1]["input_tokens"]


def test_reasoning_can_be_sent_back_as_encrypted_content(agents: Server) -> None:
    body: dict[str, Any] = {"model": "thinker", "input": "hi", "max_output_tokens": 200, "store": False}
    body |= {"reasoning": {"effort": "minimal"}, "include": ["reasoning.encrypted_content"]}
    thought = agents.post("/v1/responses", body).json()["output"][0]
    assert thought["encrypted_content"] == "plain:" + thought["content"][0]["text"]
    hidden = {key: value for key, value in thought.items() if key != "content"}
    shown = {key: value for key, value in thought.items() if key != "encrypted_content"}
    (kept, told, none) = (
        agents.post("/v1/responses", {"input": [SAYS, *items, SAYS], "max_output_tokens": 1, "model": "thinker"}).json()
        for items in ([hidden], [shown], [])
    )
    assert kept["usage"]["input_tokens"] == told["usage"]["input_tokens"] > none["usage"]["input_tokens"]
    foreign = hidden | {"encrypted_content": "gAAAAABo"}
    refused = agents.post("/v1/responses", body | {"input": [SAYS, foreign, SAYS]})
    assert refused.status_code == 400 and "encrypted_content" in refused.text


@pytest.mark.parametrize(("model", "why"), [("strict", "must be at the beginning"), ("deaf", "leaves a system")])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/api/chat"])
def test_a_system_message_that_the_template_cannot_say_is_refused(
    agents: Server, model: str, why: str, path: str
) -> None:
    short = {"options": {"num_predict": 2}, "stream": False} if path == "/api/chat" else {"max_tokens": 2}
    body = {"model": model, "messages": [SAYS, RULE, SAYS], **short}
    refused = agents.post(path, body)
    assert refused.status_code == 400
    assert LATE.search(refused.text) and "not supported" in refused.text and why in refused.text
    assert agents.post(path, body | {"messages": [RULE, SAYS]}).status_code == 200


def test_what_developers_say_in_a_row_is_one_message(agents: Server) -> None:
    """Codex sends two, and many templates know only one."""
    two = [{"role": "developer", "content": "Rule one."}, RULE | {"role": "developer"}, SAYS]
    one = [{"role": "developer", "content": "Rule one.\nRule two."}, SAYS]
    base = {"model": "strict", "max_output_tokens": 8, "temperature": 0}
    bodies = [{"input": two}, {"input": one}, {"input": two[1:], "instructions": "Rule one."}]
    first, *others = [agents.post("/v1/responses", base | body).json() for body in bodies]
    for other in others:
        assert other["usage"]["input_tokens"] == first["usage"]["input_tokens"]
        assert other["output"][0]["content"] == first["output"][0]["content"]


def test_the_demo_models_template_says_every_system_message(agents: Server) -> None:
    prompt = agents.post("/apply-template", {"model": "plain", "messages": [RULE, SAYS, RULE | {"content": "Three."}]})
    assert "Rule two.\nThree." in prompt.json()["prompt"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"max_tokens": 100}),
        ("/v1/chat/completions", {}),
        ("/v1/responses", {}),
        ("/v1/completions", {}),
        ("/api/chat", {}),
    ],
)
def test_agents_can_read_how_much_too_long_a_prompt_is(agents: Server, path: str, body: dict[str, Any]) -> None:
    text = "hi " * 40_000
    inputs = {"/v1/responses": {"input": text}, "/v1/completions": {"prompt": text}}
    body = body | {"model": "plain"}
    refused = agents.post(path, {**body, **inputs.get(path, {"messages": [SAYS | {"content": text}]})})
    assert refused.status_code == 400
    found = TOO_LONG.search(refused.text)
    assert found and int(found[1]) >= 40_000 and int(found[2]) == 32767


def test_effort_asks_nothing_of_a_model_that_does_not_reason(agents: Server) -> None:
    body = {"model": "plain", "max_tokens": 8, "messages": [SAYS], "temperature": 0}
    plain = agents.post("/v1/messages", body).json()
    hinted = agents.post("/v1/messages", body | {"output_config": {"effort": "high"}}).json()
    assert hinted["content"] == plain["content"]
