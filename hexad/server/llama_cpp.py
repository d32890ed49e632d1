"""The dialect of llama.cpp's server: POST /infill, POST /apply-template, and its shape of /tokenize.

Parameters and fields as `tools/server/README.md` there describes them. What is not here is refused by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import HexadError
from hexad.server.caller import Caller
from hexad.server.conversation import conversation_prompt
from hexad.server.dialect import EVENT_STREAM, Dialect, Route, data_event
from hexad.server.generation import Job, Service, run
from hexad.server.models import Models
from hexad.server.openai_types import FIRST, Conversation, Wire
from hexad.server.pieces import Cursor, Piece
from hexad.server.wire import EventStream, json_response, read_body, unless_disconnected
from hexad.types import RequestOutput, StructuredOutputs

_ERRORS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "unavailable_error"}
UNSET = BeforeValidator(lambda value: None if value == -1 else value)


def error_body(exc: HexadError) -> dict[str, Any]:
    kind = _ERRORS.get(exc.status) or ("server_error" if exc.status >= 500 else "invalid_request_error")
    return {"error": {"code": exc.status, "message": str(exc), "type": kind}}


LLAMA_CPP = Dialect(error_body, EVENT_STREAM, data_event)


class ContentRequest(Wire):
    model: str | None = None
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class ExtraFile(Wire):
    filename: str = "tmp"
    text: str


class InfillRequest(Wire):
    """Sampling parameters that are left out are the model's own, as everywhere."""

    model: str | None = None
    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], FIRST] = []
    prompt: str = ""
    """How the middle begins."""
    stream: bool = False
    max_tokens: Annotated[Annotated[int, Field(ge=1, lt=2**31)] | None, UNSET, Field(alias="n_predict")] = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: Annotated[float | None, Field(alias="repeat_penalty")] = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Annotated[int | None, UNSET] = None
    stop: Annotated[list[str], FIRST] = []
    ignore_eos: bool = False
    grammar: str = ""
    json_schema: dict[str, Any] | None = None
    return_tokens: bool = False
    # These change no answer.
    cache_prompt: bool = True
    id_slot: int = -1


async def tokenize_content(service: Service, body: ContentRequest) -> dict[str, Any]:
    tokens = await service.encode(body.content, body.add_special, body.parse_special)
    if not body.with_pieces:
        return {"tokens": tokens}
    token_bytes = service.engine.tokenizer.token_bytes
    return await service.beside(
        len(tokens), lambda: {"tokens": [{"id": token, "piece": _piece(token_bytes(token))} for token in tokens]}
    )


def _piece(spelled: bytes) -> str | list[int]:
    """Part of a character is given as bytes."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return list(spelled)


async def apply_template(models: Models, request: Request) -> Response:
    body = await read_body(request, Conversation)
    async with models.use(body.model, request.state.caller) as service:
        text, _ = await conversation_prompt(service, body)
        return json_response({"prompt": text})


async def infill(models: Models, request: Request) -> Response:
    body = await read_body(request, InfillRequest)
    parts = _parts(models, body, request.state.caller)
    if body.stream:
        return EventStream(LLAMA_CPP, parts)
    return json_response(await unless_disconnected(request.receive, _put_together(parts)))


async def _put_together(parts: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    async with contextlib.aclosing(parts):
        all_parts = [part async for part in parts]
    content = "".join([part["content"] for part in all_parts])
    return all_parts[-1] | {"content": content, "tokens": [token for part in all_parts for token in part["tokens"]]}


async def _parts(models: Models, body: InfillRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
    async with models.use(body.model, caller) as service:
        extra = [(file.filename, file.text) for file in body.input_extra]
        asked = await service.infill(body.input_prefix + body.prompt, body.input_suffix, extra, param="input_suffix")
        shape = None
        if body.grammar or body.json_schema is not None:
            shape = StructuredOutputs(grammar=body.grammar or None, json=body.json_schema)
        params = service.sampling_params(body, max_tokens=body.max_tokens, structured_outputs=shape)
        job = Job("infill-" + caller.request_id, [asked.token_ids], asked.stopping(params), 0, "", caller)
        cursor = Cursor(by_token=body.return_tokens)
        async with contextlib.aclosing(run(service, job)) as growth:
            async for _, output in growth:
                if (piece := cursor.take(output.outputs[0])) is None:
                    continue
                part = {
                    "index": 0,
                    "content": piece.text,
                    "tokens": piece.token_ids if body.return_tokens else [],
                    "stop": piece.finish_reason is not None,
                    "tokens_predicted": len(output.outputs[0].token_ids),
                    "tokens_evaluated": len(output.prompt_token_ids),
                }
                if piece.finish_reason is not None:
                    part |= {"model": service.model_name} | _ending(piece, output, body.stop)
                yield part


def _ending(piece: Piece, output: RequestOutput, stop: list[str]) -> dict[str, Any]:
    word = piece.stop_reason if piece.stop_reason in stop else ""
    kind = {"stop": "eos", "length": "limit"}.get(piece.finish_reason or "", "none")
    about = {"stop_type": "word" if word else kind, "stopping_word": word}
    return about | {"tokens_cached": output.num_cached_tokens, "truncated": False}


ROUTES = (
    Route("POST", "/infill", infill, LLAMA_CPP, InfillRequest),
    Route("POST", "/apply-template", apply_template, LLAMA_CPP, Conversation),
)
