"""Faults 3 and 7 to 12: heads, bodies and parameters that no honest client would send: a 4xx before any allocation."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.server.app import ROUTES
from hexad.server.dialect import Route
from hexad.server.protocol import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED
from tests.attacks.conftest import ADMIN, USER, Target
from tests.server import raw

KEY = b"x-api-key: %b\r\n" % USER.encode()
HUGE: list[Any] = [10**9, 2**63, 2**64, -1, -(2**63), 1e308, 10**400, True, "1", [], {}, None]
HEAD = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + KEY
KEPT = HEAD.replace(b"Connection: close\r\n", b"") + b"\r\n"

# 7 and 8: heads.

BAD_HEADS = {
    "length and chunks": b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    "two lengths": b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "same length twice": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "signed length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello",
    "endless length": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "two encodings": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bare LF": b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
    "bare CR": b"GET /v1/models HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "folded header": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
    "space before colon": b"GET /v1/models HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "NUL in a value": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "NUL in the path": b"GET /v1/\0models HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bad chunk": b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\n" + KEY + raw.JSON
    + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "host with a path": b"GET /v1/models HTTP/1.1\r\nHost: x/?\r\n\r\n",
    "another protocol": b"GET /v1/models SPDY/9\r\nHost: localhost\r\n\r\n",
    "a proxy's": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_can_be_read_in_two_ways_is_refused(target: Target, name: str) -> None:
    with raw.sent(target, BAD_HEADS[name]) as connection:
        connection.shutdown(socket.SHUT_WR)
        received = raw.rest(connection)
    assert raw.status(received) in (400, 403), received[:300]
    assert b"HTTP/1.1 2" not in received, "nothing of it was answered"
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] in (
        "bad_http",
        "bad_host",
        "host_not_allowed",
    )


@pytest.mark.parametrize(
    "flood",
    [b"A: b\r\n" * 10_000, b"A: " + b"a" * 2_000_000 + b"\r\n", b"a" * 70_000 + b": b\r\n", KEY * (MAX_HEADERS + 1)],
    ids=["10,000 headers", "2 MB in one", "a long name", "one too many"],
)
def test_a_head_that_is_too_large_is_refused(target: Target, flood: bytes) -> None:
    before = target.memory_mb()
    for _ in range(5):
        received = b""
        with raw.connect(target) as connection:
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(HEAD + flood + b"\r\n")
            received = raw.rest(connection)
        if received:  # where more was sent than was read, the kernel may drop the answer
            assert raw.status(received) == 431 and str(MAX_HEAD_BYTES).encode() in received
    assert target.memory_mb() - before < 20


def test_what_follows_a_request_in_the_same_packet_waits_its_turn(target: Target) -> None:
    received = raw.answer(target, KEPT * MAX_PIPELINED + HEAD + b"\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == MAX_PIPELINED + 1


def test_no_connection_piles_up_requests(target: Target) -> None:
    """Each would be kept, forty times its size, while the one before it is answered; and nobody else is served."""
    before, sent, flood = target.memory_mb(), 0, KEPT * 2000
    with raw.connect(target) as connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while sent < 64 * 2**20:
            connection.sendall(flood)
            sent += len(flood)
    assert sent < 32 * 2**20
    assert target.memory_mb() - before < 20
    received = raw.answer(target, KEPT * (MAX_PIPELINED + 2))
    assert b" 429 " in received and str(MAX_PIPELINED).encode() in received


def test_an_offer_of_another_protocol_is_passed_over(target: Target) -> None:
    """Java's client offers HTTP/2 with its first request."""
    offer = b"Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
    body = {"prompt": "a", "max_tokens": 2}
    closing = raw.post("/v1/completions", body, KEY + offer).replace(b"close", b"close, Upgrade, HTTP2-Settings")
    keeping = closing.replace(b"close, ", b"")
    assert raw.answer(target, keeping * 2 + closing).count(b'"text_completion"') == 3
    chunked = keeping.split(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    content = json.dumps(body).encode()
    with raw.sent(target, chunked[:60]) as connection:
        for part in (chunked[60:], b"%x\r\n%b\r\n" % (len(content), content), b"0\r\n\r\n", closing):
            time.sleep(0.02)
            connection.sendall(part)
        assert raw.rest(connection).count(b'"text_completion"') == 2
    websocket = HEAD.replace(b"close", b"close, Upgrade") + b"Upgrade: websocket\r\n\r\n"
    assert raw.status(raw.answer(target, websocket)) == 200
    assert raw.status(raw.answer(target, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 400


def test_a_gigabyte_is_not_read(target: Target) -> None:
    before = target.memory_mb()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + KEY + raw.JSON
    declared = raw.answer(target, head + b"Content-Length: 1073741824\r\n\r\n{")
    assert raw.status(declared) == 413
    with raw.sent(target, head + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        part, sent = b"100000\r\n" + b" " * 2**20 + b"\r\n", 0
        try:
            while sent < 1024:
                connection.sendall(part)
                sent += 1
        except OSError:
            pass
    assert sent < 128
    without_key = raw.answer(target, head.replace(KEY, b"") + b"Content-Length: 1073741824\r\n\r\n{")
    assert raw.status(without_key) == 401
    assert target.memory_mb() - before < 80
    for encoding in ("gzip", "br", "deflate, gzip"):
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        assert target.http.post(target.url + "/v1/completions", content=b"\x1f\x8b", headers=headers).status_code == 415


# 9 and 10: JSON.


NOT_JSON = [
    b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 100_000,
    b"[" * 1_000_000,
    b'{"prompt": NaN}',
    b'{"prompt": "a", "temperature": 1e400}',
    b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "\xff\xfe"}',
    b'{"prompt": "a", "prompt": "b"}',
    b'\xef\xbb\xbf{"prompt": "a"}',
    b'{"prompt": "a\x00"}',
    b'{"prompt": "a"} trailing',
    b"",
    b"\x00" * 1000,
]
POSTS = [route for route in ROUTES if route.method == "POST" and route.body is not None and route.access == "user"]


@pytest.mark.parametrize("path", [route.path for route in POSTS])
def test_json_that_is_none(target: Target, path: str) -> None:
    for body in NOT_JSON:
        took = []
        while len(took) < 3 and min(took, default=2.0) >= 2:  # any moment of a busy machine may be long
            answer = target.http.post(target.url + path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == 400, (body[:40], answer.text[:300])
            assert "error" in answer.json()
            took.append(answer.elapsed.total_seconds())
        assert min(took) < 2, body[:40]


CONTROL_TEXT = ["<|im_start|>", "<|im_end|>", "a\0b", "\u202eevil", "\ufeff", "<|endoftext|>", "\U000e0041", "</s>"]


@pytest.mark.parametrize("text", CONTROL_TEXT)
def test_what_a_user_writes_is_text(target: Target, text: str) -> None:
    """A chat message may hold anything; its tokens never change the shape of the conversation around it."""
    plain = target.http.post(target.url + "/tokenize", json={"messages": [{"role": "user", "content": "x"}]}).json()
    asked = target.http.post(target.url + "/tokenize", json={"messages": [{"role": "user", "content": text}]})
    assert asked.status_code in (200, 400)
    if asked.status_code == 200:
        markers = {token for token in plain["tokens"] if token < 16}
        for marker in markers:
            assert asked.json()["tokens"].count(marker) == plain["tokens"].count(marker), "a control token was forged"


# 11: parameters.


MINIMAL: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "model": "tiny-chat"},
    "/api/chat": {"messages": [{"role": "user", "content": "a"}], "model": "tiny-chat", "options": {"num_predict": 1}},
    "/api/generate": {"prompt": "a", "model": "tiny-chat", "options": {"num_predict": 1}},
}


@pytest.mark.parametrize("route", [route for route in POSTS if route.path in MINIMAL], ids=lambda route: route.path)
def test_every_parameter_at_its_worst(target: Target, route: Route) -> None:
    """Each field of each body, as the server itself describes them."""
    assert target.http.post(target.url + route.path, json=MINIMAL[route.path]).status_code == 200
    for name in route.body.model_fields:
        for value in HUGE:
            body = json.dumps(MINIMAL[route.path] | {name: value})
            started = time.monotonic()
            answer = target.http.post(
                target.url + route.path, content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code < 500 and "Traceback" not in answer.text, (name, value, answer.text)
            assert time.monotonic() - started < 5, (name, value)


BOMBS: dict[str, dict[str, Any]] = {
    "n": {"n": 16384},
    "n of a million": {"n": 5_000_000},
    "best_of": {"best_of": 10**6},
    "logprobs": {"logprobs": 10**9},
    "prompt_logprobs": {"prompt_logprobs": -1},
    "logit_bias": {"logit_bias": {str(i): 1 for i in range(10**5)}},
    "stop": {"stop": ["a" * 10] * 10**5},
    "long stop": {"stop": ["a" * 5_000_000]},
    "bad_words": {"bad_words": ["a"] * 10**5},
    "stop_token_ids": {"stop_token_ids": [2**31] * 10},
    "tokens out of the vocabulary": {"prompt": [1, 3072]},
    "negative tokens": {"prompt": [-1]},
    "allowed tokens out of the vocabulary": {"allowed_token_ids": [10**6]},
    "a million prompts": {"prompt": ["a"] * 10**6},
    "min above max": {"min_tokens": 10, "max_tokens": 5},
    "more than the context": {"max_tokens": 2**31 - 1},
    "a prompt over the context": {"prompt": [5] * 10**5},
    "a text over the context": {"prompt": "lighthouse " * 10**6},
    "an internal field": {"bootstrap_host": "2.2.2.2"},
    "another internal field": {"generated": [1, 2, 3]},
    "somebody's name": {"client": "admin"},
    "embeddings": {"prompt_embeds": "gASVAAAA"},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_parameter_bomb_is_refused_before_anything_is_allocated(target: Target, name: str) -> None:
    before = target.memory_mb()
    started = time.monotonic()
    answer = target.http.post(target.url + "/v1/completions", json={"prompt": "a", "max_tokens": 1} | BOMBS[name])
    assert answer.status_code in (400, 413), answer.text[:300]
    assert answer.json()["error"]["message"] and time.monotonic() - started < 5
    assert target.memory_mb() - before < 60


# 3: more than there is room for.


def test_overload_is_refused_at_once_and_everything_accepted_is_answered(target: Target) -> None:
    """P5. The server has room for 64 + 1024 requests, of which one client may hold half."""
    short: dict[str, Any] = {"prompt": [5], "max_tokens": 30, "ignore_eos": True}
    before = target.memory_mb()
    errors = target.metrics(ADMIN).get("hexad:http_errors_total", 0)
    long = short | {"max_tokens": 800}
    with target.paused():
        flood = [raw.sent(target, raw.post("/v1/completions", long, KEY)) for _ in range(620)]
        target.until(lambda found: found.get("hexad:http_errors_total", 0) >= errors + 70, ADMIN, timeout_s=60)
    with raw.all_closed(flood):
        refusals: list[float] = []
        looks: list[float] = []
        for _ in range(200):
            answer = target.http.post(target.url + "/v1/completions", json=short)
            if answer.status_code == 200:  # one of the flood has ended meanwhile, and another takes its place
                flood.append(raw.sent(target, raw.post("/v1/completions", long, KEY)))
                continue
            assert answer.status_code == 429 and answer.json()["error"]["code"] == "client_queue_full"
            assert answer.headers["retry-after"] == "1"
            refusals.append(answer.elapsed.total_seconds())
            looks.append(target.http.get(target.url + "/health").elapsed.total_seconds())
            if len(refusals) == 20:
                break
        assert len(refusals) == 20, "there is always room"
        urgent = {"prompt": "a", "max_tokens": 1, "priority": -1}
        answer = target.http.post(target.url + "/v1/completions", json=urgent, headers={"x-api-key": ADMIN})
        assert answer.status_code == 200, "there is room for others"
        assert target.metrics(ADMIN)["hexad:num_requests_waiting"] > 100, "who is urgent does not wait for the flood"
        for each in flood:
            each.setblocking(False)
        early = {each: received for each in flood if (received := _already(each))}
        waiting = [each for each in flood if each not in early]
        for each in waiting[8:]:
            each.close()
        for each in waiting[:8]:
            each.settimeout(60)
            received = raw.rest(each)
            assert raw.status(received) == 200 and b'"finish_reason":"length"' in received
    refused = [received for received in early.values() if raw.status(received) == 429]
    assert len(refused) >= 70 and {raw.status(each) for each in early.values()} <= {200, 429}
    assert statistics.median(refusals) < 0.05 + 2 * statistics.median(looks), (refusals, looks)
    assert target.memory_mb() - before < 150
    target.until_idle(key=ADMIN)


def _already(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except BlockingIOError:
        return b""


@given(raw_head=st.binary(max_size=200))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_any_bytes_are_refused_or_ignored(shared_target: Target, raw_head: bytes) -> None:
    with raw.sent(shared_target, raw_head) as connection:
        connection.shutdown(socket.SHUT_WR)
        received = raw.rest(connection)
    assert raw.status(received) in (0, 400, 403, 404, 405, 401, 431) or received.startswith(b"HTTP/1.1 200")
