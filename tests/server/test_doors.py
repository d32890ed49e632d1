"""How a request comes in and is written down: hosts, origins, ids, deadlines, TLS, unix sockets, logs."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
import uvloop
from openai import OpenAI
from starlette.responses import Response

from hexad.config import Config
from hexad.errors import ConfigError
from hexad.server import run
from hexad.server.gate import _default_hosts
from hexad.server.run import _bind_unix
from tests.server import raw
from tests.server.running import Server, serving

LONG: dict[str, Any] = {"prompt": [5, 9, 2, 7], "max_tokens": 1900, "ignore_eos": True, "seed": 1}
EVIL = "evil\r\n2026-01-01T00:00:00.000Z info    request status=200 \x1b[31mred\u202egnp"


def test_a_name_that_was_rebound_is_refused(server: Server) -> None:
    for host in ("localhost", f"localhost:{server.port}", "127.0.0.1", "LOCALHOST:1", "[::1]:8000"):
        assert httpx.get(server.url + "/health", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1"):
        answer = httpx.get(server.url + "/health", headers={"Host": host})
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "host_not_allowed"
        assert "--allowed-hosts" in answer.text
    for host in ("", "a b", "a/b", "a@b", "a:b", "a?b", "a\tb", "a,b"):
        answer = httpx.get(server.url + "/health", headers={"Host": host})
        assert answer.status_code == 400 and answer.json()["error"]["code"] in ("bad_host", "bad_http"), host
    two = raw.answer(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert raw.status(two) == 400
    assert raw.status(raw.answer(server, b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")) == 400
    assert raw.status(raw.answer(server, b"GET /health HTTP/1.0\r\n\r\n")) == 200


def test_only_loopback_has_names_by_default() -> None:
    assert "*" in _default_hosts("0.0.0.0") and "*" in _default_hosts("unix:/x") and "*" in _default_hosts("10.1.2.3")
    assert _default_hosts("127.0.0.2") == {"localhost", "127.0.0.1", "[::1]", "127.0.0.2"}
    assert "[::1]" in _default_hosts("::1") and _default_hosts(Config().host) == _default_hosts("localhost") - set()


class Old(http.client.HTTPConnection):
    """Python's client, speaking HTTP/1.0, as nginx does to the servers behind it unless it is told otherwise."""

    _http_vsn, _http_vsn_str = 10, "HTTP/1.0"


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
def test_a_client_of_http_1_0_is_sent_no_chunks(server: Server, path: str) -> None:
    greedy = {"temperature": 0} if path == "/v1/completions" else {"options": {"temperature": 0, "num_predict": 16}}
    body = {"model": "tiny-chat", "prompt": "a", "stream": True} | greedy

    def asked(kind: type[http.client.HTTPConnection], method: str, path: str, **headers: str) -> tuple[Any, bytes]:
        with contextlib.closing(kind("127.0.0.1", server.port, timeout=60)) as connection:
            content = json.dumps(body) if method == "POST" else None
            connection.request(method, path, content, {"Content-Type": "application/json"} | headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def said(raw: bytes) -> list[str]:
        events = [json.loads(line.removeprefix(b"data: ")) for line in raw.split(b"\n") if b'"model"' in line]
        return [event["response"] if "response" in event else event["choices"][0]["text"] for event in events]

    stream, old = asked(Old, "POST", path)
    chunked, new = asked(http.client.HTTPConnection, "POST", path)
    assert chunked.getheader("transfer-encoding") == "chunked" and chunked.getheader("connection") is None
    assert stream.getheader("transfer-encoding") is None and stream.getheader("connection") == "close"
    assert "".join(said(old)) == "".join(said(new)) != "" and (b"[DONE]" in old or b'"done":true' in old)
    page, content = asked(Old, "GET", "/", Accept="text/html")
    assert page.getheader("content-length") == str(len(content)) and content.endswith(b"</html>\n")
    same = asked(Old, "GET", "/", Accept="text/html", **{"If-None-Match": page.getheader("etag")})
    assert (same[0].status, same[1]) == (304, b"") and asked(Old, "HEAD", "/")[1] == b""
    assert asked(Old, "GET", "/nowhere")[0].status == 404


def preflight(server: Server, origin: str) -> httpx.Response:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return httpx.options(server.url + "/v1/chat/completions", headers=headers)


def test_pages_of_others_may_not_call_unless_named(server: Server, chat_model: Path, tmp_path: Path) -> None:
    same = f"http://127.0.0.1:{server.port}"
    assert httpx.get(server.url + "/v1/models", headers={"Origin": same}).status_code == 200
    for origin in ("https://evil.example", "null", same + "0", f"http://localhost.evil:{server.port}"):
        assert preflight(server, origin).status_code == 403
        refused = server.http.post(server.url + "/v1/completions", json={"prompt": "a"}, headers={"Origin": origin})
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
    options = ("--allowed-origins", "https://chat.example,http://two:3000", "--allowed-hosts", "model.lan")
    with serving(chat_model, tmp_path / "log", *options) as open_one:
        named = {"Host": "model.lan:1234"}
        url = open_one.url + "/v1/models"
        asked = httpx.options(
            url, headers={"Origin": "https://chat.example", "Access-Control-Request-Method": "GET"} | named
        )
        assert asked.status_code == 204 and asked.headers["access-control-allow-origin"] == "https://chat.example"
        assert "Authorization" in asked.headers["access-control-allow-headers"]
        got = httpx.get(url, headers={"Origin": "http://two:3000"} | named)
        assert got.status_code == 200 and got.headers["access-control-allow-origin"] == "http://two:3000"
        assert httpx.get(url, headers={"Origin": "https://evil.example"} | named).status_code == 403
        assert httpx.get(url).status_code == 403, "the names given stand for all"


def test_a_request_keeps_the_id_that_its_client_gave(server: Server) -> None:
    def named(value: str) -> str:
        answer: str = httpx.get(server.url + "/nowhere", headers={"X-Request-Id": value.encode("latin-1")}).headers[
            "x-request-id"
        ]
        return answer

    assert named("trace-7/a:b") == "trace-7/a:b" and named("x" * 128) == "x" * 128
    for bad in ("", "a b", "x" * 129, "caf\xe9", "a\tb"):
        assert re.fullmatch("[0-9a-f]{32}", named(bad))
    body = {"prompt": "a", "max_tokens": 200, "ignore_eos": True}
    with httpx.Client(headers={"X-Request-Id": "same"}, timeout=60) as client:
        answers = [client.post(server.url + "/v1/completions", json=body).json()["id"] for _ in range(2)]
    assert answers[0] != answers[1], "an id of ours is unique, whatever the client calls its requests"


def test_a_deadline_ends_a_request(server: Server) -> None:
    late = {"X-Request-Timeout": "0.05"}
    with server.standing_still():
        answer = httpx.post(server.url + "/v1/completions", json=LONG, headers=late, timeout=30)
    assert answer.status_code == 504
    assert answer.headers["x-should-retry"] == "false" and answer.json()["error"]["code"] == "deadline_exceeded"
    client = OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=2, timeout=60)
    # Long enough to begin, too short to end.
    extra: Any = {"extra_body": {"ignore_eos": True}, "extra_headers": {"X-Request-Timeout": "2"}}
    stream = client.completions.create(model="tiny-chat", prompt="a", max_tokens=1900, n=64, stream=True, **extra)
    with server.standing_still(), pytest.raises(openai.APIError, match="time was over"):
        list(stream)
    server.until_idle()
    assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200
    for bad in ("0", "-1", "nan", "1e3", "soon", "9" * 20):
        refused = httpx.post(server.url + "/v1/completions", json=LONG, headers={"X-Request-Timeout": bad})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "X-Request-Timeout"


def test_who_is_late_in_the_queue_was_never_computed(chat_model: Path, tmp_path: Path) -> None:
    options = ("--max-num-seqs", "1", "--request-timeout", "2", "--max-queue", "4")
    with serving(chat_model, tmp_path / "log", *options) as server:
        url, late = server.url + "/v1/completions", {"X-Request-Timeout": "0.05"}
        with raw.sent(server, raw.post("/v1/completions", LONG | {"stream": True})):
            server.until(lambda found: found["hexad:prefix_cache_queries_total"] == len(LONG["prompt"]))
            with server.standing_still():
                waited = httpx.post(url, json={"prompt": [9] * 500}, headers=late)
                assert waited.status_code == 504 and "still in the queue" in waited.text
                waited = httpx.post(url, json={"prompt": [9] * 500})
                assert waited.status_code == 504 and "still in the queue" in waited.text, "the server's own limit"
        server.until_idle()
        found = server.metrics()
        assert found["hexad:prefix_cache_queries_total"] == len(LONG["prompt"])
        assert found["hexad:http_errors_total"] >= 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


def test_https(chat_model: Path, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with serving(chat_model, tmp_path / "log", "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        context = ssl.create_default_context(cafile=str(cert))
        assert server.url.startswith("https://")
        with httpx.Client(verify=context) as client:
            assert client.get(server.url + "/health").status_code == 200
            openai_client = OpenAI(base_url=server.url + "/v1", api_key="unused", http_client=client)
            stream = openai_client.completions.create(model="tiny-chat", prompt="a", max_tokens=5, stream=True)
            assert len(list(stream)) >= 1
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url + "/health")
        plain = raw.answer(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not plain.startswith(b"HTTP/1.1 200")
        _, said = server.log.read_text().split("ready", 1)
        assert "Traceback" not in said and all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in said.splitlines()[1:])


def test_who_never_speaks_tls_is_gone_when_a_head_would_be(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "HEAD_S", 2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response("hello")(scope, receive, send)

    async def main() -> None:
        ready = asyncio.Event()
        config = run._settings(app, Config(tls_cert=str(certificate[0]), tls_key=str(certificate[1])))
        server = run._Server(config, lambda *_: None, ready.set)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            await ready.wait()
            mute, _ = await asyncio.open_connection(*listener.getsockname())
            assert await asyncio.wait_for(mute.read(), 10) == b""
            context = ssl.create_default_context(cafile=str(certificate[0]))
            reader, writer = await asyncio.open_connection(*listener.getsockname(), ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).endswith(b"hello")
            writer.close()
            server.should_exit = True
            await serving

    uvloop.run(main())


@pytest.mark.parametrize("broken", ["half", "missing", "mismatch"])
def test_a_certificate_that_does_not_work_is_known_before_the_model_is_loaded(
    chat_model: Path, tmp_path: Path, certificate: tuple[Path, Path], broken: str
) -> None:
    cert, key = certificate
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(other)], check=True, capture_output=True)
    options = {
        "half": ["--tls-cert", str(cert)],
        "missing": ["--tls-cert", "/nowhere.pem", "--tls-key", str(key)],
        "mismatch": ["--tls-cert", str(cert), "--tls-key", str(other)],
    }[broken]
    log = tmp_path / "log"
    with pytest.raises(AssertionError, match="did not start"), serving(chat_model, log, *options):
        pass
    assert "tls" in log.read_text().lower() and "Traceback" not in log.read_text()


def test_a_unix_socket(chat_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "hexad.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(chat_model, tmp_path / "log", "--host", f"unix:{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://anything") as client:
            assert client.get("/health").status_code == 200
            assert client.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}).status_code == 200
        second = tmp_path / "second"
        with (
            pytest.raises(AssertionError, match="did not start"),
            serving(chat_model, second, "--host", f"unix:{path}"),
        ):
            pass
        assert "another server listens there" in second.read_text() and path.exists()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    assert not path.exists()
    (tmp_path / "file").write_text("precious")
    with pytest.raises(AssertionError), serving(chat_model, second, "--host", f"unix:{tmp_path / 'file'}"):
        pass
    assert (tmp_path / "file").read_text() == "precious"


def test_a_socket_whose_server_is_busy_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "hexad.sock"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(path))
        busy.listen(0)
        for _ in range(3):
            client = waiting.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(ConfigError, match="another server"):
            _bind_unix(path)


LATE: dict[str, dict[str, object]] = {
    "/v1/messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/responses": {"input": "a"},
    "/api/chat": {"messages": [{"role": "user", "content": "a"}]},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/apply-template": {"messages": [{"role": "user", "content": "a"}]},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [5]},
}


def test_nobody_waits_longer_for_a_model_than_they_said(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:  # it never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        with serving([str(chat_model), "other=somebody/slow"], tmp_path / "log", "--kv-memory", "32MiB") as server:
            for path, body in LATE.items():
                headers = {"X-Request-Timeout": "0.002"}
                answer = server.http.post(server.url + path, json=body | {"model": "other"}, headers=headers)
                assert answer.status_code == 504, (path, answer.text)


@pytest.fixture(scope="module", params=["json", "text"])
def logging(
    request: pytest.FixtureRequest, chat_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Server]]:
    log = tmp_path_factory.mktemp("logging") / "log"
    with serving(chat_model, log, "--log-format", request.param) as server:
        yield request.param, server


def lines(server: Server) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if " request " in line or '"request"' in line]


def test_nothing_that_clients_send_can_forge_a_line(logging: tuple[str, Server]) -> None:
    form, server = logging
    before, secret = len(lines(server)), "sk-secret-0123456789"
    for path in ("/", "/v1/models/"):
        httpx.get(
            server.url + path + quote(EVIL),
            headers={"X-Request-Id": "a b", "User-Agent": "x", "Authorization": f"Bearer {secret}"},
        )
    body = {"prompt": "PRIVATE WORDS", "model": EVIL, "user": EVIL, "cache_salt": EVIL}
    server.post("/v1/completions", body)
    server.post("/v1/completions", body | {"model": "tiny-chat", "max_tokens": 4, "ignore_eos": True})
    server.http.get(server.url + "/health", headers={"X-Request-Id": 'a=b"c'})
    while len(lines(server)) < before + 5:
        time.sleep(0.01)
    text = server.log.read_text()
    assert "\x1b" not in text and "\u202e" not in text and "\r" not in text
    assert "PRIVATE" not in text and secret not in text
    found = lines(server)[before:]
    assert len(found) == 5, found
    if form == "text":
        assert all(re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z \w+ +request method=", line) for line in found)
        return
    everything: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert any(line["message"].startswith("ready    in") for line in everything)
    records = [json.loads(line) for line in found]
    answered = records[3]
    assert answered["status"] == 200 and answered["model"] == "tiny-chat" and answered["path"] == "/v1/completions"
    assert answered["completion_tokens"] == 4 and answered["finish_reasons"] == ["length"]
    assert 0 < answered["queue_s"] <= answered["ttft_s"] <= answered["duration_s"]
    assert records[2]["error"] == "model_not_found" and records[2]["status"] == 404
    assert records[4]["request_id"] == 'a=b"c'


def test_a_vanished_client_is_written_down(logging: tuple[str, Server]) -> None:
    form, server = logging
    connection = raw.sent(server, raw.post("/v1/completions", LONG | {"stream": True, "n": 64}))
    connection.recv(1000)
    with server.standing_still():
        connection.close()
        assert "abort" in server.says("client_disconnected")
    server.until_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_who_says_that_it_sends_no_more_counts_as_gone(server: Server, stream: bool) -> None:
    """As `nc -N` does: nothing tells it from a client that has closed. docs/serving.md says so."""
    with raw.sent(server, raw.post("/v1/completions", LONG | {"n": 8, "stream": stream})) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert b"[DONE]" not in (received := raw.rest(connection)) and b'"usage"' not in received
        server.until_idle()


def test_what_is_refused_below_http_is_written_down_and_counted(logging: tuple[str, Server]) -> None:
    form, server = logging
    refused = {"bad_http": b"nonsense\r\n\r\n", "head_too_large": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n"}
    for code, sent in refused.items():
        with raw.sent(server, sent) as connection:
            status = raw.status(raw.rest(connection))
        server.says(code)
        found = [line for line in server.log.read_text().splitlines() if code in line]
        assert len(found) == 1
        if form == "json":
            line = json.loads(found[0])
            assert line.pop("time") and line.pop("level") == "info"
            assert line == {"message": "connection refused", "status": status, "error": code, "address": "127.0.0.1"}
        else:
            assert found[0].endswith(f" connection refused status={status} error={code} address=127.0.0.1")
    exposed = server.http.get(server.url + "/metrics").text
    for code in refused:
        assert f'hexad:http_connections_refused_total{{code="{code}"}} 1.0' in exposed


def test_a_log_that_nobody_reads_stops_nobody(chat_model: Path, tmp_path: Path) -> None:
    """A pipe holds 64 KiB; the lines of 3,000 requests are more."""
    command = [sys.executable, "-m", "hexad.cli.main", "serve", str(chat_model), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        seen = b""
        while b"ready" not in seen:
            seen += process.stderr.readline()
        url = re.search(r"http://[\d.]+:\d+", seen.decode())
        assert url is not None
        try:
            with httpx.Client(timeout=60) as client:
                for _ in range(3000):
                    assert client.get(url[0] + "/nowhere").status_code == 404
        finally:
            process.terminate()
        assert process.wait(60) == 0
