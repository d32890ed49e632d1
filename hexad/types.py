"""The words that every room shares: what is asked, and what comes back.

All of them are msgspec structs, so they cross the process border as they are and are
checked when they are decoded. This module knows no arrays, no text processing and no
transport.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from hexad import errors
from hexad.errors import BadRequest

FinishReason = Literal["stop", "length", "abort", "error"]

MAX_N = 128
MAX_LOGPROBS = 64
MAX_STOP_STRINGS = 64
MAX_BAD_WORDS = 1024
MAX_WORD_CHARS = 16384
"""Of all stop strings together, and of all bad words: each answer keeps what it needs to find them."""


def _in_range(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    # Compared, never converted: NaN is in no range, and an integer of a thousand digits has no float.
    if not low <= value <= high or (open_low and value == low):
        bracket = "(" if open_low else "["
        raise BadRequest(f"{name} is {value}; it must be in {bracket}{low}, {high}]", param=name)


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer must look like: exactly one of the fields is given. Names and meaning are vLLM's.

    Raises BadRequest where none or several are given. Whether the grammar itself can be
    served is checked when the request is accepted.
    """

    json: dict[str, Any] | str | bool | None = None
    """A JSON schema, draft 2020-12; a text is parsed."""
    regex: str | None = None
    """Of the whole answer, in the syntax of Rust's regex crate."""
    choice: list[str] | None = None
    grammar: str | None = None
    """Lark, as llguidance reads it, or llama.cpp's GBNF."""
    json_object: bool = False
    """Any JSON object."""
    structural_tag: dict[str, Any] | str | None = None
    """Free text in which a trigger begins a structured section; xgrammar's format."""

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        given = [name for name, value in values.items() if value is not None and (value is not False or name == "json")]
        if len(given) != 1:
            raise BadRequest(
                f"structured_outputs has {' and '.join(given) or 'nothing'}; give exactly one of "
                f"{', '.join(self.__struct_fields__)}",
                param="structured_outputs",
            )


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the tokens of one request are chosen. Names and meaning are vLLM's.

    Raises BadRequest, naming the field and its limits, for any value out of range.
    """

    n: int = 1
    """Answers per prompt. Choice j draws its noise from `seed + j`."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """Keep the k most likely tokens; 0 or -1 keeps all."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    seed: int | None = None
    """None: drawn once when the request is accepted, so that a replay repeats it."""
    stop: list[str] = []
    stop_token_ids: list[int] = []
    include_stop_str_in_output: bool = False
    min_tokens: int = 0
    max_tokens: int | None = 16
    """None: as many as the context holds."""
    ignore_eos: bool = False
    logprobs: int | None = None
    """Log-probabilities (of the unprocessed logits) of the token and of the top N."""
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    thinking_budget: int | None = None
    """Most tokens inside the reasoning section of a model that has one. Then the marker that ends it is forced."""
    structured_outputs: StructuredOutputs | None = None
    """What the answer must look like."""

    def __post_init__(self) -> None:
        _in_range("n", self.n, 1, MAX_N)
        _in_range("temperature", self.temperature, 0.0, 100.0)
        _in_range("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _in_range("top_k", self.top_k, -1, 2**31 - 1)
        _in_range("min_p", self.min_p, 0.0, 1.0)
        _in_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _in_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _in_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _in_range("min_tokens", self.min_tokens, 0, 2**31 - 1)
        for name, low, high in (
            ("seed", -(2**63), 2**63 - 1),
            ("max_tokens", 1, 2**31 - 1),
            ("thinking_budget", 0, 2**31 - 1),
            ("logprobs", 0, MAX_LOGPROBS),
            ("prompt_logprobs", 0, MAX_LOGPROBS),
        ):
            if (value := getattr(self, name)) is not None:
                _in_range(name, value, low, high)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise BadRequest(
                f"min_tokens is {self.min_tokens}, above max_tokens {self.max_tokens}; lower min_tokens",
                param="min_tokens",
            )
        self._check_collections()

    def _check_collections(self) -> None:
        for token, bias in (self.logit_bias or {}).items():
            _in_range(f"logit_bias[{token}]", bias, -100.0, 100.0)
        if self.allowed_token_ids is not None and not self.allowed_token_ids:
            raise BadRequest("allowed_token_ids is empty; name at least one token", param="allowed_token_ids")
        if isinstance(self.stop, str):
            raise BadRequest("stop is a string; give a list of strings", param="stop")
        _in_range("number of stop strings", len(self.stop), 0, MAX_STOP_STRINGS)
        _in_range("number of bad_words", len(self.bad_words or ()), 0, MAX_BAD_WORDS)
        for name, words in (("stop", self.stop), ("bad_words", self.bad_words or ())):
            if not all(words):
                raise BadRequest(f"{name} holds an empty string; remove it", param=name)
            if (size := sum(map(len, words))) > MAX_WORD_CHARS:
                raise BadRequest(f"{name} holds {size} characters; at most {MAX_WORD_CHARS} are allowed", param=name)


class Request(msgspec.Struct, kw_only=True):
    """A request as the engine sees it: tokens in, tokens out.

    `params.seed` and `params.max_tokens` are set. `generated` holds tokens that choice
    `choice` has already emitted: a stream that goes on after its engine died starts there.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    eos_token_ids: list[int] = []
    bad_words_token_ids: list[list[int]] = []
    reasoning_start: list[int] = []
    """With a thinking budget: the tokens that begin the reasoning. Empty: the prompt has begun it."""
    reasoning_end: list[int] = []
    """With a thinking budget: the tokens that end the reasoning."""
    grammar: str = ""
    """What the answer must look like, in llguidance's own notation; checked. Empty: anything."""
    priority: int = 0
    """Lower runs earlier."""
    cache_salt: str = ""
    """Only requests with the same salt share cached pages."""
    client: str = ""
    """Who asks: those who wait are served in fair shares, a share a client."""
    choice: int = 0
    """Index of the first of this request's `params.n` choices."""
    generated: list[int] = []


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log-probabilities at one position: the token itself first, then the top N, best first."""

    token_ids: list[int]
    logprobs: list[float]
    rank: int
    """1 + the number of tokens that are more likely than the token itself."""


class Failure(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An error of `hexad.errors` as a value, which can cross a process border; alone, why an engine cannot start."""

    message: str
    kind: str = "RequestFailed"
    """The name of its class."""
    param: str | None = None
    code: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """A defect of ours is RequestFailed, which names it."""
        if isinstance(error, errors.HexadError) and not isinstance(error, errors.KernelError):
            return cls(str(error), type(error).__name__, error.param, error.code)
        return cls(f"{type(error).__name__}: {error}")

    def error(self, where: str = "") -> errors.HexadError:
        """To raise; `where` stands before its message."""
        kind: type[errors.HexadError] = getattr(errors, self.kind)
        return kind(where + self.message, param=self.param, code=self.code)


class SequenceOutput(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one choice of one request gained in one step. At most one output carries a `finish_reason`."""

    request_id: str
    choice: int
    token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None
    """One entry a token of `token_ids`, when asked for."""
    prompt_logprobs: list[TokenLogprobs] | None = None
    """For the prompt positions computed in this step, when asked for: positions
    `prompt_logprobs_start`, `prompt_logprobs_start` + 1, ... A replay sends the same again."""
    prompt_logprobs_start: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens whose KV came from the cache."""
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    """The stop token that ended it, if it was not an end-of-sequence token."""
    error: Failure | None = None
    """The cause, with finish_reason "error"."""


class EngineStats(msgspec.Struct, kw_only=True):
    """The engine's gauges and counters after a step. Counters grow for as long as its process lives."""

    num_running: int = 0
    num_waiting: int = 0
    num_pages: int = 0
    num_free_pages: int = 0
    """Pages that hold nothing that is running: free, or cached and evictable."""
    num_steps: int = 0
    num_preemptions: int = 0
    num_restarts: int = 0
    """Of the engine process; its supervisor counts them."""
    num_computed_tokens: int = 0
    prefix_cache_queries: int = 0
    """Prompt tokens looked up."""
    prefix_cache_hits: int = 0
    """Prompt tokens found."""


class Logprob(msgspec.Struct):
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


class CompletionOutput(msgspec.Struct, kw_only=True):
    """One answer. In a stream it holds all that was generated so far."""

    index: int
    text: str = ""
    token_ids: list[int] = []
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class RequestOutput(msgspec.Struct, kw_only=True):
    """All answers to one prompt. `prompt_logprobs[0]` is None: nothing precedes the first token."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0
    queue_s: float | None = None
    """Seconds from its arrival until it left the queue."""
    finished: bool = False
