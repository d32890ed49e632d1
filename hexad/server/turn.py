"""A conversation to be answered, in no dialect: what every chat endpoint translates to and from.

This module knows templates, tools and replies; it knows no wire format.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hexad.server.generation import Job, Service, run
from hexad.server.pieces import Cursor, Piece, whole
from hexad.text.reply import CallArguments, CallStart, Event, Reasoning, ReplyParser, Text, Tool
from hexad.types import RequestOutput, SamplingParams

PROMPT_TAIL = 64
"""Characters at the end of a prompt that tell whether it has begun the reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    request_id: str
    messages: list[dict[str, Any]]
    """As chat templates read them: role, content (a text), tool_calls (arguments are objects), tool_call_id, name,
    reasoning_content."""
    params: SamplingParams
    tools: Sequence[Tool] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    callable: Sequence[str] | None = None
    """Names of the tools that may be called; None: all of them. A named tool is `required` with its name here."""
    shown_tools: Sequence[dict[str, Any]] = ()
    """The same tools as chat templates read them."""
    parallel_tool_calls: bool = True
    thinking: bool | None = None
    """None: as the model's template does by itself."""
    template: dict[str, Any] = field(default_factory=dict)
    """Further variables of the chat template."""
    add_special_tokens: bool = False
    by_token: bool = False
    """Tokens are of interest that show no text yet: log-probabilities, token ids."""
    priority: int = 0
    cache_salt: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    name: str
    arguments: str
    """One JSON object."""


@dataclass(frozen=True, slots=True)
class Gained:
    """What answer `index` gained."""

    index: int
    events: list[Event]
    piece: Piece
    output: RequestOutput


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    index: int
    content: str
    reasoning: str
    calls: list[Call]
    piece: Piece
    """Its raw text, tokens, log-probabilities and ending."""


def call_id() -> str:
    return "call_" + uuid.uuid4().hex[:24]


async def prompt_of(service: Service, turn: Turn) -> tuple[str, list[int]]:
    """The text and the tokens of the prompt. Raises BadRequest where the model's template refuses."""
    shown = list(turn.shown_tools) if turn.tool_choice != "none" else []
    options: dict[str, Any] = {"tools": shown or None}
    if turn.thinking is not None:
        options |= {"enable_thinking": turn.thinking, "thinking": turn.thinking}
    # A template is slow on purpose-built input: what it costs is bounded, and not paid by other requests.
    text = await asyncio.to_thread(service.engine.frontend.render, turn.messages, **options, **turn.template)
    return text, await service.encode(text, turn.add_special_tokens)


def shown_tool(tool: Tool) -> dict[str, Any]:
    """As chat templates read it: OpenAI's shape."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


async def answer(service: Service, turn: Turn) -> AsyncGenerator[Gained, None]:
    """Each answer's growth. Closing the generator aborts the request."""
    text, tokens = await prompt_of(service, turn)
    job = Job(turn.request_id, [tokens], turn.params, turn.priority, turn.cache_salt)
    tools = turn.tools if turn.tool_choice != "none" else ()
    thinking = turn.thinking is not False
    parsers = [
        ReplyParser(service.format, tools=tools, thinking=thinking, prompt_tail=text[-PROMPT_TAIL:])
        for _ in range(turn.params.n)
    ]
    cursors = [Cursor(by_token=turn.by_token) for _ in parsers]
    called = [False] * len(parsers)
    async with contextlib.aclosing(run(service, job)) as growth:
        async for _, output in growth:
            for choice in output.outputs:
                piece = cursors[choice.index].take(choice)
                if piece is None:
                    continue
                events = parsers[choice.index].push(piece.text)
                if piece.finish_reason is not None:
                    events += parsers[choice.index].finish()
                called[choice.index] |= any(isinstance(event, CallStart) for event in events)
                if piece.finish_reason == "stop" and called[choice.index]:
                    piece = piece._replace(finish_reason="tool_calls")
                yield Gained(choice.index, events, piece, output)


async def answer_whole(service: Service, turn: Turn) -> tuple[list[Reply], RequestOutput]:
    """All answers, complete."""
    events: list[list[Event]] = [[] for _ in range(turn.params.n)]
    endings: dict[int, str | None] = {}
    output: RequestOutput | None = None
    async with contextlib.aclosing(answer(service, turn)) as growth:
        async for gained in growth:
            events[gained.index] += gained.events
            endings[gained.index] = gained.piece.finish_reason
            output = gained.output
    assert output is not None  # every answer ends with a piece, or in an exception
    replies = []
    for choice in output.outputs:
        piece = whole(choice)._replace(finish_reason=endings[choice.index])
        replies.append(reply_of(choice.index, events[choice.index], piece))
    return replies, output


def reply_of(index: int, events: Sequence[Event], piece: Piece) -> Reply:
    """Events put together."""
    content = "".join([event.text for event in events if isinstance(event, Text)])
    reasoning = "".join([event.text for event in events if isinstance(event, Reasoning)])
    names = {event.index: event.name for event in events if isinstance(event, CallStart)}
    arguments = dict.fromkeys(names, "")
    for event in events:
        if isinstance(event, CallArguments):
            arguments[event.index] += event.text
    calls = [Call(call_id(), name, arguments[number]) for number, name in names.items()]
    return Reply(index, content, reasoning, calls, piece)
