"""llama.cpp's endpoints: token lists against the tokenizers library, prompts as llama.cpp spells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tests.server.running import Server

MIDDLE: dict[str, Any] = {
    "input_prefix": "def add(a, b):\n    return ",
    "input_suffix": "\n\nprint(add(1, 2))\n",
    "temperature": 0,
    "n_predict": 24,
    "return_tokens": True,
}
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
    for name, value in (("mirostat", 2), ("samplers", ["top_k"]), ("n_predict", 0), ("input_prefix", 5)):
        message = coder.post("/infill", MIDDLE | {name: value}).json()["error"]["message"]
        assert name in message
    with_tail = coder.post("/v1/completions", {"prompt": "a = ", "suffix": "\n", "max_tokens": 4, "temperature": 0})
    assert with_tail.status_code == 200
