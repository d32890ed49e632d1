"""Items of the responses API, as they are stored, and as chat templates read them: messages."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from hexad.errors import BadRequest, NotFound
from hexad.server import responses_types as wire
from hexad.server.conversation import arguments_of

_PREFIX = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}


def new_id(kind: str, own: str = "") -> str:
    return _PREFIX[kind] + (own or uuid.uuid4().hex)


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def stored_item(item: wire.Item, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A whole item with an id, in the words of OpenAI's description; those that are referred to are `known`.

    Raises BadRequest.
    """
    if isinstance(item, wire.ItemReference):
        if item.id not in known:
            raise NotFound(f"the item {item.id!r} is not of a stored response; send the item itself", param="input")
        return known[item.id]
    whole: dict[str, Any] = {"type": item.type, "id": item.id or new_id(item.type), "status": "completed"}
    if isinstance(item, wire.InputMessage):
        if item.role == "assistant":
            content = [text_part(text) for text in _texts(item.content)]
        else:
            content = [{"type": "input_text", "text": text} for text in _texts(item.content)]
        return whole | {"role": item.role, "content": content}
    if isinstance(item, wire.ReasoningItem):
        hidden = item.encrypted_content or wire.OPEN
        if not item.content and not hidden.startswith(wire.OPEN):
            raise BadRequest(
                "encrypted_content was not made here and cannot be read; leave the item out", param="input"
            )
        texts = [part.text for part in item.content or ()] or [hidden.removeprefix(wire.OPEN)]
        content = [{"type": "reasoning_text", "text": text} for text in texts if text]
        return whole | {"summary": [], "content": content}
    if isinstance(item, wire.FunctionCallItem):
        return whole | item.model_dump(include={"call_id", "name", "namespace", "arguments"}, exclude_none=True)
    return whole | {"call_id": item.call_id, "output": "\n".join(_texts(item.output))}


def _texts(content: str | list[wire.InputText]) -> list[str]:
    return [content] if isinstance(content, str) else [part.text for part in content]


def messages_of(items: list[dict[str, Any]], instructions: str | None = None) -> list[dict[str, Any]]:
    """What the assistant says and calls in a row is one message; so is what the system says: templates may read one.

    Raises BadRequest for a call whose arguments are no JSON object.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions is not None else []
    names: dict[str, str] = {}
    for index, item in enumerate(items):
        last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
        text = "\n".join(part["text"] for part in item.get("content") or ())
        match item["type"]:
            case "message" if item["role"] == "assistant" and last and not (last["content"] or "tool_calls" in last):
                last["content"] = text
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]
                if role == "system" and messages and messages[-1]["role"] == role:
                    text = messages.pop()["content"] + "\n" + text
                messages.append({"role": role, "content": text})
            case "reasoning":
                messages.append({"role": "assistant", "content": "", "reasoning_content": text})
            case "function_call":
                if last is None:
                    messages.append(last := {"role": "assistant", "content": ""})
                names[item["call_id"]] = name = wire.full_name(item["name"], item.get("namespace"))
                arguments = arguments_of(item["arguments"], f"input.{index}.arguments")
                function = {"name": name, "arguments": arguments}
                call = {"id": item["call_id"], "type": "function", "function": function}
                last.setdefault("tool_calls", []).append(call)
            case "function_call_output":
                answered = {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
                named = {"name": names[item["call_id"]]} if item["call_id"] in names else {}
                messages.append(answered | named)
    return messages
