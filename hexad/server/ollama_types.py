"""What Ollama's dialect may ask for, as Ollama 0.12.11 reads it (api/types.go, docs/openapi.yaml of its repository).

Checked strictly. What a field asks for and Hexad has not is refused by name, unless the value turns
it off; what only says where or how fast a model runs is accepted. This module knows no engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from hexad.config import parse_seconds
from hexad.errors import ConfigError
from hexad.server.openai_types import FIRST, Function, Texts, Wire


def _seconds(value: Any) -> Any:
    """A number, or a duration as Go writes it (`1h30m`). Below 0: for ever."""
    try:
        return parse_seconds(value) if isinstance(value, str) else value
    except ConfigError:
        raise PydanticCustomError("duration", "a number of seconds, or a duration such as 10m or 1h30m") from None


def _max_tokens(num_predict: int | None) -> int | None:
    """-1: for ever, -2: until the context is full; here both are the latter."""
    if num_predict == 0:
        raise PydanticCustomError("num_predict", "above 0, or -1 for as many as the context holds")
    return num_predict if num_predict not in (-1, -2) else None


def _only(off: Any, why: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if value is not None and value != off:
            raise PydanticCustomError("off", "left out or {off}: {why}", {"off": repr(off).lower(), "why": why})
        return value

    return AfterValidator(check)


MISSING = "Hexad does not have it"
KeepAlive = Annotated[
    Annotated[float, Field(le=10**9)] | None, BeforeValidator(_seconds, json_schema_input_type=float | str | None)
]
Images = Annotated[list[Any] | None, _only([], "the models here read text only")]


class Sampling(Wire):
    """Options that are Hexad's own, by the names of `hexad.types.SamplingParams`."""

    max_tokens: Annotated[int | None, AfterValidator(_max_tokens)] = Field(default=None, alias="num_predict")
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = Field(default=None, alias="repeat_penalty")
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Annotated[int | None, AfterValidator(lambda seed: None if seed == -1 else seed)] = None
    stop: str | Texts | None = None


class Options(Sampling):
    num_ctx: Annotated[int, Field(ge=1)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1)] | None = None
    typical_p: Annotated[float | None, _only(1, MISSING)] = None
    tfs_z: Annotated[float | None, _only(1, MISSING)] = None
    mirostat: Annotated[int | None, _only(0, MISSING)] = None
    penalize_newline: Annotated[bool | None, _only(True, "a newline is a token as others are")] = None
    vocab_only: Annotated[bool | None, _only(False, MISSING)] = None
    embedding_only: Annotated[bool | None, _only(False, MISSING)] = None

    # These change no answer: they tune what is off, or say where and how fast a model runs.
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    num_keep: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None


class Generation(Wire):
    model: Annotated[str, Field(min_length=1)]
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    stream: bool | None = None  # left out: true
    keep_alive: KeepAlive = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    truncate: Annotated[bool | None, _only(False, "nothing is truncated")] = None
    shift: Annotated[bool | None, _only(False, "an answer ends where the context does")] = None


class OllamaCalled(Wire):
    index: int | None = None
    name: str
    arguments: dict[str, Any]


class OllamaToolCall(Wire):
    id: str | None = None
    type: Literal["function"] = "function"
    function: OllamaCalled


class OllamaMessage(Wire):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: Images = Field(default=None, exclude=True)
    tool_calls: Annotated[list[OllamaToolCall], FIRST] | None = None
    name: str | None = Field(default=None, validation_alias=AliasChoices("tool_name", "name"))
    tool_call_id: str | None = None


class OllamaFunction(Function):
    name: Annotated[str, Field(min_length=1)]


class OllamaTool(Wire):
    type: Literal["function"] = "function"
    function: OllamaFunction


class ChatRequest(Generation):
    messages: Annotated[list[OllamaMessage], FIRST] | None = None
    tools: Annotated[list[OllamaTool], FIRST] | None = None


class GenerateRequest(Generation):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    template: Annotated[str | None, _only("", "the model's own is used, or none with raw")] = None
    context: Annotated[list[int] | None, _only([], "send the conversation to /api/chat")] = None
    images: Images = None


class ModelRequest(Wire):
    """About a model, which older clients call `name`. The rest changes nothing here."""

    model: str = ""
    name: str = ""
    stream: bool | None = None
    verbose: bool | None = None
    insecure: bool | None = None
    system: Annotated[str | None, _only("", "it goes with a chat")] = None
    template: Annotated[str | None, _only("", "a model's own is used")] = None
    options: Options | None = None
    username: str | None = None
    password: str | None = None
