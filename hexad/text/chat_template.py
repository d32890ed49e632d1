"""Messages to prompt text by a model's chat template, as transformers' `apply_chat_template` renders it.

Rules: transformers, `utils/chat_template_utils.py`. This module does not know tokens or
the wire formats that messages come in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2

from hexad.errors import BadRequest, CheckpointError
from hexad.json_file import read_json_object
from hexad.text.template_sandbox import MAX_SOURCE_CHARS, LimitedEnvironment, compile_template

MAX_DEPTH = 100
"""Of lists and objects inside each other."""

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class ChatTemplate:
    """One template, or several by name (`default`, `tool_use`). Threads may share it."""

    def __init__(self, sources: str | dict[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """`special_tokens` (bos_token, ...) are variables of the template.

        Raises BadRequest, naming chat_template, for one that does not compile.
        """
        self.sources = {"default": sources} if isinstance(sources, str) else sources
        self._special_tokens = dict(special_tokens or {})
        self._codes = {name: _compile(source) for name, source in self.sources.items()}

    @classmethod
    def load(cls, directory: Path, special_tokens: Mapping[str, str]) -> ChatTemplate | None:
        """From chat_template.jinja and additional_chat_templates/, or else from tokenizer_config.json.

        None if the model has no template. Raises CheckpointError for one that does not compile.
        """
        sources = _read_files(directory) or _read_config(directory / "tokenizer_config.json")
        try:
            return cls(sources, special_tokens) if sources else None
        except BadRequest as error:
            raise CheckpointError(f"{directory}: {error}") from error

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        documents: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        """The prompt. `kwargs` are further variables of the template, such as `enable_thinking`.

        Raises BadRequest, naming messages or chat_template, for messages that the template
        refuses, a template that fails, and one that exceeds the limits of `template_sandbox`.
        """
        if continue_final_message and add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt exclude each other; set one of them to false",
                param="continue_final_message",
            )
        source, code = self._choose(tools)
        chat = _prepare(messages)
        final_text = _tag_final_message(chat, source) if continue_final_message else ""
        variables = self._special_tokens | kwargs
        variables |= {"messages": chat, "add_generation_prompt": add_generation_prompt}
        variables |= {"tools": _plain(tools, "tools"), "documents": _plain(documents, "documents")}
        text = _run(code, variables)
        return _cut_at_tag(text, final_text) if continue_final_message else text

    def _choose(self, tools: list[dict[str, Any]] | None) -> tuple[str, CodeType]:
        name = "tool_use" if tools is not None and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise BadRequest(
                f"the model has the chat templates {', '.join(sorted(self.sources))} and none of them is the default; "
                "send one as chat_template",
                param="chat_template",
            )
        return self.sources[name], self._codes[name]


def _compile(source: str) -> CodeType:
    try:
        return compile_template(source)
    except jinja2.TemplateSyntaxError as error:
        raise BadRequest(f"chat_template, line {error.lineno}: {error.message}", param="chat_template") from error
    except (jinja2.TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise BadRequest(f"chat_template cannot be compiled: {error}", param="chat_template") from error


def _run(code: CodeType, variables: dict[str, Any]) -> str:
    try:
        return LimitedEnvironment().run(code, variables)
    except jinja2.exceptions.SecurityError as error:
        raise BadRequest(f"chat_template was stopped: {error}", param="chat_template") from error
    except jinja2.UndefinedError as error:
        raise BadRequest(f"chat_template uses what the messages do not have: {error}", param="messages") from error
    except jinja2.TemplateError as error:  # raise_exception(...): the author's own words to the user
        raise BadRequest(f"the model's chat template refuses the messages: {error}", param="messages") from error
    except (RecursionError, MemoryError) as error:
        raise BadRequest(f"chat_template was stopped: {type(error).__name__}", param="chat_template") from error
    except Exception as error:  # a template is code from outside: it can raise anything
        raise BadRequest(f"chat_template failed: {type(error).__name__}: {error}", param="chat_template") from error


def _prepare(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A copy, with an assistant's reasoning under the names that templates read."""
    if not isinstance(messages, list):
        raise BadRequest(f"messages is a {type(messages).__name__}; it must be a list of objects", param="messages")
    chat: list[Any] = _plain(messages, "messages")
    for index, message in enumerate(chat):
        if not isinstance(message, dict):
            raise BadRequest(f"messages[{index}] is a {type(message).__name__}; it must be an object", param="messages")
        reasoning = next((message[key] for key in _REASONING_FIELDS if message.get(key) is not None), None)
        if reasoning is not None:
            chat[index] = {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return chat


def _plain(value: Any, param: str, depth: int = 0) -> Any:
    """A copy made of JSON's types only: methods of other objects would be open to the template."""
    if depth > MAX_DEPTH:
        raise BadRequest(f"{param} is nested more than {MAX_DEPTH} levels deep; flatten it", param=param)
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) is dict:
        return {_plain(key, param, depth + 1): _plain(item, param, depth + 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item, param, depth + 1) for item in value]
    raise BadRequest(f"{param} holds a {type(value).__name__}; only JSON's types are allowed", param=param)


def _tag_final_message(chat: list[dict[str, Any]], source: str) -> str:
    """Marks where the text to be continued ends; returns that text."""
    content = chat[-1].get("content") if chat else None
    if content is None or "content" not in source:
        raise BadRequest(
            "continue_final_message is true, and there is no final message with content that the template shows",
            param="continue_final_message",
        )
    if isinstance(content, str):
        chat[-1]["content"] = content + _CONTINUE_TAG
        return content
    for part in reversed(content):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text: str = part["text"]
            part["text"] = text + _CONTINUE_TAG
            return text
    raise BadRequest("continue_final_message is true; the final message has no text", param="continue_final_message")


def _cut_at_tag(text: str, final_text: str) -> str:
    tag = _CONTINUE_TAG.strip()
    if final_text.strip() not in text or tag not in text:
        raise BadRequest(
            "continue_final_message is true, and the chat template does not show the final message as it is",
            param="continue_final_message",
        )
    position = text.rindex(tag)
    return text[:position] if text.startswith(_CONTINUE_TAG, position) else text[:position].rstrip()


def _read_files(directory: Path) -> dict[str, str]:
    paths = {"default": directory / "chat_template.jinja"}
    paths |= {path.stem: path for path in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    return {name: _read(path) for name, path in paths.items() if path.is_file()}


def _read(path: Path) -> str:
    if path.stat().st_size > 4 * MAX_SOURCE_CHARS:
        raise CheckpointError(f"{path} has {path.stat().st_size} bytes; at most {4 * MAX_SOURCE_CHARS} are read")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_config(path: Path) -> dict[str, str]:
    value = read_json_object(path).get("chat_template") if path.is_file() else None
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries = value if isinstance(value, list) else []
    named = {entry["name"]: entry["template"] for entry in entries if isinstance(entry, dict) and len(entry) == 2}
    if not named or not all(isinstance(item, str) for pair in named.items() for item in pair):
        raise CheckpointError(f"{path}: chat_template must be a string, or a list of objects with name and template")
    return named
