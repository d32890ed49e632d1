"""Bytes to checked bodies, and results to bytes: JSON in, JSON or server-sent events out.

This module knows HTTP; it knows neither endpoints nor the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar, cast

import msgspec
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hexad.errors import BadRequest, Overloaded
from hexad.server.dialect import Dialect
from hexad.server.errors import RequestTooLarge, UnsupportedBody, validation_error
from hexad.server.log import Record

MAX_BODY_BYTES = 32 * 2**20
MAX_BODIES_BYTES = 256 * 2**20
"""Of all large bodies that are being received, together."""
MAX_DEPTH = 64
MAX_KEYS = 16384
"""Of one JSON object: bounds what a refusal can cost."""
MAX_OBJECTS = 32768
"""Of one body, each message and each part of one among them: bounds what checking it can cost."""
MOST = {"[": 2**18, ":": 2**18, ",": 2**20}
"""How often each may stand in one body, outside its texts. The parser is C and lets nobody else run while it makes
arrays, keys and texts: so many of them take it about a tenth of a second."""

_BIG_BODY = 32 * 2**10
"""Bodies above this are parsed and checked in a thread, so that other requests' events go on."""

_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Body = TypeVar("Body", bound=BaseModel)
T = TypeVar("T")


async def read_body(request: Request, model: type[Body], *, any_type: bool = False) -> Body:
    """The request's body, checked. Raises BadRequest (400), with the dotted path of what is wrong, RequestTooLarge
    (413) or UnsupportedBody (415).

    `any_type`: whatever its Content-Type says.
    """
    return await read_one_of(request, lambda _: model, any_type=any_type)


async def read_one_of(request: Request, model_of: Callable[[Any], type[Body]], *, any_type: bool = False) -> Body:
    """The same for a body that shows by what it holds what it is."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not any_type:
        raise UnsupportedBody(f"Content-Type is {kind or 'missing'}; send application/json")
    if encoding := request.headers.get("content-encoding"):
        raise UnsupportedBody(f"Content-Encoding is {encoding}; send the body as it is")
    raw = await _read(request)

    def read() -> Body:
        value = parse_json(raw)
        return check_body(model_of(value), value)

    return await asyncio.to_thread(read) if len(raw) > _BIG_BODY else read()


@dataclass(slots=True)
class Receiving:
    """Bytes of the large bodies that are not complete. One a server."""

    held: int = 0


async def _read(request: Request) -> bytes:
    receiving: Receiving = request.app.state.receiving
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    parts: list[bytes] = []
    held = 0
    try:
        if size <= MAX_BODY_BYTES:
            size = 0
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > _BIG_BODY:
                    receiving.held += size - held
                    held = size
                if size > MAX_BODY_BYTES:
                    break
                if held and receiving.held > MAX_BODIES_BYTES:
                    raise Overloaded("too many large bodies are being received; try again later", code="too_busy")
    finally:
        receiving.held -= held
    if size > MAX_BODY_BYTES:
        raise RequestTooLarge(f"the body is over {MAX_BODY_BYTES} bytes; send less")
    return b"".join(parts)


def parse_json(raw: bytes) -> Any:
    """Strict JSON (RFC 8259): UTF-8, no NaN or infinity, no lone surrogate, no repeated key, bounded depth.

    Raises BadRequest that says what was found.
    """
    count = 0
    for sign, most in MOST.items():
        if raw.count(sign.encode()) > most and _stands_outside_texts(raw, sign.encode(), most):
            raise BadRequest(f"the body holds {sign!r} more than {most} times outside its texts; send less")

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count > MAX_OBJECTS:
            raise BadRequest(f"the body holds more than {MAX_OBJECTS} objects; send less")
        return _object(pairs)

    try:
        text = raw.decode("utf-8")
        hooks: dict[str, Any] = {"parse_int": _integer, "parse_float": _finite, "parse_constant": _not_json}
        value = json.loads(text, object_pairs_hook=object_of, **hooks)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        _check_depth(value)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}") from None
    except UnicodeEncodeError:
        raise BadRequest("the body holds half of a surrogate pair (\\ud800..\\udfff); send whole ones") from None
    except json.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BadRequest(f"the body holds a number that cannot be read: {error}") from None
    return value


def _stands_outside_texts(raw: bytes, sign: bytes, most: int) -> bool:
    """Whether more than `most` times. A loop of Python's, so that other threads get their turn."""
    found = end = 0
    for text in _TEXT.finditer(raw):
        found += raw.count(sign, end, text.start())
        end = text.end()
        if found > most:
            return True
    return found + raw.count(sign, end) > most


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise BadRequest(f"the body holds an object of {len(pairs)} keys; at most {MAX_KEYS} are allowed")
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise BadRequest(f"the key {twice[:60]!r} is given twice; give it once", param=twice[:60])
    return found


def _not_json(word: str) -> NoReturn:
    raise BadRequest(f"the body holds {word}, which is not JSON; give a finite number or null")


def _integer(digits: str) -> int:
    return int(digits)  # in Python, where other threads get their turn


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise BadRequest(f"the body holds {digits[:60]}, which is too large; give a smaller number")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for container in level
            if isinstance(container, (dict, list))
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BadRequest:
    return BadRequest(f"the body is nested too deeply; at most {MAX_DEPTH} levels are allowed")


def check_body(model: type[Body], value: Any) -> Body:
    """Raises BadRequest with the dotted path of what is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise validation_error(error, model, value) from None


def json_response(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


async def respond(
    request: Request, dialect: Dialect, streams: bool | None, events: AsyncGenerator[dict[str, Any], None]
) -> Response:
    """All events as they come, or the last of them as JSON."""
    if streams:
        return EventStream(dialect, events)
    return json_response(await unless_disconnected(request.receive, _last(events)))


async def _last(events: AsyncGenerator[T, None]) -> T:
    async with contextlib.aclosing(events):
        async for event in events:
            last = event
    return last


async def unless(first: Coroutine[Any, Any, Any], work: Awaitable[T]) -> T | Any:
    """What `work` gives, or what `first` does when that ends before; the other is cancelled, and has ended too."""
    working, other = asyncio.ensure_future(work), asyncio.ensure_future(first)
    try:
        await asyncio.wait({working, other}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else other.result()
    finally:
        working.cancel()
        other.cancel()
        await asyncio.gather(working, other, return_exceptions=True)


async def unless_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; cancel it at once, and raise ClientDisconnect, when the client goes away."""
    return cast(T, await unless(_disconnected(receive), work))


async def _disconnected(receive: Receive) -> NoReturn:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


class EventStream(Response):
    """Events as `dialect` frames them.

    The headers wait for the first event, so what fails before it is answered with its own
    status. A later failure is told in an event of its own; then the connection is cut without
    the dialect's end and without the closing chunk, so that no reader takes it for a complete answer.
    """

    def __init__(self, dialect: Dialect, events: AsyncGenerator[Any, None]) -> None:
        self.dialect = dialect
        self.events = events
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = scope["state"]["record"]
        await unless_disconnected(receive, self._send_all(send, record))

    async def _send_all(self, send: Send, record: Record) -> None:
        try:
            event = await anext(self.events, None)
            headers = [(b"content-type", self.dialect.media_type), *_STREAM_HEADERS]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            try:
                while event is not None:
                    await _send_part(send, self.dialect.frame(event))
                    event = await anext(self.events, None)
            except Exception as error:
                return await _send_part(send, self.dialect.frame(self.dialect.error(record.failed(error))))
            await send({"type": "http.response.body", "body": self.dialect.end, "more_body": False})
        finally:
            await self.events.aclose()


_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


async def _send_part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
