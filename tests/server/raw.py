"""Bytes over plain sockets, for what no HTTP client would send."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

from tests.server.running import Server

JSON = b"Content-Type: application/json\r\n"


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def post(path: str, body: object, headers: bytes = b"") -> bytes:
    """A whole request, whose connection ends with it."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), JSON, headers, len(content)) + content


def sent(server: Server, raw: bytes) -> socket.socket:
    connection = connect(server)
    connection.sendall(raw)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def answer(server: Server, raw: bytes) -> bytes:
    with sent(server, raw) as connection:
        return rest(connection)


def status(received: bytes) -> int:
    """0: nothing came."""
    return int(received.split(b" ", 2)[1]) if received else 0


@contextlib.contextmanager
def all_closed(connections: list[socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for connection in connections:
            connection.close()
