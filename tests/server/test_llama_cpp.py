"""llama.cpp's endpoints: token lists against the tokenizers library, prompts as llama.cpp spells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.server.running import Server

MIDDLE: dict[str, Any] = {
    "input_prefix": "def add(a, b):\n    return ",
    "input_suffix": "\n\nprint(add(1, 2))\n",
    "temperature": 0,
    "n_predict": 24,
    "return_tokens": True,
}
EDITOR: dict[str, Any] = {
    "input_prefix": "def add(a, b):\n",
    "input_suffix": "\nprint(add(1, 2))\n",
    "input_extra": [{"text": "x = 1\n", "time": [1700, 5], "filename": "one.py"}],
    "prompt": "    return ",
    "n_predict": 24,
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.99,
    "stream": False,
    "samplers": ["top_k", "top_p", "infill"],
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
}
"""What llama.vim and llama.vscode ask at a cursor."""
SPELLED = "<|fim_prefix|>def add(a, b):\n    return <|fim_suffix|>\n\nprint(add(1, 2))\n<|fim_middle|>"


def _events(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    lines = server.post("/infill", body | {"stream": True}).text.split("\n\n")
    assert lines.pop() == ""
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_tokens_of_a_text(server: Server, chat_model: Path) -> None:
    oracle = Tokenizer.from_file(str(chat_model / "tokenizer.json"))
    text = "12 + 30 = 42, naïve 🌊 <|im_end|>"
    tokens = server.post("/tokenize", {"content": text}).json()
    assert tokens == {"tokens": oracle.encode(text, add_special_tokens=False).ids}
    assert server.post("/detokenize", tokens).json()["content"] == text
    literal = server.post("/tokenize", {"content": text, "parse_special": False}).json()
    assert oracle.token_to_id("<|im_end|>") not in literal["tokens"]
    assert server.post("/detokenize", literal).json()["content"] == text
    pieces = server.post("/tokenize", {"content": text, "with_pieces": True}).json()["tokens"]
    assert [piece["id"] for piece in pieces] == tokens["tokens"]
    spelled = [p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in pieces]
    assert b"".join(spelled).decode() == text
    assert any(isinstance(piece["piece"], list) for piece in pieces), "the wave is more than one token"
    assert "content" in server.post("/tokenize", {"content": 5}).json()["error"]["message"]


def test_a_template_is_applied(server: Server) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    prompt = server.post("/apply-template", {"messages": messages}).json()["prompt"]
    assert prompt == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    refused = server.post("/apply-template", {"messages": []})
    assert refused.status_code == refused.json()["error"]["code"] == 400


def test_an_infill_is_the_completion_of_the_spelled_prompt(coder: Server) -> None:
    answer = coder.post("/infill", MIDDLE).json()
    same = {"prompt": SPELLED, "temperature": 0, "max_tokens": 24, "return_token_ids": True}
    choice = coder.post("/v1/completions", same | {"stop": ["<|fim_pad|>"]}).json()["choices"][0]
    assert answer["content"] == choice["text"] and answer["tokens"] == choice["token_ids"]
    assert answer["stop"] is True and answer["stop_type"] == "limit" and answer["truncated"] is False
    assert answer["tokens_predicted"] == len(answer["tokens"]) == 24
    assert answer["tokens_evaluated"] == len(choice["prompt_token_ids"])
    parts = _events(coder, MIDDLE)
    assert "".join(part["content"] for part in parts) == answer["content"]
    assert [part["stop"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["stop_type"] == "limit" and parts[-1]["model"] == "tiny-coder"


def test_further_files_and_the_beginning_of_the_middle(coder: Server) -> None:
    extra = [{"filename": "one.py", "text": "x = 1\n"}]
    answer = coder.post("/infill", MIDDLE | {"input_extra": extra, "prompt": "a"}).json()
    spelled = "<|repo_name|>myproject\n<|file_sep|>one.py\nx = 1\n<|file_sep|>filename\n"
    spelled += SPELLED.replace("return <", "return a<")
    choice = coder.post("/v1/completions", {"prompt": spelled, "temperature": 0, "max_tokens": 24}).json()["choices"][0]
    assert answer["content"] == choice["text"]


def test_sampling_and_stopping(coder: Server) -> None:
    whole = coder.post("/infill", MIDDLE).json()["content"]
    word = whole[len(whole) // 2 : len(whole) // 2 + 2]
    stopped = coder.post("/infill", MIDDLE | {"stop": ["never", word]}).json()
    assert stopped["content"] == whole[: whole.index(word)]
    assert (stopped["stop_type"], stopped["stopping_word"]) == ("word", word)
    hot = MIDDLE | {"temperature": 2.0, "seed": 4}
    assert coder.post("/infill", hot).json()["content"] == coder.post("/infill", hot).json()["content"] != whole
    shaped = coder.post("/infill", MIDDLE | {"grammar": 'root ::= "a" | "b"'}).json()
    assert shaped["content"] in ("a", "b") and shaped["stop_type"] == "eos"


def test_what_cannot_be_filled_in_is_refused(server: Server, coder: Server) -> None:
    refused = server.post("/infill", MIDDLE)
    assert refused.status_code == 400 and "<|fim_prefix|>" in refused.json()["error"]["message"]
    assert refused.json()["error"]["type"] == "invalid_request_error"
    for name, value in (("mirostat", 2), ("samplers", ["mirostat"]), ("n_predict", -2), ("input_prefix", 5)):
        message = coder.post("/infill", MIDDLE | {name: value}).json()["error"]["message"]
        assert name in message
    with_tail = coder.post("/v1/completions", {"prompt": "a = ", "suffix": "\n", "max_tokens": 4, "temperature": 0})
    assert with_tail.status_code == 200


def test_what_editors_ask(coder: Server) -> None:
    """llama.vscode takes all fields; llama.vim names those it shows, and both warm the cache with files to come."""
    answer = coder.post("/infill", EDITOR).json()
    assert answer["content"] and answer["tokens_predicted"] <= 24
    assert coder.post("/infill", EDITOR).json()["content"] == answer["content"], "sure tokens: the likeliest ones"
    fields = ["content", "truncated", "tokens_cached", "timings/prompt_n"]
    shown = coder.post("/infill", EDITOR | {"response_fields": fields}).json()
    assert list(shown) == fields[:-1] and shown["content"] == answer["content"] and shown["truncated"] is False
    assert list(_events(coder, EDITOR | {"response_fields": ["stop_type"]})[-1]) == ["stop_type"]


@pytest.mark.parametrize("most", [-1, 10**6])
def test_an_answer_that_fills_the_context_says_so(coder: Server, most: int) -> None:
    endless = {"grammar": 'root ::= ("a" | "b"){20000}', "temperature": 1}
    answer = coder.post("/infill", MIDDLE | endless | {"n_predict": most}).json()
    assert (answer["stop_type"], answer["truncated"]) == ("limit", True)
    assert answer["tokens_evaluated"] + answer["tokens_predicted"] == 2048


def test_a_prompt_can_be_computed_ahead(coder: Server) -> None:
    extra = [{"text": "y = 2\n" * 40, "time": [1, 2], "filename": "two.py"}]
    ahead = {"input_prefix": "", "input_suffix": "", "prompt": "", "input_extra": extra, "n_predict": 0}
    warmed = coder.post("/infill", ahead | {"samplers": [], "t_max_predict_ms": 1, "return_tokens": True}).json()
    assert (warmed["content"], warmed["tokens"], warmed["tokens_predicted"]) == ("", [], 0)
    assert warmed["stop_type"] == "limit"
    answer = coder.post("/infill", EDITOR | {"input_extra": extra}).json()
    assert answer["tokens_evaluated"] > answer["tokens_cached"] > 100


def test_samplers_that_are_not_named_are_off(coder: Server) -> None:
    greedy = coder.post("/infill", MIDDLE | {"n_predict": 8}).json()["tokens"]
    hot = MIDDLE | {"temperature": 5, "seed": 4, "n_predict": 8}
    free = coder.post("/infill", hot).json()["tokens"]
    assert coder.post("/infill", hot | {"top_k": 1}).json()["tokens"] == greedy != free
    assert coder.post("/infill", hot | {"top_k": 1, "samplers": ["temperature"]}).json()["tokens"] == free
    assert coder.post("/infill", hot | {"samplers": ["infill"]}).json()["tokens"] == greedy
    mild = coder.post("/infill", hot | {"temperature": 1, "top_p": 1}).json()["tokens"]
    assert coder.post("/infill", hot | {"top_p": 0.1, "samplers": ["top_k"]}).json()["tokens"] == mild


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("a\n    b\n  c\n    d", "a\n    b\n  "),
        ("a\n\tb\n\t\t\t\td", "a\n\t"),
        ("  a\n     b\n\n    c", "  a\n     b\n"),
        ("a\n    b\n", "a\n    b\n"),
    ],
)
def test_a_line_that_is_indented_by_less_ends_the_middle(coder: Server, written: str, kept: str, stream: bool) -> None:
    """As in llama.cpp: what is before its first character stays."""
    body = MIDDLE | {"grammar": f"root ::= {json.dumps(written)}", "n_indent": 4}
    parts = _events(coder, body) if stream else [coder.post("/infill", body).json()]
    assert "".join(part["content"] for part in parts) == kept
    assert parts[-1]["stop"] and parts[-1]["stop_type"] == ("eos" if kept == written else "limit")


def test_time_is_up_from_the_second_line_on(coder: Server) -> None:
    body = MIDDLE | {"grammar": 'root ::= ("a" | "b"){30} "\\n" ("a" | "b"){4000}', "n_predict": 1500, "temperature": 2}
    body |= {"seed": 1, "t_max_predict_ms": 0.01}
    whole = coder.post("/infill", body | {"t_max_predict_ms": 0}).json()
    assert whole["content"].count("\n") == 1 and whole["tokens_predicted"] == 1500
    ended = coder.post("/infill", body).json()
    assert whole["content"].startswith(ended["content"]) and "\n" in ended["content"]
    assert ended["stop_type"] == "limit" and ended["tokens_predicted"] < 1500
    coder.until_idle()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/completion", "did you mean /v1/completions?"),
        ("/chat/completions", "did you mean /v1/chat/completions?"),
        ("/v1/v1/messages", "did you mean /v1/messages?"),
        ("/models", "did you mean /v1/models?"),
        ("/props", "/v1/models"),
        ("/slots/0", "/metrics"),
        ("/v1/messages/batches", "did you mean /v1/messages?"),
        ("/api/generat", "did you mean /api/generate?"),
        ("/nothing/of/the/kind", "there is no /nothing/of/the/kind here; /docs lists"),
    ],
)
def test_what_is_not_here_is_told_with_what_is(server: Server, path: str, says: str) -> None:
    for answer in (server.post(path, {}), server.http.get(server.url + path)):
        assert answer.status_code == 404 and says in answer.text, answer.text
