"""Bytes that are no request: each is refused in one plain sentence, and the server goes on."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.errors import BadRequest
from hexad.server.protocol import LINGER_S, MAX_HEAD_BYTES
from hexad.server.wire import MAX_BODY_BYTES, MAX_DEPTH, MAX_KEYS, MOST, parse_json
from tests.server.running import Server

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(JSON, st.booleans())
def test_json_is_read_as_it_is(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize("sign", MOST)
def test_signs_are_counted_outside_texts(sign: str) -> None:
    """Where they make the parser work: a long text may hold as many as it likes."""
    value = {"a": [f'{sign}"\\' * (MOST[sign] + 1)]}
    assert parse_json(json.dumps(value).encode()) == value
    most = {"[": "[" * MOST[sign], ",": "[0" + ",0" * MOST[sign] + "]", ":": '{"":0}' * MOST[sign]}[sign]
    with pytest.raises(BadRequest, match="outside its texts"):
        parse_json(b'["\\"", ' + most.encode() + b'{"": [0, 0]}')


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.binary() | st.text(alphabet='[]{}",:0123456789eE+-.\\untrfalsNI d8').map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        value = parse_json(raw)
    except BadRequest:
        return
    assert json.loads(json.dumps(value, allow_nan=False)) == value


BODIES = {
    "empty": (b"", "not JSON"),
    "cut": (b'{"prompt": "a', "line 1, column 12"),
    "nan": (b'{"prompt": "a", "temperature": NaN}', "NaN"),
    "infinity": (b'{"prompt": "a", "temperature": -Infinity}', "-Infinity"),
    "1e400": (b'{"prompt": "a", "temperature": 1e400}', "1e400"),
    "not utf-8": (b'{"prompt": "\xff"}', "byte 12 is 0xff"),
    "lone surrogate": (b'{"prompt": "\\ud800"}', "surrogate"),
    "raw surrogate": (b'{"prompt": "\xed\xa0\x80"}', "UTF-8"),
    "long integer": (b'{"prompt": [' + b"9" * 5000 + b"]}", "number"),
    "key twice": (b'{"prompt": "a", "prompt": "b"}', "'prompt' is given twice"),
    "deep lists": (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", str(MAX_DEPTH)),
    "deep objects": (
        b'{"metadata": ' + b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1) + b"}",
        str(MAX_DEPTH),
    ),
    "many keys": (json.dumps({f"k{i}": 0 for i in range(MAX_KEYS + 1)}).encode(), str(MAX_KEYS)),
    "a list": (b"[1]", "object"),
    "null": (b"null", "object"),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
def test_a_malformed_body_is_a_400(server: Server, path: str, name: str) -> None:
    raw, says = BODIES[name]
    answer = server.http.post(server.url + path, content=raw, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == 400 and says in error["message"], error
    assert set(error) == {"message", "type", "param", "code"}


def test_bodies_that_are_not_taken(server: Server) -> None:
    url = server.url + "/v1/completions"
    for headers in (
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ):
        answer = server.http.post(url, content=b'{"prompt": "a"}', headers=headers)
        assert answer.status_code == 415 and answer.json()["error"]["code"] == "unsupported_media_type"


def _raw(server: Server, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


@pytest.mark.parametrize(
    "length", [b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), b"Content-Length: 999999999999999999\r\n\r\n"]
)
def test_a_body_over_the_limit_is_refused_before_it_is_read(server: Server, length: bytes) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = _raw(server, head + length)
    assert (
        answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer and str(MAX_BODY_BYTES).encode() in answer
    )


def test_a_chunked_body_over_the_limit_is_refused(server: Server) -> None:
    def trickle() -> object:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    answer = httpx.post(
        server.url + "/v1/completions",
        content=trickle(),
        headers={"Content-Type": "application/json"},  # type: ignore[arg-type]
    )
    assert answer.status_code == 413


POST = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
REFUSED = {
    "no HTTP": (b"\x00\xff hello\r\n\r\n", b"400"),
    "no header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: ", b"431"),
    "header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: a", b"431"),
    "empty lines": (b"\r\n" * MAX_HEAD_BYTES, b"431"),
    "trailer": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: a", b"431"),
    "declared body": (POST + b"Content-Length: 99999999999\r\n\r\n", b"413"),
    "chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n", b"413"),
    "unknown path": (b"POST /nothing HTTP/1.0\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", b"404"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_who_goes_on_sending_can_read_why_not(server: Server, name: str) -> None:
    """The answer, then the end, and no reset while it is read; and that we hear it out is not for ever."""
    beginning, status = REFUSED[name]
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            started, received = time.monotonic(), b""
            try:
                connection.sendall(beginning)
                for _ in range(64):
                    connection.sendall(b" " * 2**20)
                while part := connection.recv(65536):
                    received += part
            except (ConnectionResetError, BrokenPipeError):
                assert time.monotonic() - started > LINGER_S
                continue  # on a busy machine we are too slow ourselves
            assert received.startswith(b"HTTP/1.1 " + status) and received.endswith(b"}")
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while time.monotonic() - started < 30:
                    connection.sendall(b" " * 2**20)
            return
    pytest.fail("nobody was heard out")


def test_no_refusal_is_written_into_an_answer(server: Server) -> None:
    body = json.dumps({"prompt": "a", "max_tokens": 2000, "ignore_eos": True, "stream": True, "n": 64}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        received = connection.recv(100)
        with server.standing_still():
            connection.sendall(b"no HTTP\x00\r\n\r\n")
            while part := connection.recv(65536):
                received += part
    assert received.count(b"HTTP/1.1") == 1 and not received.endswith(b"0\r\n\r\n")
    server.until_idle()


NOT_HTTP = {
    "noise": b"\x00\xff\x16\x03\x01 hello\r\n\r\n",
    "bad length": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    "two lengths": b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "long header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n",
    "many headers": b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEAD_BYTES + b"\r\n",
    "long path": b"GET /" + b"a" * (MAX_HEAD_BYTES + 1) + b" HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_what_is_no_http_is_refused_in_our_shape(server: Server, name: str) -> None:
    answer = _raw(server, NOT_HTTP[name])
    head, _, body = answer.partition(b"\r\n\r\n")
    too_large = name in ("long header", "many headers", "long path")
    assert head.startswith(b"HTTP/1.1 431" if too_large else b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == ("head_too_large" if too_large else "bad_http")


def test_unknown_routes_and_methods(server: Server) -> None:
    missing = httpx.get(server.url + "/v2/models")
    assert missing.status_code == 404 and "/v2/models" in missing.json()["error"]["message"]
    wrong = httpx.get(server.url + "/v1/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST" and "POST" in wrong.json()["error"]["message"]
    assert httpx.get(server.url + "/v1/models/other").json()["error"]["code"] == "model_not_found"
