"""The admin's routes: which models are loaded, whether they run, and with which weights."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.hub import resolve
from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.config import Config
from hexad.engine.async_llm import AsyncLLM
from hexad.errors import BadRequest, HexadError
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import Entry, Instance, Models
from hexad.server.wire import Body, check_body, json_response, read_body

TOKENIZER = "tokenizer.json"


class OneModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    model: str


class AnyModel(BaseModel):
    """Without a model: all that are loaded."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: str | None = None


class LoadBody(OneModel):
    pinned: bool | None = None
    """Whether it stays, however long unused; None: as it was."""


class DrainBody(AnyModel):
    timeout: float = Field(default=30.0, ge=0, le=86400)
    """Seconds to wait for the requests that run."""


class SleepBody(AnyModel):
    level: Literal[1, 2] = 1
    """vLLM's, which keeps weights at 1 and drops them at 2. Here both give all memory back, and `wake` reads them."""


class UpdateBody(OneModel):
    directory: str
    """On the server's machine: config.json, tokenizer.json and safetensors."""


async def _asked(request: Request, body: type[Body]) -> Body:
    """What the request's JSON asks; without a body, what `{}` would. Raises BadRequest."""
    headers = request.headers
    if request.url.query:
        raise BadRequest(f"the address ends in ?{request.url.query[:60]}; send what you ask as a JSON body")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return await read_body(request, body)
    return check_body(body, {})


async def list_states(models: Models, request: Request) -> Response:
    return await _shown(models, models.entries.values())


async def load_model(models: Models, request: Request) -> Response:
    """Answers when it is loaded. Takes new requests again after a drain."""
    body = await _asked(request, LoadBody)
    entry = models.find(body.model)
    if body.pinned is not None:
        entry.pinned = body.pinned
    await models.load(body.model)
    return await _shown(models, [entry])


async def unload_model(models: Models, request: Request) -> Response:
    """Answers when its running requests have ended and its memory is free. The next request loads it again."""
    entry = models.find((await _asked(request, OneModel)).model)
    if entry.instance is not None:
        await asyncio.shield(models.leave(entry.instance))
    return await _shown(models, [entry])


async def drain_models(models: Models, request: Request) -> Response:
    """New requests are refused from now on; answers when the running ones have ended, or after `timeout`."""
    body = await _asked(request, DrainBody)
    entries = list(models.entries.values()) if body.model is None else [models.find(body.model)]
    return await _shown(models, entries, drained=await models.drain(entries, body.timeout))


def _to_each(name: str, body: type[AnyModel], act: Callable[[Models, Instance, AsyncLLM], Awaitable[None]]) -> Route:
    """A route that does one thing to the models that its body names. `resume` ends a drain, too."""

    async def endpoint(models: Models, request: Request) -> Response:
        wanted = (await _asked(request, body)).model
        entries = list(models.entries.values()) if wanted is None else [models.find(wanted)]
        for entry in entries:
            entry.drained = entry.drained and name != "resume"
            loaded = [(each, each.service.engine) for each in models.living(entry) if each.service is not None]
            if wanted is not None and not loaded and name != "resume":
                raise BadRequest(f"{entry.name} is {entry.state}; load it first", param="model")
            for instance, engine in loaded:
                await act(models, instance, engine)
                models.settle(instance)
        return await _shown(models, entries)

    endpoint.__name__ = name
    return Route("POST", f"/admin/{name}", endpoint, OPENAI, body, access="admin")


async def update_weights(models: Models, request: Request) -> Response:
    """Answers when new requests get the new weights. Each request's tokens come from one set of weights."""
    body = await _asked(request, UpdateBody)
    entry = models.find(body.model)
    if entry.instance is not None and entry.instance.stopped:
        raise BadRequest(f"{entry.name} is {entry.state}; resume or wake it before its weights are updated")
    await asyncio.to_thread(_check_update, entry.config, Path(body.directory))
    beside = await models.replace(entry, dataclasses.replace(entry.config, model=body.directory, revision=None))
    return await _shown(models, [entry], beside=beside)


async def _shown(models: Models, entries: Iterable[Entry], **more: Any) -> Response:
    return json_response({"models": [(await models.about(entry))._asdict() for entry in entries], **more})


def _check_update(old: Config, directory: Path) -> None:
    """Raises BadRequest for weights that cannot take the place of the present ones without anybody noticing."""
    if not directory.is_dir():
        raise BadRequest(f"{directory} is no directory of this machine", param="directory")
    present = resolve(old.model, old.revision)
    if present.samefile(directory):
        raise BadRequest(
            f"{directory} is being served, and an engine that is restarted reads it again; write the new weights to "
            "another directory",
            param="directory",
        )
    try:
        found = read_model_config(directory)
        Weights.open(directory)
    except HexadError as error:
        raise BadRequest(str(error), param="directory") from None
    before = read_model_config(present)
    for name in ModelConfig.__struct_fields__:
        if getattr(before, name) != getattr(found, name):
            raise BadRequest(
                f"{name} is {getattr(found, name)!r} in {directory} and {getattr(before, name)!r} "
                "in the model that is served; serve it as another model",
                param="directory",
            )
    if _read(present / TOKENIZER) != _read(directory / TOKENIZER):
        raise BadRequest(f"{directory} has another {TOKENIZER} than {present}; copy it there", param="directory")


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


ROUTES = (
    Route("GET", "/admin/models", list_states, OPENAI, access="admin"),
    Route("POST", "/admin/load", load_model, OPENAI, LoadBody, access="admin"),
    Route("POST", "/admin/unload", unload_model, OPENAI, OneModel, access="admin"),
    Route("POST", "/admin/drain", drain_models, OPENAI, DrainBody, access="admin"),
    Route("POST", "/admin/update_weights", update_weights, OPENAI, UpdateBody, access="admin"),
    _to_each("flush_cache", AnyModel, lambda models, instance, engine: engine.reset_prefix_cache()),
    _to_each("pause", AnyModel, lambda models, instance, engine: engine.pause()),
    _to_each("resume", AnyModel, lambda models, instance, engine: engine.resume()),
    _to_each("sleep", SleepBody, lambda models, instance, engine: engine.sleep()),
    _to_each("wake", AnyModel, lambda models, instance, engine: models.wake(instance)),
)
