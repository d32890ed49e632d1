"""What `/v1/responses` may be asked for. This module knows no engine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hexad.server.openai_types import FIRST, Effort, Function, FunctionName, PlainFormat, Sampling, ToolMode, Wire
from hexad.types import MAX_LOGPROBS

Id = Annotated[str, Field(max_length=256)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
Status = Literal["in_progress", "completed", "incomplete"]
LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
OPEN = "plain:"
"""What Hexad's `encrypted_content` begins with: the reasoning itself follows."""


class InputText(Wire):
    type: Literal["input_text", "output_text"]
    text: str
    # What comes back of an answer.
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = None
    prompt_cache_breakpoint: dict[str, Any] | None = None  # changes no answer


class InputMessage(Wire):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[InputText], FIRST]
    id: Id | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCallItem(Wire):
    type: Literal["function_call"]
    call_id: Id
    name: str
    namespace: str | None = None
    arguments: str
    parsed_arguments: Any = None
    caller: None = None
    id: Id | None = None
    status: Status | None = None


class FunctionOutputItem(Wire):
    type: Literal["function_call_output"]
    call_id: Id
    output: str | Annotated[list[InputText], FIRST]
    id: Id | None = None
    status: Status | None = None


class ItemReference(Wire):
    """An item of a stored response."""

    type: Literal["item_reference"]
    id: Id


class ReasoningText(Wire):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Wire):
    type: Literal["reasoning"]
    id: Id | None = None
    summary: Annotated[list[Any], Field(max_length=0)] | None = None
    content: Annotated[list[ReasoningText], FIRST] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


_Item = InputMessage | FunctionCallItem | FunctionOutputItem | ItemReference | ReasoningItem
Item = Annotated[
    Annotated[_Item, Field(discriminator="type")],
    BeforeValidator(lambda item: {"type": "message"} | item if isinstance(item, dict) else item),
]


class ResponseTool(Function):
    type: Literal["function"]
    strict: bool | None = True


class NamespaceTool(Wire):
    type: Literal["namespace"]
    name: FunctionName
    description: str
    tools: Annotated[list[ResponseTool], FIRST, Field(min_length=1)]


def full_name(name: str, namespace: str | None) -> str:
    return f"{namespace}__{name}" if namespace else name


class ToolName(Wire):
    type: Literal["function"]
    name: str


class AllowedResponseTools(Wire):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolName], FIRST, Field(min_length=1)]


class ResponseSchema(Wire):
    type: Literal["json_schema"]
    name: Annotated[str, Field(max_length=256)]
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class TextOptions(Wire):
    format: Annotated[PlainFormat | ResponseSchema, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Wire):
    effort: Effort | None = None
    summary: Literal["auto"] | None = None
    generate_summary: None = None
    mode: None = None
    context: None = None


class ResponseStreamOptions(Wire):
    include_obfuscation: Literal[False] | None = None


class ResponseRequest(Sampling):
    model: str | None = None
    input: str | Annotated[list[Item], FIRST, Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: Id | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: int | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: Annotated[list[Annotated[ResponseTool | NamespaceTool, Field(discriminator="type")]], FIRST] | None = None
    tool_choice: ToolMode | Annotated[ToolName | AllowedResponseTools, Field(discriminator="type")] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["disabled"] | None = None
    # Those that are about the output of tools that Hexad does not have ask for nothing.
    include: (
        list[
            Literal[
                "message.output_text.logprobs",
                "reasoning.encrypted_content",
                "message.input_image.image_url",
                "file_search_call.results",
                "web_search_call.results",
                "web_search_call.action.sources",
                "computer_call_output.output.image_url",
                "code_interpreter_call.outputs",
            ]
        ]
        | None
    ) = None

    background: Literal[False] | None = None
    context_management: None = None
    conversation: None = None
    moderation: None = None
    prompt: None = None

    # These change no answer.
    client_metadata: dict[str, Any] | None = None
    max_tool_calls: int | None = None
    metadata: Metadata | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @property
    def wants_logprobs(self) -> bool:
        return self.top_logprobs is not None or LOGPROBS in (self.include or ())

    @property
    def functions(self) -> list[tuple[ResponseTool, str]]:
        """As the model knows them, each with its namespace."""
        given = self.tools or ()
        found = [(tool, "") for tool in given if isinstance(tool, ResponseTool)]
        for space in (tool for tool in given if isinstance(tool, NamespaceTool)):
            for tool in space.tools:
                told = f"{space.description}\n{tool.description or ''}".strip()
                known = {"name": full_name(tool.name, space.name), "description": told}
                found.append((tool.model_copy(update=known), space.name))
        return found
