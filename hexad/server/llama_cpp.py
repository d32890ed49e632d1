"""The dialect of llama.cpp's server: POST /infill, POST /apply-template, and its shape of /tokenize.

Parameters and fields as `tools/server/README.md` there describes them. What is not here is refused by name.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import HexadError
from hexad.server.caller import Caller
from hexad.server.conversation import conversation_prompt
from hexad.server.dialect import EVENT_STREAM, Dialect, Route, data_event
from hexad.server.errors import told
from hexad.server.generation import NO_PENALTY, Job, Service, run
from hexad.server.models import Models
from hexad.server.ollama_types import Sampling
from hexad.server.openai_types import FIRST, Conversation, Texts, Wire
from hexad.server.pieces import Cursor, whole
from hexad.server.wire import EventStream, json_response, read_body, unless_disconnected
from hexad.types import CompletionOutput, SamplingParams, StructuredOutputs

_ERRORS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 503: "unavailable_error"}
UNSET = BeforeValidator(lambda value: None if value == -1 else value)


def error_body(exc: HexadError) -> dict[str, Any]:
    kind = _ERRORS.get(exc.status) or ("server_error" if exc.status >= 500 else "invalid_request_error")
    return {"error": {"code": exc.status, "message": told(exc), "type": kind}}


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
    time: Any = None  # llama.vim's: when it was seen


class InfillRequest(Sampling):
    """Sampling parameters that are left out are the model's own, as everywhere."""

    model: str | None = None
    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], FIRST] = []
    prompt: str = ""  # how the middle begins
    stream: bool = False
    max_tokens: Annotated[Annotated[int, Field(ge=0, lt=2**31)] | None, UNSET, Field(alias="n_predict")] = None
    """0: the prompt is computed, and cached."""
    n_indent: Annotated[int, Field(ge=0, lt=2**31)] = 0  # a line that is indented by less ends the middle
    t_max_predict_ms: float = 0  # since the first token, if above 0; looked at from the second line on
    samplers: Annotated[list[Literal["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc",
                                     "temperature", "infill"]], FIRST] | None = None  # fmt: skip
    ignore_eos: bool = False
    grammar: str = ""
    json_schema: dict[str, Any] | None = None
    return_tokens: bool = False
    response_fields: Texts = []
    # These change no answer.
    cache_prompt: bool = True
    id_slot: int = -1
    t_max_prompt_ms: float = 0


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
    async with contextlib.aclosing(parts):
        return json_response(await unless_disconnected(request.receive, anext(parts)))


async def _parts(models: Models, body: InfillRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
    """One, if it is no stream."""
    async with models.use(body.model, caller) as service:
        extra = [(file.filename, file.text) for file in body.input_extra]
        asked = await service.infill(body.input_prefix + body.prompt, body.input_suffix, extra, param="input_suffix")
        params = _params(service, body)
        name = "infill-" + caller.request_id
        job = Job(name, [asked.token_ids], asked.stopping(params), 0, "", caller, to_the_end=True)
        cursor, first = Cursor(by_token=body.return_tokens), 0.0
        async with contextlib.aclosing(run(service, job)) as growth:
            async for _, output in growth:
                now, answer = time.monotonic(), output.outputs[0]
                first = first or now
                if (piece := cursor.take(answer)) is None:
                    continue
                kept, piece = _kept(body, answer, now - first), piece if body.stream else whole(answer)
                if kept is not None:
                    text = piece.text[: len(piece.text) + kept - len(answer.text)]
                    piece = piece._replace(text=text, finish_reason="length", stop_reason=None)
                if piece.finish_reason is None and not body.stream:
                    continue
                part = {
                    "index": 0,
                    "content": piece.text,
                    "tokens": piece.token_ids[: body.max_tokens] if body.return_tokens else [],
                    "stop": piece.finish_reason is not None,
                    "tokens_predicted": len(answer.token_ids[: body.max_tokens]),
                    "tokens_evaluated": len(output.prompt_token_ids),
                }
                if piece.finish_reason is None:
                    yield part
                    continue
                word = piece.stop_reason if piece.stop_reason in params.stop else ""
                kind = {"stop": "eos", "length": "limit"}.get(piece.finish_reason, "none")
                part |= {"model": service.model_name, "stop_type": "word" if word else kind, "stopping_word": word}
                full = len(output.prompt_token_ids) + len(answer.token_ids) >= service.engine.max_model_len
                part |= {"tokens_cached": output.num_cached_tokens, "truncated": full}
                yield {field: part[field] for field in body.response_fields or part if field in part}
                return


def _params(service: Service, body: InfillRequest) -> SamplingParams:
    shape, own = None, dict[str, Any]()
    if body.grammar or body.json_schema is not None:
        shape = StructuredOutputs(grammar=body.grammar or None, json=body.json_schema)
    if (named := body.samplers) is not None:  # others are off: they have parameters, which are refused
        off = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
        own = {name: value for name, value in off.items() if name not in named}
        own |= {} if "penalties" in named else NO_PENALTY
        own |= {"temperature": 0.0} if "infill" in named else {}  # in llama.cpp it keeps the sure tokens
    most = 1 if body.max_tokens == 0 else body.max_tokens
    return service.sampling_params(body, max_tokens=most, structured_outputs=shape, **own)


def _kept(body: InfillRequest, answer: CompletionOutput, lasted: float) -> int | None:
    """How many characters stay of an answer that ends here, before its own end; None: it goes on."""
    if body.max_tokens == 0:
        return 0
    # As in llama.cpp, the indentation itself stays.
    if body.n_indent and (out := re.search(rf"\n[ \t]{{0,{body.n_indent - 1}}}(?=[^ \t])", answer.text)):
        return out.end()
    late = 0 < body.t_max_predict_ms < lasted * 1000 and "\n" in answer.text
    return len(answer.text) if late and answer.finish_reason is None else None


ROUTES = (
    Route("POST", "/infill", infill, LLAMA_CPP, InfillRequest),
    Route("POST", "/apply-template", apply_template, LLAMA_CPP, Conversation),
)
