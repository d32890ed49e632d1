"""A stream of each dialect, read by its own client, as pieces of text: put together they are all that was answered.

How the pieces are cut is left to the server; what they add up to is not. Ids and times are not in them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any

import ollama
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

MODEL = "tiny-chat"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "greet", "parameters": SCHEMA}}

Pieces = AsyncGenerator[str, None]


@dataclass(frozen=True, slots=True)
class Clients:
    openai: AsyncOpenAI
    anthropic: AsyncAnthropic
    ollama: ollama.AsyncClient

    @classmethod
    def of(cls, url: str, key: str) -> Clients:
        """Nothing is tried twice."""
        common: Any = {"api_key": key, "max_retries": 0, "timeout": 120}
        bearer = {"Authorization": f"Bearer {key}"}
        return cls(
            AsyncOpenAI(base_url=f"{url}/v1", **common),
            AsyncAnthropic(base_url=url, **common),
            ollama.AsyncClient(host=url, headers=bearer, timeout=120),
        )

    async def close(self) -> None:
        await self.openai.close()
        await self.anthropic.close()
        await self.ollama.close()


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    max_tokens: int
    temperature: float
    seed: int


async def chat(clients: Clients, asked: Question, **more: Any) -> Pieces:
    """OpenAI's chat. The last pieces: why it ended, how many tokens it has."""
    stream = await clients.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": asked.text}],
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        stream=True,
        stream_options={"include_usage": True},
        **more,
    )
    async with stream:
        async for chunk in stream:
            for choice in chunk.choices:
                yield choice.delta.content or ""
                for call in choice.delta.tool_calls or ():
                    assert call.function is not None
                    yield (call.function.name or "") + (call.function.arguments or "")
                yield choice.finish_reason or ""
            if chunk.usage is not None:
                yield str(chunk.usage.completion_tokens)


async def chat_of_a_form(clients: Clients, asked: Question) -> Pieces:
    async for piece in chat(clients, asked, response_format=FORM):
        yield piece


async def chat_with_a_tool(clients: Clients, asked: Question) -> Pieces:
    async for piece in chat(clients, asked, tools=[TOOL], tool_choice="required"):
        yield piece


async def chat_ending_with_length(clients: Clients, asked: Question) -> Pieces:
    async for piece in chat(clients, asked, extra_body={"ignore_eos": True}):
        yield piece


async def completion(clients: Clients, asked: Question) -> Pieces:
    """Two answers, which grow side by side: each is put together by itself."""
    stream = await clients.openai.completions.create(
        model=MODEL,
        prompt=asked.text,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        n=2,
        logprobs=1,
        stream=True,
    )
    texts, tokens = ["", ""], ["", ""]
    async with stream:
        async for chunk in stream:
            (choice,) = chunk.choices
            shown = None if choice.logprobs is None else (choice.logprobs.tokens, choice.logprobs.token_logprobs)
            assert shown is not None
            texts[choice.index] += choice.text + (choice.finish_reason or "")
            tokens[choice.index] += "".join(map(str, zip(*shown, strict=True)))
            yield ""
    yield "".join(texts + tokens)


async def response(clients: Clients, asked: Question) -> Pieces:
    """OpenAI's newer dialect; like Anthropic's it has no seed, so it is asked for the likeliest answer."""
    stream = await clients.openai.responses.create(
        model=MODEL,
        input=asked.text,
        max_output_tokens=asked.max_tokens,
        temperature=0,
        stream=True,
    )
    async with stream:
        async for event in stream:
            match event.type:
                case "response.output_text.delta":
                    yield event.delta
                case "response.completed" | "response.incomplete":
                    assert event.response.usage is not None
                    yield f"{event.response.status}{event.response.usage.output_tokens}"
                case "response.failed":
                    raise AssertionError(event.response.error)


async def message(clients: Clients, asked: Question) -> Pieces:
    """Anthropic's: the tool must be called, or may be."""
    stream = await clients.anthropic.messages.create(
        model=MODEL,
        messages=[{"role": "user", "content": asked.text}],
        max_tokens=asked.max_tokens,
        extra_body={"temperature": 0},
        stream=True,
        tools=[{"name": "greet", "input_schema": SCHEMA}],
        tool_choice={"type": "any"} if asked.temperature else {"type": "auto"},
    )
    async with stream:
        async for event in stream:
            match event.type:
                case "content_block_start":
                    yield getattr(event.content_block, "name", "")
                case "content_block_delta":
                    yield getattr(event.delta, "text", "") + getattr(event.delta, "partial_json", "")
                case "message_delta":
                    yield f"{event.delta.stop_reason}{event.usage.output_tokens}"


async def ollama_chat(clients: Clients, asked: Question) -> Pieces:
    options = {"seed": asked.seed, "num_predict": asked.max_tokens, "temperature": asked.temperature}
    messages = [{"role": "user", "content": asked.text}]
    form = SCHEMA if asked.seed % 2 else None
    async for part in await clients.ollama.chat(MODEL, messages, stream=True, options=options, format=form):
        yield part.message.content or ""
        yield json.dumps([part.done_reason, part.eval_count]) if part.done else ""


Dialect = Callable[[Clients, Question], Pieces]
DIALECTS: tuple[Dialect, ...] = (
    chat,
    chat_of_a_form,
    chat_with_a_tool,
    chat_ending_with_length,
    completion,
    response,
    message,
    ollama_chat,
)
