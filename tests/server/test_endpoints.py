"""What no OpenAI client asks for: health, metrics, tokens, the OpenAPI page, the size of an idle server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from hexad import __version__
from tests.server.beside import answer_beside
from tests.server.conftest import MAX_MODEL_LEN
from tests.server.running import Server, serving

VLLM_NAMES = [
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "num_preemptions_total",
    "request_success_total",
    "time_to_first_token_seconds_count",
    "inter_token_latency_seconds_sum",
    "e2e_request_latency_seconds_bucket",
    "request_prompt_tokens_count",
    "request_generation_tokens_sum",
]

MAX_IDLE_MB = 200


def test_health_and_version(server: Server) -> None:
    assert httpx.get(server.url + "/health").status_code == 200
    assert httpx.get(server.url + "/version").json() == {"version": __version__}


def test_metrics_count_what_happened(server: Server) -> None:
    body = {"prompt": [9] * 40, "max_tokens": 1000, "ignore_eos": True, "n": 2, "cache_salt": "metrics"}
    server.post("/v1/completions", body)
    before = server.metrics()
    server.post("/v1/completions", body)
    after = server.metrics()
    gained = {name: after[f"hexad:{name}"] - before[f"hexad:{name}"] for name in VLLM_NAMES}
    assert gained["prompt_tokens_total"] == gained["prefix_cache_queries_total"] == 40
    assert gained["prefix_cache_hits_total"] == 32, "two full pages; the last token is always computed"
    assert gained["generation_tokens_total"] == gained["request_generation_tokens_sum"] == 2000
    assert gained["request_success_total"] == 2
    assert gained["time_to_first_token_seconds_count"] == gained["request_prompt_tokens_count"] == 1
    assert gained["inter_token_latency_seconds_sum"] > 0


def test_tokenize_and_back(server: Server, chat_model: Path) -> None:
    oracle = Tokenizer.from_file(str(chat_model / "tokenizer.json"))
    text = "12 + 30 = 42, naïve café 🌊"
    answer = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == oracle.encode(text).ids and answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == MAX_MODEL_LEN and len(answer["token_strs"]) == answer["count"]
    assert server.post("/detokenize", {"tokens": answer["tokens"]}).json()["prompt"] == text
    messages = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]
    chat = server.post("/tokenize", {"messages": messages}).json()
    expected = "<|im_start|>user\none\ntwo<|im_end|>\n<|im_start|>assistant\n"
    assert server.post("/detokenize", {"tokens": chat["tokens"]}).json()["prompt"] == expected
    refused = server.post("/detokenize", {"tokens": [1, 10**6]})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "tokens"


@pytest.mark.parametrize("kilobytes", [200, 8000], ids=["tokenized", "hopeless"])
def test_a_big_prompt_holds_up_nobody(server: Server, kilobytes: int) -> None:
    text = "lighthouse keeper " * (kilobytes * 1000 // 18)
    answer = answer_beside(server, "/v1/completions", {"prompt": text}, under_s=0.5)
    assert answer.status_code == 400 and str(MAX_MODEL_LEN) in answer.text
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.elapsed.total_seconds() < 5


def test_tools_reach_the_template(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages: list[dict[str, Any]] = [
        {"role": "developer", "content": "Use tools."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    tokens = server.post("/tokenize", {"messages": messages, "tools": [tool]}).json()["tokens"]
    text = server.post("/detokenize", {"tokens": tokens}).json()["prompt"]
    assert json.dumps(tool["function"]["name"]) in text and '{"city": "Oslo"}' in text  # type: ignore[index]
    assert "<|im_start|>system\nUse tools." in text and "rain" in text
    broken = [{**messages[2], "tool_calls": [call | {"function": {"name": "weather", "arguments": "[1"}}]}]
    refused = server.post("/v1/chat/completions", {"messages": broken})
    assert refused.json()["error"]["param"] == "messages.0.tool_calls.0.function.arguments"


def test_the_openapi_page_knows_every_parameter(server: Server) -> None:
    page = httpx.get(server.url + "/openapi.json").json()
    schema = page["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "temperature", "max_completion_tokens", "top_k"} <= set(schema["properties"])
    referenced = {text.split('"')[0] for text in json.dumps(page).split("#/components/schemas/")[1:]}
    assert referenced <= set(page["components"]["schemas"])


def test_an_idle_server_is_small(chat_model: Path, tmp_path: Path) -> None:
    with serving(chat_model, tmp_path / "log", "--kv-memory", "64MiB") as server:
        kilobytes = _resident(server)
    assert kilobytes / 1024 < MAX_IDLE_MB, f"server and engine together hold {kilobytes / 1024:.0f} MB"


def _resident(server: Server) -> int:
    kilobytes = 0
    for pid in [server.process.pid, *server.engine_pids()]:
        status = Path(f"/proc/{pid}/status").read_text()
        kilobytes += int(status.split("VmRSS:")[1].split()[0])
    return kilobytes
