"""Anthropic's dialect: POST /v1/messages and /v1/messages/count_tokens.

The header `anthropic-version` is not needed, and `anthropic-beta` changes nothing: every body is read in one way.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from hexad.errors import BadRequest, HexadError, RequestFailed
from hexad.server import anthropic_types as wire
from hexad.server.caller import Caller
from hexad.server.dialect import EVENT_STREAM, Dialect, Route, named_event
from hexad.server.errors import told
from hexad.server.generation import Service
from hexad.server.models import About, Models
from hexad.server.turn import Gained, Turn, answer, prompt_of
from hexad.server.wire import EventStream, json_response, read_body, unless_disconnected
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, Text, Tool
from hexad.types import SamplingParams, StructuredOutputs

_ERRORS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}
_ERRORS |= {429: "rate_limit_error", 503: "overloaded_error", 504: "timeout_error"}


def error_body(exc: HexadError) -> dict[str, Any]:
    kind = _ERRORS.get(exc.status) or ("api_error" if exc.status >= 500 else "invalid_request_error")
    error: dict[str, Any] = {"type": kind, "message": told(exc)}
    if exc.param == "thread":  # upon this the clients' tool runners send whole conversations
        error["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {"type": "error", "error": error}


ANTHROPIC = Dialect(error_body, EVENT_STREAM, named_event)


async def create_message(models: Models, request: Request) -> Response:
    body = await read_body(request, wire.MessagesRequest)
    events = _events(models, body, request.state.caller)
    if body.stream:
        return EventStream(ANTHROPIC, events)
    return json_response(await unless_disconnected(request.receive, _put_together(events)))


async def count_tokens(models: Models, request: Request) -> Response:
    body = await read_body(request, wire.CountTokensRequest)
    async with models.use(body.model, request.state.caller) as service:
        _, tokens = await prompt_of(service, _turn(service, body, SamplingParams(), ""))
        return json_response({"input_tokens": len(tokens)})


async def _events(models: Models, body: wire.MessagesRequest, caller: Caller) -> AsyncGenerator[dict[str, Any], None]:
    async with models.use(body.model, caller) as service:
        turn = _turn(service, body, service.sampling_params(body, stop=body.stop_sequences), "msg_" + caller.request_id)
        blocks = _Blocks(hidden=body.thinking.display == "omitted")
        gained: Gained | None = None
        async with contextlib.aclosing(answer(service, turn, caller)) as growth:
            async for newest in growth:
                if gained is None:
                    yield {"type": "message_start", "message": _opening(service, turn, newest)}
                    yield {"type": "ping"}
                gained = newest
                for change in blocks.take(gained.events):
                    yield change
        assert gained is not None  # every answer ends with a piece, or in an exception
        for change in blocks.close():
            yield change
        yield {"type": "message_delta", "delta": _ending(gained, body), "usage": _usage(gained)}
        yield {"type": "message_stop"}


async def _put_together(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    """The message that a stream tells, as Anthropic's client puts it together."""
    message: dict[str, Any] = {}
    content: list[dict[str, Any]] = []
    async with contextlib.aclosing(events):
        async for event in events:
            match event["type"]:
                case "message_start":
                    message = event["message"] | {"content": content}
                case "content_block_start":
                    content.append(event["content_block"])
                case "content_block_delta":
                    _, (name, text) = event["delta"].items()
                    block = content[event["index"]]
                    block[name] = block.get(name, "") + text
                case "message_delta":
                    message |= event["delta"] | {"usage": event["usage"]}
    for block in content:
        if written := block.pop("partial_json", None):
            block["input"] = _input(written)
    return message


def _input(written: str) -> dict[str, Any]:
    """Of a call. One that max_tokens cut off ends early, as the client reads it in a stream."""
    with contextlib.suppress(ValueError):
        if isinstance(found := from_json(written, allow_partial=True), dict):
            return found
    raise RequestFailed(f"the model called a tool with what is no JSON object: {written[:200]!r}")


def _turn(service: Service, body: wire.CountTokensRequest, params: SamplingParams, request_id: str) -> Turn:
    tools = [Tool(tool.name, tool.description, tool.input_schema, tool.strict) for tool in body.tools]
    choice = body.tool_choice
    wanted = body.output_config.format or body.output_format
    begun = body.messages[-1].role == "assistant"  # its last message begins the answer
    return Turn(
        request_id=request_id,
        messages=lambda: _messages(body),
        params=params,
        to_the_end=True,
        tools=tools,
        tool_choice=choice.type if choice.type == "auto" or choice.type == "none" else "required",
        callable=[choice.name] if isinstance(choice, wire.NamedChoice) else None,
        parallel_tool_calls=not choice.disable_parallel_tool_use,
        structured=StructuredOutputs(json=wanted.schema_) if wanted else None,
        thinking=None if body.thinking.type == "adaptive" else body.thinking.type == "enabled",
        thinking_budget=body.thinking.budget_tokens if isinstance(body.thinking, wire.BudgetedThinking) else None,
        # A hint for all that a model writes, and `high` the default: nothing is asked of one that does not reason.
        effort=body.output_config.effort if service.format.reasoning else None,
        template={"add_generation_prompt": not begun, "continue_final_message": begun},
        names={"structured": "output_config.format", "effort": "output_config.effort"},
    )


def _messages(body: wire.CountTokensRequest) -> list[dict[str, Any]]:
    """As chat templates read them. Messages of one role that follow each other are one, as Anthropic has it."""
    said: list[wire.Message] = [wire.SystemMessage(role="system", content=body.system)] if body.system else []
    plain: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for role, messages in groupby([*said, *body.messages], key=lambda message: message.role):
        blocks = [block for message in messages for block in _blocks(message.content)]
        if role == "assistant":
            plain.append(_assistant(blocks))
            called |= {block.id: block.name for block in blocks if isinstance(block, wire.ToolUseBlock)}
            continue
        plain += [_tool_result(block, called) for block in blocks if isinstance(block, wire.ToolResultBlock)]
        if any(isinstance(block, wire.TextBlock) for block in blocks):
            plain.append({"role": role, "content": _joined(blocks)})
    if "tool_calls" in plain[-1]:
        raise BadRequest("messages ends with a tool_use; add its tool_result in a user message", param="messages")
    return plain


def _blocks(content: str | list[Any]) -> list[wire.Block]:
    return [wire.TextBlock(type="text", text=content)] if isinstance(content, str) else content


def _joined(blocks: list[wire.Block]) -> str:
    """Texts are joined by newlines, as the parts of OpenAI's messages."""
    return "\n".join(block.text for block in blocks if isinstance(block, wire.TextBlock))


def _assistant(blocks: list[wire.Block]) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": "assistant", "content": _joined(blocks)}
    if thoughts := [block.thinking for block in blocks if isinstance(block, wire.ThinkingBlock)]:
        plain["reasoning_content"] = "\n".join(thoughts)
    if calls := [block for block in blocks if isinstance(block, wire.ToolUseBlock)]:
        plain["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input}}
            for call in calls
        ]
    return plain


def _tool_result(block: wire.ToolResultBlock, called: dict[str, str]) -> dict[str, Any]:
    """Raises BadRequest for the result of a call that was not made."""
    if block.tool_use_id not in called:
        found = f"a tool_result for {block.tool_use_id[:60]!r}"
        raise BadRequest(f"messages holds {found}, and no tool_use with that id before it", param="messages")
    content = ("Error: " if block.is_error else "") + _joined(_blocks(block.content))  # templates have no word for it
    return {"role": "tool", "tool_call_id": block.tool_use_id, "name": called[block.tool_use_id], "content": content}


class _Blocks:
    """The content of a message as it grows: its last block is open until another begins."""

    def __init__(self, *, hidden: bool) -> None:
        """`hidden`: that the model reasons is told, and not what."""
        self._hidden = hidden
        self._open: type[Event] | None = None
        self._index = -1

    def take(self, events: list[Event]) -> Iterator[dict[str, Any]]:
        for event in events:
            match event:
                case Text(text):
                    yield from self._in(Text, {"type": "text", "text": ""})
                    yield self._delta(type="text_delta", text=text)
                case Reasoning(text):
                    yield from self._in(Reasoning, {"type": "thinking", "thinking": "", "signature": ""})
                    if not self._hidden:
                        yield self._delta(type="thinking_delta", thinking=text)
                case CallStart(_, name):
                    yield from self.close()
                    id = "toolu_" + uuid.uuid4().hex[:24]
                    yield from self._in(CallStart, {"type": "tool_use", "id": id, "name": name, "input": {}})
                case CallArguments(_, text):
                    yield self._delta(type="input_json_delta", partial_json=text)

    def close(self) -> Iterator[dict[str, Any]]:
        if self._open is Reasoning:
            yield self._delta(type="signature_delta", signature="")
        if self._open is not None:
            self._open = None
            yield {"type": "content_block_stop", "index": self._index}

    def _in(self, kind: type[Event], block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._open is not kind:
            yield from self.close()
            self._open = kind
            self._index += 1
            yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _delta(self, **delta: str) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def _opening(service: Service, turn: Turn, gained: Gained) -> dict[str, Any]:
    opening = {"id": turn.request_id, "type": "message", "role": "assistant", "model": service.model_name}
    return opening | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage(gained)}


def _ending(gained: Gained, body: wire.MessagesRequest) -> dict[str, Any]:
    piece, asked = gained.piece, body.max_tokens
    if isinstance(piece.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": piece.stop_reason}
    full = len(gained.output.outputs[0].token_ids) < asked
    reasons = {"stop": "end_turn", "tool_calls": "tool_use"}
    reasons["length"] = "model_context_window_exceeded" if full else "max_tokens"
    if piece.finish_reason not in reasons:
        raise RequestFailed(f"the request was ended before its answer was complete: {piece.finish_reason}")
    return {"stop_reason": reasons[piece.finish_reason], "stop_sequence": None}


def _usage(gained: Gained) -> dict[str, Any]:
    """Anthropic counts apart what came from the cache."""
    output = gained.output
    return {
        "input_tokens": len(output.prompt_token_ids) - output.num_cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": output.num_cached_tokens,
        "output_tokens": len(output.outputs[0].token_ids),
        "output_tokens_details": {"thinking_tokens": gained.reasoning_tokens},
    }


def listed(models: list[About], query: Mapping[str, str]) -> dict[str, Any]:
    """All models on one page. Raises BadRequest for a request of another one."""
    for name, value in query.items():
        if name != "limit" or not value.isdecimal() or int(value[:9]) < len(models):
            raise BadRequest(f"{name} is {value[:60]!r}; all {len(models)} models are on one page", param=name)
    names = {"first_id": models[0].name, "last_id": models[-1].name}
    return names | {"data": [shown(model) for model in models], "has_more": False}


def shown(model: About) -> dict[str, Any]:
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, timezone.utc).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": model.max_model_len,
        "max_tokens": model.max_model_len,
    }


ROUTES = (
    Route("POST", "/v1/messages", create_message, ANTHROPIC, wire.MessagesRequest),
    Route("POST", "/v1/messages/count_tokens", count_tokens, ANTHROPIC, wire.CountTokensRequest),
)
