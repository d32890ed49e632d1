"""A conversation to be answered, in no dialect: what every chat endpoint translates to and from.

A dialect builds a `Turn`, reads `answer`, and writes what it gained in its own words.
What the answer must look like, how long the model may reason and which tools it must call are fields of the turn;
how that reaches the model is decided here, by the format of its replies. This module knows no wire format.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec

from hexad.errors import BadRequest
from hexad.server.caller import Caller
from hexad.server.errors import naming
from hexad.server.generation import Job, Service, run
from hexad.server.pieces import Cursor, Piece
from hexad.text.grammar import expression
from hexad.text.literal import Literals
from hexad.text.reply import Event, Reasoning, ReplyParser, Tool
from hexad.text.reply_grammar import reply_grammar
from hexad.types import RequestOutput, SamplingParams, StructuredOutputs

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORT_BUDGETS: Mapping[str, int] = {"minimal": 128, "low": 1024, "medium": 8192}
"""Tokens of reasoning; more effort has no limit of its own."""
_EFFORT_WORDS: Mapping[str, str] = {"minimal": "low", "xhigh": "high", "max": "high"}
"""Templates know low, medium and high."""

MAX_TOOLS = 256

PROMPT_TAIL = 64
"""Characters at the end of a prompt that tell whether it has begun the reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    request_id: str
    messages: Callable[[], list[dict[str, Any]]]
    """Gives them as chat templates read them: role, content (a text), tool_calls (arguments are objects),
    tool_call_id, name, reasoning_content. Called beside the event loop: a conversation may be long."""
    params: SamplingParams
    to_the_end: bool = False  # as in Job
    tools: Sequence[Tool] = ()
    tool_choice: Literal["auto", "none", "required"] = "auto"
    callable: Sequence[str] | None = None
    """Names of the tools that may be called; None: all of them. A named tool is `required` with its name here."""
    shown_tools: Callable[[], list[dict[str, Any]]] | None = None
    """Gives the same tools as chat templates read them, beside the event loop, too; None: in OpenAI's shape."""
    parallel_tool_calls: bool = True
    structured: StructuredOutputs | None = None
    """What the content must look like. Reasoning before it is free, and a tool may be called instead of it."""
    thinking: bool | None = None
    """None: as the model's template does by itself."""
    thinking_budget: int | None = None
    """Most tokens of reasoning."""
    effort: Effort | None = None
    """How hard to think: "none" is `thinking=False`; the others are a variable of the templates that read it, and
    set a budget (`EFFORT_BUDGETS`) where they do not."""
    template: dict[str, Any] = field(default_factory=dict)
    """Further variables of the chat template."""
    add_special_tokens: bool = False
    by_token: bool = False
    """Tokens are of interest that show no text yet: log-probabilities, token ids."""
    priority: int = 0
    cache_salt: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the dialect calls the fields above, where its word is another: refusals name it."""

    def __post_init__(self) -> None:
        """Raises BadRequest for tools that cannot be told apart, and for a choice among those that are not there."""
        known = {tool.name: tool for tool in self.tools}
        if len(self.tools) > MAX_TOOLS:
            raise BadRequest(f"tools holds {len(self.tools)}; at most {MAX_TOOLS} are allowed", param="tools")
        if len(known) < len(self.tools):
            twice = next(tool.name for tool in self.tools if known[tool.name] is not tool)
            raise BadRequest(f"tools holds two functions named {twice[:64]!r}; name each once", param="tools")
        for tool in self.tools:
            if "object" not in (kind := str(tool.parameters.get("type", "object"))):
                raise BadRequest(f"tools: {tool.name[:64]!r} takes {kind[:60]}; it must take an object", param="tools")
        if self.tool_choice == "required" and not known:
            raise BadRequest("tool_choice asks for a tool, and there are none; give tools", param="tool_choice")
        if missing := next((name for name in self.callable or () if name not in known), None):
            there = ", ".join(list(known)[:16]) or "none"
            raise BadRequest(f"tool_choice names {missing[:64]!r}; the tools are: {there}", param="tool_choice")

    def named(self, own: str) -> str:
        return self.names.get(own, own)


@dataclass(frozen=True, slots=True)
class Gained:
    """What answer `index` gained."""

    index: int
    events: list[Event]
    piece: Piece
    output: RequestOutput
    reasoning_tokens: int
    """Of this answer, so far."""


def call_id() -> str:
    return "call_" + uuid.uuid4().hex[:24]


def _decided(service: Service, turn: Turn) -> Turn:
    """With what its wishes about reasoning come to with this model. Raises BadRequest where it does not reason."""
    wishes = {"effort": turn.effort not in (None, "none"), "thinking": turn.thinking or False}
    wishes["thinking_budget"] = turn.thinking_budget is not None
    wish = next((name for name, wished in wishes.items() if wished), None)
    if wish and service.format.reasoning is None:
        param = turn.named(wish)
        raise BadRequest(
            f"{param} is about reasoning, and {service.model_name} does not reason; leave it out", param=param
        )
    told = turn.template.get("enable_thinking")
    asked = told if turn.thinking is None and isinstance(told, bool) else turn.thinking
    budget, template = turn.thinking_budget, dict[str, Any]()
    if turn.effort is not None:
        asked = turn.effort != "none"
        if service.template_reads("reasoning_effort"):
            template["reasoning_effort"] = _EFFORT_WORDS.get(turn.effort, turn.effort)
        elif budget is None:
            budget = EFFORT_BUDGETS.get(turn.effort)
    if asked is not None:
        template |= {"enable_thinking": asked, "thinking": asked}
    if (
        asked is False
        and service.format.reasoning is not None
        and not service.template_reads("enable_thinking", "thinking is")
    ):
        budget = 0  # this model cannot be told; it can be stopped
    return replace(turn, thinking=asked, thinking_budget=budget, template=template | turn.template)


async def prompt_of(service: Service, turn: Turn) -> tuple[str, list[int]]:
    """The text and the tokens of the prompt. Raises BadRequest where the model's template refuses."""
    return await _prompt_of(service, _decided(service, turn))


async def _prompt_of(service: Service, turn: Turn) -> tuple[str, list[int]]:
    literals = Literals(service.engine.tokenizer)

    def render() -> tuple[str, str]:
        # gpt-oss's template fails without a description.
        is_own = turn.shown_tools is None or service.format.style == "harmony"
        shown = [_shown(tool) for tool in turn.tools] if is_own or not turn.shown_tools else turn.shown_tools()
        tools = literals.marked(shown) if turn.tool_choice != "none" else None
        messages = turn.messages()
        late = any(message["role"] == "system" for message in messages[1:])
        try:
            text = service.engine.frontend.render(literals.marked(messages), tools=tools or None, **turn.template)
            prompt, place = literals.unmarked(text), 0
            for said in (each["content"].strip() for each in messages if late and each["role"] == "system"):
                if (place := prompt.find(said, place)) < 0:
                    raise BadRequest("the model's chat template leaves a system message out", param="messages")
        except BadRequest as error:
            if late and error.param == "messages":  # in words upon which Claude Code asks again without one
                error.args = (f"{error}; role 'system' is not supported by it behind the first message: say all there",)
            raise
        return text, prompt

    # A template is slow on purpose-built input: what it costs is bounded, and not paid by other requests.
    text, prompt = await asyncio.to_thread(render)
    tokens = await service.beside(len(text), lambda: literals.encode(text, turn.add_special_tokens))
    return prompt, tokens


def _shown(tool: Tool) -> dict[str, Any]:
    """As chat templates read it: OpenAI's shape."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _shape(service: Service, turn: Turn, prompt_tail: str) -> StructuredOutputs | None:
    """What the whole raw reply must look like, calls and reasoning included; None where it is free."""
    form, thinks = service.format, turn.thinking is not False
    tools = [tool for tool in turn.tools if turn.callable is None or tool.name in turn.callable]
    if turn.tool_choice == "none" or (form.style == "none" and turn.tool_choice == "auto"):
        tools = []
    reasons = form.reasoning is not None and (thinks or form.opens_reasoning(prompt_tail))
    if not (tools or reasons or form.answer) and turn.tool_choice != "required":
        return turn.structured
    tokenizer = service.engine.tokenizer
    special = [tokenizer.token_text(token) for token in tokenizer.special_token_ids]
    grammar = reply_grammar(
        form,
        tools=tools,
        choice=turn.tool_choice,
        parallel=turn.parallel_tool_calls,
        only=turn.callable is not None or not turn.parallel_tool_calls,
        answer=expression(turn.structured, special) if turn.structured else "",
        thinking=thinks,
        prompt_tail=prompt_tail,
        tokens=form.tokens(tokenizer.token_id),
    )
    return None if grammar is None else StructuredOutputs(grammar=grammar)


class _ReasoningTokens:
    """Counts the tokens of one reply up to the end of its reasoning."""

    def __init__(self, end: list[int]) -> None:
        self._end = end
        self._newest: list[int] = []
        self._seen = False
        self._count = 0

    def feed(self, tokens: Sequence[int], events: Sequence[Event]) -> None:
        self._seen = self._seen or any(isinstance(event, Reasoning) for event in events)
        for token in tokens:
            if self._newest == self._end:
                return
            self._newest = [*self._newest, token][-len(self._end) :]
            self._count += 1

    @property
    def count(self) -> int:
        return self._count if self._seen else 0


async def answer(service: Service, turn: Turn, caller: Caller) -> AsyncGenerator[Gained, None]:
    """Each answer's growth. Closing the generator aborts the request. Refusals name fields as the dialect does."""
    # What the tools come to as a grammar is refused by their name.
    with naming(turn.names if turn.structured else {"structured_outputs": "tools", **turn.names}):
        turn = _decided(service, turn)
        text, tokens = await _prompt_of(service, turn)
        tools = turn.tools if turn.tool_choice != "none" else ()
        tail = text[-PROMPT_TAIL:]
        shape = turn.structured
        if turn.tools or service.format.reasoning is not None or service.format.answer:
            shape = await asyncio.to_thread(_shape, service, turn, tail)
        params = msgspec.structs.replace(turn.params, structured_outputs=shape, thinking_budget=turn.thinking_budget)
        job = Job(turn.request_id, [tokens], params, turn.priority, turn.cache_salt, caller, True, turn.to_the_end)
        # A model that reasons although it was asked not to is still understood.
        parsers = [ReplyParser(service.format, tools=tools, thinking=True, prompt_tail=tail) for _ in range(params.n)]
        cursors = [Cursor(by_token=turn.by_token) for _ in parsers]
        counts = [_ReasoningTokens(service.reasoning_end) for _ in parsers]
        async with contextlib.aclosing(run(service, job)) as growth:
            async for _, output in growth:
                for choice in output.outputs:
                    index = choice.index
                    piece = cursors[index].take(choice)
                    if piece is None:
                        continue
                    events = parsers[index].push(piece.text)
                    if piece.finish_reason is not None:
                        cut = piece.finish_reason != "stop" or piece.stop_reason is not None
                        events += parsers[index].finish(cut=cut)
                    counts[index].feed(piece.token_ids, events)
                    if piece.finish_reason == "stop" and parsers[index].has_called:
                        piece = piece._replace(finish_reason="tool_calls")
                    yield Gained(index, events, piece, output, counts[index].count)
