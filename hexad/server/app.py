"""The routes, and the gate that every request passes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hexad import __version__
from hexad.errors import EngineUnavailable, HexadError
from hexad.server import openai_types
from hexad.server.chat import create_chat_completion
from hexad.server.completions import create_completion
from hexad.server.errors import error_response, on_hexad_error, on_http_error
from hexad.server.generation import Service
from hexad.server.tokenize import detokenize, tokenize
from hexad.server.web import web_routes
from hexad.server.wire import json_response

log = logging.getLogger("hexad.server")

Endpoint = Callable[[Service, Request], Awaitable[Response]]

POSTS: tuple[tuple[str, Endpoint, Any], ...] = (
    ("/v1/completions", create_completion, openai_types.CompletionRequest),
    ("/v1/chat/completions", create_chat_completion, openai_types.ChatRequest),
    ("/tokenize", tokenize, openai_types.TokenizeRequest | openai_types.TokenizeChatRequest),
    ("/detokenize", detokenize, openai_types.DetokenizeRequest),
)


def build_app(service: Service) -> FastAPI:
    app = _App(title="Hexad", version=__version__, redoc_url=None, redirect_slashes=False)
    app.add_middleware(_Gate)
    app.add_exception_handler(HexadError, on_hexad_error)
    app.add_exception_handler(HTTPException, on_http_error)
    for path, endpoint, _ in POSTS:
        app.add_api_route(path, _bound(endpoint, service), methods=["POST"], name=endpoint.__name__)
    _add_gets(app, service)
    app.routes.extend(web_routes())
    return app


def _bound(endpoint: Endpoint, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return await endpoint(service, request)

    return serve


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Bodies are read by our own strict reader, so the page is told about them here."""
        if self.openapi_schema is None:
            page = super().openapi()
            shared = page.setdefault("components", {}).setdefault("schemas", {})
            for path, _, body in POSTS:
                schema = TypeAdapter(body).json_schema(ref_template="#/components/schemas/{model}")
                shared |= schema.pop("$defs", {})
                content = {"application/json": {"schema": schema}}
                page["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
        return super().openapi()


def _add_gets(app: FastAPI, service: Service) -> None:
    model = {
        "id": service.model_name,
        "object": "model",
        "created": service.started,
        "owned_by": "hexad",
        "root": service.model_name,
        "parent": None,
        "max_model_len": service.engine.max_model_len,
    }

    @app.get("/v1/models")
    async def list_models() -> Response:
        return json_response({"object": "list", "data": [model]})

    @app.get("/v1/models/{name:path}")
    async def get_model(name: str) -> Response:
        service.check_model(name)
        return json_response(model)

    @app.get("/health")
    async def health() -> Response:
        if not service.engine.healthy:
            raise EngineUnavailable("the engine is starting, draining or gone")
        return json_response({"status": "ok"})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/version")
    async def version() -> Response:
        return json_response({"version": __version__})


class _Gate:
    """Gives each request an id, and answers what nobody else did: a failure here ends one request only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
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
        except Exception:
            log.exception("request %s failed", request_id)
            if not started:
                error = HexadError(f"internal error in request {request_id}; see the server's log")
                await error_response(error)(scope, receive, send_named)
