"""POST /v1/chat/completions: messages in, the assistant's answer out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hexad.server.caller import Caller
from hexad.server.conversation import choice_of, conversation, text_of
from hexad.server.dialect import OPENAI, Route
from hexad.server.errors import naming
from hexad.server.generation import Service, now
from hexad.server.models import Models
from hexad.server.openai_types import ChatRequest, ReasoningOptions
from hexad.server.pieces import Piece, logprobs_of, prompt_logprobs, usage, whole
from hexad.server.structured import structured
from hexad.server.turn import Gained, Turn, answer, call_id
from hexad.server.wire import read_body, respond
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, Text
from hexad.types import RequestOutput


async def create_chat_completion(models: Models, request: Request) -> Response:
    body = await read_body(request, ChatRequest)
    return await respond(request, OPENAI, body.stream, _events(models, body, request.state.caller))


async def _events(models: Models, body: ChatRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a stream, or the one whole answer."""
    async with models.use(body.model, caller) as service:
        turn = _turn(service, body, "chatcmpl-" + caller.request_id)
        wire = _Answer(service, body, turn)
        gained: Gained | None = None
        async with contextlib.aclosing(answer(service, turn, caller)) as growth:
            async for gained in growth:
                for chunk in wire.chunks(gained) if body.stream else wire.keep(gained):
                    yield chunk
        assert gained is not None  # every answer ends with a piece, or in an exception
        if not body.stream:
            yield wire.complete(gained.output)
        elif body.usage_last:
            yield wire.chunk([], gained.output, True)


def _turn(service: Service, body: ChatRequest, request_id: str) -> Turn:
    shape, named = structured(body)
    names = {"max_tokens": "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"}
    with naming(names):
        params = service.sampling_params(
            body,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            max_tokens=getattr(body, names["max_tokens"]),
            structured_outputs=None,
        )
    reasoning = body.reasoning or ReasoningOptions()
    names |= {"effort": "reasoning_effort", "thinking": "enable_thinking"}
    if body.reasoning is not None:
        names |= {"effort": "reasoning.effort", "thinking": "reasoning.enabled"}
        names["thinking_budget"] = "reasoning.max_tokens"
    return Turn(
        request_id=request_id,
        params=params,
        structured=shape,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        effort=body.reasoning_effort or reasoning.effort,
        thinking=reasoning.enabled if body.enable_thinking is None else body.enable_thinking,
        thinking_budget=reasoning.max_tokens if body.thinking_budget is None else body.thinking_budget,
        by_token=bool(body.logprobs or body.return_token_ids),
        priority=body.priority,
        cache_salt=body.cache_salt,
        names=names | ({"structured_outputs": named} if shape else {}),
        **choice_of(body.tool_choice),
        **conversation(body),
    )


class _Answer:
    """The wire form of one request's output, whole or in chunks."""

    def __init__(self, service: Service, body: ChatRequest, turn: Turn) -> None:
        self.service = service
        self.body = body
        final = body.messages[-1]
        self.prefix = text_of(final) if body.echo and final.role == "assistant" else ""
        self.head = {
            "id": turn.request_id,
            "created": now(),
            "model": service.model_name,
            "service_tier": "default",
            "system_fingerprint": service.fingerprint,
        }
        self._reasoning_tokens: dict[int, int] = {}
        self._events: dict[int, list[Event]] = {}
        self._finish: dict[int, str | None] = {}

    def keep(self, gained: Gained) -> tuple[()]:
        """For `complete`."""
        self._events.setdefault(gained.index, []).extend(gained.events)
        self._finish[gained.index] = gained.piece.finish_reason
        self._reasoning_tokens[gained.index] = gained.reasoning_tokens
        return ()

    def complete(self, output: RequestOutput) -> dict[str, Any]:
        choices = []
        for each in output.outputs:
            told = _delta(self._events[each.index])
            content = self.prefix + told.get("content", "")
            message = told | {"role": "assistant", "content": content, "refusal": None}
            for call in told.get("tool_calls", ()):
                message["content"] = content or None
                del call["index"]
            piece = whole(each)._replace(finish_reason=self._finish[each.index])
            choices.append({"index": each.index, "message": message} | self._about(piece))
        complete = self.head | {"object": "chat.completion", "choices": choices}
        complete["usage"] = usage([output], sum(self._reasoning_tokens.values()))
        return complete | self._about_prompt(output)

    def chunks(self, gained: Gained) -> list[dict[str, Any]]:
        """What goes out for one gain: the opening of every answer before the first of all."""
        chunks = []
        if not self._reasoning_tokens:
            self._reasoning_tokens = {choice.index: 0 for choice in gained.output.outputs}
            chunks = [self._opening(index, gained.output) for index in self._reasoning_tokens]
        self._reasoning_tokens[gained.index] = gained.reasoning_tokens
        delta, piece = _delta(gained.events), gained.piece
        deltas = [(delta, piece)] if delta or piece.finish_reason or self.body.logprobs else []
        if delta and piece.finish_reason:  # helpers of OpenAI's clients look for an ending of its own
            tokens, logprobs = piece.token_ids, piece.logprobs or []
            ends = piece.finish_reason != "length" and not isinstance(piece.stop_reason, str)
            cut = len(tokens) - ends  # a token that ends the answer is none of its text
            ending = piece._replace(text="", token_ids=tokens[cut:], logprobs=logprobs[cut:])
            piece = piece._replace(
                token_ids=tokens[:cut], logprobs=logprobs[:cut], finish_reason=None, stop_reason=None
            )
            deltas = [(delta, piece), ({}, ending)]
        for delta, piece in deltas:
            choice = {"index": gained.index, "delta": delta} | self._about(piece)
            chunks.append(self.chunk([choice], gained.output, self.body.usage_always))
        return chunks

    def _opening(self, index: int, output: RequestOutput) -> dict[str, Any]:
        delta = {"role": "assistant", "content": self.prefix}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return self.chunk([choice], output, self.body.usage_always) | self._about_prompt(output)

    def chunk(self, choices: list[dict[str, Any]], output: RequestOutput, counted: bool) -> dict[str, Any]:
        chunk = self.head | {"object": "chat.completion.chunk", "choices": choices}
        if self.body.usage_last:
            chunk["usage"] = usage([output], sum(self._reasoning_tokens.values())) if counted else None
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
        content = logprobs_of(self.service.engine.tokenizer, piece, self.body.top_logprobs or 0)
        return {"content": content, "refusal": None}


def _delta(events: Sequence[Event]) -> dict[str, Any]:
    """Events as one delta; empty for none."""
    texts: dict[str, list[str]] = {}
    calls: dict[int, dict[str, Any]] = {}
    arguments: dict[int, list[str]] = {}
    for event in events:
        match event:
            case Text(text):
                texts.setdefault("content", []).append(text)
            case Reasoning(text):
                texts.setdefault("reasoning_content", []).append(text)
            case CallStart(index, name):
                calls[index] = {"index": index, "id": call_id(), "type": "function", "function": {"name": name}}
                arguments[index] = []
            case CallArguments(index, text):
                arguments.setdefault(index, []).append(text)
    delta: dict[str, Any] = {name: "".join(parts) for name, parts in texts.items()}
    for index, parts in arguments.items():
        calls.setdefault(index, {"index": index, "function": {}})["function"]["arguments"] = "".join(parts)
    if calls:
        delta["tool_calls"] = [calls[index] for index in arguments]
    return delta


ROUTES = (Route("POST", "/v1/chat/completions", create_chat_completion, OPENAI, ChatRequest),)
