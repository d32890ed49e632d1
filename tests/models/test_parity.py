"""Every family and every variant of attention against Hugging Face transformers, on every kernel set.

Both read the same directory of random float32 weights. Greedy tokens are compared by
transformers' own choice after the same tokens: by induction that is its greedy answer.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from hexad.checkpoints.config import ModelConfig
from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Tensors, Weights
from hexad.errors import CheckpointError
from hexad.kernels.load import Kind
from hexad.kernels.ops import Dtype, Ops
from hexad.kernels.precision import Precision
from hexad.models.build import build
from hexad.testing.step import Piece, Replay, make_step
from hexad.testing.zoo import ZOO, write_model
from tests.kernel_sets import KINDS, ops_of

torch.set_num_threads(1)

TOLERANCE = 1e-4
LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 128, 129, 257, 700)
PROMPTS = [np.random.default_rng(n).integers(0, 512, n).tolist() for n in LENGTHS]

FLOAT32 = Precision.of("float32", "float32")


class Zoo:
    """The directories of `ZOO`, and what transformers computes from them, each made once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @functools.cache  # noqa: B019
    def directory(self, variant: str, dtype: str = "float32") -> Path:
        return write_model(self.root / variant / dtype, ZOO[variant], dtype=dtype)

    @functools.cache  # noqa: B019
    def oracle(self, variant: str, dtype: str = "float32", run_in: torch.dtype = torch.float32) -> torch.nn.Module:
        model, report = AutoModelForCausalLM.from_pretrained(
            self.directory(variant, dtype), dtype=run_in, attn_implementation="eager", output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], report
        return model

    @functools.cache  # noqa: B019
    def logits(self, variant: str) -> list[np.ndarray]:
        return [logits_of(self.oracle(variant), prompt) for prompt in PROMPTS]

    def replay(
        self,
        variant: str,
        ops: Ops,
        dtype: Dtype = "float32",
        change: Callable[[ModelConfig], ModelConfig] | None = None,
    ) -> Replay:
        directory = self.directory(variant, dtype)
        config = read_model_config(directory)
        config = change(config) if change else config
        weights = Weights.open(directory)
        precision = Precision.of(dtype, dtype)
        model = build(config, weights, ops, precision)
        assert weights.unused() == []
        return Replay(config, model, ops, precision.kv)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@torch.inference_mode()
def logits_of(model: torch.nn.Module, prompt: list[int]) -> np.ndarray:
    return model(torch.tensor([prompt])).logits[0].float().numpy()


def greatest_error(got: list[np.ndarray], expected: list[np.ndarray]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ZOO)
def test_logits_at_every_position(zoo: Zoo, variant: str, kind: Kind) -> None:
    """A batch of 16 prompts of 1 to 700 tokens; some alone; all in chunks that cross pages."""
    replay, expected = zoo.replay(variant, ops_of(kind)), zoo.logits(variant)
    assert greatest_error(replay.logits(PROMPTS), expected) < TOLERANCE
    for i in (0, 4, 7, 13):
        assert greatest_error(replay.logits([PROMPTS[i]]), [expected[i]]) < TOLERANCE
    assert greatest_error(replay.logits(PROMPTS, chunk=50), expected) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ZOO)
def test_64_greedy_tokens(zoo: Zoo, variant: str, kind: Kind) -> None:
    replay, oracle = zoo.replay(variant, ops_of(kind)), zoo.oracle(variant)
    answers = replay.greedy(PROMPTS, 64)
    answers[1] = replay.greedy([PROMPTS[1]], 64)[0]
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        expected = logits_of(oracle, prompt + answer)[len(prompt) - 1 : -1].argmax(-1)
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_whose_logits_nobody_wants_still_fills_the_cache(zoo: Zoo, kind: Kind) -> None:
    """As in the middle of a long prompt: R is 0, and the next step goes on from there."""
    replay, prompt, pages = zoo.replay("llama", ops_of(kind)), PROMPTS[13], list(range(9))
    first = make_step(replay.ops, [Piece(prompt[:100], 0, pages)])
    unwanted = msgspec.structs.replace(first, output_rows_R=replay.ops.array(np.zeros(0, np.int32)))
    assert replay.ops.to_host(replay.forward(unwanted)).shape == (0, 512)
    second = make_step(replay.ops, [Piece(prompt[100:], 100, pages)])
    got = replay.ops.to_host(replay.forward(second))
    assert greatest_error([got], [zoo.logits("llama")[13][-1:]]) < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", ["llama", "mistral-window", "qwen2", "qwen3"])
def test_bfloat16_is_at_least_as_exact_as_transformers(zoo: Zoo, variant: str, kind: Kind) -> None:
    """Both in bfloat16, against transformers in float32 on the same bfloat16 weights.

    Hexad keeps activations in float32 and rounds them only where they meet a weight or the
    KV cache, so its error must be below transformers', and not below what rounding makes.
    """
    prompts = PROMPTS[3:14]
    replay = zoo.replay(variant, ops_of(kind), "bfloat16")
    exact = np.concatenate([logits_of(zoo.oracle(variant, "bfloat16"), prompt) for prompt in prompts])
    theirs = np.concatenate([logits_of(zoo.oracle(variant, "bfloat16", torch.bfloat16), prompt) for prompt in prompts])
    ours = np.concatenate(replay.logits(prompts))
    our_error, their_error = (float(np.sqrt(np.mean((x - exact) ** 2))) for x in (ours, theirs))
    assert 1e-4 < our_error < their_error
    assert our_error < 0.02 * exact.std()


def _rope(**fields: float) -> Callable[[ModelConfig], ModelConfig]:
    return lambda config: msgspec.structs.replace(config, rope=msgspec.structs.replace(config.rope, **fields))


MUTATIONS: dict[str, tuple[str, Callable[[ModelConfig], ModelConfig]]] = {
    "rope theta": ("llama", _rope(theta=10010.0)),
    "rope factor": ("llama-linear", _rope(factor=4.01)),
    "llama3 low factor": ("llama-llama3", _rope(low_freq_factor=1.01)),
    "yarn ramp": ("llama-yarn", _rope(beta_fast=30.0, truncate=False)),
    "yarn amplitude": ("llama-yarn", _rope(attention_factor=1.139)),
    "epsilon": ("llama", lambda config: msgspec.structs.replace(config, rms_norm_eps=1.1e-5)),
    "window one wider": ("mistral-window", lambda config: msgspec.structs.replace(config, windows=(17, 17))),
    "window one narrower": ("qwen2-window", lambda config: msgspec.structs.replace(config, windows=(0, 39))),
    "window on the wrong layer": ("qwen2-window", lambda config: msgspec.structs.replace(config, windows=(40, 0))),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_tolerance_has_teeth(zoo: Zoo, mutation: str) -> None:
    variant, change = MUTATIONS[mutation]
    replay = zoo.replay(variant, ops_of("reference"), change=change)
    error = greatest_error(replay.logits(PROMPTS[9:14]), zoo.logits(variant)[9:14])
    assert error > 2 * TOLERANCE


class Tampered(Tensors):
    """Weights of a directory, with the first head of one of them scaled by 1.001."""

    def __init__(self, directory: Path, name: str, rows: int) -> None:
        self.weights, self.name, self.rows = Weights.open(directory), name, rows

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        weight = np.array(self.weights.take(name, shape))
        if name == self.name:
            weight[: self.rows] *= 1.001
        return weight


@pytest.mark.parametrize("part", ["self_attn.q_proj", "self_attn.v_proj"])
def test_one_head_scaled_by_a_thousandth_shows(zoo: Zoo, part: str) -> None:
    directory, ops = zoo.directory("llama"), ops_of("reference")
    config = read_model_config(directory)
    model = build(config, Tampered(directory, f"model.layers.0.{part}.weight", 16), ops, FLOAT32)
    error = greatest_error(Replay(config, model, ops, "float32").logits(PROMPTS[9:14]), zoo.logits("llama")[9:14])
    assert error > 2 * TOLERANCE


def test_an_unknown_family_is_refused_with_the_known_ones(zoo: Zoo) -> None:
    config = msgspec.structs.replace(read_model_config(zoo.directory("llama")), model_type="names")
    with pytest.raises(CheckpointError, match=r"'names'.*llama, mistral, qwen2, qwen3"):
        build(config, Weights.open(zoo.directory("llama")), ops_of("reference"), FLOAT32)
