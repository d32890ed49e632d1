"""Ollama's dialect: what there is to ask about models, and the refusals of what Hexad leaves to its command line."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad import __version__
from hexad.engine.frontend import sampling_fields
from hexad.errors import BadRequest
from hexad.placement.sizes import num_linear_weights
from hexad.server.dialect import Endpoint, Route
from hexad.server.generation import Service
from hexad.server.models import Models
from hexad.server.ollama import OLLAMA, read_body, served_name, timestamp
from hexad.server.ollama_types import ModelRequest
from hexad.server.wire import EventStream, json_response
from hexad.text.fim import infill_prompt

API = "0.12.11"
"""The release of Ollama whose wire this is: its clients look at it to know what they may send."""


async def version(models: Models, request: Request) -> Response:
    return json_response({"version": API, "hexad": __version__})


async def tags(models: Models, request: Request) -> Response:
    return json_response({"models": [_listed(service) for service in models.services.values()]})


async def running(models: Models, request: Request) -> Response:
    shown = []
    for service in models.services.values():
        info = service.engine.info
        memory = {"size": info.memory.weights + info.memory.scratch + info.memory.kv, "size_vram": 0}
        shown.append(_listed(service) | memory | {"context_length": info.max_model_len, "expires_at": NEVER})
    return json_response({"models": shown})


NEVER = "9999-12-31T23:59:59Z"


def _listed(service: Service) -> dict[str, Any]:
    name = service.model_name if ":" in service.model_name else service.model_name + ":latest"
    # Clients show the first digits of a digest. Ours tells models apart; the weights are not read for it.
    digest = hashlib.sha256(f"{service.engine.config.model} {service.engine.model_config}".encode()).hexdigest()
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(service.started * 10**9),
        "size": service.engine.info.memory.weights,
        "digest": digest,
        "details": _details(service),
    }


def _details(service: Service) -> dict[str, Any]:
    model = service.engine.model_config
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": model.model_type,
        "families": [model.model_type],
        "parameter_size": _rounded(_num_parameters(service)),
        "quantization_level": str(service.engine.info.precision.linear),
    }


def _num_parameters(service: Service) -> int:
    """Of the linears, the head and the embedding table; norms and biases are left out."""
    model = service.engine.model_config
    table = 0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size
    return num_linear_weights(model) + table


def _rounded(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


async def show(models: Models, request: Request) -> Response:
    body = await read_body(request, ModelRequest)
    async with models.use(served_name(models, body.model or body.name)) as service:
        template = service.engine.chat_template
        defaults = sampling_fields(service.engine.generation_defaults)
        shown = {
            "modelfile": f"# served by Hexad as {service.model_name}; there is no Modelfile",
            "parameters": "\n".join(f"{name} {value}" for name, value in defaults.items()),
            "template": template.sources.get("default", "") if template else "",
            "details": _details(service),
            "model_info": _model_info(service),
            "capabilities": _capabilities(service),
            "modified_at": timestamp(service.started * 10**9),
        }
        return json_response(shown)


def _capabilities(service: Service) -> list[str]:
    able = {"tools": service.format.style != "none", "thinking": service.format.reasoning is not None}
    with contextlib.suppress(BadRequest):
        able["insert"] = bool(infill_prompt(service.engine.tokenizer, "", ""))
    return ["completion", *(name for name, holds in able.items() if holds)]


def _model_info(service: Service) -> dict[str, Any]:
    """By the names of GGUF."""
    model = service.engine.model_config
    sizes = {
        "context_length": service.engine.max_model_len,
        "embedding_length": model.hidden_size,
        "block_count": model.num_layers,
        "feed_forward_length": model.intermediate_size,
        "attention.head_count": model.num_heads,
        "attention.head_count_kv": model.num_kv_heads,
        "vocab_size": model.vocab_size,
    }
    about = {"general.architecture": model.model_type, "general.parameter_count": _num_parameters(service)}
    return about | {f"{model.model_type}.{name}": value for name, value in sizes.items()}


async def pull(models: Models, request: Request) -> Response:
    """Clients pull what they are about to use: a model that is served is there already."""
    body = await read_body(request, ModelRequest)
    served_name(models, body.model or body.name)
    if body.stream is False:
        return json_response({"status": "success"})

    async def events() -> AsyncGenerator[dict[str, str], None]:
        yield {"status": "pulling manifest"}
        yield {"status": "success"}

    return EventStream(OLLAMA, events())


def _not_offered(what: str) -> Endpoint:
    async def refuse(models: Models, request: Request) -> Response:
        raise BadRequest(f"{request.scope['path']}: {what}", code="not_offered")

    return refuse


_NO_EMBEDDINGS = _not_offered("Hexad has no embeddings yet; ask another server for them")
_NO_CHANGES = _not_offered("the models of this server are named when it starts: hexad serve MODEL ...")

ROUTES = (
    Route("GET", "/api/version", version, OLLAMA),
    Route("HEAD", "/api/version", version, OLLAMA),
    Route("GET", "/api/tags", tags, OLLAMA),
    Route("HEAD", "/api/tags", tags, OLLAMA),
    Route("GET", "/api/ps", running, OLLAMA),
    Route("POST", "/api/show", show, OLLAMA, ModelRequest),
    Route("POST", "/api/pull", pull, OLLAMA, ModelRequest),
    Route("POST", "/api/embed", _NO_EMBEDDINGS, OLLAMA),
    Route("POST", "/api/embeddings", _NO_EMBEDDINGS, OLLAMA),
    Route("POST", "/api/push", _NO_CHANGES, OLLAMA),
    Route("POST", "/api/create", _NO_CHANGES, OLLAMA),
    Route("POST", "/api/copy", _NO_CHANGES, OLLAMA),
    Route("DELETE", "/api/delete", _NO_CHANGES, OLLAMA),
    Route("POST", "/api/blobs/{digest}", _NO_CHANGES, OLLAMA),
    Route("HEAD", "/api/blobs/{digest}", _NO_CHANGES, OLLAMA),
)
