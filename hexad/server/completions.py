"""POST /v1/completions: text or tokens in, their continuation out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hexad.server.caller import Caller
from hexad.server.dialect import OPENAI, Route
from hexad.server.errors import naming
from hexad.server.generation import Job, Service, now, run, run_to_end
from hexad.server.models import Models
from hexad.server.openai_types import CompletionRequest
from hexad.server.pieces import Cursor, Piece, finite, prompt_logprobs, usage, whole
from hexad.server.structured import structured
from hexad.server.wire import read_body, respond
from hexad.types import CompletionOutput, Logprob, RequestOutput, StructuredOutputs

DEFAULT_MAX_TOKENS = 16

_Entry = tuple[int, dict[int, Logprob] | None]
"""A token and what could have stood in its place."""


async def create_completion(models: Models, request: Request) -> Response:
    body = await read_body(request, CompletionRequest)
    return await respond(request, OPENAI, body.stream, _events(models, body, request.state.caller))


async def _events(models: Models, body: CompletionRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a stream, or the one whole answer."""
    shape, named = structured(body)
    with naming({"structured_outputs": named}):
        async with models.use(body.model, caller) as service:
            job = await _job(service, body, caller, shape)
            answer = _Answer(service, body, job)
            if not body.stream:
                yield answer.complete(await run_to_end(service, job))
                return
            async with contextlib.aclosing(answer.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _job(service: Service, body: CompletionRequest, caller: Caller, shape: StructuredOutputs | None) -> Job:
    name = "cmpl-" + caller.request_id
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    wanted = body.prompt_logprobs
    if body.echo and body.logprobs is not None:
        wanted = max(wanted or 0, body.logprobs)
    chosen = body.best_of is not None and body.best_of > (1 if body.n is None else body.n)
    params = service.sampling_params(
        body,
        n=body.best_of if chosen else 1 if body.n is None else body.n,
        logprobs=0 if chosen and body.logprobs is None else body.logprobs,
        prompt_logprobs=wanted,
        # An echo alone still needs its prompt computed; the token is dropped.
        max_tokens=1 if body.echo and max_tokens == 0 else max_tokens,
        structured_outputs=shape,
    )
    if body.suffix is not None:
        (prompt,) = body.prompt
        assert isinstance(prompt, str)
        infill = await service.infill(prompt, body.suffix)
        return Job(name, [infill.token_ids], infill.stopping(params), body.priority, body.cache_salt, caller)
    prompts = []
    for prompt in body.prompt:
        prompts.append(await service.encode(prompt, body.add_special_tokens) if isinstance(prompt, str) else prompt)
        await asyncio.sleep(0)  # there may be a thousand of them
    return Job(name, prompts, params, body.priority, body.cache_salt, caller)


def _best(answers: list[CompletionOutput], n: int) -> list[CompletionOutput]:
    """The n answers of the highest log-probability a token, the best first, numbered anew."""
    if len(answers) == n:
        return answers
    means = [(answer.cumulative_logprob or 0.0) / max(1, len(answer.token_ids)) for answer in answers]
    ranked = sorted(range(len(answers)), key=lambda index: -means[index])[:n]
    return [msgspec.structs.replace(answers[index], index=place) for place, index in enumerate(ranked)]


class _Answer:
    """The wire form of one request's outputs, whole or in chunks."""

    def __init__(self, service: Service, body: CompletionRequest, job: Job) -> None:
        self.service = service
        self.body = body
        self.job = job
        self.n = body.n or 1
        self.only_prompt = bool(body.echo) and body.max_tokens == 0
        self.head = {
            "id": job.request_id,
            "object": "text_completion",
            "created": now(),
            "model": service.model_name,
            "system_fingerprint": service.fingerprint,
        }

    def complete(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        choices = [
            self._choice(prompt, output, answer.index, whole(answer), first=True, offset=0)
            for prompt, output in enumerate(outputs)
            for answer in _best(output.outputs, self.n)
        ]
        return self.head | {"choices": choices, "usage": self._usage(outputs)}

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        by_token = self.body.logprobs is not None or bool(self.body.return_token_ids)
        cursors: dict[tuple[int, int], Cursor] = {}
        offsets: dict[tuple[int, int], int] = {}
        outputs: dict[int, RequestOutput] = {}
        async with contextlib.aclosing(run(self.service, self.job)) as growth:
            async for prompt, output in growth:
                outputs[prompt] = output
                for answer in output.outputs:
                    key = prompt, answer.index
                    first = key not in offsets
                    piece = cursors.setdefault(key, Cursor(by_token=by_token)).take(answer)
                    if piece is None:
                        continue
                    choice = self._choice(prompt, output, answer.index, piece, first=first, offset=offsets.get(key, 0))
                    offsets[key] = offsets.get(key, 0) + len(choice["text"])
                    yield self._chunk([choice], list(outputs.values()), self.body.usage_always)
        if self.body.usage_last:
            yield self._chunk([], list(outputs.values()), True)

    def _chunk(self, choices: list[dict[str, Any]], outputs: list[RequestOutput], counted: bool) -> dict[str, Any]:
        chunk = self.head | {"choices": choices}
        if self.body.usage_last:
            chunk["usage"] = self._usage(outputs) if counted else None
        return chunk

    def _choice(
        self, prompt: int, output: RequestOutput, index: int, piece: Piece, *, first: bool, offset: int
    ) -> dict[str, Any]:
        """`first`: the piece opens its answer; `offset`: characters of the answer sent before it."""
        if self.only_prompt:
            piece = Piece("", [], piece.logprobs and [], "length", None)
        tokens: list[_Entry] = list(zip(piece.token_ids, piece.logprobs or (), strict=False))
        text = piece.text
        if self.body.echo and first:
            text = self._prompt_text(prompt) + text
            tokens = list(zip(output.prompt_token_ids, output.prompt_logprobs or (), strict=False)) + tokens
        choice: dict[str, Any] = {
            "index": prompt * self.n + index,
            "text": text,
            "logprobs": None if self.body.logprobs is None else self._logprobs(tokens, offset),
            "finish_reason": piece.finish_reason,
            "stop_reason": piece.stop_reason,
        }
        if self.body.prompt_logprobs is not None and first:
            choice["prompt_logprobs"] = prompt_logprobs(output)
        if self.body.return_token_ids:
            choice["prompt_token_ids"] = output.prompt_token_ids if first else None
            choice["token_ids"] = piece.token_ids
        return choice

    def _prompt_text(self, prompt: int) -> str:
        given = self.body.prompt[prompt]
        return given if isinstance(given, str) else self.service.engine.tokenizer.decode(given)

    def _logprobs(self, tokens: list[_Entry], offset: int) -> dict[str, list[Any]]:
        most = self.body.logprobs or 0
        columns: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token_id, entry in tokens:
            if entry is None:  # the first token of a prompt: nothing precedes it
                name, own, top = self.service.engine.tokenizer.token_text(token_id), None, None
            else:
                name, own = entry[token_id].decoded_token or "", finite(entry[token_id].logprob)
                top = {name: own}
                for other, found in entry.items():
                    if other != token_id and found.rank is not None and found.rank <= most:
                        top.setdefault(found.decoded_token or "", finite(found.logprob))
            for column, value in zip(columns.values(), (name, own, top, offset), strict=True):
                column.append(value)
            offset += len(name)
        return columns

    def _usage(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        counted = usage(outputs)
        if self.only_prompt:
            counted |= {"completion_tokens": 0, "total_tokens": counted["prompt_tokens"]}
        return counted


ROUTES = (Route("POST", "/v1/completions", create_completion, OPENAI, CompletionRequest),)
