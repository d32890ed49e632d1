"""The dialect of llama.cpp's server."""

from __future__ import annotations

from dataclasses import replace

from hexad.server.llama_cpp import ContentRequest, InfillRequest
from hexad.server.openai_types import Conversation, DetokenizeRequest
from tests.server.api import Endpoint, Parameter, rows

SAYS = [{"role": "user", "content": "hi"}]
OFF = ("dynatemp_range", "n_keep", "n_probs", "xtc_probability", "dry_multiplier", "n_cmpl")

INFILL = Endpoint(
    dialect="llama.cpp",
    method="POST",
    path="/infill",
    what="For models whose tokenizer has fill-in-the-middle tokens. Nothing is cut to fit the context.",
    base={"input_prefix": "a = ", "input_suffix": "\n", "n_predict": 3},
    fields=frozenset(field.alias or name for name, field in InfillRequest.model_fields.items()),
    parameters=tuple(
        replace(row, server="coder")
        for row in (
            Parameter(name="model", accepted=(None,), refused=("other",)),
            *rows("honoured", "input_prefix", "input_suffix", accepted="b", refused=5),
            Parameter(
                name="input_extra", accepted=([{"filename": "a.py", "text": "b", "time": [1, 2]}], [{"text": "b"}]),
                refused=([{}],),
                note="`filename`, `text`, llama.vim's `time` (no effect); in the pattern of a repository where the "
                "tokenizer has its tokens",
            ),
            Parameter(name="prompt", accepted=("b",), refused=([5],), note="how the middle begins"),
            Parameter(name="stream", accepted=(True,), refused=("yes",)),
            Parameter(name="n_predict", accepted=(2, -1, 0), refused=(-2,),
                      note="-1, or more than there is room for: what the context holds, `truncated` tells of it; 0: "
                      "the prompt is computed and cached"),
            Parameter(name="n_indent", accepted=(4,), refused=(-1,), note="a line that is indented by less ends it"),
            Parameter(name="t_max_predict_ms", accepted=(500,), refused=("x",), note="from the second line on"),
            Parameter(
                name="samplers", accepted=(["top_k", "top_p", "infill"], []), refused=(["mirostat"], "edkypmxt"),
                note="those that are left out are off, their order is ours; for `infill`, which keeps the tokens that "
                "are sure, the likeliest token is taken",
            ),
            Parameter(name="response_fields", accepted=(["content"], []), refused=("content",)),
            Parameter(name="temperature", accepted=(0, 2), refused=(-1,), note="the model's own where it is left out"),
            Parameter(name="top_k", accepted=(5,), refused=(-2,)),
            Parameter(name="top_p", accepted=(0.5,), refused=(0,)),
            Parameter(name="min_p", accepted=(0.1,), refused=(2,)),
            Parameter(name="repeat_penalty", accepted=(1.1,), refused=("x",), note="over all tokens"),
            Parameter(name="presence_penalty", accepted=(1,), refused=(3,)),
            Parameter(name="frequency_penalty", accepted=(1,), refused=(3,)),
            Parameter(name="seed", accepted=(-1, 7), refused=(2**64,), note="-1: a random one"),
            Parameter(name="stop", accepted=(["x"],), refused=([""],)),
            Parameter(name="ignore_eos", accepted=(True,), refused=(1,)),
            Parameter(name="grammar", accepted=('root ::= "a"',), refused=(5,)),
            Parameter(name="json_schema", accepted=({"type": "integer"},), refused=(5,)),
            Parameter(name="return_tokens", accepted=(True,), refused=(1,)),
            *rows("no effect", "cache_prompt", accepted=False, note="prefixes are cached, and change no answer"),
            *rows("no effect", "id_slot", accepted=-1),
            *rows("no effect", "t_max_prompt_ms", accepted=500, note="nor in llama.cpp"),
            *rows("refused", *OFF, "typical_p", "mirostat", "repeat_last_n", "min_keep", refused=1),
            *rows("refused", "logit_bias", "lora", refused=[]),
        )
    ),
)  # fmt: skip

TEMPLATE = Endpoint(
    dialect="llama.cpp",
    method="POST",
    path="/apply-template",
    what="The prompt that a chat would have; the parameters of `/v1/chat/completions` that make it.",
    base={"messages": SAYS},
    fields=frozenset(Conversation.model_fields),
    parameters=(
        Parameter(name="messages", accepted=(SAYS,), refused=([],)),
        Parameter(name="model", accepted=(None,), refused=("other",)),
        Parameter(name="tools", accepted=([],), refused=(5,)),
        Parameter(name="chat_template_kwargs", accepted=({"x": 1},), refused=({"messages": []},)),
        Parameter(name="add_generation_prompt", accepted=(True, False), refused=(0,)),
        Parameter(
            name="continue_final_message", beside={"add_generation_prompt": False}, accepted=(True,), refused=("x",)
        ),
        Parameter(name="add_special_tokens", accepted=(True,), refused=(0,)),
    ),
)

TOKENIZE = Endpoint(
    dialect="llama.cpp",
    method="POST",
    path="/tokenize",
    what="With `content`; with `prompt` or `messages` the answer is vLLM's.",
    base={"content": "hi"},
    fields=frozenset(ContentRequest.model_fields),
    parameters=(
        Parameter(name="content", accepted=("naïve",), refused=(5,)),
        Parameter(name="model", accepted=(None,), refused=("other",)),
        *rows("honoured", "add_special", "parse_special", "with_pieces", accepted=True, refused=1),
    ),
)

DETOKENIZE = Endpoint(
    dialect="llama.cpp",
    method="POST",
    path="/detokenize",
    what="The text is in `content`, and in `prompt` for vLLM's clients.",
    base={"tokens": [5]},
    fields=frozenset(DetokenizeRequest.model_fields),
    parameters=(
        Parameter(name="tokens", accepted=([5, 6], []), refused=([10**6], "x")),
        Parameter(name="model", accepted=(None,), refused=("other",)),
    ),
)

ENDPOINTS = (INFILL, TEMPLATE, TOKENIZE, DETOKENIZE)
