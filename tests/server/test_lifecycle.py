"""Starting, draining, being killed: no stream ends as if it were complete when it is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server import raw
from tests.server.running import AT_LAST_S, Server, serving

LONG: dict[str, Any] = {
    "prompt": [5, 9, 2, 7], "max_tokens": 1500, "ignore_eos": True, "stream": True, "seed": 1, "n": 8
}  # fmt: skip


def _sent(server: Server, body: dict[str, object]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    content = json.dumps(body).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    connection.sendall(head % len(content) + content)
    return connection


def _opened(server: Server, body: dict[str, object]) -> socket.socket:
    """A streaming request on a plain socket, after its first event."""
    connection = _sent(server, body)
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    return connection


def _seen(server: Server, gauge: str, least: int) -> bool:
    """Whether it gets there. A stream may end on a busy machine before anybody looks."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        if server.metrics()[gauge] >= least:
            return True
        time.sleep(0.01)
    return False


def _rest(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def _text(chunks: object) -> list[str]:
    texts = ["", ""]
    for chunk in chunks:  # type: ignore[attr-defined]
        texts[chunk.choices[0].index] += chunk.choices[0].text
    return texts


def test_sigterm_lets_running_requests_finish(chat_model: Path, tmp_path: Path) -> None:
    with serving(chat_model, tmp_path / "log") as server, httpx.Client() as kept:
        assert kept.get(server.url + "/health").status_code == 200
        running = _opened(server, LONG | {"n": 16})
        with server.standing_still():
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + AT_LAST_S
            while kept.get(server.url + "/health").status_code != 503:
                assert time.monotonic() < deadline
            refused = server.post("/v1/completions", {"prompt": "a"})
            assert refused.status_code == 503 and refused.headers["connection"] == "close"
            assert refused.json()["error"]["code"] == "engine_unavailable"
        ended = _rest(running)
        assert ended.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") and ended.count(b'"finish_reason":"length"') == 16
        assert server.process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGTERM]],
    ids=["the drain is over", "the terminal is closed", "a second signal"],
)
def test_what_the_drain_cuts_off_ends_in_an_error(chat_model: Path, tmp_path: Path, signals: list[int]) -> None:
    timeout = "0.02" if len(signals) == 1 else "60"
    with serving(chat_model, tmp_path / "log", "--drain-timeout", timeout) as server:
        running = _opened(server, LONG | {"n": 64})
        with server.standing_still():
            for number in signals:
                server.process.send_signal(number)
            ended = _rest(running)
        assert b'data: {"error":{' in ended and b"[DONE]" not in ended
        assert not ended.endswith(b"0\r\n\r\n"), "a clean end would look like a complete answer"
        assert server.process.wait(timeout=60) == 0


def test_a_closed_terminal_ends_nothing_under_nohup(chat_model: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit it
    try:
        with serving(chat_model, tmp_path / "log") as server:
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            assert server.http.get(server.url + "/health").status_code == 200
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_download_does_not_hold_up_the_end(chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread cannot be cancelled, and a hub that is slow may take hours."""
    path = tmp_path / "hexad.sock"
    with socket.create_server(("127.0.0.1", 0)) as hub, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        with serving([str(chat_model), "slow=somebody/slow"], tmp_path / "log", "--host", f"unix:{path}") as server:
            http = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=60)
            asked = pool.submit(http.post, "/v1/completions", json={"model": "slow", "prompt": "a"})
            connection = hub.accept()[0]
            server.process.send_signal(signal.SIGTERM)
            assert asked.result().status_code == 503
            assert server.process.wait(timeout=60) == 0
            connection.close()
        assert "path=/v1/completions" in server.log.read_text(), "what was logged last is not lost"
    assert not path.exists()


def test_the_client_sees_a_cut_stream_as_an_error(chat_model: Path, tmp_path: Path) -> None:
    with serving(chat_model, tmp_path / "log", "--drain-timeout", "0.1") as server:
        stream = server.client().completions.create(
            model="tiny-chat", prompt="a", max_tokens=1900, n=64, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        with server.standing_still(), pytest.raises(openai.APIError, match="shut down"):
            server.process.send_signal(signal.SIGTERM)
            list(stream)


def test_a_stream_outlives_its_engine_process(server: Server) -> None:
    def started() -> openai.Stream[openai.types.Completion]:
        return server.client().completions.create(
            model="tiny-chat",
            prompt=[5, 9, 2, 7],
            max_tokens=1500,
            n=2,
            seed=3,
            stream=True,
            extra_body={"ignore_eos": True},
        )

    undisturbed = _text(started())
    stream = started()
    first = next(iter(stream))
    engine = server.engine_pid()
    os.kill(engine, signal.SIGKILL)
    rest = _text(stream)
    rest[first.choices[0].index] = first.choices[0].text + rest[first.choices[0].index]
    assert rest == undisturbed


@pytest.mark.parametrize("stream", [False, True])
def test_a_reset_connection_frees_its_request(server: Server, stream: bool) -> None:
    body = LONG | {"stream": stream, "n": 3}
    for _ in range(10):
        connection = _opened(server, body) if stream else _sent(server, body)
        if _seen(server, "hexad:num_requests_running", 3):
            break
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    connection.close()
    server.until_idle()


def test_a_reader_who_does_not_read_holds_up_nobody(server: Server) -> None:
    stuck = _opened(server, LONG | {"n": 4, "max_tokens": 600, "logprobs": 20})
    server.until_idle()
    answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 4})
    assert answer.status_code == 200
    ended = _rest(stuck)
    assert b"[DONE]" in ended and ended.count(b'"finish_reason":"length"') == 4
    stuck.close()


def test_a_full_queue_is_refused_at_once(chat_model: Path, tmp_path: Path) -> None:
    with serving(chat_model, tmp_path / "log", "--max-num-seqs", "1", "--max-queue", "1") as server:
        url, briefly = server.url + "/v1/completions", {"x-request-timeout": "0.1"}
        with server.standing_still():
            named = [b"X-Request-Id: held-%d\r\n" % number for number in range(2)]
            held = [raw.sent(server, raw.post("/v1/completions", LONG | {"n": 1}, name)) for name in named]
            for _ in range(10):  # it may be sooner than those that are held
                if (refused := httpx.post(url, json={"prompt": "a"}, headers=briefly)).status_code != 504:
                    break
            assert refused.status_code == 429 and 0 < int(refused.headers["retry-after"]) <= 120
            assert refused.json()["error"]["code"] == "queue_full" and "max_queue" in refused.text
            assert server.http.get(server.url + "/health").status_code == 200
            for number, connection in enumerate(held):
                connection.close()
                server.says(f"request_id=held-{number} .*client_disconnected")
        server.until_idle()
        assert server.post("/v1/completions", {"prompt": "a"}).status_code == 200


def test_a_taken_port_is_known_before_the_model_is_loaded(chat_model: Path, tmp_path: Path, server: Server) -> None:
    log, broken = tmp_path / "log", shutil.copytree(chat_model, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"")  # of this nothing is said
    with pytest.raises(AssertionError, match="did not start"), serving(broken, log, "--port", str(server.port)):
        pass
    assert f"port {server.port}" in log.read_text() and "Traceback" not in log.read_text()
