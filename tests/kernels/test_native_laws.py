"""The law: a row's bits depend on the row alone. Each op, bitwise, on every instruction set.

Alone or among others, at any place of the batch, on one thread or several. Attention has a
file of its own, test_native_attention.py.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hexad.kernels._native")

from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import LEAVES, SAMPLING, Dtype

ISAS = available_isas()


@pytest.fixture(params=ISAS, scope="module")
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_a_linear_alone_is_the_row_among_others(isa: str, dtype: Dtype, leaves: int) -> None:
    """For every number of rows from 1 to 40, and 100 and 300, at every position; 1 and 2 threads."""
    one, two = NativeOps(1, isa), NativeOps(2, isa)
    weight, bias, x = normal(330, 1203), normal(330, seed=1), normal(300, 1203, seed=2)
    packed = one.pack_linear(weight, dtype, leaves=leaves)
    alone = np.concatenate([one.linear(x[row : row + 1], packed, bias) for row in range(300)])
    for rows in (*range(1, 41), 100, 300):
        for ops in (one, two):
            assert identical(ops.linear(x[:rows], packed, bias), alone[:rows])
    assert identical(two.linear(x[7:8], packed, bias), alone[7:8])


def test_leaves_are_what_ranks_of_tensor_parallelism_would_sum(isa: str) -> None:
    """Eight ranks, each with one leaf's inputs, summed by the tree: the bits of one process."""
    ops, weight, x = NativeOps(2, isa), normal(50, 808), normal(9, 808, seed=1)
    whole = ops.linear(x, ops.pack_linear(weight, "float32", leaves=LEAVES))
    parts = [slice(i * 808 // LEAVES, (i + 1) * 808 // LEAVES) for i in range(LEAVES)]
    sums = [ops.linear(x[:, part], ops.pack_linear(weight[:, part], "float32")) for part in parts]
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    assert identical(sums[0], whole)


def test_norms_and_activations_alone_and_among_others(isa: str) -> None:
    one, two = NativeOps(1, isa), NativeOps(2, isa)
    x, weight, gate_up = normal(400, 301), normal(301, seed=1), normal(400, 602, seed=2)
    together = two.rms_norm(x, weight, 1e-6), two.silu_mul(gate_up)
    assert identical(one.rms_norm(x, weight, 1e-6), together[0])
    for row in (0, 3, 399):
        assert identical(one.rms_norm(x[row : row + 1], weight, 1e-6)[0], together[0][row])
        assert identical(one.silu_mul(gate_up[row : row + 1])[0], together[1][row])


def test_a_token_is_drawn_the_same_alone_and_among_others(isa: str) -> None:
    one, two, rows = NativeOps(1, isa), NativeOps(2, isa), 40
    logits = normal(rows, 4000) * 2
    generator = np.random.default_rng(0)
    how = np.empty(rows, SAMPLING)
    how["temperature"] = generator.choice([0, 0.5, 1, 2], rows)
    how["top_k"] = generator.choice([0, 1, 20, 3000], rows)
    how["top_p"] = generator.choice([0.5, 0.95, 1], rows)
    how["min_p"] = generator.choice([0, 0.05], rows)
    how["seed"] = generator.integers(0, 2**63, rows)
    how["position"] = generator.integers(0, 2**40, rows)
    together = two.sample(logits, how)
    for row in range(rows):
        assert one.sample(logits[row : row + 1], how[row : row + 1])[0] == together[row]


def test_flush_to_zero_on_the_calling_thread_changes_nothing(isa: str) -> None:
    """torch.set_flush_denormal is one of several libraries' ways to change the float mode of a thread."""
    torch = pytest.importorskip("torch")
    ops, x, tiny = NativeOps(2, isa), normal(30, 64), normal(1000, 64, seed=1) * np.float32(1e-39)
    packed = ops.pack_linear(tiny, "float32")
    plain = ops.linear(x, packed)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU or torch cannot flush subnormals")
    try:
        flushed = ops.linear(x, packed)
    finally:
        torch.set_flush_denormal(False)
    assert np.count_nonzero(plain) > 0.99 * plain.size
    assert identical(plain, flushed)
