"""uvicorn's HTTP protocol, hardened: limits on heads, deadlines for slow clients, our error shape for what is no HTTP.

Each connection looks at itself every other second: what does it wait for, and how long has it. It knows no routes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hexad.errors import HexadError
from hexad.server.errors import error_body

MAX_HEAD_BYTES = 64 * 2**10
"""Of the request line and all headers together."""
MAX_HEADERS = 128
MAX_PIPELINED = 32
"""Requests of one connection that wait behind the one that is being answered."""
MAX_CONNECTIONS = 2048
HEAD_S = 10
"""A request's head must be complete by then, counted from its first byte or from the connection's start."""
BODY_S = 10
READER_S = 30
"""Who sends a body, or reads an answer, must do so at MIN_RATE at least over each window of so many seconds."""
MIN_RATE = 240
"""Bytes a second."""
KEEP_ALIVE_S = 100
"""A connection between two requests. Longer than its clients keep one (httpx 5 s, aiohttp 15, proxies 60, Go and Rust's
reqwest 90), for whoever hangs up first may cut off a request that is on its way."""
LOOK_S = 2
LINGER_S = 1
MAX_LINGER_BYTES = 64 * 2**20
"""Who still sends when we hang up is heard out for so long: a socket that is closed with bytes unread is reset, which
may take our answer away from its reader (RFC 9112, section 9.6)."""
FULL = f"there are {MAX_CONNECTIONS} connections, as many as there may be; try again later"

Waits = Literal["head", "body", "reader", "next"]
Refused = Callable[[int, str, str], None]
"""Told of each answer that no endpoint gave: its status, the error's code, the client's address."""


class _Lingering:
    """A transport whose `close` hears out who `still_sends`; TLS has its own way."""

    def __init__(self, own: asyncio.Transport, still_sends: Callable[[], bool]) -> None:
        self.own, self._still_sends = own, still_sends
        self.lingers = False
        self._heard = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def is_closing(self) -> bool:
        return self.lingers or self.own.is_closing()

    def write(self, data: bytes) -> None:
        if not self.lingers:
            self.own.write(data)

    def close(self) -> None:
        if self.is_closing() or not (self.own.can_write_eof() and self._still_sends()):
            return self.own.close()
        self.lingers = True
        self.own.write_eof()
        self.own.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_S, self.own.close)

    def hear(self, size: int) -> None:
        self._heard += size
        if self._heard > MAX_LINGER_BYTES:
            self.own.abort()


async def _send_plain(cycle: RequestResponseCycle, send: Any, message: Message) -> None:
    """HTTP/1.0 knows no chunks (RFC 9112, section 6.1): an answer without a length ends with its connection."""
    if message["type"] == "http.response.start" and b"content-length" not in dict(message["headers"]):
        cycle.chunked_encoding = False
    elif not cycle.expected_content_length:
        cycle.expected_content_length = len(message.get("body", b""))
    await send(message)


class Protocol(HttpToolsProtocol):
    _in_head = True
    _head_bytes = 0
    _headers_seen = 0
    _has_spoken = False
    _told_bytes = 0
    _untold_bytes = 0
    _in_body = False
    _body_bytes = 0
    _address = ""
    _read_again = False
    _answered: RequestResponseCycle | None = None
    _waits: Waits | None = None
    _since = 0.0
    _mark = 0
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *, refused: Refused, **options: Any) -> None:
        super().__init__(**options)
        self._refused = refused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._line = _Lingering(transport, self._still_sends)
        super().connection_made(self._line)  # type: ignore[arg-type]
        self._address = self.client[0] if self.client else "unix"
        self._timer = self.loop.call_later(LOOK_S, self._look)
        self._begin("head")
        if len(self.connections) > MAX_CONNECTIONS and not self._make_room():
            self._refuse(503, FULL, "too_busy")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._answered is not None:
            self.cycle = self._answered  # uvicorn tells the last of those that wait behind it
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._line.lingers:
            return self._line.hear(len(data))
        self._has_spoken = True
        self._unset_keepalive_if_required()
        told = self._told_bytes + self._body_bytes
        self._feed(data)
        # The parser tells of a header at its end, and copies what it has of it with each part that comes.
        is_silent = told == self._told_bytes + self._body_bytes
        self._untold_bytes = self._untold_bytes + len(data) if is_silent else 0
        if self._untold_bytes > MAX_HEAD_BYTES:
            self.send_400_response("")

    def _feed(self, data: bytes) -> None:
        """An offer to go on in another protocol is passed over: its head is read again without it."""
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._read_again:
                kept = b"".join(b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade")
                head = self.parser.get_method(), self.url, self.parser.get_http_version().encode(), kept
                self.parser = HttpRequestParser(self)  # the old one may have read "close"
                self._feed(b"%b %b HTTP/%b\r\n%b\r\n" % head + data[offer.args[0] :])
        except HttpParserError:
            self.send_400_response("")

    def _still_sends(self) -> bool:
        is_open = self._in_body or (self._in_head and self._has_spoken)
        return is_open and len(self.connections) <= MAX_CONNECTIONS

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        if cycle.scope["http_version"] != "1.1":
            cycle.send = partial(_send_plain, cycle, cycle.send)  # type: ignore[method-assign]
        super()._start_asgi_task(cycle, app)

    def _make_room(self) -> bool:
        """Close a connection that waits for its client: of the address that has most such ones, one that rests
        between requests before one that has begun, the one that has waited for longest. False when there is none."""
        held, waiting = Counter[str](), list[tuple[Protocol, Waits]]()
        for each in self.connections:
            assert isinstance(each, Protocol)
            if each is not self and (waits := each._waits_for()) and not each._line.own.is_closing():
                held[each._address] += 1
                waiting.append((each, waits))
        if not waiting:
            return False
        last, waits = min(waiting, key=lambda each: (-held[each[0]._address], each[1] != "next", each[0]._since))
        last._hang_up(waits, 503, FULL, "too_busy")
        return True

    # Limits on heads.

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError  # the parser stops, and send_400_response answers
        self._in_head = True
        self._waits = None
        self._head_bytes = self._headers_seen = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_seen += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        self._told_bytes += size
        if self._head_is_too_big():
            raise ValueError

    def _head_is_too_big(self) -> bool:
        return max(self._head_bytes, self._untold_bytes) > MAX_HEAD_BYTES or self._headers_seen > MAX_HEADERS

    def send_400_response(self, msg: str) -> None:
        if self._head_is_too_big():
            most = f"{MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers"
            self._refuse(431, f"the request line and headers are over {most}; send less", "head_too_large")
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(429, f"{MAX_PIPELINED} requests wait on this connection; wait for their answers", "too_busy")
        else:
            self._refuse(400, "this is not a valid HTTP request", "bad_http")

    # Deadlines.

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._waits = None
        self._read_again = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._read_again:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        if not self._read_again:
            super().on_message_complete()

    def resume_writing(self) -> None:
        self._waits = None
        super().resume_writing()

    def _waits_for(self) -> Waits | None:
        if self._line.lingers:
            return "next"
        cycle = self.cycle
        is_idle = cycle is None or cycle.response_complete
        if self.transport.get_write_buffer_size():
            # While the answer is written and the buffer not full, nobody waits for the reader.
            ended = is_idle or self.flow.write_paused or self.transport.is_closing()
            return "reader" if ended else None
        if self._in_body:  # also behind an answer that did not wait for it
            return None if self.flow.read_paused else "body"
        if is_idle:
            return "head" if self._in_head else "next"
        return None

    def _begin(self, waits: Waits | None) -> None:
        self._waits, self._since, self._mark = waits, self.loop.time(), self._moved(waits)

    def _moved(self, waits: Waits | None) -> int:
        """Bytes that went the right way so far."""
        return -self.transport.get_write_buffer_size() if waits == "reader" else self._body_bytes

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK_S, self._look)
        waits, lasted = self._waits_for(), self.loop.time() - self._since
        if waits != self._waits:
            self._begin(waits)
        elif waits == "head" and lasted > HEAD_S:
            self._hang_up(waits, 408, f"the head of the request was not complete after {HEAD_S} s", "too_slow")
        elif waits == "next" and lasted > KEEP_ALIVE_S:
            self.transport.close()
        elif waits in ("body", "reader") and lasted > (BODY_S if waits == "body" else READER_S):
            if self._moved(waits) - self._mark >= MIN_RATE * lasted:
                self._begin(waits)
            else:
                self._hang_up(waits, 408, f"the body came at less than {MIN_RATE} bytes a second", "too_slow")

    def _hang_up(self, waits: Waits | None, status: int, message: str, code: str) -> None:
        """Say why only where it will not be read as a part of an answer, or as the next one."""
        if waits == "next":
            self.transport.close()
        elif waits == "reader" or (waits == "body" and self.cycle.response_started):
            self.transport.abort()
        else:
            self._refuse(status, message, code)

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer without an endpoint, but not into another answer, and hang up."""
        if self.transport.is_closing():  # TLS takes its time
            return
        self._refused(status, code, self._address)
        error = HexadError(message, code=code)
        error.status = status
        body = msgspec.json.encode(error_body(error))
        head: tuple[Any, ...] = (status, HTTPStatus(status).phrase.encode(), len(body))
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"retry-after: 1\r\ncontent-length: %d\r\n\r\n%b" % (*head, body)
            )
        self.transport.close()
