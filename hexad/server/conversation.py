"""From the messages of OpenAI's dialect to what a chat template is given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hexad.errors import BadRequest
from hexad.server.generation import Service
from hexad.server.openai_types import Conversation, Function, Message, ToolCall
from hexad.server.turn import Turn, prompt_of
from hexad.text.reply import Tool
from hexad.types import SamplingParams


async def conversation_prompt(service: Service, body: Conversation) -> tuple[str, list[int]]:
    """Its text and its tokens. Raises BadRequest when the model has no template, or its template refuses."""
    return await prompt_of(service, Turn(request_id="", params=SamplingParams(), **conversation(body)))


def conversation(body: Conversation) -> dict[str, Any]:
    """The fields of `Turn` that say what was said."""
    template: dict[str, Any] = {
        "add_generation_prompt": body.add_generation_prompt,
        "continue_final_message": body.continue_final_message,
    }
    extra = body.chat_template_kwargs or {}
    if taken := next((name for name in extra if name in template or name in ("messages", "tools")), None):
        param = f"chat_template_kwargs.{taken}"
        raise BadRequest(f"{param} is a parameter of its own; give {taken} beside messages", param=param)
    return {
        "messages": lambda: [_message(i, message) for i, message in enumerate(body.messages)],
        "tools": tools_of([each.function for each in body.tools or ()]),
        "shown_tools": lambda: [
            each.model_dump(exclude_unset=True, exclude={"function": {"strict"}}) for each in body.tools or ()
        ],
        "template": template | extra,
        "add_special_tokens": body.add_special_tokens,
    }


def text_of(message: Message) -> str:
    """Parts are joined by newlines, as vLLM does."""
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content)
    return message.content or ""


def tools_of(functions: Sequence[Function]) -> list[Tool]:
    return [
        Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
            strict=bool(function.strict),
        )
        for function in functions
    ]


def choice_of(choice: Any) -> dict[str, Any]:
    """The fields of `Turn` for the `tool_choice` of a response, or of a chat, where each is nested once more."""
    if choice is None or isinstance(choice, str):
        return {"tool_choice": choice or "auto"}
    allowed = getattr(choice, "allowed_tools", choice)
    names = [getattr(tool, "function", tool).name for tool in getattr(allowed, "tools", [choice])]
    return {"tool_choice": getattr(allowed, "mode", "required"), "callable": names}


def _message(index: int, message: Message) -> dict[str, Any]:
    # Templates know no developer; OpenAI defines it as what system was.
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": text_of(message)}
    plain |= {name: value for name in ("name", "tool_call_id") if (value := getattr(message, name)) is not None}
    places: list[Any] = [message, *(message.content if isinstance(message.content, list) else ())]
    if reasoning := next((each.reasoning_content for each in places if each.reasoning_content), message.reasoning):
        plain["reasoning_content"] = reasoning
    if message.tool_calls:
        where = f"messages.{index}.tool_calls"
        plain["tool_calls"] = [_tool_call(f"{where}.{j}", call) for j, call in enumerate(message.tool_calls)]
    return plain


def _tool_call(where: str, call: ToolCall) -> dict[str, Any]:
    arguments = arguments_of(call.function.arguments, f"{where}.function.arguments")
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def arguments_of(given: str | dict[str, Any], param: str) -> dict[str, Any]:
    """Templates want arguments as an object; OpenAI sends them as a string of JSON. Raises BadRequest."""
    if isinstance(given, dict):
        return given
    try:
        arguments = json.loads(given) if given else {}
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(f"{param} must be a JSON object written as a string", param=param)
    return arguments
