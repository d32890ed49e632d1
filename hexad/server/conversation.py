"""From the messages of a request to what a chat template is given."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hexad.errors import BadRequest
from hexad.server.generation import Service
from hexad.server.openai_types import Conversation, Message, ToolCall


async def conversation_tokens(service: Service, body: Conversation, *, with_tools: bool = True) -> list[int]:
    """Render and tokenize. Raises BadRequest when the model has no template, or its template refuses."""
    options: dict[str, Any] = {
        "tools": body.tools if with_tools else None,
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
    }
    extra = body.chat_template_kwargs or {}
    if taken := next((name for name in extra if name in options or name == "messages"), None):
        param = f"chat_template_kwargs.{taken}"
        raise BadRequest(f"{param} is a parameter of its own; give {taken} beside messages", param=param)
    messages = [_message(i, message) for i, message in enumerate(body.messages)]
    # A template is slow on purpose-built input: what it costs is bounded, and not paid by other requests.
    text = await asyncio.to_thread(service.engine.frontend.render, messages, **options, **extra)
    return await service.encode(text, body.add_special_tokens)


def text_of(message: Message) -> str:
    """Parts are joined by newlines, as vLLM does."""
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content)
    return message.content or ""


def _message(index: int, message: Message) -> dict[str, Any]:
    # Templates know no developer; OpenAI defines it as what system was.
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": text_of(message)}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            plain[name] = value
    if message.tool_calls:
        where = f"messages.{index}.tool_calls"
        plain["tool_calls"] = [_tool_call(f"{where}.{j}", call) for j, call in enumerate(message.tool_calls)]
    return plain


def _tool_call(where: str, call: ToolCall) -> dict[str, Any]:
    """Templates want arguments as an object; OpenAI sends them as a string of JSON."""
    arguments: Any = call.function.arguments
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments else {}
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            param = f"{where}.function.arguments"
            raise BadRequest(f"{param} must be a JSON object written as a string", param=param)
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
