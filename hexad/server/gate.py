"""The gate that every request passes: who may call what, from where, and what is written down at its end.

Everything is decided from the route table and the parsed request (`scope["path"]`), never from a URL put together
from headers. This module knows no endpoint and no engine.
"""

from __future__ import annotations

import ipaddress
import re
import time
import uuid
from collections.abc import Callable, Mapping
from os.path import commonprefix
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hexad.config import Config
from hexad.errors import BadRequest, Forbidden
from hexad.server.auth import ANONYMOUS, Client, Keys, parse_timeout
from hexad.server.caller import Caller
from hexad.server.dialect import OPENAI, Access, Dialect, Route
from hexad.server.errors import error_response
from hexad.server.log import Record

_HOST = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:\d{1,5})?")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_TRACE = ("traceparent", "tracestate")
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
_CORS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
    "Access-Control-Allow-Headers": "*, Authorization",
    "Access-Control-Expose-Headers": "X-Request-Id, Retry-After",
    "Access-Control-Max-Age": "600",
}

Declared = tuple[str, Access | None, Dialect]
"""The path of a route as it was declared, who may call it (None: nobody), and how it says no."""


class Gate:
    """ASGI middleware. `finished` is told of every request at its end."""

    def __init__(
        self, app: ASGIApp, *, api: FastAPI, routes: tuple[Route, ...], config: Config, keys: Keys,
        finished: Callable[[Record], None],
    ) -> None:  # fmt: skip
        self.app = app
        self.api = api
        self.routes = routes
        self.declared = {(route.path, route.method): route for route in routes}
        self.keys = keys
        self.finished = finished
        self.origins = _words(config.allowed_origins)
        self.hosts = _words(config.allowed_hosts) or _default_hosts(config.host)
        self.request_timeout = config.request_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        unique = uuid.uuid4().hex
        named = headers.get(b"x-request-id", b"").decode("latin-1")
        record = Record(scope["method"], scope["path"], named if _REQUEST_ID.fullmatch(named) else unique)
        record.parent = {key: headers[key.encode()].decode("latin-1") for key in _TRACE if key.encode() in headers}
        record.route, access, dialect = self._declared(scope)
        state = scope.setdefault("state", {})
        state |= {"request_id": unique, "dialect": dialect, "client": ANONYMOUS, "record": record}
        # Under both names: Anthropic's client reads the second.
        extra = [(name, record.request_id.encode()) for name in (b"x-request-id", b"request-id")]

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message.get("headers", ()), *extra]
            await send(message)

        try:
            _check_host(scope, self.hosts)
            extra += self._cors(headers)
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return await Response(status_code=204, headers=_CORS)(scope, receive, send_named)
            state["client"] = client = self._admit(access, scope)
            record.client = client.name
            state["caller"] = Caller(unique, client, self._deadline(headers), record)
            await self.app(scope, receive, send_named)
        except ClientDisconnect:
            record.error = "client_disconnected"
        except Exception as error:
            failure = record.failed(error)
            if not record.status:
                await error_response(failure, state["dialect"].error(failure))(scope, receive, send_named)
        finally:
            record.duration_s = time.monotonic() - record.started
            self.finished(record)

    def _declared(self, scope: Scope) -> Declared:
        """Found by the router's own matcher. A path that nobody declared is denied; one that does not exist needs a
        key, so that nobody can look for routes without one. Its refusal is in the words of the route that begins
        most alike: what looks for it there is most likely that dialect's client."""
        for route in self.api.router.routes:
            match, _ = route.matches(scope)
            if match == Match.NONE:
                continue
            path = getattr(route, "path", "")
            declared = self.declared.get((path, scope["method"]))
            if declared is not None and match == Match.FULL:
                return path, declared.access, declared.dialect
            if match == Match.FULL:
                return path, None, OPENAI
        given = scope["path"][:256].split("/")
        nearest = max(self.routes, key=lambda route: len(commonprefix([given, route.path.split("/")])))
        return "", "user", nearest.dialect

    def _admit(self, access: Access | None, scope: Scope) -> Client:
        """Raises Unauthorized or Forbidden."""
        if access == "open":
            return ANONYMOUS
        client = self.keys.client(scope["headers"])
        if access is None:
            raise Forbidden(f"{scope['path'][:100]} is not declared to anybody")
        if access == "admin" and not self.keys.has_admin:
            raise Forbidden("admin routes need an admin's key, and none is configured: see --api-keys, NAME:KEY:admin")
        if access == "admin" and not client.admin:
            raise Forbidden(f"the key of {client.name} is not an admin's; admin routes need one that is")
        return client

    def _deadline(self, headers: Mapping[bytes, bytes]) -> float | None:
        """When the request has to be complete: as the server is set, or earlier if the client says so."""
        seconds = [] if self.request_timeout is None else [self.request_timeout]
        if (given := headers.get(b"x-request-timeout")) is not None:
            seconds.append(parse_timeout(given.decode("latin-1")))
        return time.monotonic() + min(seconds) if seconds else None

    def _cors(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The headers that let the page of another origin read the answer. Raises Forbidden for one not allowed:
        a browser would hide the answer from it, but the work would be done."""
        origin = headers.get(b"origin")
        if origin is None or origin.partition(b"://")[2] == headers.get(b"host"):
            return []
        if "*" in self.origins:
            return [(b"access-control-allow-origin", b"*")]
        if origin.decode("latin-1").lower() not in self.origins:
            raise Forbidden(
                f"pages of {origin.decode('latin-1')[:100]} may not call this server; name it in --allowed-origins",
                code="origin_not_allowed",
            )
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.strip().lower() for word in text.split(",") if word.strip())


def _default_hosts(listening: str) -> frozenset[str]:
    """On loopback only its own names: a page whose name was rebound to 127.0.0.1 gives another. Elsewhere any."""
    try:
        local = listening == "localhost" or ipaddress.ip_address(listening).is_loopback
    except ValueError:
        local = False
    shown = f"[{listening}]" if ":" in listening else listening
    return _LOCAL | {shown} if local else frozenset({"*"})


def _check_host(scope: Scope, allowed: frozenset[str]) -> None:
    """Raises BadRequest for what is no host, and Forbidden for one that is not ours."""
    given: list[Any] = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if not given and scope["http_version"] == "1.0":
        return
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if found is None:
        shown = " and ".join(map(repr, given))[:100] if given else "missing"
        raise BadRequest(f"the Host header is {shown}; send one, NAME or NAME:PORT", code="bad_host")
    if "*" not in allowed and found[1].lower() not in allowed:
        raise Forbidden(
            f"this server is not called {found[1][:100]}; call it localhost, or name it in --allowed-hosts",
            code="host_not_allowed",
        )
