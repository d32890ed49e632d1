"""int8 and int4 through whole models: against transformers over weights that this file rounds, and set against set."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.kernels.load import Kind
from hexad.kernels.precision import Precision
from hexad.models.build import build
from hexad.testing.step import Replay
from hexad.testing.zoo import ZOO, write_model
from tests.kernel_sets import ops_of

GROUPS = {"int8": 0, "int4": 128, "int4-64": 64, "int4-32": 32}
PROMPTS = [np.random.default_rng(n).integers(0, 512, n).tolist() for n in (1, 2, 17, 64, 129)]


@pytest.fixture(scope="module", params=["llama-bias", "qwen2", "qwen3", "mistral-window"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("zoo") / request.param, ZOO[request.param])


def logits_of(directory: Path, kind: Kind, dtype: str) -> np.ndarray:
    """Of every row of the prompts; pages are float32, because each set has its own way with bfloat16 ones."""
    ops, config = ops_of(kind), read_model_config(directory)
    model = build(config, Weights.open(directory), ops, Precision.of(dtype, config.dtype))
    return np.concatenate(Replay(config, model, ops, "float32").logits(PROMPTS))


def rounded(weight: np.ndarray, group: int) -> np.ndarray:
    """The nearest values that int8 (`group` 0) or int4 has, as the op table states the formats."""
    if group == 0:
        scale = np.abs(weight).max(1, keepdims=True) / np.float32(127)
        return np.rint(weight / scale) * scale
    parts = [_nibbles(weight[:, i : i + group]) for i in range(0, weight.shape[1], group)]
    return np.concatenate(parts, axis=1)


def _nibbles(part: np.ndarray) -> np.ndarray:
    greatest = np.take_along_axis(part, np.abs(part).argmax(1)[:, None], 1)
    tries = []
    for divisor in (-8, -9):
        scale = (greatest / np.float32(divisor)).astype(ml_dtypes.bfloat16).astype(np.float32)
        tries.append(np.clip(np.rint(part / scale), -8, 7) * scale)
    errors = [np.square(part - values).sum(1, keepdims=True) for values in tries]
    return np.where(errors[1] < errors[0], tries[1], tries[0])


@torch.inference_mode()
def oracle(directory: Path, group: int) -> np.ndarray:
    """transformers in float32, its linears rounded and its head to int8; the embedding as it is."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())  # no longer tied
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            values = rounded(module.weight.numpy(), 0 if name == "lm_head" else group)
            module.weight.copy_(torch.from_numpy(values))
    return np.concatenate([model(torch.tensor([prompt])).logits[0].numpy() for prompt in PROMPTS])


@pytest.mark.parametrize("dtype", GROUPS)
def test_a_model_of_rounded_weights_is_what_runs(directory: Path, dtype: str) -> None:
    """What is left between the two is the rounding of activations to 8 bits and of the KV cache."""
    expected = oracle(directory, GROUPS[dtype])
    error = np.sqrt(np.mean(np.square(logits_of(directory, "native", dtype) - expected))) / expected.std()
    assert 1e-3 < error < 0.05


@pytest.mark.parametrize("kind", ["native", "torch"])
@pytest.mark.parametrize("dtype", ["int8", "int4", "int4-32"])
def test_the_sets_multiply_the_same_integers(directory: Path, dtype: str, kind: Kind) -> None:
    """Equal but for float32 sums in norms and attention, which now and then round an activation the other way."""
    expected = logits_of(directory, "reference", dtype)
    errors = np.abs(logits_of(directory, kind, dtype) - expected).max(1) / expected.std()
    assert np.median(errors) < 1e-4 and errors.max() < 0.15
