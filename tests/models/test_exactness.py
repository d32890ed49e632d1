"""The exactness law, bitwise: a row of logits does not depend on what else runs, nor on how it is cut.

For the reference and the native set; the torch set does not promise it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.kernels.load import Kind
from hexad.kernels.ops import SAMPLING
from hexad.kernels.precision import Precision
from hexad.models.build import build
from hexad.testing.step import Replay
from hexad.testing.zoo import ZOO, write_model
from tests.kernel_sets import ops_of

KINDS: tuple[Kind, ...] = ("reference", "native")
DTYPES = ("float32", "bfloat16")
VARIANTS = ("llama-bias", "mistral-window", "qwen2-window", "qwen3")
CASES = [(kind, variant, dtype) for kind in KINDS for variant in VARIANTS for dtype in DTYPES]
CASES += [("native", "llama-bias", "int8"), ("native", "qwen3", "int4"), ("native", "qwen2-window", "int4-32")]
CASES += [("reference", "llama-bias", "int4-32")]
LENGTHS = [1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 18, 20, 23, 24, 25, 28, 30, 31, 32, 33, 34, 40, 41, 47, 48, 49, 50]
LENGTHS += [64, 65, 130, 270]
PROMPTS = [np.random.default_rng(n).integers(0, 512, n).tolist() for n in LENGTHS]
SOME = (0, 9, 10, 20, 31)

Case = tuple[Kind, Path, str, Replay, list[np.ndarray]]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zoo")
    return {variant: write_model(root / variant, ZOO[variant]) for variant in VARIANTS}


def replay_of(directory: Path, kind: Kind, dtype: str, threads: int = 1) -> Replay:
    ops, config = ops_of(kind, threads), read_model_config(directory)
    precision = Precision.of(dtype, config.dtype)
    return Replay(config, build(config, Weights.open(directory), ops, precision), ops, precision.kv)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Iterator[Case]:
    """A set, a model and a dtype, with the logits of a batch of 32 prompts, each in one chunk."""
    kind, variant, dtype = request.param
    replay = replay_of(directories[variant], kind, dtype)
    yield kind, directories[variant], dtype, replay, replay.logits(PROMPTS)


def assert_same_bits(got: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def test_alone_is_as_in_a_batch_of_32(case: Case) -> None:
    _, _, _, replay, batched = case
    for i in SOME:
        assert_same_bits(replay.logits([PROMPTS[i]]), [batched[i]])


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_the_size_of_chunks_does_not_matter(case: Case, chunk: int) -> None:
    _, _, _, replay, batched = case
    assert_same_bits(replay.logits([PROMPTS[i] for i in SOME], chunk), [batched[i] for i in SOME])


def test_prompts_and_single_tokens_side_by_side(case: Case) -> None:
    _, _, _, replay, batched = case
    assert_same_bits(replay.logits(PROMPTS, 40, ragged=np.random.default_rng(5)), batched)


def test_what_an_earlier_owner_left_in_the_pages_does_not_matter(case: Case) -> None:
    """Not even NaN: a sequence that broke must not break whoever gets its pages next."""
    _, _, _, replay, batched = case
    for cache in (cache for kv in replay.kvs for cache in kv):
        cache[:] = float("nan")
    assert_same_bits(replay.logits([PROMPTS[i] for i in SOME], 33), [batched[i] for i in SOME])


def test_the_number_of_threads_does_not_matter(case: Case) -> None:
    kind, directory, dtype, _, batched = case
    assert_same_bits(replay_of(directory, kind, dtype, threads=2).logits(PROMPTS, 29), batched)


def test_sampled_tokens_do_not_depend_on_the_other_rows(case: Case) -> None:
    _, _, _, replay, batched = case
    rows = np.ascontiguousarray(batched[-1][:64])
    how = np.empty(64, SAMPLING)
    how["temperature"] = np.tile([0, 1, 0.7, 1], 16)
    how["top_k"] = np.tile([0, 0, 20, 0], 16)
    how["top_p"] = np.tile([1, 1, 0.9, 1], 16)
    how["min_p"] = np.tile([0, 0, 0, 0.02], 16)
    how["seed"] = how["position"] = np.arange(64)
    together = replay.ops.sample(replay.ops.array(rows), how)
    alone = [replay.ops.sample(replay.ops.array(rows[i : i + 1]), how[i : i + 1])[0] for i in range(64)]
    np.testing.assert_array_equal(together, alone)
