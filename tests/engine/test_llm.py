"""`LLM` on random weights against transformers' own generation, and what its answers look like."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hexad import LLM, SamplingParams
from hexad.testing.zoo import ZOO, write_model
from hexad.text.tokenizer import Tokenizer

V = 256
LETTERS = [ord(letter) for letter in string.ascii_lowercase]
PROMPTS = [np.random.default_rng(n).integers(2, V, n).tolist() for n in (1, 2, 15, 16, 17, 33, 100, 260, 500, 700)]
TIE = 1e-5
"""The order of two that are nearer is not the same on every processor that transformers runs on."""
GREEDY = SamplingParams(temperature=0.0, max_tokens=48, ignore_eos=True)


def checkpoint(directory: Path, variant: str) -> Path:
    write_model(directory, {**ZOO[variant], "vocab_size": V})
    Tokenizer.of_bytes().save(directory)
    return directory


class Pair:
    """The same checkpoint in Hexad and in transformers, both float32."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        self.directory = directory
        self.llm = LLM(str(directory), threads=1, kv_memory=2**25, max_num_batched_tokens=128)
        self.oracle = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def expected(self, prompt: list[int], max_new_tokens: int = 48, **options: Any) -> list[int]:
        """What transformers generates, greedily."""
        ids = torch.tensor([prompt])
        options = {"eos_token_id": None, "pad_token_id": 0, **options}
        out = self.oracle.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            **options,
        )
        tokens: list[int] = out[0, len(prompt) :].tolist()
        return tokens

    def logprobs(self, tokens: list[int]) -> np.ndarray:
        """log_softmax of transformers' logits, [T, V]: row i is about token i + 1."""
        with torch.no_grad():
            logits = self.oracle(torch.tensor([tokens])).logits[0]
        out: np.ndarray = torch.log_softmax(logits.double(), dim=-1).numpy()
        return out

    def tokens(self, prompt: list[int], **params: Any) -> list[int]:
        given = {"temperature": 0.0, "max_tokens": 48, "ignore_eos": True, **params}
        return self.llm.generate([prompt], SamplingParams(**given))[0].outputs[0].token_ids


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "mistral-window"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(checkpoint(tmp_path_factory.mktemp("zoo") / request.param, request.param))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(checkpoint(tmp_path_factory.mktemp("zoo") / "llama", "llama"))


def test_greedy_tokens_are_transformers(family: Pair) -> None:
    together = family.llm.generate(PROMPTS, GREEDY)
    assert [one.outputs[0].token_ids for one in together] == [family.expected(prompt) for prompt in PROMPTS]
    assert [one.prompt_token_ids for one in together] == PROMPTS
    assert {one.outputs[0].finish_reason for one in together} == {"length"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_are_log_softmax_of_transformers_logits(pair: Pair, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=3, max_tokens=20, logprobs=4, prompt_logprobs=2)
    for prompt, one in zip(PROMPTS, pair.llm.generate(PROMPTS, params), strict=True):
        answer = one.outputs[0]
        expected = pair.logprobs(prompt + answer.token_ids)
        assert answer.logprobs is not None and one.prompt_logprobs is not None
        assert one.prompt_logprobs[0] is None and len(one.prompt_logprobs) == len(prompt)
        found = [*one.prompt_logprobs[1:], *answer.logprobs]
        tokens = [*prompt[1:], *answer.token_ids]
        for row, (entries, token) in enumerate(zip(found, tokens, strict=True)):
            assert entries is not None and next(iter(entries)) == token
            top = 4 if row >= len(prompt) - 1 else 2
            last = np.sort(expected[row])[-top]
            assert set(np.flatnonzero(expected[row] > last + TIE)) <= set(entries) and len(entries) <= top + 1
            for token_id, entry in entries.items():
                theirs = expected[row, token_id]
                assert entry.logprob == pytest.approx(theirs, abs=1e-4)
                assert (expected[row] > theirs + TIE).sum() < entry.rank <= (expected[row] > theirs - TIE).sum()
                assert token_id == token or theirs > last - TIE
        total = sum(expected[len(prompt) - 1 + i, token] for i, token in enumerate(answer.token_ids))
        assert answer.cumulative_logprob == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
        ({"allowed_token_ids": LETTERS}, {"suppress_tokens": [t for t in range(V) if t not in LETTERS]}),
        ({"logit_bias": {9: 4.0, 70: -100.0}}, {"sequence_bias": {(9,): 4.0, (70,): -100.0}}),
        ({"bad_words": ["n", "R", "K"]}, {"bad_words_ids": [[ord(c)] for c in "nRK"]}),
        ({"top_k": 1, "temperature": 1.0, "seed": 5}, {}),
        ({"top_p": 1e-6, "temperature": 1.0, "seed": 5}, {}),
    ],
    ids=lambda options: "+".join(options),
)
def test_a_parameter_does_what_it_does_in_transformers(
    pair: Pair, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    changed = 0
    for prompt in PROMPTS[:8]:
        tokens = pair.tokens(prompt, **ours)
        assert tokens == pair.expected(prompt, **theirs)
        changed += tokens != pair.tokens(prompt)
    assert changed or not theirs, "the parameter had nothing to do"


def test_a_bad_word_of_two_tokens_is_never_completed(pair: Pair) -> None:
    prompt = PROMPTS[5]
    free = pair.tokens(prompt, allowed_token_ids=LETTERS)
    word = bytes(free[4:6]).decode()
    others = [t for t in range(V) if t not in LETTERS]
    bound = pair.tokens(prompt, allowed_token_ids=LETTERS, bad_words=[word])
    assert word in bytes(free).decode() and word not in bytes(bound).decode()
    assert bound == pair.expected(prompt, suppress_tokens=others, bad_words_ids=[free[4:6]])


def first_seen(tokens: list[int], after: int) -> int:
    """Index, at least `after`, of a token that did not occur before."""
    return next(i for i in range(after, len(tokens)) if tokens[i] not in tokens[:i])


def test_end_of_sequence_and_stop_tokens(pair: Pair, tmp_path: Path) -> None:
    prompt = PROMPTS[6]
    free = pair.tokens(prompt)
    at = first_seen(free, 5)
    checkpoint(tmp_path, "llama")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [free[at], 1]}))
    llm = LLM(str(tmp_path), threads=1, kv_memory=2**24)

    def run(engine: LLM, **params: Any) -> Any:
        return engine.generate([prompt], SamplingParams(temperature=0.0, max_tokens=48, **params))[0].outputs[0]

    ended = run(llm)
    assert (ended.token_ids, ended.finish_reason, ended.stop_reason) == (free[: at + 1], "stop", None)
    assert run(llm, ignore_eos=True).token_ids == free
    stopped = run(pair.llm, stop_token_ids=[free[at]])
    assert (stopped.token_ids, stopped.finish_reason, stopped.stop_reason) == (free[: at + 1], "stop", free[at])
    for more in (at, at + 1, at + 2, 40):
        expected = pair.expected(prompt, eos_token_id=[free[at], 1], min_new_tokens=more)
        assert run(llm, min_tokens=more).token_ids == expected
        assert run(pair.llm, min_tokens=more, stop_token_ids=[free[at]]).token_ids == expected


@pytest.mark.parametrize("max_tokens", [1, 2, 17])
def test_max_tokens(pair: Pair, max_tokens: int) -> None:
    (one,) = pair.llm.generate([PROMPTS[3]], SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True))
    assert one.outputs[0].token_ids == pair.expected(PROMPTS[3], max_tokens)
    assert one.outputs[0].finish_reason == "length"


def test_without_max_tokens_the_context_is_the_limit(pair: Pair) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True)
    (one,) = pair.llm.generate([PROMPTS[-1]], params)
    assert len(one.outputs[0].token_ids) == 1024 - 700
    assert one.outputs[0].finish_reason == "length"


def test_stop_strings_end_the_text_where_they_begin(pair: Pair) -> None:
    letters = {"allowed_token_ids": LETTERS, "temperature": 0.0, "max_tokens": 48}

    def run(**params: Any) -> Any:
        return pair.llm.generate([PROMPTS[4]], SamplingParams(**letters, **params))[0].outputs[0]

    whole = run().text
    assert whole == bytes(pair.tokens(PROMPTS[4], allowed_token_ids=LETTERS)).decode()
    for stop in (whole[3:6], whole[10], whole[-3:]):
        begin = whole.index(stop)
        one = run(stop=["ZZ", stop])
        assert (one.text, one.finish_reason, one.stop_reason) == (whole[:begin], "stop", stop)
        assert bytes(one.token_ids).decode() == whole[: begin + len(stop)]
        assert run(stop=[stop], include_stop_str_in_output=True).text == whole[: begin + len(stop)]
    for at_least in (1, 12, 20):  # as in vLLM: no stop string is seen in the first min_tokens tokens
        end = whole.find(whole[10], at_least)
        assert run(stop=[whole[10]], min_tokens=at_least).text == (whole[:end] if end >= 0 else whole)
    never = run(stop=["Z", whole[-2:] + "a"])
    assert (never.text, never.finish_reason, never.stop_reason) == (whole, "length", None)


def test_a_text_is_its_tokens_and_a_stream_grows_into_the_answer(pair: Pair) -> None:
    params = SamplingParams(temperature=0.8, seed=4, max_tokens=30, n=2, ignore_eos=True)
    (from_text,), (from_ids,) = pair.llm.generate("hello", params), pair.llm.generate(list(b"hello"), params)
    assert from_text.outputs == from_ids.outputs
    assert (from_text.prompt, from_ids.prompt) == ("hello", None)
    seen = [[choice.token_ids.copy() for choice in part.outputs] for part in pair.llm.stream("hello", params)]
    assert seen[-1] == [choice.token_ids for choice in from_text.outputs]
    for before, after in zip(seen, seen[1:], strict=False):
        assert all(longer[: len(shorter)] == shorter for shorter, longer in zip(before, after, strict=True))
    assert [choice.index for choice in from_text.outputs] == [0, 1]


def test_without_a_seed_answers_differ_and_a_configured_seed_repeats_them(pair: Pair) -> None:
    free = SamplingParams(temperature=1.0, max_tokens=12, ignore_eos=True)
    answers = [one.outputs[0].token_ids for one in pair.llm.generate(["a"] * 6, free)]
    assert len({tuple(answer) for answer in answers}) == 6

    def fresh(seed: int | None) -> list[list[int]]:
        llm = LLM(str(pair.directory), threads=1, kv_memory=2**22, seed=seed)
        return [one.outputs[0].token_ids for one in llm.generate(["a"] * 6, free)]

    assert fresh(8) == fresh(8)
    assert fresh(None) != fresh(None)
