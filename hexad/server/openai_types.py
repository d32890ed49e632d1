"""What OpenAI's dialect may ask for, with the parameters that vLLM's users add to it.

Checked strictly: no coercion between types, no unknown name. A parameter that exists in the
dialect and not in Hexad is refused by name; one that by definition changes no answer is
accepted. This module knows no engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hexad.types import MAX_LOGPROBS, MAX_N

MAX_PROMPTS = 1024
"""In one completions request."""

Prompts = list[str | list[int]]


def _prompts(value: Any) -> Prompts:
    """A text, texts, token ids, or lists of token ids -> a list of prompts."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        if len(value) > MAX_PROMPTS:
            raise PydanticCustomError("prompts", f"at most {MAX_PROMPTS} prompts")
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, list) and all(type(token) is int for token in item) for item in value):
            return value
    raise PydanticCustomError("prompts", "a string, a list of strings, a list of token ids, or a list of such lists")


def _token_key(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value


def _refused(param: str, why: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{param} {why}", {"param": param, "why": why})


class _FailFast(FailFast):
    """Report the first bad item only: a list may hold millions. (Hashable, so that it fits into a union.)"""

    __hash__ = object.__hash__


FIRST = _FailFast()

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], FIRST]
Texts = Annotated[list[str], FIRST]
LogitBias = dict[Annotated[int, BeforeValidator(_token_key, json_schema_input_type=str)], float]
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ToolMode = Literal["none", "auto", "required"]


class Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Wire):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TextPart(Wire):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None  # changes no answer
    # OpenAI's SDK for agents says here, too, what the message says beside its content.
    role: Literal["assistant"] | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class FunctionCall(Wire):
    name: str
    arguments: str | dict[str, Any]
    parsed_arguments: Any = None


class ToolCall(Wire):
    index: int | None = None
    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Wire):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], FIRST] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], FIRST] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    parsed: Any = None  # like `parsed_arguments` and `index` what clients' helpers add of their own: nothing new
    # What the official client sends back of an answer that had none of them.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise PydanticCustomError("content", "a message with content")
        return self


class Function(Wire):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Wire):
    type: Literal["function"]
    function: Function


class Conversation(Wire):
    """What a chat template is given."""

    model: str | None = None
    messages: Annotated[list[Message], FIRST, Field(min_length=1)]
    tools: Annotated[list[FunctionTool], FIRST] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False

    @model_validator(mode="after")
    def _consistent_conversation(self) -> Conversation:
        if self.continue_final_message and self.add_generation_prompt:
            raise _refused("continue_final_message", "needs add_generation_prompt to be false")
        return self


class Sampling(Wire):
    """How tokens are chosen, and when; the fields that `hexad.types.SamplingParams` has mean the same."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: LogitBias | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: Texts | None = None
    seed: int | None = None
    stop: str | Texts | None = None
    stop_token_ids: TokenIds | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    skip_special_tokens: bool | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[str, Field(max_length=256)] = ""


class Generation(Sampling):
    """How much of it is wanted, in which shape, and how it is sent."""

    model: str | None = None
    n: int | None = None
    max_tokens: int | None = None
    prompt_logprobs: int | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Texts | None = None
    guided_grammar: str | None = None
    structural_tag: dict[str, Any] | str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    echo: bool | None = None

    # These change no answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Generation:
        if self.stream_options is not None and not self.stream:
            raise _refused("stream_options", "needs stream to be true")
        return self

    @property
    def usage_last(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def usage_always(self) -> bool:
        return self.usage_last and self.stream_options is not None and bool(self.stream_options.continuous_usage_stats)


class CompletionRequest(Generation):
    prompt: Annotated[Prompts, PlainValidator(_prompts, json_schema_input_type=str | Texts | TokenIds | list[TokenIds])]
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    add_special_tokens: bool = True
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        n = self.n or 1
        if self.best_of is not None and self.best_of < n:
            raise _refused("best_of", f"is {self.best_of}, below n, which is {n}; raise it")
        if self.best_of is not None and self.best_of > n and self.stream:
            raise _refused("best_of", f"is {self.best_of}, above n: the best is known at the end; leave stream out")
        if self.suffix is not None and (self.echo or len(self.prompt) > 1 or not isinstance(self.prompt[0], str)):
            raise _refused("suffix", "needs one prompt that is a text, and no echo")
        return self


class Named(Wire):
    name: str


class NamedTool(Wire):
    type: Literal["function"]
    function: Named


class AllowedTools(Wire):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], FIRST, Field(min_length=1)]


class AllowedToolsChoice(Wire):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class NamedSchema(Wire):
    name: Annotated[str, Field(max_length=256)]
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Wire):
    type: Literal["text"]


class JsonObjectFormat(Wire):
    type: Literal["json_object"]


PlainFormat = TextFormat | JsonObjectFormat


class JsonSchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class ReasoningOptions(Wire):
    """As OpenRouter's users write it."""

    effort: Effort | None = None
    max_tokens: int | None = None
    enabled: bool | None = None


class ChatRequest(Conversation, Generation):
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    tool_choice: ToolMode | Annotated[NamedTool | AllowedToolsChoice, Field(discriminator="type")] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Annotated[PlainFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    reasoning_effort: Effort | None = None
    reasoning: ReasoningOptions | None = None
    enable_thinking: bool | None = None
    thinking_budget: int | None = None

    audio: None = None
    function_call: None = None
    functions: None = None
    moderation: None = None
    prediction: None = None
    web_search_options: None = None

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise _refused("top_logprobs", "needs logprobs to be true")
        if self.reasoning is not None and any(
            value is not None for value in (self.reasoning_effort, self.enable_thinking, self.thinking_budget)
        ):
            raise _refused("reasoning", "says what reasoning_effort, enable_thinking and thinking_budget say; give one")
        old, new = self.max_tokens, self.max_completion_tokens
        if old is not None and new is not None and old != new:
            raise _refused("max_tokens", f"is {old} and max_completion_tokens {new}; give one of them")
        return self


class TokenizeRequest(Wire):
    model: str | None = None
    prompt: str
    add_special_tokens: bool = True
    return_token_strs: bool = False


class TokenizeChatRequest(Conversation):
    return_token_strs: bool = False


class DetokenizeRequest(Wire):
    model: str | None = None
    tokens: TokenIds
