"""What `LLM` refuses, and how a request that breaks leaves the others and the engine as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hexad import LLM, SamplingParams
from hexad.errors import BadRequest, ConfigError, ContextTooLong, HexadError, OutOfMemory, RequestFailed
from hexad.kernels.load import native_problem
from hexad.testing.zoo import BASE, ZOO, random_weights, write_model, write_safetensors
from hexad.text.tokenizer import Tokenizer

V = 512
POISON = 300
SHORT = SamplingParams(temperature=1.0, seed=1, max_tokens=12, ignore_eos=True, logprobs=1)


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> LLM:
    return LLM(str(tiny_model), threads=1, kv_memory=2**23, max_model_len=256)


def idle(llm: LLM) -> bool:
    stats = llm.stats()
    return (stats.num_running, stats.num_waiting, stats.num_free_pages) == (0, 0, stats.num_pages)


@pytest.mark.parametrize(
    ("prompt", "params", "kind", "param", "message"),
    [
        ([], {}, BadRequest, "prompt", "empty"),
        ([1] * 256, {}, ContextTooLong, None, "256"),
        ([1] * 250, {"max_tokens": 7}, ContextTooLong, None, "256"),
        ([1, V], {}, BadRequest, "prompt", f"token {V}; .* 0 to {V - 1}"),
        ([1, -1], {}, BadRequest, "prompt", f"token -1; .* 0 to {V - 1}"),
        ([1], {"logit_bias": {V: 1.0}}, BadRequest, "logit_bias", f"token {V}; .* 0 to {V - 1}"),
        ([1], {"allowed_token_ids": [V]}, BadRequest, "allowed_token_ids", f"token {V}; .* 0 to {V - 1}"),
        ([1], {"stop_token_ids": [V]}, BadRequest, "stop_token_ids", f"token {V}; .* 0 to {V - 1}"),
        ("lone \ud800", {}, BadRequest, "prompt", "surrogate"),
        ([1], {"n": 65}, BadRequest, "n", "64"),
    ],
)
def test_what_can_never_be_served_is_refused_with_its_limit(
    llm: LLM, prompt: Any, params: dict[str, Any], kind: type[HexadError], param: str | None, message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        llm.generate([prompt, [1, 2]], SamplingParams(**params))
    assert param is None or caught.value.param == param
    assert caught.value.status == 400
    assert idle(llm)
    assert len(llm.generate([[1, 2]], SHORT)[0].outputs[0].token_ids) == 12


@pytest.mark.parametrize(
    ("prompts", "params", "param"),
    [
        ([], SHORT, "prompts"),
        (["a", "b"], [SHORT], "sampling_params"),
    ],
)
def test_a_call_that_makes_no_sense(llm: LLM, prompts: Any, params: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        llm.generate(prompts, params)
    assert caught.value.param == param


def test_settings_that_cannot_be_met(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean max_num_seqs"):
        LLM(str(tiny_model), max_num_seq=3)
    with pytest.raises(OutOfMemory, match="max_model_len to at most 64"):
        LLM(str(tiny_model), kv_memory=4 * 8192, max_model_len=256)
    with pytest.raises(HexadError, match="nowhere"):
        LLM("/nowhere/at/all")


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose embedding of one token is NaN."""
    directory = write_model(tmp_path_factory.mktemp("zoo") / "poisoned", ZOO["llama"])
    weights = random_weights({**BASE, **ZOO["llama"]}, seed=0)
    weights["model.embed_tokens.weight"][POISON] = np.nan
    write_safetensors(directory / "model.safetensors", weights)
    Tokenizer.of_bytes().save(directory)
    return directory


@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("length", [1, 20, 150])
def test_a_request_with_nan_fails_alone_and_leaves_nothing_behind(poisoned: Path, kernels: str, length: int) -> None:
    """Few pages and a budget of 64: the broken request is chunked, and the others get its pages."""
    if kernels == "native" and (problem := native_problem()):
        pytest.skip(problem)
    prompts = [list(range(2, 2 + n)) for n in (5, 17, 33, 60)]
    calm = LLM(str(poisoned), threads=1, kernels=kernels, kv_memory=24 * 8192, max_model_len=256)
    expected = [calm.generate([prompt], SHORT)[0].outputs for prompt in prompts]
    llm = LLM(
        str(poisoned), threads=1, kernels=kernels, kv_memory=24 * 8192, max_model_len=256, max_num_batched_tokens=64
    )
    streams = [llm.submit(prompt, SHORT) for prompt in prompts]
    broken = llm.submit([2] * (length - 1) + [POISON], SHORT)
    for _ in llm.run([*streams[:2], broken, *streams[2:]]):
        pass
    assert "logits of this request hold NaN at token 0 (512 of 512 values)" in str(broken.error)
    assert broken.output.outputs[0].finish_reason == "error"
    assert [stream.output.outputs for stream in streams] == expected
    with pytest.raises(RequestFailed, match="prompt 1: .*NaN"):
        llm.generate([prompts[0], [POISON], prompts[1]], SHORT)
    assert [llm.generate([prompt], SHORT)[0].outputs for prompt in prompts] == expected
    assert idle(llm)


def test_a_request_that_rules_out_every_token_fails_alone(llm: LLM) -> None:
    nothing = SamplingParams(allowed_token_ids=[5], stop_token_ids=[5], min_tokens=3, max_tokens=8)
    (expected,) = llm.generate([[1, 2, 3]], SHORT)
    fine, broken = llm.submit([1, 2, 3], SHORT), llm.submit([1, 2, 3], nothing)
    for _ in llm.run([fine, broken]):
        pass
    assert "no token is left to choose" in str(broken.error)
    assert fine.output.outputs == expected.outputs
    assert idle(llm)


def test_prompt_scores_of_nan_fail_alone(poisoned: Path) -> None:
    llm = LLM(str(poisoned), threads=1, kv_memory=2**22, max_model_len=256)
    scored = SamplingParams(temperature=0.0, max_tokens=4, prompt_logprobs=1)
    fine, broken = llm.submit([4, 5, 6, 7], scored), llm.submit([4, POISON, 6, 7], scored)
    for _ in llm.run([fine, broken]):
        pass
    assert "hold NaN" in str(broken.error)
    assert fine.error is None and fine.output.prompt_logprobs is not None
    assert idle(llm)
