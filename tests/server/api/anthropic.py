"""Anthropic's dialect."""

from __future__ import annotations

from typing import Any

from anthropic.types import message_count_tokens_params, message_create_params
from anthropic.types.beta import message_create_params as beta

from hexad.server.anthropic_types import CountTokensRequest, MessagesRequest
from tests.server.api import Endpoint, Parameter, rows

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FORM = {"type": "json_schema", "schema": SCHEMA}
TOOL = {"name": "add", "input_schema": SCHEMA}
USUAL = {"type": None, "allowed_callers": ["direct"], "defer_loading": False, "eager_input_streaming": None}
CACHED = {"type": "ephemeral", "ttl": "1h"}
TEXT = {"type": "text", "text": "hi", "cache_control": CACHED, "citations": []}
CALLS = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 1}}]}
KEPT = {"type": "clear_thinking_20251015", "keep": "all"}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [TEXT], "is_error": True}
THOUGHT = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, TEXT]}
SAYS = {"role": "user", "content": "hi"}


def _with(block: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [block]}]


PROMPT = (
    Parameter(
        name="messages",
        note="roles `user`, `assistant`, `system`; blocks `text`, `tool_use`, `tool_result`, `thinking`; others "
        "(`image`, `document`, `redacted_thinking`, ...) are refused. Messages of one role in a row are one; a last "
        "message of the assistant is gone on with; texts are joined by newlines; a failed result begins with "
        "`Error: `. A `system` behind the first message is refused where the model's template refuses it or drops it",
        accepted=([SAYS, SAYS], _with(TEXT), [SAYS, THOUGHT, SAYS], [SAYS, CALLS, *_with(RESULT)],
                  [SAYS, {"role": "assistant", "content": "He"}]),
        refused=([], _with({"type": "image"}), _with({"type": "document"}), _with({"type": "redacted_thinking"}),
                 [SAYS, CALLS], _with(RESULT)),
    ),
    Parameter(name="model", refused=(None, "claude-9"), accepted=("tiny-chat",)),
    Parameter(name="system", accepted=("Be kind.", [TEXT, TEXT]), refused=([{"type": "image"}], 5)),
    Parameter(
        name="tools", note="custom tools; those of Anthropic's servers are refused",
        accepted=([], [TOOL], [TOOL | {"type": "custom", "strict": True, "cache_control": CACHED}], [TOOL | USUAL]),
        refused=([{"type": "web_search_20250305", "name": "x"}], [TOOL | {"defer_loading": True}],
                 [TOOL | {"allowed_callers": ["code_execution_20260120"]}], [TOOL | {"input_examples": [{"a": 1}]}]),
    ),
    Parameter(
        name="tool_choice", beside={"tools": [TOOL]}, note="`disable_parallel_tool_use` too",
        accepted=({"type": "auto"}, {"type": "none"}, {"type": "any", "disable_parallel_tool_use": True},
                  {"type": "tool", "name": "add"}),
        refused=({"type": "tool", "name": "other"}, {"type": "tool"}, {"type": "some"}),
    ),
    Parameter(
        name="thinking", server="thinking_server", beside={"model": "tiny-thinker"},
        note="`enabled` with any `budget_tokens`, `disabled`, `adaptive` (the default: as the model's template does by "
        "itself); `display` `omitted` leaves the text out. Refused where there is no reasoning. A `signature` is empty",
        accepted=({"type": "adaptive"}, {"type": "disabled"}, {"type": "enabled", "budget_tokens": 2},
                  {"type": "enabled", "budget_tokens": 2, "display": "omitted"}),
        refused=({"type": "between_tools"}, {"type": "enabled"}),
    ),
    Parameter(name="output_config.format", accepted=(FORM,), refused=({"type": "text"}, FORM | {"schema": False})),
    Parameter(
        name="output_config.effort", server="thinking_server", beside={"model": "tiny-thinker"},
        note="as OpenAI's `reasoning_effort`; no effect on a model that does not reason",
        accepted=("low", "medium", "high", "xhigh", "max"), refused=("none",),
    ),
    Parameter(name="output_format", note="the older name of `output_config.format`", accepted=(FORM,), refused=({},)),
    Parameter(
        name="context_management", fate="no effect", accepted=({"edits": [KEPT]}, {}),
        refused=({"edits": [KEPT | {"keep": {"type": "thinking_turns", "value": 1}}]},
                 {"edits": [{"type": "clear_tool_uses_20250919"}]}),
        note="only to keep all thinking, as happens by itself; nothing is cleared",
    ),
    Parameter(name="cache_control", fate="no effect", accepted=(CACHED,), note="every prefix is cached"),
    Parameter(name="speed", fate="no effect", accepted=("standard",), refused=("fast",), note="only `standard`"),
    *rows("refused", "user_profile_id", "workspace_id", refused="x"),
)  # fmt: skip

MESSAGES = Endpoint(
    dialect="Anthropic",
    method="POST",
    path="/v1/messages",
    what="Whole or streamed. The header `anthropic-version` is not needed, `anthropic-beta` changes nothing. An answer "
    "that the context has no room for ends with `model_context_window_exceeded`.",
    base={"model": "tiny-chat", "messages": [SAYS], "max_tokens": 3},
    fields=frozenset(MessagesRequest.model_fields),
    documented=frozenset(message_create_params.MessageCreateParamsBase.__annotations__)
    | frozenset(beta.MessageCreateParamsBase.__annotations__) - {"betas"},
    parameters=(
        *PROMPT,
        Parameter(name="max_tokens", accepted=(1, 100_000), refused=(0, None), note="required"),
        Parameter(name="stop_sequences", accepted=(["x", "yy"],), refused=([""], "x"), note="up to 64"),
        Parameter(name="temperature", accepted=(0, 1, 2), refused=(-1,), note="0 to 100, like the three below the "
                  "model's own where it is left out"),
        Parameter(name="top_p", accepted=(0.5,), refused=(0,)),
        Parameter(name="top_k", accepted=(5,), refused=(-2,)),
        Parameter(name="stream", accepted=(True, False), refused=("yes",)),
        Parameter(name="metadata", fate="no effect", accepted=({"user_id": "x"},)),
        Parameter(name="service_tier", fate="no effect", accepted=("auto", "standard_only")),
        *rows("refused", "container", "inference_geo", refused="x"),
        *rows("refused", "diagnostics", "billing_policy", "compaction", "thread", refused={}),
        *rows("refused", "fallback_credit_token", "fallbacks", "mcp_servers", refused=[]),
    ),
)  # fmt: skip

COUNT = Endpoint(
    dialect="Anthropic",
    method="POST",
    path="/v1/messages/count_tokens",
    what="Exactly what `usage` would say: `input_tokens` and `cache_read_input_tokens` together.",
    base={"model": "tiny-chat", "messages": [SAYS]},
    fields=frozenset(CountTokensRequest.model_fields),
    documented=frozenset(message_count_tokens_params.MessageCountTokensParams.__annotations__),
    parameters=PROMPT,
)

ENDPOINTS = (MESSAGES, COUNT)
