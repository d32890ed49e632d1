"""The admin's routes: which models are loaded, whether they run, and with which weights."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
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
from hexad.errors import BadRequest, HexadError
from hexad.server.dialect import OPENAI, Route
from hexad.server.models import Entry, Models
from hexad.server.wire import check_body, json_response, read_json

TOKENIZER = "tokenizer.json"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AnyModel(_Body):
    model: str | None = None
    """None: all that are loaded."""


class OneModel(_Body):
    model: str


class LoadBody(OneModel):
    pinned: bool | None = None
    """Whether it may be unloaded to make room or for having been idle; None: as it was."""


class DrainBody(AnyModel):
    timeout: float = Field(default=30.0, ge=0, le=86400)
    """Seconds to wait for the requests that run."""


class SleepBody(AnyModel):
    level: Literal[1] = 1
    """vLLM's: 1 gives all memory back and keeps the requests. There is no other."""


class UpdateBody(OneModel):
    directory: str
    """On the server's machine: config.json, tokenizer.json and safetensors."""


async def list_states(models: Models, request: Request) -> Response:
    return await _shown(models, models.entries.values())


async def load_model(models: Models, request: Request) -> Response:
    """Answers when it is loaded. Takes new requests again after a drain."""
    body = check_body(LoadBody, await read_json(request))
    entry = models.find(body.model)
    if body.pinned is not None:
        entry.pinned = body.pinned
    await models.load(body.model)
    return await _shown(models, [entry])


async def unload_model(models: Models, request: Request) -> Response:
    """Answers when its running requests have ended and its memory is free. The next request loads it again."""
    entry = models.find(check_body(OneModel, await read_json(request)).model)
    await models.unload(entry)
    return await _shown(models, [entry])


async def drain_models(models: Models, request: Request) -> Response:
    """New requests are refused from now on; answers when the running ones have ended, or after `timeout`."""
    body = check_body(DrainBody, await read_json(request))
    entries = list(models.entries.values()) if body.model is None else [models.find(body.model)]
    drained = await models.drain(entries, body.timeout)
    return await _shown(models, entries, drained=drained)


async def flush_cache(models: Models, request: Request) -> Response:
    """Nothing that was computed so far is found again by its prefix."""
    entries = await _loaded(models, request)
    for entry in entries:
        if entry.service is not None:
            await entry.service.engine.reset_prefix_cache()
    return await _shown(models, entries)


async def pause_models(models: Models, request: Request) -> Response:
    """Answers when no step runs any more. Requests, running and new, wait for `resume`."""
    entries = await _loaded(models, request)
    for entry in entries:
        if entry.instance is not None and entry.service is not None:
            await entry.service.engine.pause()
            models.settle(entry.instance)
    return await _shown(models, entries)


async def resume_models(models: Models, request: Request) -> Response:
    """Ends a pause and a drain."""
    body = check_body(AnyModel, await read_json(request))
    entries = list(models.entries.values()) if body.model is None else [models.find(body.model)]
    for entry in entries:
        entry.drained = False
        if entry.instance is not None and entry.service is not None:
            await entry.service.engine.resume()
            models.settle(entry.instance)
    return await _shown(models, entries)


async def sleep_models(models: Models, request: Request) -> Response:
    """Ends the engine process; requests, running and new, wait for `wake`."""
    entries = await _loaded(models, request, SleepBody)
    for entry in entries:
        if entry.instance is not None and entry.service is not None:
            await entry.service.engine.sleep()
            models.settle(entry.instance)
    return await _shown(models, entries)


async def wake_models(models: Models, request: Request) -> Response:
    """Answers when the engine runs again. Raises OutOfMemory where others hold the memory by now."""
    entries = await _loaded(models, request)
    for entry in entries:
        if entry.instance is not None:
            await models.wake(entry.instance)
    return await _shown(models, entries)


async def update_weights(models: Models, request: Request) -> Response:
    """Answers when new requests get the new weights. Each request's tokens come from one set of weights."""
    body = check_body(UpdateBody, await read_json(request))
    entry = models.find(body.model)
    if entry.instance is not None and entry.instance.stopped:
        raise BadRequest(f"{entry.name} is {entry.state}; resume or wake it before its weights are updated")
    await asyncio.to_thread(_check_update, entry.config, Path(body.directory))
    replaced = models.replace(entry, dataclasses.replace(entry.config, model=body.directory, revision=None))
    return await _shown(models, [entry], beside=await asyncio.shield(replaced))


async def _loaded(models: Models, request: Request, kind: type[AnyModel] = AnyModel) -> list[Entry]:
    """Those that the body names. Raises BadRequest for one that is not loaded."""
    body = check_body(kind, await read_json(request))
    if body.model is None:
        return [entry for entry in models.entries.values() if entry.service is not None]
    entry = models.find(body.model)
    if entry.service is None:
        raise BadRequest(f"{entry.name} is {entry.state}; load it first", param="model")
    return [entry]


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
    for field in dataclasses.fields(ModelConfig):
        if getattr(before, field.name) != getattr(found, field.name):
            raise BadRequest(
                f"{field.name} is {getattr(found, field.name)!r} in {directory} and {getattr(before, field.name)!r} "
                "in the model that is served; serve it as another model",
                param="directory",
            )
    if _read(present / TOKENIZER) != _read(directory / TOKENIZER):
        raise BadRequest(f"{directory} has another {TOKENIZER} than {present}; copy it there", param="directory")


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


ROUTES = (
    Route("GET", "/admin/models", list_states, OPENAI, access="admin"),
    *(
        Route("POST", f"/admin/{verb}", endpoint, OPENAI, body, access="admin")
        for verb, endpoint, body in (
            ("load", load_model, LoadBody),
            ("unload", unload_model, OneModel),
            ("drain", drain_models, DrainBody),
            ("flush_cache", flush_cache, AnyModel),
            ("pause", pause_models, AnyModel),
            ("resume", resume_models, AnyModel),
            ("sleep", sleep_models, SleepBody),
            ("wake", wake_models, AnyModel),
            ("update_weights", update_weights, UpdateBody),
        )
    ),
)
