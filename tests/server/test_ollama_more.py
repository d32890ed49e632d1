"""Ollama's dialect where a model thinks or fills in the middle, and where a stream loses its engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from ollama import Client, ResponseError

import hexad
from hexad.testing.zoo import write_model
from tests.server.running import AT_LAST_S, Server, serving

T = TypeVar("T")

MODEL = "thinker"
MESSAGES: Any = [{"role": "user", "content": "Who are you?"}]
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if enable_thinking is not defined or enable_thinking %}<think>
{% endif %}"""
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = {"model_type": "llama", "vocab_size": 3072 + len(FIM), "max_position_embeddings": 32768}
    directory = write_model(
        tmp_path_factory.mktemp("served") / MODEL, config | {"bos_token_id": None, "eos_token_id": 2}
    )
    demo = Path(hexad.__file__).parent / "checkpoints" / "demo"
    tokenizer = json.loads((demo / "tokenizer.json").read_text())
    alike = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [alike | {"id": 3072 + i, "content": name} for i, name in enumerate(FIM)]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    shutil.copy(demo / "tokenizer_config.json", directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    with serving(directory, tmp_path_factory.mktemp("log") / "server.log", "--kv-memory", "64MiB") as running:
        yield running
        running.until_idle()


@pytest.fixture(scope="module")
def client(thinker: Server) -> Client:
    return Client(host=thinker.url)


def test_thinking_is_a_field_of_its_own(client: Client) -> None:
    asked: Any = {"model": MODEL, "messages": MESSAGES, "options": {"seed": 1, "num_predict": 16, "temperature": 1.0}}
    assert client.show(MODEL).capabilities == ["completion", "thinking", "insert"]
    for think in (None, True, "low", "max"):
        answer = client.chat(**asked, think=think)  # type: ignore[arg-type]
        assert answer.message.thinking and answer.message.content == ""
        parts = list(client.chat(**asked, think=think, stream=True))  # type: ignore[arg-type]
        assert "".join(part.message.thinking or "" for part in parts) == answer.message.thinking
    plain = client.chat(**asked, think=False)
    assert plain.message.thinking is None and plain.message.content
    assert client.generate(MODEL, "Who are you?", think=False, options=asked["options"]).response == (
        plain.message.content
    )
    assert client.generate(MODEL, "Who are you?", options=asked["options"]).thinking


def test_suffix_fills_in_the_middle(client: Client, thinker: Server) -> None:
    options: Any = {"seed": 1, "num_predict": 12, "temperature": 0}
    answer = client.generate(MODEL, "def add(a, b):\n    ", suffix="\n    return c", options=options)
    said = thinker.post("/tokenize", {"prompt": "def add(a, b):\n    ", "add_special_tokens": False}).json()["tokens"]
    behind = thinker.post("/tokenize", {"prompt": "\n    return c", "add_special_tokens": False}).json()["tokens"]
    prompt = [3072, *said, 3073, *behind, 3074]
    same = thinker.client().completions.create(model=MODEL, prompt=prompt, max_tokens=12, temperature=0)
    assert answer.response == same.choices[0].text and answer.prompt_eval_count == len(prompt)


@pytest.fixture(scope="module")
def two(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with serving([str(chat_model), f"other={chat_model}"], log, "--kv-memory", "32MiB") as running:
        yield running


def test_keep_alive_loads_and_unloads(two: Server) -> None:
    client = Client(host=two.url)

    def loaded() -> dict[str, float]:
        """Seconds that each has left."""
        now = datetime.now(timezone.utc)
        return {found.model or "": (found.expires_at - now).total_seconds() for found in client.ps().models}  # type: ignore[operator]

    def until(names: list[str]) -> None:
        deadline = time.monotonic() + AT_LAST_S
        while list(loaded()) != names:
            assert time.monotonic() < deadline, loaded()
            time.sleep(0.02)

    first, other = "tiny-chat:latest", "other:latest"
    assert [found.model for found in client.list().models] == [first, other] and list(loaded()) == [first]
    assert client.show("other").capabilities == ["completion", "tools"] and list(loaded()) == [first], (
        "asking loads not"
    )
    answer = client.generate("other", "hi", options={"num_predict": 2}, keep_alive="10m")
    assert (answer.load_duration or 0) > 10**7, "its process was started"
    assert 590 < loaded()[other] < 600 < loaded()[first]
    loads = two.metrics()["hexad:model_loads_total"]
    again = client.generate("other", "hi", options={"num_predict": 2}, keep_alive=-1)
    assert again.load_duration is not None and two.metrics()["hexad:model_loads_total"] == loads
    assert loaded()[other] > 10**9
    assert client.generate("other", keep_alive=0).done_reason == "unload"
    until([first])
    assert client.chat("other", []).done_reason == "load" and list(loaded()) == [first, other]
    client.chat("other", MESSAGES, options={"num_predict": 2}, keep_alive="50ms")
    until([first])


def test_the_probe_of_clients(two: Server) -> None:
    assert two.http.head(two.url + "/").status_code == 200
    assert two.http.get(two.url + "/").text == "Ollama is running"


LONG: Any = {"seed": 4, "num_predict": 1500, "temperature": 1.0}
ENDLESS: Any = {
    "model": MODEL, "prompt": "Once", "raw": True, "format": {"type": "string", "minLength": 100_000},
    "options": {"num_predict": 30_000},
}  # fmt: skip
"""However late who kills its engine comes, there is something left."""


def _killing(server: Server, stream: Iterable[T], times: int) -> Iterator[T]:
    """What a stream yields while the engine is killed, and its successors, so many in all."""
    killed = set[int]()
    for each in stream:
        for pid in server.engine_pids():
            if len(killed) < times and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        yield each


def _lines(server: Server, body: Any, times: int) -> Iterator[Any]:
    with httpx.stream("POST", server.url + "/api/generate", json=body, timeout=60) as response:
        yield from map(json.loads, _killing(server, response.iter_lines(), times))


def test_a_stream_outlives_its_engine(client: Client, thinker: Server) -> None:
    whole = client.generate(MODEL, "Once", raw=True, options=LONG)
    assert (whole.eval_count or 0) > 500, "long enough to be killed in the middle"
    lines = list(_lines(thinker, {"model": MODEL, "prompt": "Once", "raw": True, "options": LONG}, 1))
    assert "".join(line["response"] for line in lines) == whole.response
    assert lines[-1]["done"] and lines[-1]["eval_count"] == whole.eval_count


def test_a_stream_that_cannot_go_on_ends_with_an_error(thinker: Server) -> None:
    lines: list[Any] = []
    with pytest.raises(httpx.RemoteProtocolError):
        for line in _lines(thinker, ENDLESS, 99):
            lines.append(line)
    assert "died" in lines[-1]["error"] and not any(line.get("done") for line in lines)


def test_the_client_raises_when_a_stream_breaks(client: Client, thinker: Server) -> None:
    with pytest.raises(ResponseError, match="died"):
        for _ in _killing(thinker, client.generate(**ENDLESS, stream=True), 99):
            pass
