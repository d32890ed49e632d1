"""The recorded, fused and replayed forward pass: the bits of op by op, whatever is fused, on every instruction set."""

from pathlib import Path

import numpy as np
import pytest

from hexad.checkpoints.read_config import read_model_config
from hexad.checkpoints.weights import Weights
from hexad.errors import ConfigError
from hexad.kernels.precision import Precision
from hexad.models.build import build
from hexad.testing.step import Replay
from hexad.testing.zoo import ZOO, write_model

pytest.importorskip("hexad.kernels._native")

from hexad.kernels.fuse import SWITCHES, fuse
from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.record import Add, Linear, Norm, Silu, record

DTYPES = ("float32", "bfloat16", "int8", "int4-32")
PROMPTS = [np.random.default_rng(n).integers(0, 512, n).tolist() for n in (1, 16, 33, 130)]
PROMPTS.append(PROMPTS[-1][:96] + PROMPTS[2])


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("zoo")
    return {variant: write_model(root / variant, ZOO[variant]) for variant in ("llama-bias", "qwen2-window", "qwen3")}


def replay_of(directory: Path, ops: NativeOps, dtype: str) -> Replay:
    config, precision = read_model_config(directory), Precision.of(dtype, "float32")
    return Replay(config, build(config, Weights.open(directory), ops, precision), ops, precision.kv)


def bits(logits: list[np.ndarray]) -> list[bytes]:
    return [row.tobytes() for row in logits]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", ["llama-bias", "qwen2-window", "qwen3"])
def test_fused_is_as_unfused_and_as_op_by_op(directories: dict[str, Path], variant: str, dtype: str) -> None:
    directory = directories[variant]
    expected = bits(replay_of(directory, NativeOps(2), dtype).logits(PROMPTS, 40))
    for without in (*((name,) for name in SWITCHES), SWITCHES):
        got = replay_of(directory, NativeOps(2, without=without), dtype).logits(PROMPTS, 40)
        assert bits(got) == expected, without
    config, precision, ops = read_model_config(directory), Precision.of(dtype, "float32"), NativeOps(1)
    model = build(config, Weights.open(directory), ops, precision)
    eager = Replay(config, model, ops, precision.kv)
    eager.forward = lambda step: model.forward(step, eager.kvs)
    assert bits(eager.logits(PROMPTS, 40)) == expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_gives_the_same_bits(directories: dict[str, Path], dtype: str) -> None:
    """Where there is a fused multiply-add; the portable set has none in its float kernels."""
    runs = {
        isa: bits(replay_of(directories["qwen3"], NativeOps(2, isa), dtype).logits(PROMPTS[:3], 20))
        for isa in available_isas()
    }
    if len(runs) < 2:
        pytest.skip("this CPU has only one of them")
    if "avx512" in runs:
        assert runs["avx512"] == runs["avx2"]


def test_only_wanted_rows_go_through_the_last_layer(directories: dict[str, Path]) -> None:
    """And no separate norm, addition or activation is left."""
    ops = NativeOps(1)
    config, precision = read_model_config(directories["qwen3"]), Precision.of("bfloat16", "float32")
    model = build(config, Weights.open(directories["qwen3"]), ops, precision)
    replay = Replay(config, model, ops, precision.kv)
    trace = record(model.forward, replay.kvs)
    code = fuse(trace.instructions, list(trace.widths), ())
    assert not [i for i in code if isinstance(i, (Norm, Add, Silu))]
    names = [type(i).__name__ for i in code]
    last = len(names) - 1 - names[::-1].index("Attend")
    assert names[last + 1 :] == ["TakeRows", "TakeRows", "Linear", "Linear", "Linear", "Linear"]
    assert len([i for i in code if isinstance(i, Linear)]) == 4 * config.num_layers + 1


def test_an_unknown_optimisation_is_named() -> None:
    with pytest.raises(ConfigError, match="without names fuse-everything; what can be left out is narrow, fuse-"):
        NativeOps(1, without=["fuse-everything"])
