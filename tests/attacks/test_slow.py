"""Faults 1, 2 and 6: clients that vanish, that do not read, that send a byte a second."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop

from hexad.server import protocol
from tests.attacks.conftest import ADMIN, OTHER, USER, Target
from tests.server import raw
from tests.server.running import AT_LAST_S

LONG = {"prompt": [5, 9, 2, 7], "max_tokens": 1900, "ignore_eos": True, "stream": True}
KEY = b"x-api-key: %b\r\n" % USER.encode()
RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER of no time: closing sends RST."""


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("n", [1, 4])
def test_a_client_that_vanishes_at_any_byte_frees_its_request(target: Target, how: str, n: int) -> None:
    request = raw.post("/v1/completions", LONG | {"n": n}, KEY)
    for share in (0.3, 0.95, 1.0, 1.5):
        connection = raw.sent(target, request[: int(len(request) * min(1.0, share))])
        if share > 1:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        if how == "RST":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
    target.until_idle(key=ADMIN)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_with_another_request_behind_frees_both(target: Target, stream: bool) -> None:
    named = f"vanished-{stream}".lower()
    request = raw.post(
        "/v1/completions", LONG | {"stream": stream, "n": 8}, KEY + b"X-Request-Id: %b\r\n" % named.encode()
    )
    behind = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with target.paused():
        connection = raw.sent(target, request.replace(b"Connection: close\r\n", b"") + behind)
        target.until(lambda found: found["hexad:num_requests_waiting"] > 0, ADMIN)
        connection.close()
        assert "error=client_disconnected" in target.says(named)
        target.until_idle(key=ADMIN)


def test_clients_that_vanish_while_queued_cost_nothing(target: Target) -> None:
    with target.paused():
        held = [raw.sent(target, raw.post("/v1/completions", LONG, KEY)) for _ in range(150)]
        target.until(lambda found: found["hexad:num_requests_waiting"] == 150, ADMIN)
        for connection in held:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.close()
        target.until_idle(key=ADMIN)


def test_a_reader_that_never_reads_slows_nobody_down(target: Target) -> None:
    stuck = []
    for _ in range(8):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", target.port))
        connection.sendall(raw.post("/v1/completions", LONG | {"logprobs": 20, "n": 2, "max_tokens": 400}, KEY))
        stuck.append(connection)
    with raw.all_closed(stuck):
        before = target.memory_mb()
        target.until_idle(timeout_s=60, key=ADMIN)
        assert target.memory_mb() - before < 100, "what nobody reads is bounded"


@pytest.mark.slow
def test_a_reader_that_never_reads_is_cut(target: Target) -> None:
    """With the deadlines as they are: within a minute after the buffers are full."""
    connection, started = socket.socket(), time.monotonic()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", target.port))
    connection.sendall(raw.post("/v1/completions", LONG | {"logprobs": 20, "n": 8}, KEY + b"X-Request-Id: stuck\r\n"))
    with connection:
        while not any("request_id=stuck" in line for line in target.log.read_text().splitlines()):
            assert time.monotonic() - started < 120, "still connected"
            time.sleep(1)
    (line,) = (line for line in target.log.read_text().splitlines() if "request_id=stuck" in line)
    assert time.monotonic() - started > 25 and "error=client_disconnected" in line


class _Slow:
    """Connections that send something every second, until they are closed."""

    def __init__(self, target: Target, opening: bytes, drip: bytes, count: int) -> None:
        self.connections = [raw.sent(target, opening) for _ in range(count)]
        self.drip = drip
        self.answers: list[bytes] = []

    def beat(self) -> None:
        for connection in list(self.connections):
            connection.setblocking(False)
            try:
                if received := connection.recv(65536):
                    self.answers.append(received)
                    continue
                self.connections.remove(connection)
                connection.close()
            except BlockingIOError:
                try:
                    connection.send(self.drip)
                except OSError:
                    self.connections.remove(connection)
            except OSError:
                self.connections.remove(connection)


def test_slow_senders_are_gone_after_ten_seconds_and_disturb_nobody(target: Target) -> None:
    body = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + KEY + raw.JSON + b"Content-Length: 1000\r\n\r\n{"
    chunked = body.replace(b"Content-Length: 1000", b"Transfer-Encoding: chunked").removesuffix(b"{")
    slow = {
        "silent": _Slow(target, b"", b"", 40),
        "empty lines": _Slow(target, b"", b"\r\n", 40),
        "head": _Slow(target, b"GET /health HTTP/1.1\r\nA: ", b"a", 40),
        "second head": _Slow(target, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G", 1),
        "body": _Slow(target, body, b" ", 40),
        "chunks": _Slow(target, chunked, b"1\r\n \r\n", 40),
        "chunk extensions": _Slow(target, chunked, b"", 20),
    }
    looks, started = [], time.monotonic()
    with httpx.Client(headers={"x-api-key": OTHER}, timeout=60) as other:
        while any(each.connections for each in slow.values()) and time.monotonic() - started < 60:
            for each in slow.values():
                each.beat()
            answer = other.post(target.url + "/v1/completions", json={"prompt": "a", "max_tokens": 2})
            assert answer.status_code == 200
            looks.append(answer.elapsed.total_seconds())
            time.sleep(1)
    assert {name: len(each.connections) for name, each in slow.items() if each.connections} == {}
    assert statistics.median(looks) < 1, looks
    for name in ("head", "body", "chunks"):
        assert all(b" 408 " in each or b'"too_slow"' in each for each in slow[name].answers), slow[name].answers[:1]
        assert slow[name].answers


# The same deadlines, shorter: the protocol alone, over real sockets.

App = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


@asynccontextmanager
async def listening(app: App, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    for name, value in (("LOOK_S", 0.05), ("HEAD_S", 0.4), ("BODY_S", 0.4), ("READER_S", 0.4)):
        monkeypatch.setattr(protocol, name, value)
    http: Any = partial(protocol.Protocol, refused=lambda *_: None)
    config = uvicorn.Config(app, http=http, lifespan="off", port=0, log_level="critical", timeout_keep_alive=2)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await serving


async def _echo(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = b"x" * (8_000_000 if scope["path"] == "/big" else size)
    for start in range(0, max(1, len(body)), 50_000):
        await send({"type": "http.response.body", "body": body[start : start + 50_000], "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _run(
    scenario: Callable[[int], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
    app: App = _echo,
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> None:
    async def main() -> None:
        async with listening(app, monkeypatch) as port:
            await asyncio.wait_for(scenario(port), 20)

    run(main())


def test_a_connection_that_is_used_and_used_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(40):  # two seconds of short requests, far over each deadline
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.05)
        writer.close()

    _run(scenario, monkeypatch)


@pytest.mark.parametrize("said", [b"", b"GET"])
def test_only_who_has_said_something_is_heard_out(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """Else a drain would wait for connections that a browser opened in case."""
    monkeypatch.setattr(protocol, "LINGER_S", 60.0 if not said else 0.5)

    async def scenario(port: int) -> None:
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        assert b" 408 " in await reader.read()
        with pytest.raises(ConnectionError):
            while True:
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.02)
        assert not said or time.monotonic() - started > protocol.HEAD_S + protocol.LINGER_S

    _run(scenario, monkeypatch)


def test_an_answer_may_take_longer_than_a_connection_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def works(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        await asyncio.sleep(3 if scope["path"] == "/long" else 0)
        await _echo(scope, receive, send)

    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in (b"/", b"/long"):
            writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    _run(scenario, monkeypatch, works)


@pytest.mark.parametrize("between", [b"", b"\r\n"], ids=["nothing", "empty lines"])
def test_a_connection_may_rest_between_requests_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, between: bytes
) -> None:
    """Longer than a head may take; and no word of ours comes that would be read as the next answer."""

    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.8)
        monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 1)
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                writer.write(between)
                await asyncio.sleep(0.1)
            assert await reader.read() == b""
        writer.close()

    _run(scenario, monkeypatch)


def test_the_head_of_a_second_request_has_its_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"GET / HTTP/1.1\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 408")
        writer.close()

    _run(scenario, monkeypatch)


def test_who_was_quick_is_not_refused_because_the_server_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has arrived is read before deadlines are looked at."""

    async def scenario(port: int) -> None:
        monkeypatch.setattr(protocol, "HEAD_S", 60)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.1)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        monkeypatch.setattr(protocol, "HEAD_S", 0.4)
        time.sleep(0.6)  # holds up the server's event loop, longer than a head may take
        assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    _run(scenario, monkeypatch, run=uvloop.run)  # as the server does


def test_a_new_connection_gets_the_place_of_one_that_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 2)

    async def scenario(port: int) -> None:
        monkeypatch.setattr(protocol, "HEAD_S", 60)
        begun, _ = held = await asyncio.open_connection("127.0.0.1", port)
        held[1].write(b"GET /held HTTP/1.1\r\n")
        resting, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await resting.readuntil(b"0\r\n\r\n")
        await asyncio.sleep(0.2)
        newest = await asyncio.open_connection("127.0.0.1", port)
        newest[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await newest[0].readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await resting.read() == b""
        held[1].write(b"Host: x\r\n\r\n")
        assert (await begun.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for each in (held, newest):
            each[1].close()

    _run(scenario, monkeypatch)


def test_a_body_that_comes_steadily_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        monkeypatch.setattr(protocol, "BODY_S", 1)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n")
        for _ in range(60):
            writer.write(b"a" * 500)
            await asyncio.sleep(0.05)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()

    _run(scenario, monkeypatch)


@pytest.mark.parametrize("reads", [True, False], ids=["slowly", "not at all"])
def test_who_reads_slowly_is_served_and_who_does_not_is_cut(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    async def scenario(port: int) -> None:
        monkeypatch.setattr(protocol, "READER_S", 1)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        received, loop = 0, asyncio.get_running_loop()
        started = loop.time()
        while loop.time() - started < 3 or (reads and received < 200_000):
            if reads:
                received += len(await loop.run_in_executor(None, connection.recv, 20_000))
            await asyncio.sleep(0.02)
        connection.settimeout(5)

        def to_the_end() -> int:
            size = 0
            try:
                while part := connection.recv(1 << 20):
                    size += len(part)
            except ConnectionResetError:
                return -1
            return size

        rest = await loop.run_in_executor(None, to_the_end) if not reads else 0
        assert reads or rest < 8_000_000, "cut before the end"
        connection.close()

    _run(scenario, monkeypatch)


async def _begun(port: int, path: str, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Half of a request's head."""
    opened = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    opened[1].write(b"GET %b HTTP/1.1\r\n" % path.encode())
    await asyncio.sleep(0.02)
    return opened


async def _answered(begun: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    begun[1].write(b"Host: x\r\nConnection: close\r\n\r\n")
    return (await begun[0].read())[:12]


def test_who_takes_all_places_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address may have them all while nobody else comes; then it loses its oldest, and nobody else loses any."""
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 6)

    async def scenario(port: int) -> None:
        monkeypatch.setattr(protocol, "LOOK_S", 60)
        early = await _begun(port, "/early", "127.0.0.9")
        greedy = [await _begun(port, f"/{number}") for number in range(5)]
        others = [await _begun(port, "/other", f"127.0.0.{number}") for number in (2, 3, 4)]
        for lost in greedy[:3]:
            refusal = await lost[0].read()
            assert refusal.startswith(b"HTTP/1.1 503") and b'"too_busy"' in refusal and b"retry-after" in refusal
        for kept in (early, *greedy[3:], *others):
            assert await _answered(kept) == b"HTTP/1.1 200"

    _run(scenario, monkeypatch)


def test_a_proxy_gets_every_place_and_keeps_what_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """All from one address: what has only begun gives way to what is new; what the server works on does not."""
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    may_end, at_work = asyncio.Event(), []

    async def works(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        at_work.append(scope["path"])
        await may_end.wait()
        await _echo(scope, receive, send)

    async def scenario(port: int) -> None:
        monkeypatch.setattr(protocol, "LOOK_S", 60)
        first, *begun = [await _begun(port, f"/{number}") for number in range(4)]
        assert (await first[0].read()).startswith(b"HTTP/1.1 503")
        answers = [asyncio.ensure_future(_answered(each)) for each in begun]
        while len(at_work) < 3:
            await asyncio.sleep(0.01)
        one_more = await _begun(port, "/more")
        assert (await one_more[0].read()).startswith(b"HTTP/1.1 503"), "all three are at work"
        may_end.set()
        assert await asyncio.gather(*answers) == [b"HTTP/1.1 200"] * 3

    _run(scenario, monkeypatch, works)


def test_a_flood_of_connections_leaves_room(target: Target) -> None:
    before = target.descriptors()
    flood = [raw.connect(target) for _ in range(400)]
    with raw.all_closed(flood):
        assert target.http.get(target.url + "/health", timeout=20).status_code == 200
    deadline = time.monotonic() + AT_LAST_S
    while target.descriptors() > before + 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert threading.active_count() < 50
