"""What there is and how it is: models, health, metrics, version."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad import __version__
from hexad.errors import EngineUnavailable
from hexad.server import anthropic
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import About, Models
from hexad.server.traffic import Traffic
from hexad.server.wire import json_response


async def list_models(models: Models, request: Request) -> Response:
    known = [await models.about(entry) for entry in models.entries.values()]
    if "anthropic-version" in request.headers:
        request.state.dialect = anthropic.ANTHROPIC
        return json_response(anthropic.listed(known, request.query_params))
    return json_response({"object": "list", "data": [_shown(model) for model in known]})


async def get_model(models: Models, request: Request) -> Response:
    """In Anthropic's shape for its clients, who call it the same."""
    shown = _shown
    if "anthropic-version" in request.headers:
        shown, request.state.dialect = anthropic.shown, anthropic.ANTHROPIC
    return json_response(shown(await models.about(models.find(request.path_params["name"]))))


def _shown(model: About) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "hexad",
        "root": model.name,
        "parent": None,
        "max_model_len": model.max_model_len,
    }


async def health(models: Models, request: Request) -> Response:
    if not models.healthy:
        raise EngineUnavailable("the engine is starting, draining or gone")
    return json_response({"status": "ok"})


async def metrics(models: Models, request: Request) -> Response:
    traffic: Traffic = request.app.state.traffic
    exposition = models.metrics.exposition() + traffic.exposition(request.state.client)
    return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


async def invariants(models: Models, request: Request) -> Response:
    """Every engine looks through its books (the pages of its KV cache, its queues), and says what does not hold."""
    loaded = [entry.service for entry in models.entries.values()]
    awake = [service for service in loaded if service is not None and not service.engine.asleep]
    found = {service.model_name: await service.engine.audit() for service in awake}
    broken = {name: what for name, what in found.items() if what is not None}
    return json_response({"ok": not broken, "broken": broken})


async def openapi(models: Models, request: Request) -> Response:
    """The description of all endpoints; the first time, it takes a while to write."""
    return json_response(await asyncio.to_thread(request.app.openapi))


async def version(models: Models, request: Request) -> Response:
    return json_response({"version": __version__})


ROUTES = (
    Route("GET", "/v1/models", list_models, OPENAI),
    Route("GET", "/v1/models/{name:path}", get_model, OPENAI),
    Route("GET", "/health", health, OPENAI, access="open"),
    Route("GET", "/metrics", metrics, OPENAI, media_type="text/plain"),
    Route("GET", "/debug/invariants", invariants, OPENAI, access="admin"),
    Route("GET", "/openapi.json", openapi, OPENAI),
    Route("GET", "/version", version, OPENAI),
)
