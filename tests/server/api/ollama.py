"""Ollama's dialect."""

from __future__ import annotations

from typing import Any

from hexad.server.ollama_types import ChatRequest, GenerateRequest, ModelRequest
from tests.server.api import Endpoint, Parameter, rows

MODEL = "tiny-chat"
SAYS = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": SCHEMA}}
CALLED: list[dict[str, Any]] = [
    *SAYS,
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
    {"role": "tool", "tool_name": "add", "content": "2"},
]

OPTIONS = (
    Parameter(name="options.num_predict", accepted=(2, -1, 10**6), refused=(0, -3),
              note="-1, -2, or more than there is room for: what the context holds",
              beside={"options": {"stop": ["e", " ", "a"]}}),
    Parameter(name="options.temperature", accepted=(0, 1.5), refused=(-1, "hot")),
    Parameter(name="options.top_k", accepted=(0, 40), refused=(-2,)),
    Parameter(name="options.top_p", accepted=(0.9,), refused=(2,)),
    Parameter(name="options.min_p", accepted=(0.05,), refused=(2,)),
    Parameter(name="options.repeat_penalty", accepted=(1.1,), refused=(0,)),
    Parameter(name="options.repeat_last_n", accepted=(-1, 0, 64), refused=(-2,),
              note="penalties see the whole context: -1, or 0 for none, or any number while no penalty is set"),
    Parameter(name="options.presence_penalty", accepted=(1,), refused=(3,)),
    Parameter(name="options.frequency_penalty", accepted=(1,), refused=(3,)),
    Parameter(name="options.seed", accepted=(-1, 0, 7), refused=(2**64,), note="-1: another each time"),
    Parameter(name="options.stop", accepted=("\n", ["a", "b"]), refused=([""],)),
    Parameter(name="options.num_ctx", accepted=(1024,), refused=(10**6,),
              note="up to the model's context, all of which is always there"),
    *rows("refused", "options.typical_p", "options.tfs_z", accepted=1.0, refused=0.5, note="but 1, which is off"),
    Parameter(name="options.mirostat", fate="refused", accepted=(0,), refused=(1, 2), note="but 0"),
    Parameter(name="options.penalize_newline", fate="refused", accepted=(True,), refused=(False,), note="but `true`"),
    *rows("refused", "options.vocab_only", "options.embedding_only", accepted=False, refused=True, note="but `false`"),
    *rows("no effect", "options.mirostat_tau", "options.mirostat_eta", accepted=0.5),
    *rows("no effect", "options.num_keep", "options.num_batch", "options.num_gpu", "options.main_gpu",
          "options.num_thread", accepted=4),
    *rows("no effect", "options.numa", "options.low_vram", "options.f16_kv", "options.logits_all", "options.use_mmap",
          "options.use_mlock", accepted=True),
)  # fmt: skip
SHARED = (
    Parameter(name="model", accepted=(MODEL, f"{MODEL}:latest"), refused=("", "llama9")),
    Parameter(name="stream", accepted=(True, False), refused=("yes",), note="without it: true"),
    Parameter(name="format", accepted=("", "json", SCHEMA), refused=("xml",), note="`json`, or a JSON schema"),
    Parameter(name="keep_alive", accepted=(300, "5m", -1), refused=("soon",), note="of the model, after this request"),
    Parameter(name="think", accepted=(False,), refused=("hard", True, "high"),
              note="`true`, `false`, `low`, `medium`, `high`, `max`; refused where the model does not reason"),
    Parameter(name="logprobs", accepted=(True, False), refused=("yes",)),
    Parameter(name="top_logprobs", accepted=(0, 5), refused=(21,), beside={"logprobs": True}),
    *rows("refused", "truncate", "shift", accepted=False, refused=True, note="nothing is cut; `false` is accepted"),
    *OPTIONS,
)  # fmt: skip
ABOUT = (
    Parameter(name="model", accepted=(MODEL,), refused=("llama9",)),
    Parameter(name="name", accepted=(MODEL,), refused=(5,), beside={"model": ""}, note="older clients' `model`"),
    *rows("no effect", "stream", "verbose", "insecure", accepted=False),
    *rows("no effect", "username", "password", accepted=""),
    Parameter(name="options", fate="no effect", accepted=({"num_ctx": 1024},)),
    *rows("refused", "system", "template", accepted="", refused="x"),
)


def _about(path: str, what: str) -> Endpoint:
    return Endpoint(
        dialect="Ollama", method="POST", path=path, what=what, base={"model": MODEL}, parameters=ABOUT,
        fields=frozenset(ModelRequest.model_fields),
    )  # fmt: skip


def _plain(method: str, path: str, what: str) -> Endpoint:
    return Endpoint(dialect="Ollama", method=method, path=path, what=what)


ENDPOINTS = (
    Endpoint(
        dialect="Ollama",
        method="POST",
        path="/api/chat",
        what="A line of JSON a piece, or with `stream` false one object. Without messages it loads the model, or with "
        "`keep_alive` 0 unloads it. How it differs from Ollama's: [ollama.md](ollama.md).",
        base={"model": MODEL, "messages": SAYS, "stream": False, "options": {"num_predict": 3}},
        fields=frozenset(ChatRequest.model_fields),
        documented=frozenset(
            {"model", "messages", "tools", "format", "options", "stream", "think", "keep_alive", "logprobs"}
        ),
        parameters=(
            Parameter(
                name="messages",
                accepted=(SAYS, CALLED, [], None),
                refused=([{"role": "wizard", "content": "x"}], [{"role": "user", "content": "x", "images": ["aGk="]}]),
                note="roles `system`, `user`, `assistant`, `tool`; `images` are refused",
            ),
            Parameter(name="tools", accepted=([TOOL], []), refused=([{"type": "x"}],)),
            *SHARED,
        ),
    ),
    Endpoint(
        dialect="Ollama",
        method="POST",
        path="/api/generate",
        what="The same for a single prompt.",
        base={"model": MODEL, "prompt": "hi", "stream": False, "options": {"num_predict": 3}},
        fields=frozenset(GenerateRequest.model_fields),
        documented=frozenset({"model", "prompt", "suffix", "images", "system", "template", "context", "raw"}),
        parameters=(
            Parameter(name="prompt", accepted=("hi", "", None), refused=(5,), note="empty: loads the model"),
            Parameter(name="system", accepted=("Be brief.",), refused=(5,)),
            Parameter(name="raw", accepted=(True, False), refused=("yes",), note="the prompt as it stands"),
            Parameter(name="suffix", accepted=("",), refused=("}",), note="for models that fill in the middle"),
            Parameter(name="template", fate="refused", accepted=("",), refused=("{{ .Prompt }}",)),
            Parameter(name="context", fate="refused", accepted=([],), refused=([1, 2],), note="use /api/chat"),
            Parameter(name="images", fate="refused", accepted=([],), refused=(["aGk="],)),
            *SHARED,
        ),
    ),
    _about("/api/show", "What there is to know about a model."),
    _about("/api/pull", "Succeeds at once for a model that is served."),
    _plain("GET", "/api/tags", "The models of this server."),
    _plain("GET", "/api/ps", "Those that are loaded."),
    _plain("GET", "/api/version", "Ollama's version that this wire is of, and Hexad's."),
    _plain("POST", "/api/embed", "Refused, as is `/api/embeddings`: there are no embeddings yet."),
    _plain(
        "POST", "/api/create", "Refused, as are `copy`, `delete`, `push` and `blobs`: models are named at the start."
    ),
)
