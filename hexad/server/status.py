"""What there is and how it is: models, health, metrics, version."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad import __version__
from hexad.errors import EngineUnavailable
from hexad.server.dialect import OPENAI, Route
from hexad.server.generation import Service
from hexad.server.models import Models
from hexad.server.wire import json_response


async def list_models(models: Models, request: Request) -> Response:
    return json_response({"object": "list", "data": [_shown(service) for service in models.services.values()]})


async def get_model(models: Models, request: Request) -> Response:
    return json_response(_shown(models.find(request.path_params["name"])))


def _shown(service: Service) -> dict[str, Any]:
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.started,
        "owned_by": "hexad",
        "root": service.model_name,
        "parent": None,
        "max_model_len": service.engine.max_model_len,
    }


async def health(models: Models, request: Request) -> Response:
    if not models.healthy:
        raise EngineUnavailable("the engine is starting, draining or gone")
    return json_response({"status": "ok"})


async def metrics(models: Models, request: Request) -> Response:
    exposition = models.find(None).metrics.exposition()
    return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


async def version(models: Models, request: Request) -> Response:
    return json_response({"version": __version__})


ROUTES = (
    Route("GET", "/v1/models", list_models, OPENAI),
    Route("GET", "/v1/models/{name:path}", get_model, OPENAI),
    Route("GET", "/health", health, OPENAI, access="open"),
    Route("GET", "/metrics", metrics, OPENAI, media_type="text/plain"),
    Route("GET", "/version", version, OPENAI),
)
