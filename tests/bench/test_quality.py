"""The figures against transformers and torch; the variants against formats that the engine has anyway."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hexad.bench import quality
from hexad.bench.formats import HeldFormat
from hexad.bench.quality import Emulated, Variant
from hexad.bench.shapes import SHAPES
from hexad.config import Config
from hexad.engine.frontend import Frontend
from hexad.engine.llm import LLM
from hexad.engine.setup import resolve_settings
from hexad.errors import RequestFailed
from hexad.testing.zoo import write_model

torch.set_num_threads(1)
EXACT = HeldFormat(lambda x: x, lambda _: 32)
PROMPTS = [[5, 9, 2, 44, 17, 3, 8] * 5, [1, 2, 3]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Config:
    sizes = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "head_dim": 32, "vocab_size": 96}
    directory = write_model(tmp_path_factory.mktemp("model"), sizes)
    return Config(model=str(directory))


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_perplexity_is_that_of_transformers() -> None:
    llm = LLM(Config(dtype="float32", threads=1))
    texts = quality.held_out_texts(llm.frontend, 900)
    directory = resolve_settings(Config()).directory
    oracle = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    losses: list[float] = []
    for text in texts:
        with torch.inference_mode():
            logits = oracle(torch.tensor([text.token_ids])).logits[0]
        targets = torch.tensor(text.token_ids[text.start : text.stop])
        each = torch.nn.functional.cross_entropy(logits[text.start - 1 : text.stop - 1], targets, reduction="none")
        losses += each.tolist()
    assert math.isclose(math.log(quality.perplexity(llm, texts)), sum(losses) / len(losses), rel_tol=1e-3)


def test_texts_are_answers_to_held_out_questions() -> None:
    frontend = Frontend.load(Config(), resolve_settings(Config()))
    texts = quality.held_out_texts(frontend, 600)
    assert texts == quality.held_out_texts(frontend, 600)
    spoken = [frontend.tokenizer.decode(text.token_ids[text.start : text.stop]) for text in texts]
    assert any(" + " in answer and " = " in answer for answer in spoken)
    assert all(text.token_ids[text.stop - 1] in frontend.generation_defaults.eos_token_ids for text in texts)


def test_divergence_is_that_of_torch() -> None:
    rng = np.random.default_rng(0)
    p, q = (rng.standard_normal((7, 50)).astype(np.float32) * 3 for _ in range(2))
    log_p, log_q = (torch.log_softmax(torch.tensor(x, dtype=torch.float64), dim=1) for x in (p, q))
    expected = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
    found = quality.divergence([p[:3], p[3:]], [q[:3], q[3:]])
    assert math.isclose(found.mean, expected.mean().item()) and math.isclose(found.max, expected.max().item())
    assert found.same == (p.argmax(axis=1) == q.argmax(axis=1)).mean()
    assert quality.divergence([p], [p]) == quality.Divergence(mean=0.0, max=0.0, same=1.0)


def test_widening_every_linear_of_int4_gives_int8(model: Config) -> None:
    wide = Variant("wide", "int4", wide=lambda layer, part, layers: True)
    int8, int4 = (quality.logits(model, Variant(name, name), PROMPTS) for name in ("int8", "int4"))
    assert same(quality.logits(model, wide, PROMPTS), int8) and not same(int4, int8)
    assert not same(quality.logits(model, dataclasses.replace(wide, head="int4-128"), PROMPTS), int8)


def test_widening_one_layer_lies_between(model: Config) -> None:
    first = Variant("first", "int4", wide=lambda layer, part, layers: layer == 0 and part == "down")
    found = quality.logits(model, first, PROMPTS)
    assert not any(same(found, quality.logits(model, Variant(name, name), PROMPTS)) for name in ("int8", "int4"))


def test_emulating_an_exact_format_is_float32(model: Config) -> None:
    exact = Variant("exact", "float32", Emulated(EXACT, EXACT, EXACT.round, EXACT.round))
    float32 = quality.logits(model, Variant("float32", "float32"), PROMPTS)
    assert same(quality.logits(model, exact, PROMPTS), float32)
    for part in ("linear", "head", "table", "inputs"):
        doubled = HeldFormat(lambda x: 2 * x, lambda _: 32)
        altered = dataclasses.replace(
            exact.emulated, **{part: doubled if part in ("linear", "head") else doubled.round}
        )
        variant = Variant(part, "float32", altered)
        assert not same(quality.logits(model, variant, PROMPTS), float32), part


def test_a_report_holds_all_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 64}
    monkeypatch.setitem(SHAPES, "tiny", {**SHAPES["qwen3-0.5b"], **tiny})
    monkeypatch.setattr(quality, "TEXT_TOKENS", 300)
    monkeypatch.setattr(quality, "VARIANTS", [v for v in quality.VARIANTS if v.name in ("float32", "int4")])
    said: list[str] = []
    text = quality.measure_quality(Config(threads=1), "tiny", 1, tmp_path, said.append)
    float32, int4 = json.loads((tmp_path / "quality.json").read_text())["rows"]
    assert (tmp_path / "quality.md").read_text() == text and len(said) == 2
    assert float32["answers"]["mean"] == float32["random"]["mean"] == 0 < int4["random"]["mean"] < 1
    assert float32["bits"] == 32 and 4 < int4["bits"] < 8 and "| int4 | " in text


def test_a_broken_question_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM(Config())

    def fail(*_: object) -> None:
        raise ValueError("a seeded defect")

    monkeypatch.setattr(type(llm._loop.runner), "_run_chunks", fail)
    with pytest.raises(RequestFailed, match="a seeded defect"):
        quality.accuracy(llm, "copy", 2)
