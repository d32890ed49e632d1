"""Ollama's dialect: POST /api/chat and /api/generate, as Ollama 0.12.11 reads and answers them.

What it does not share with Ollama is told in docs/ollama.md. This module translates the wire to a
turn and its growth back; it knows no template and no tool-call format.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import BadRequest, NotFound
from hexad.server import wire
from hexad.server.caller import Caller
from hexad.server.conversation import tools_of
from hexad.server.dialect import Dialect, Route, json_line
from hexad.server.errors import naming, told
from hexad.server.generation import NO_PENALTY, Job, Service, run
from hexad.server.models import Entry, Models
from hexad.server.ollama_types import ChatRequest, GenerateRequest, Generation, OllamaMessage, Options, Sampling
from hexad.server.pieces import Cursor, logprobs_of
from hexad.server.turn import Gained, Turn, answer, call_id
from hexad.server.wire import Body, EventStream, json_response, unless_disconnected
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, Text, Tool
from hexad.types import SamplingParams, StructuredOutputs

Parts = dict[str, Any]
"""Of an answer: content, and where there are some thinking, tool_calls, logprobs."""


OLLAMA = Dialect(lambda error: {"error": told(error)}, b"application/x-ndjson", json_line)


async def chat(models: Models, request: Request) -> Response:
    return await _respond(models, request, await read_body(request, ChatRequest))


async def generate(models: Models, request: Request) -> Response:
    return await _respond(models, request, await read_body(request, GenerateRequest))


async def read_body(request: Request, model: type[Body]) -> Body:
    # curl -d, which Ollama's own examples use, declares a form. A browser's page on another site could
    # send that too, and no browser lets it hide its Origin.
    return await wire.read_body(request, model, any_type="origin" not in request.headers)


def find(models: Models, name: str) -> Entry:
    """Raises NotFound, in words that Ollama's clients look for."""
    with contextlib.suppress(NotFound):
        return models.find(name)
    known = ", ".join(map(repr, models.entries))
    raise NotFound(f"model '{name[:60]}' not found; this server has {known}", param="model")


def timestamp(ns: int) -> str:
    """RFC 3339, from nanoseconds of Unix time."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9)) + f".{ns % 10**9:09d}Z"


async def _respond(models: Models, request: Request, body: ChatRequest | GenerateRequest) -> Response:
    parts = _parts(models, body, request.state.caller)
    if body.stream is not False:
        return EventStream(OLLAMA, _lines(body, parts))
    return json_response(await unless_disconnected(request.receive, _whole(body, parts)))


async def _lines(
    body: Generation, answer: AsyncGenerator[tuple[Parts, Parts], None]
) -> AsyncGenerator[dict[str, Any], None]:
    async with contextlib.aclosing(answer):
        async for parts, done in answer:
            yield _line(body, parts, done)


async def _whole(body: Generation, answer: AsyncGenerator[tuple[Parts, Parts], None]) -> dict[str, Any]:
    whole, done = Parts(content=""), Parts()
    async with contextlib.aclosing(answer):
        async for parts, ending in answer:
            done = ending
            for name, part in parts.items():
                whole[name] = whole[name] + part if name in whole else part
    return _line(body, whole, done)


def _line(body: Generation, parts: Parts, done: Parts) -> dict[str, Any]:
    """`done` is empty until the end."""
    line: dict[str, Any] = {"model": body.model, "created_at": timestamp(time.time_ns())}
    shown = {name: part for name, part in parts.items() if name not in ("content", "logprobs")}
    if isinstance(body, ChatRequest):
        line["message"] = {"role": "assistant", "content": parts["content"]} | shown
    else:
        line |= {"response": parts["content"]} | shown
    line["done"] = bool(done)
    if "logprobs" in parts:
        line["logprobs"] = parts["logprobs"]
    return line | done


async def _parts(
    models: Models, body: ChatRequest | GenerateRequest, caller: Caller
) -> AsyncGenerator[tuple[Parts, Parts], None]:
    """What the answer gains, and at the end why it ended and how long it took."""
    start, first = time.perf_counter_ns(), 0
    entry = find(models, body.model)
    keep_alive = caller.client.keep_alive(body.keep_alive, entry.keep_alive)
    empty = not (body.messages if isinstance(body, ChatRequest) else body.prompt or body.suffix)
    if empty and body.keep_alive == 0:
        if entry.pinned:
            raise BadRequest(f"{entry.name} is pinned: it stays loaded; leave keep_alive out", param="keep_alive")
        if entry.service is not None and entry.instance is not None:
            models.leave(entry.instance)
        yield {"content": ""}, {"done_reason": "unload"}
        return
    async with models.use(entry.name, caller, keep_alive) as service:
        loaded = time.perf_counter_ns()
        if empty:
            yield {"content": ""}, {"done_reason": "load"}
            return
        message = _Message()
        gained: Gained | None = None
        async with contextlib.aclosing(_growth(service, body, caller)) as growth:
            async for gained in growth:
                first = first or time.perf_counter_ns()
                parts = message.take(gained.events, ended=gained.piece.finish_reason is not None)
                if body.logprobs and gained.piece.token_ids:
                    parts["logprobs"] = logprobs_of(service.engine.tokenizer, gained.piece, body.top_logprobs or 0)
                if parts != {"content": ""}:
                    yield parts, {}
        assert gained is not None  # every answer ends with a piece, or in an exception
        yield {"content": ""}, _done(gained, start, loaded, first)


def _done(gained: Gained, start: int, loaded: int, first: int) -> Parts:
    """Times on `perf_counter_ns`. The prompt's lasts to the first token, with the wait for a place among others."""
    now = time.perf_counter_ns()
    return {
        "done_reason": "length" if gained.piece.finish_reason == "length" else "stop",
        "total_duration": now - start,
        "load_duration": loaded - start,
        "prompt_eval_count": len(gained.output.prompt_token_ids),
        "prompt_eval_duration": first - loaded,
        "eval_count": len(gained.output.outputs[0].token_ids),
        "eval_duration": now - first,
    }


class _Message:
    """Puts events into the parts of a message. A tool call is shown once it is complete."""

    def __init__(self) -> None:
        self._open: tuple[int, str] | None = None
        self._arguments = ""

    def take(self, events: Sequence[Event], *, ended: bool) -> Parts:
        parts: Parts = {"content": ""}
        for event in events:
            match event:
                case Text(text):
                    parts["content"] += text
                case Reasoning(text):
                    parts["thinking"] = parts.get("thinking", "") + text
                case CallStart(index, name):
                    self._close(parts)
                    self._open = index, name
                case CallArguments(_, text):
                    self._arguments += text
        if ended:
            self._close(parts)
        return parts

    def _close(self, parts: Parts) -> None:
        if self._open is None:
            return
        (index, name), written = self._open, self._arguments
        self._open, self._arguments = None, ""
        try:
            arguments = json.loads(written or "{}")
        except (ValueError, RecursionError):  # cut off, by num_predict for one: what there is, is shown
            parts["content"] += written
            return
        function = {"index": index, "name": name, "arguments": arguments}
        parts.setdefault("tool_calls", []).append({"id": call_id(), "function": function})


def _growth(service: Service, body: ChatRequest | GenerateRequest, caller: Caller) -> AsyncGenerator[Gained, None]:
    params = _params(service, body)
    if isinstance(body, GenerateRequest) and (body.raw or body.suffix):
        return _continuation(service, body, params, caller)
    tools, said = list[Tool](), list[OllamaMessage]()
    if isinstance(body, ChatRequest):
        said = body.messages or []
        tools = tools_of([tool.function for tool in body.tools or ()])
        if tools and service.format.style == "none":
            raise BadRequest(f"{service.model_name} does not support tools; leave them out", param="tools")
    else:
        said = [OllamaMessage(role="system", content=body.system)] if body.system else []
        said.append(OllamaMessage(role="user", content=body.prompt))
    # An answer that is already begun goes on, as in Ollama.
    begun = said[-1].role == "assistant" and bool(said[-1].content) and said[-1].tool_calls is None
    turn = Turn(
        request_id=caller.request_id,
        messages=lambda: [{"content": ""} | message.model_dump(exclude_none=True) for message in said],
        params=params,
        to_the_end=True,
        tools=tools,
        structured=_structured(body),
        thinking=body.think if isinstance(body.think, bool) else None,
        effort=body.think if isinstance(body.think, str) else None,
        template={"add_generation_prompt": not begun, "continue_final_message": begun},
        by_token=True,
        names={"structured": "format", "structured_outputs": "format", "thinking": "think", "effort": "think"},
    )
    return answer(service, turn, caller)


def _structured(body: Generation) -> StructuredOutputs | None:
    if isinstance(body.format, dict):
        return StructuredOutputs(json=body.format)
    return StructuredOutputs(json_object=True) if body.format else None


async def _continuation(
    service: Service, body: GenerateRequest, params: SamplingParams, caller: Caller
) -> AsyncGenerator[Gained, None]:
    """No template: what follows the prompt as it stands, or what belongs between prompt and suffix."""
    if unused := next((name for name in ("system", "think") if getattr(body, name)), None):
        raise BadRequest(f"{unused} needs the model's template, which raw and suffix leave out; drop one", param=unused)
    params = msgspec.structs.replace(params, structured_outputs=_structured(body))
    if body.suffix:
        infill = await service.infill(body.prompt or "", body.suffix)
        tokens, params = infill.token_ids, infill.stopping(params)
    else:
        tokens = await service.encode(body.prompt or "", True)
    cursor = Cursor(by_token=True)
    job = Job(caller.request_id, [tokens], params, 0, "", caller, to_the_end=True)
    with naming({"structured_outputs": "format"}):
        async with contextlib.aclosing(run(service, job)) as growth:
            async for _, output in growth:
                if piece := cursor.take(output.outputs[0]):
                    yield Gained(0, [Text(piece.text)] if piece.text else [], piece, output, 0)


def _params(service: Service, body: Generation) -> SamplingParams:
    """The options over the model's own defaults. Raises BadRequest, naming an option as its sender did."""
    options, limit = body.options or Options(), service.engine.max_model_len
    if (options.num_ctx or 0) > limit:
        raise _wrong("num_ctx", f"is {options.num_ctx}; this model's context is {limit} tokens: send that, or less")
    own: dict[str, Any] = NO_PENALTY if options.repeat_last_n == 0 else {}
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    try:
        params = service.sampling_params(options, max_tokens=options.max_tokens, logprobs=logprobs, **own)
    except BadRequest as error:
        if (field := Sampling.model_fields.get(error.param or "")) is None:
            raise
        raise _wrong(field.alias or error.param, f"is refused: {error}") from None
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    penalized = any(getattr(params, name) != off for name, off in NO_PENALTY.items())
    if penalized and 0 < (options.repeat_last_n or 0) < limit:
        raise _wrong("repeat_last_n", f"is {options.repeat_last_n}; penalties see the whole context here: send -1")
    return params


def _wrong(option: str | None, why: str) -> BadRequest:
    return BadRequest(f"options.{option} {why}", param=f"options.{option}")


ROUTES = (
    Route("POST", "/api/chat", chat, OLLAMA, ChatRequest),
    Route("POST", "/api/generate", generate, OLLAMA, GenerateRequest),
)
