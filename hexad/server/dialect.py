"""What a front door is: its routes, how it says what went wrong, how it frames a stream.

This module knows no endpoint and no engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import HexadError
from hexad.server.errors import error_body
from hexad.server.models import Models

Access = Literal["open", "user", "admin"]
"""Who may call a route: anybody; who has a key, where keys are configured; who has an admin's key."""
Endpoint = Callable[[Models, Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Dialect:
    error: Callable[[HexadError], dict[str, Any]]
    """The JSON object that its clients read as a failure."""
    media_type: bytes
    frame: Callable[[Any], bytes]
    """One event of a stream as bytes."""
    end: bytes = b""
    """What follows the last event of a complete stream."""


@dataclass(frozen=True, slots=True)
class Route:
    method: Literal["GET", "HEAD", "POST", "DELETE"]
    path: str
    endpoint: Endpoint
    dialect: Dialect
    body: Any = None
    """The type of its body, for the OpenAPI page."""
    access: Access = "user"
    media_type: str = "application/json"
    """Of an answer that is no stream."""


def data_event(event: Any) -> bytes:
    """A server-sent event without a name."""
    return b"data: %b\n\n" % msgspec.json.encode(event)


def named_event(event: dict[str, Any]) -> bytes:
    """A server-sent event that is named by its `type`."""
    return b"event: %b\n%b" % (event["type"].encode(), data_event(event))


def json_line(event: Any) -> bytes:
    return b"%b\n" % msgspec.json.encode(event)


EVENT_STREAM = b"text/event-stream; charset=utf-8"
OPENAI = Dialect(error_body, EVENT_STREAM, data_event, end=b"data: [DONE]\n\n")
