"""POST /v1/chat/completions: messages in, the assistant's answer out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad.server.conversation import conversation_tokens, text_of
from hexad.server.generation import Job, Service, now, run, run_to_end
from hexad.server.openai_types import ChatRequest
from hexad.server.pieces import Cursor, Piece, finite, prompt_logprobs, usage, whole
from hexad.server.wire import EventStream, check_body, json_response, read_json, unless_disconnected
from hexad.types import Logprob, RequestOutput


async def create_chat_completion(service: Service, request: Request) -> Response:
    body = check_body(ChatRequest, await read_json(request))
    service.check_model(body.model)
    job = await _job(service, body, "chatcmpl-" + request.state.request_id)
    answer = _Answer(service, body, job)
    if body.stream:
        return EventStream(answer.chunks())
    (output,) = await unless_disconnected(request.receive, run_to_end(service, job))
    return json_response(answer.complete(output))


async def _job(service: Service, body: ChatRequest, request_id: str) -> Job:
    params = service.sampling_params(
        body,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
    )
    tokens = await conversation_tokens(service, body, with_tools=body.tool_choice != "none")
    return Job(request_id, [tokens], params, body.priority, body.cache_salt)


class _Answer:
    """The wire form of one request's output, whole or in chunks."""

    def __init__(self, service: Service, body: ChatRequest, job: Job) -> None:
        self.service = service
        self.body = body
        self.job = job
        final = body.messages[-1]
        self.prefix = text_of(final) if body.echo and final.role == "assistant" else ""
        self.head = {"id": job.request_id, "created": now(), "model": service.model_name}

    def complete(self, output: RequestOutput) -> dict[str, Any]:
        choices = []
        for answer in output.outputs:
            piece = whole(answer)
            message = {"role": "assistant", "content": self.prefix + piece.text, "refusal": None}
            choices.append({"index": answer.index, "message": message} | self._about(piece))
        complete = self.head | {"object": "chat.completion", "choices": choices, "usage": usage([output])}
        return complete | self._about_prompt(output)

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        by_token = bool(self.body.logprobs or self.body.return_token_ids)
        cursors = [Cursor(by_token=by_token) for _ in range(self.job.params.n)]
        output: RequestOutput | None = None
        async with contextlib.aclosing(run(self.service, self.job)) as growth:
            async for _, grown in growth:
                if output is None:
                    for index in range(len(cursors)):
                        yield self._opening(index, grown)
                output = grown
                for answer in output.outputs:
                    if (piece := cursors[answer.index].take(answer)) is not None:
                        choice = {"index": answer.index, "delta": {"content": piece.text}} | self._about(piece)
                        yield self._chunk([choice], output, self.body.usage_always)
        if self.body.usage_last and output is not None:
            yield self._chunk([], output, True)

    def _opening(self, index: int, output: RequestOutput) -> dict[str, Any]:
        delta = {"role": "assistant", "content": self.prefix}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._chunk([choice], output, self.body.usage_always) | self._about_prompt(output)

    def _chunk(self, choices: list[dict[str, Any]], output: RequestOutput, counted: bool) -> dict[str, Any]:
        chunk = self.head | {"object": "chat.completion.chunk", "choices": choices}
        if self.body.usage_last:
            chunk["usage"] = usage([output]) if counted else None
        return chunk

    def _about(self, piece: Piece) -> dict[str, Any]:
        about: dict[str, Any] = {
            "logprobs": self._logprobs(piece),
            "finish_reason": piece.finish_reason,
            "stop_reason": piece.stop_reason,
        }
        if self.body.return_token_ids:
            about["token_ids"] = piece.token_ids
        return about

    def _about_prompt(self, output: RequestOutput) -> dict[str, Any]:
        about: dict[str, Any] = {}
        if self.body.prompt_logprobs is not None:
            about["prompt_logprobs"] = prompt_logprobs(output)
        if self.body.return_token_ids:
            about["prompt_token_ids"] = output.prompt_token_ids
        return about

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        content = []
        for token_id, entry in zip(piece.token_ids, piece.logprobs or (), strict=True):
            best = sorted(entry.items(), key=lambda item: item[1].rank or 0)[: self.body.top_logprobs or 0]
            top = [self._named(*item) for item in best]
            content.append(self._named(token_id, entry[token_id]) | {"top_logprobs": top})
        return {"content": content, "refusal": None}

    def _named(self, token_id: int, found: Logprob) -> dict[str, Any]:
        spelled = self.service.engine.tokenizer.token_bytes(token_id)
        return {"token": found.decoded_token or "", "logprob": finite(found.logprob), "bytes": list(spelled)}
