"""OpenAI's dialect, with what vLLM's users add to it."""

from __future__ import annotations

from typing import Any

from hexad.server.openai_types import ChatRequest, CompletionRequest
from hexad.server.responses_types import ResponseRequest
from tests.server.api import Endpoint, Parameter, rows
from tests.server.openai_schemas import PARAMETERS

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "other", "description": "Another.", "strict": True}}
NAMED = {"type": "function", "function": {"name": "add"}}
TAG = {"structures": [{"begin": "<a>", "schema": SCHEMA, "end": "</a>"}], "triggers": ["<a>"]}
SAYS = [{"role": "user", "content": "hi"}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
AUDIO = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]
FILE = [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]


def _schema(**more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "pair", "schema": SCHEMA} | more}


EVERYWHERE = (
    Parameter(name="temperature", accepted=(0, 2, 5), refused=(-1, "hot"), note="0 to 100; 0 is greedy"),
    Parameter(name="top_p", accepted=(0.5, 1), refused=(0, 1.5)),
)
OF_CHATS = (
    Parameter(name="presence_penalty", accepted=(-2, 2), refused=(3,)),
    Parameter(name="frequency_penalty", accepted=(-2, 2), refused=(-3,)),
    Parameter(name="logit_bias", accepted=({"5": -100},), refused=({"x": 1}, {"5": 101})),
    Parameter(name="seed", accepted=(7, -1), refused=(2**64,), note="the same seed gives the same answer, always"),
    Parameter(name="stop", accepted=("\n", ["a", "b"]), refused=([""],), note="up to 64 strings"),
)
OF_VLLM = (
    Parameter(name="top_k", accepted=(0, -1, 5), refused=(-2,), note="vLLM's, like all below"),
    Parameter(name="min_p", accepted=(0.1,), refused=(2,)),
    Parameter(name="repetition_penalty", accepted=(1.1,), refused=(0,)),
    Parameter(name="min_tokens", accepted=(1,), refused=(-1,)),
    Parameter(name="stop_token_ids", accepted=([5],), refused=([-1],)),
    *rows("honoured", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", accepted=True, refused=1),
    Parameter(name="allowed_token_ids", accepted=([7, 8],), refused=([],)),
    Parameter(name="bad_words", accepted=(["a"],), refused=([""],)),
    Parameter(name="priority", accepted=(0, 3), refused=(2**31,), note="lower runs earlier"),
    Parameter(name="cache_salt", accepted=("x",), refused=("x" * 257,), note="who shares cached prefixes"),
)
SAMPLING = (
    Parameter(name="model", accepted=(None,), refused=("gpt-9",), note="without it: the first model"),
    Parameter(name="n", accepted=(1, 2), refused=(0, 129)),
    *EVERYWHERE,
    *OF_CHATS,
    Parameter(name="stream", accepted=(False, True), refused=("yes",)),
    Parameter(
        name="stream_options", beside={"stream": True}, note="`include_usage`, `continuous_usage_stats`",
        accepted=({"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}), refused=(5,),
    ),
    Parameter(
        name="stream_options.include_obfuscation", beside={"stream": True}, fate="refused", refused=(True,),
        note="`false` is accepted: nothing is padded",
    ),
    *rows("no effect", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", accepted="x"),
    *rows("no effect", "metadata", "prompt_cache_options", accepted={"ttl": "30m"}),
    Parameter(name="service_tier", fate="no effect", accepted=("auto", "flex"), note="there is one tier, `default`"),
    *OF_VLLM,
    Parameter(name="prompt_logprobs", accepted=(0, 2), refused=(65,)),
    Parameter(name="return_token_ids", accepted=(True,), refused=("yes",)),
    Parameter(
        name="structured_outputs", note="vLLM's object: one of `json`, `regex`, `choice`, `grammar`, `json_object`, "
        "`structural_tag`",
        accepted=({"json": SCHEMA}, {"regex": "[a-z]+"}, {"choice": ["a", "b"]}, {"json_object": True}),
        refused=({}, {"json": SCHEMA, "regex": "a"}, {"xml": 1}),
    ),
    Parameter(name="guided_json", accepted=(SCHEMA,), refused=(5,), note="older names of the same"),
    Parameter(name="guided_regex", accepted=("[0-9]{2}",), refused=("(",)),
    Parameter(name="guided_choice", accepted=(["yes", "no"],), refused=([],)),
    Parameter(name="guided_grammar", accepted=('start: "a" "b"',), refused=("start: (",)),
    Parameter(name="structural_tag", accepted=(TAG,), refused=({},)),
)  # fmt: skip

CHAT = Endpoint(
    dialect="OpenAI",
    method="POST",
    path="/v1/chat/completions",
    what="Whole or streamed. Answers carry `reasoning_content` beside `content` where the model reasons.",
    base={"messages": SAYS, "max_tokens": 3},
    fields=frozenset(ChatRequest.model_fields),
    documented=PARAMETERS["CreateChatCompletionRequest"],
    parameters=(
        Parameter(
            name="messages",
            note="roles `system`, `developer` (read as `system`), `user`, `assistant`, `tool`; text as a string or in "
            "parts; images, audio and files are refused",
            accepted=(SAYS, PARTS),
            refused=([], IMAGE, AUDIO, FILE),
        ),
        Parameter(name="max_completion_tokens", beside={"max_tokens": None}, accepted=(2,), refused=(0,)),
        Parameter(name="max_tokens", accepted=(2,), refused=(0, 2**31)),
        Parameter(name="logprobs", accepted=(True,), refused=(2,)),
        Parameter(name="top_logprobs", beside={"logprobs": True}, accepted=(0, 3), refused=(65,), note="0 to 64"),
        Parameter(
            name="response_format",
            note="`text`, `json_object`, `json_schema`; a schema is held to, `strict` or not",
            accepted=({"type": "text"}, {"type": "json_object"}, _schema(), _schema(strict=True)),
            refused=({"type": "xml"}, {"type": "json_schema"}, _schema(schema={"type": "no"})),
        ),
        Parameter(
            name="tools",
            note="functions; `strict` ones are called only with arguments of their schema; `custom` tools are refused",
            accepted=([TOOL], [TOOL, OTHER]),
            refused=([{"type": "custom", "custom": {"name": "x"}}], [TOOL, TOOL], [{"type": "function"}]),
        ),
        Parameter(
            name="tool_choice",
            beside={"tools": [TOOL, OTHER], "max_tokens": 40},
            note="`auto`, `none`, `required`, a function, `allowed_tools`",
            accepted=(
                *("auto", "none", "required", NAMED),
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
                {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
            ),
            refused=({"type": "function", "function": {"name": "no"}}, {"type": "custom", "custom": {"name": "x"}}),
        ),
        Parameter(name="parallel_tool_calls", beside={"tools": [TOOL]}, accepted=(True, False), refused=(1,)),
        Parameter(
            name="reasoning_effort",
            server="thinking_server",
            note="`none` turns reasoning off; others are handed to templates that read them, and bound the reasoning "
            "where they do not (`minimal` 128 tokens, `low` 1024, `medium` 8192); refused where there is no reasoning",
            accepted=("none", "minimal", "low", "medium", "high", "xhigh", "max"),
            refused=("wild",),
        ),
        Parameter(
            name="reasoning",
            server="thinking_server",
            note="OpenRouter's object: `effort`, `max_tokens`, `enabled`",
            accepted=({"effort": "low"}, {"max_tokens": 2}, {"enabled": False}),
            refused=({"exclude": True},),
        ),
        Parameter(name="enable_thinking", server="thinking_server", accepted=(True, False), refused=("yes",)),
        Parameter(
            name="thinking_budget", server="thinking_server", accepted=(0, 5), refused=(-1,),
            note="most tokens of reasoning",
        ),
        Parameter(name="modalities", accepted=(["text"],), refused=(["audio"],), note="`text`"),
        Parameter(name="verbosity", fate="no effect", accepted=("medium",), refused=("low", "high"),
                  note="only `medium`, OpenAI's default"),
        Parameter(name="store", fate="no effect", accepted=(False,), refused=(True,), note="only `false`"),
        *rows("refused", "audio", "prediction", "web_search_options", "moderation", refused={}),
        *rows("refused", "functions", "function_call", refused=[], note="deprecated: use `tools`, `tool_choice`"),
        Parameter(name="chat_template_kwargs", accepted=({"x": 1},), refused=({"messages": []},), note="vLLM's"),
        Parameter(name="add_generation_prompt", accepted=(True, False), refused=(0,)),
        Parameter(
            name="continue_final_message", beside={"add_generation_prompt": False}, accepted=(True,), refused=("x",)
        ),
        Parameter(name="add_special_tokens", accepted=(True,), refused=(0,)),
        Parameter(name="echo", accepted=(True,), refused=(0,)),
        *SAMPLING,
    ),
)  # fmt: skip

COMPLETIONS = Endpoint(
    dialect="OpenAI",
    method="POST",
    path="/v1/completions",
    what="Text or tokens in, their continuation out; whole or streamed.",
    base={"prompt": "hi", "max_tokens": 3},
    fields=frozenset(CompletionRequest.model_fields),
    documented=PARAMETERS["CreateCompletionRequest"],
    parameters=(
        Parameter(
            name="prompt", accepted=("a", ["a", "b"], [5, 6], [[5], [6, 7]]), refused=(None, [], [1, "a"]),
            note="text, texts, tokens, or lists of tokens",
        ),
        Parameter(name="max_tokens", accepted=(2,), refused=(0,), note="0 only together with `echo`"),
        Parameter(name="logprobs", accepted=(0, 3), refused=(65,), note="0 to 64"),
        Parameter(name="echo", accepted=(True,), refused=("x",)),
        Parameter(name="best_of", accepted=(1, 2), refused=(0, 129), note="not in a stream"),
        Parameter(name="suffix", fate="refused", refused=("x",)),
        Parameter(name="store", fate="no effect", accepted=(False,), refused=(True,)),
        Parameter(name="add_special_tokens", accepted=(True, False), refused=(0,), note="vLLM's"),
        *SAMPLING,
    ),
)  # fmt: skip

FLAT = {"type": "function", "name": "add", "parameters": SCHEMA}
SPACE = {"type": "namespace", "name": "maths", "description": "Sums.", "tools": [FLAT]}
FLAT_NAME = {"type": "function", "name": "add"}
ITEMS = [
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"type": "message", "role": "user", "content": "hi"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
    {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
    {"type": "function_call_output", "call_id": "c1", "output": "2"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "2", "annotations": [], "logprobs": []}]},
    {"role": "user", "content": "and?"},
]
PICTURE = [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]
LEFT = [{"type": "function_call", "call_id": "c1", "name": "add", "arguments": "[1"}]
FLAT_FORM = {"format": {"type": "json_schema", "name": "pair", "schema": SCHEMA, "strict": True}}

RESPONSES = Endpoint(
    dialect="OpenAI",
    method="POST",
    path="/v1/responses",
    what="Whole or streamed, with OpenAI's events in their order. Responses are kept in memory (64 MiB in all; whoever "
    "stores the most loses what was used least recently) for those who hold the same API key.",
    base={"input": "hi", "max_output_tokens": 3},
    fields=frozenset(ResponseRequest.model_fields),
    documented=PARAMETERS["CreateResponse"],
    parameters=(
        Parameter(name="model", accepted=(None,), refused=("gpt-9",), note="without it: the first model"),
        Parameter(
            name="input", accepted=("hi", ITEMS), refused=([], PICTURE, LEFT, [{"type": "item_reference", "id": "x"}]),
            note="text, or messages, function calls and their outputs, reasoning, and references to items of stored "
            "responses; pictures and files are refused. "
            "System and developer messages in a row, `instructions` among them, are one",
        ),
        Parameter(name="instructions", accepted=("Be brief.",), refused=([],)),
        Parameter(name="previous_response_id", accepted=(None,), refused=("resp_0",), note="of a stored response"),
        Parameter(name="store", accepted=(True, False), refused=("yes",), note="`true` unless it is given"),
        Parameter(name="stream", accepted=(True, False), refused=("yes",)),
        Parameter(
            name="stream_options", fate="no effect", beside={"stream": True},
            accepted=({"include_obfuscation": False},), refused=({"include_obfuscation": True},),
        ),
        Parameter(name="max_output_tokens", accepted=(2,), refused=(0,)),
        *EVERYWHERE,
        Parameter(name="top_logprobs", accepted=(0, 3), refused=(65,), note="asks for log-probabilities by itself"),
        Parameter(
            name="include", note="`message.output_text.logprobs`, `reasoning.encrypted_content` (the reasoning as it "
            "is, behind `plain:`; it can be sent back); those of built-in tools have no effect",
            accepted=(["message.output_text.logprobs"], ["file_search_call.results"], ["reasoning.encrypted_content"]),
            refused=(["everything"],),
        ),
        Parameter(
            name="text", note="`format`: `text`, `json_object`, `json_schema`; `verbosity`: only `medium`",
            accepted=({"format": {"type": "text"}}, {"format": {"type": "json_object"}}, FLAT_FORM,
                      {"verbosity": "medium"}),
            refused=({"verbosity": "low"}, {"format": {"type": "json_schema"}}),
        ),
        Parameter(
            name="reasoning", note="`effort`; `summary`: only `auto`: the reasoning is sent whole",
            server="thinking_server", accepted=({"effort": "none"}, {"effort": "low", "summary": "auto"}),
            refused=({"summary": "detailed"}, {"effort": "wild"}),
        ),
        Parameter(
            name="tools", accepted=([FLAT], [FLAT | {"strict": False, "description": "x"}], [FLAT, SPACE]),
            refused=([{"type": "web_search"}], [FLAT, FLAT], [SPACE, SPACE], [SPACE | {"tools": []}]),
            note="functions, `strict` unless they say no; those in a `namespace` are shown to the model as "
            "`namespace__name`; built-in and custom tools are refused",
        ),
        Parameter(
            name="tool_choice", beside={"tools": [FLAT], "max_output_tokens": 40},
            accepted=(
                *("auto", "none", "required", FLAT_NAME),
                {"type": "allowed_tools", "mode": "auto", "tools": [FLAT_NAME]},
            ),
            refused=({"type": "function", "name": "no"}, {"type": "web_search_preview"}),
        ),
        Parameter(name="parallel_tool_calls", beside={"tools": [FLAT]}, accepted=(True, False), refused=(1,)),
        Parameter(name="truncation", fate="no effect", accepted=("disabled",), refused=("auto",)),
        Parameter(name="background", fate="no effect", accepted=(False,), refused=(True,), note="only `false`"),
        Parameter(name="max_tool_calls", fate="no effect", accepted=(3,), note="of built-in tools: there are none"),
        Parameter(
            name="metadata", fate="no effect", accepted=({"a": "b"},), refused=({"a": 1}, {"a": "x" * 513}),
            note="comes back",
        ),
        *rows("no effect", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", accepted="x"),
        Parameter(name="client_metadata", fate="no effect", accepted=({"a": "b"},), note="Codex's"),
        Parameter(name="service_tier", fate="no effect", accepted=("auto",), note="there is one tier, `default`"),
        *rows("no effect", "prompt_cache_options", accepted={"ttl": "30m"}),
        *rows("refused", "conversation", "prompt", "moderation", "context_management", refused={}),
        *OF_VLLM,
        *OF_CHATS,
    ),
)  # fmt: skip


def _plain(method: str, path: str, what: str) -> Endpoint:
    return Endpoint(dialect="OpenAI", method=method, path=path, what=what)


ENDPOINTS = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    _plain("GET", "/v1/responses/{response_id}", "A stored response; query parameters are refused."),
    _plain("DELETE", "/v1/responses/{response_id}", "Forgets it."),
    _plain(
        "GET",
        "/v1/responses/{response_id}/input_items",
        "The items that the model was given, earlier responses' included; `limit`, `order` and `after`.",
    ),
    _plain("POST", "/v1/responses/{response_id}/cancel", "Refused: there are no background responses."),
    _plain("GET", "/v1/models", "The models that this server has."),
    _plain("GET", "/v1/models/{model}", "One of them."),
    _plain(
        "POST",
        "/v1/embeddings",
        "404 with an error in OpenAI's shape, like `/v1/audio`, `/v1/images`, `/v1/moderations`, `/v1/files`, "
        "`/v1/batches`, `/v1/fine_tuning` and what is under them, `/v1/responses/input_tokens` and `compact`.",
    ),
)
