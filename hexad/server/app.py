"""The routes, put together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from hexad import __version__
from hexad.config import Config
from hexad.server import (
    absent,
    admin,
    anthropic,
    chat,
    completions,
    llama_cpp,
    ollama,
    ollama_models,
    responses,
    status,
    tokenize,
    web,
)
from hexad.server.auth import Keys
from hexad.server.dialect import Route
from hexad.server.errors import on_http_error
from hexad.server.gate import Gate
from hexad.server.models import Models
from hexad.server.page import describe
from hexad.server.responses_store import ResponseStore
from hexad.server.traffic import Traffic
from hexad.server.wire import Receiving

ROUTES: tuple[Route, ...] = (
    *status.ROUTES,
    *completions.ROUTES,
    *chat.ROUTES,
    *responses.ROUTES,
    *absent.ROUTES,
    *anthropic.ROUTES,
    *llama_cpp.ROUTES,
    *tokenize.ROUTES,
    *ollama.ROUTES,
    *ollama_models.ROUTES,
    *admin.ROUTES,
    *web.ROUTES,
)
"""Everything that the server answers. What is not here does not exist."""


def build_app(models: Models, config: Config, keys: Keys, traffic: Traffic) -> FastAPI:
    # FastAPI's own pages load scripts from elsewhere, and those would run beside the keys that our page keeps.
    app = _App(
        title="Hexad", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.add_middleware(Gate, api=app, routes=ROUTES, config=config, keys=keys, finished=traffic.finished)
    app.add_exception_handler(HTTPException, on_http_error)
    app.state.traffic = traffic
    app.state.receiving = Receiving()
    app.state.responses = ResponseStore()
    for route in ROUTES:
        app.add_api_route(route.path, _bound(route, models), methods=[route.method], name=route.endpoint.__name__)
    return app


def _bound(route: Route, models: Models) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return await route.endpoint(models, request)

    return serve


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            page = get_openapi(title=self.title, version=self.version, routes=self.routes)
            describe(page, ROUTES)
            self.openapi_schema = page
        return self.openapi_schema
