"""Ollama's dialect: what there is to ask about models, and the refusals of what Hexad leaves to its command line."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad import __version__
from hexad.checkpoints.config import ModelConfig
from hexad.engine.frontend import Frontend, sampling_fields
from hexad.errors import BadRequest
from hexad.server.dialect import Endpoint, Route
from hexad.server.models import About, Entry, Models
from hexad.server.ollama import OLLAMA, find, read_body, timestamp
from hexad.server.ollama_types import ModelRequest
from hexad.server.wire import EventStream, json_response
from hexad.text.fim import infill_prompt

NEVER = "9999-12-31T23:59:59Z"
API = "0.12.11"
"""The release of Ollama whose wire this is: its clients look at it to know what they may send."""


async def version(models: Models, request: Request) -> Response:
    return json_response({"version": API, "hexad": __version__})


async def tags(models: Models, request: Request) -> Response:
    return json_response({"models": [_listed(entry, await models.about(entry)) for entry in models.entries.values()]})


async def running(models: Models, request: Request) -> Response:
    shown = []
    for entry in models.entries.values():
        if entry.service is not None:
            about = await models.about(entry)
            expires = NEVER if about.expires_at is None else timestamp(int(about.expires_at * 10**9))
            held = {"size": about.memory, "size_vram": 0 if entry.config.device == "cpu" else about.memory}
            shown.append(_listed(entry, about) | held | {"context_length": about.max_model_len, "expires_at": expires})
    return json_response({"models": shown})


def _listed(entry: Entry, about: About) -> dict[str, Any]:
    name = entry.name if ":" in entry.name else f"{entry.name}:latest"
    # Clients show the first digits of a digest. Ours tells models apart; the weights are not read for it.
    told = entry.name, entry.config.model, entry.resolved and (entry.resolved.model, entry.resolved.precision)
    return {
        "name": name,
        "model": name,
        "modified_at": timestamp(entry.created * 10**9),
        "size": about.size or 0,
        "digest": hashlib.sha256(repr(told).encode()).hexdigest(),
        "details": _details(entry, about),
    }


def _details(entry: Entry, about: About) -> dict[str, Any]:
    """Empty words for a model that is not downloaded yet."""
    family = [entry.resolved.model.model_type] if entry.resolved else []
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": "".join(family),
        "families": family,
        "parameter_size": _rounded(about.parameters) if about.parameters else "",
        "quantization_level": about.dtype or "",
    }


def _rounded(count: int) -> str:
    size, unit = next(((size, unit) for size, unit in ((10**9, "B"), (10**6, "M")) if count >= size), (10**3, "K"))
    return f"{count / size:.1f}{unit}"


async def show(models: Models, request: Request) -> Response:
    """Does not load the model, unless it must be downloaded to be known."""
    body = await read_body(request, ModelRequest)
    entry = find(models, body.model or body.name)
    if entry.resolved is None:
        async with models.use(entry.name, request.state.caller):
            pass
    about = await models.about(entry)
    assert entry.resolved is not None  # loaded, or refused
    if entry.service is not None:
        frontend = entry.service.engine.frontend
    else:
        frontend = await asyncio.to_thread(Frontend.load, entry.config, entry.resolved)
    template = frontend.chat_template
    defaults = sampling_fields(frontend.generation_defaults)
    return json_response({
        "modelfile": f"# served by Hexad as {entry.name}; there is no Modelfile",
        "parameters": "\n".join(f"{name} {value}" for name, value in defaults.items()),
        "template": template.sources.get("default", "") if template else "",
        "details": _details(entry, about),
        "model_info": _model_info(entry.resolved.model, about),
        "capabilities": _capabilities(frontend),
        "modified_at": timestamp(entry.created * 10**9),
    })  # fmt: skip


def _capabilities(frontend: Frontend) -> list[str]:
    able = {"tools": frontend.format.style != "none", "thinking": frontend.format.reasoning is not None}
    with contextlib.suppress(BadRequest):
        able["insert"] = bool(infill_prompt(frontend.tokenizer, "", ""))
    return ["completion", *(name for name, holds in able.items() if holds)]


def _model_info(model: ModelConfig, about: About) -> dict[str, Any]:
    """By the names of GGUF."""
    sizes = {
        "context_length": about.max_model_len,
        "embedding_length": model.hidden_size,
        "block_count": model.num_layers,
        "feed_forward_length": model.intermediate_size,
        "attention.head_count": model.num_heads,
        "attention.head_count_kv": model.num_kv_heads,
        "vocab_size": model.vocab_size,
    }
    general = {"general.architecture": model.model_type, "general.parameter_count": about.parameters}
    return general | {f"{model.model_type}.{name}": value for name, value in sizes.items()}


async def pull(models: Models, request: Request) -> Response:
    """Clients pull what they are about to use: a model that is served is there already."""
    body = await read_body(request, ModelRequest)
    find(models, body.model or body.name)
    if body.stream is False:
        return json_response({"status": "success"})

    async def events() -> AsyncGenerator[dict[str, str], None]:
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
    *(Route("POST", f"/api/{name}", _NO_EMBEDDINGS, OLLAMA) for name in ("embed", "embeddings")),
    *(Route("POST", f"/api/{name}", _NO_CHANGES, OLLAMA) for name in ("push", "create", "copy", "blobs/{digest}")),
    Route("DELETE", "/api/delete", _NO_CHANGES, OLLAMA),
    Route("HEAD", "/api/blobs/{digest}", _NO_CHANGES, OLLAMA),
)
