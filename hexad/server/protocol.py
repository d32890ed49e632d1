"""uvicorn's HTTP protocol, with our error shape for what is no HTTP, and a bound on headers."""

from __future__ import annotations

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hexad.errors import BadRequest
from hexad.server.errors import error_body

MAX_HEAD_BYTES = 64 * 2**10
"""Of the request line and all headers together."""


class Protocol(HttpToolsProtocol):
    head_bytes = 0

    def on_message_begin(self) -> None:
        self.head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > MAX_HEAD_BYTES:
            raise ValueError  # the parser stops, and send_400_response answers

    def send_400_response(self, msg: str) -> None:
        if self.head_bytes > MAX_HEAD_BYTES:
            msg = f"the request line and headers are over {MAX_HEAD_BYTES} bytes; send less"
        body = msgspec.json.encode(error_body(BadRequest(msg, code="bad_http")))
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.transport.close()
