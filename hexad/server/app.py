"""The routes, and the gate that every request passes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hexad import __version__
from hexad.errors import HexadError
from hexad.server import absent, anthropic, chat, completions, llama_cpp, responses, status, tokenize
from hexad.server.dialect import OPENAI, Route
from hexad.server.errors import error_response, on_http_error
from hexad.server.models import Models
from hexad.server.page import describe
from hexad.server.responses_store import ResponseStore

log = logging.getLogger("hexad.server")

ROUTES: tuple[Route, ...] = (
    *status.ROUTES,
    *completions.ROUTES,
    *chat.ROUTES,
    *responses.ROUTES,
    *absent.ROUTES,
    *anthropic.ROUTES,
    *llama_cpp.ROUTES,
    *tokenize.ROUTES,
)
"""Everything that the server answers. What is not here does not exist."""


def build_app(models: Models) -> FastAPI:
    app = _App(title="Hexad", version=__version__, redoc_url=None, redirect_slashes=False)
    app.add_middleware(_Gate)
    app.add_exception_handler(HTTPException, on_http_error)
    app.state.responses = ResponseStore()
    for route in ROUTES:
        app.add_api_route(route.path, _bound(route, models), methods=[route.method], name=route.endpoint.__name__)
    return app


def _bound(route: Route, models: Models) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        request.state.dialect = route.dialect
        return await route.endpoint(models, request)

    return serve


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            describe(super().openapi(), ROUTES)
        return super().openapi()


class _Gate:
    """Gives each request an id, and answers what nobody else did: a failure here ends one request only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "dialect": OPENAI}
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except ClientDisconnect:
            pass
        except Exception as error:
            failure = error if isinstance(error, HexadError) else None
            if failure is None:
                log.exception("request %s failed", request_id)
                failure = HexadError(f"internal error in request {request_id}; see the server's log")
            if not started:
                await error_response(failure, state["dialect"].error(failure))(scope, receive, send_named)
