"""What Anthropic's dialect may ask for, as version 2 of its Python client declares it (`anthropic.types`).

Checked strictly: whatever is not here is refused by its name, be it a parameter, a kind of block or a tool that
only Anthropic's own servers have. This module knows no engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hexad.server.openai_types import FIRST, FunctionName, Wire

NoEffect = dict[str, Any] | None
"""Changes no answer: every prefix is cached here, and who asks or calls makes no difference."""


class TextBlock(Wire):
    type: Literal["text"]
    text: str
    cache_control: NoEffect = None
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


class ToolUseBlock(Wire):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: NoEffect = None
    caller: NoEffect = None


class ThinkingBlock(Wire):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


Texts = str | Annotated[list[TextBlock], FIRST]


class ToolResultBlock(Wire):
    type: Literal["tool_result"]
    tool_use_id: str
    content: Texts = ""
    is_error: bool = False
    cache_control: NoEffect = None


TAGGED = Field(discriminator="type")
Answered = Annotated[TextBlock | ToolUseBlock | ThinkingBlock, TAGGED]
Said = Annotated[TextBlock | ToolResultBlock, TAGGED]
Block = TextBlock | ToolUseBlock | ThinkingBlock | ToolResultBlock


class SystemMessage(Wire):
    role: Literal["system"]
    content: str | Annotated[list[TextBlock], FIRST, Field(min_length=1)]


class UserMessage(Wire):
    role: Literal["user"]
    content: str | Annotated[list[Said], FIRST, Field(min_length=1)]


class AssistantMessage(Wire):
    role: Literal["assistant"]
    content: str | Annotated[list[Answered], FIRST]


Message = SystemMessage | UserMessage | AssistantMessage


class CustomTool(Wire):
    type: Literal["custom"] | None = None
    name: FunctionName
    description: str = ""
    input_schema: dict[str, Any]
    strict: bool = False
    cache_control: NoEffect = None
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Literal[False] = False
    eager_input_streaming: bool | None = None  # nothing new: inputs are sent as they are written


class AnyChoice(Wire):
    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool = False


class NamedChoice(Wire):
    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False


class Thinking(Wire):
    type: Literal["adaptive", "disabled"]
    display: Literal["summarized", "omitted"] | None = None


class BudgetedThinking(Wire):
    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(Wire):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Wire):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class KeepThinking(Wire):
    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"]


class ContextManagement(Wire):
    edits: Annotated[list[KeepThinking], FIRST] = []


class CountTokensRequest(Wire):
    """What a prompt is made of."""

    model: str
    messages: Annotated[list[Annotated[Message, Field(discriminator="role")]], FIRST, Field(min_length=1)]
    system: Texts = ""
    tools: Annotated[list[CustomTool], FIRST] = []
    tool_choice: Annotated[AnyChoice | NamedChoice, TAGGED] = AnyChoice(type="auto")
    thinking: Annotated[Thinking | BudgetedThinking, TAGGED] = Thinking(type="adaptive")
    output_config: OutputConfig = OutputConfig()
    output_format: JsonFormat | None = None  # the older name of output_config.format
    cache_control: NoEffect = None
    context_management: ContextManagement | None = None
    speed: Literal["standard"] | None = None


class MessagesRequest(CountTokensRequest):
    max_tokens: int
    stop_sequences: Annotated[list[Annotated[str, Field(min_length=1)]], FIRST] = []
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool = False
    metadata: NoEffect = None
    service_tier: Literal["auto", "standard_only"] | None = None
