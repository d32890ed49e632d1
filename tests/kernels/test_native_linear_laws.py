"""The law of the rows for int8 and int4: the same bits alone, among others, on threads and instruction sets.

bfloat16 too is the same on every instruction set, where nothing is subnormal.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("hexad.kernels._native")

from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import LEAVES, WeightFormat
from hexad.kernels.reference import ReferenceOps

ISAS = available_isas()
INTEGERS: tuple[WeightFormat, ...] = ("int8", "int4-128", "int4-64", "int4-32")
SETS = {isa: (NativeOps(1, isa), NativeOps(2, isa)) for isa in ISAS}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("leaves", [1, LEAVES])
@pytest.mark.parametrize("format", INTEGERS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_row_alone_is_the_row_among_others(isa: str, format: WeightFormat, leaves: int) -> None:
    one, two = SETS[isa]
    rows = 40 if isa == "portable" else 200
    weight, bias, x = normal(330, 1203), normal(330, seed=1), normal(rows, 1203, seed=2)
    packed = one.pack_linear(weight, format, leaves=leaves)
    alone = np.concatenate([one.linear(x[row : row + 1], packed, bias) for row in range(rows)])
    for count in (*range(1, 14), 25, 40, rows):
        for ops in (one, two):
            assert identical(ops.linear(x[:count], packed, bias), alone[:count])
    assert identical(two.linear(x[7:8], packed, bias), alone[7:8])


@settings(max_examples=120)
@given(
    format=st.sampled_from(INTEGERS),
    outputs=st.integers(1, 150),
    inputs=st.integers(1, 400),
    rows=st.integers(1, 30),
    leaves=st.sampled_from((1, LEAVES)),
    spread=st.sampled_from((1.0, 1e-30, 1e30)),
)
def test_every_set_gives_the_same_bits(
    format: WeightFormat, outputs: int, inputs: int, rows: int, leaves: int, spread: float
) -> None:
    """Each instruction set, one thread or two, and the numpy reference; any shape."""
    weight, x = normal(outputs, inputs, seed=inputs), normal(rows, inputs, seed=rows) * np.float32(spread)
    x[0] = 0
    reference = ReferenceOps()
    expected = reference.linear(x, reference.pack_linear(weight, format, leaves=leaves))
    for one, two in SETS.values():
        for ops in (one, two):
            assert identical(ops.linear(x, ops.pack_linear(weight, format, leaves=leaves)), expected)


@pytest.mark.parametrize("leaves", [1, LEAVES])
def test_bfloat16_is_the_same_on_every_instruction_set(leaves: int) -> None:
    weight, x = normal(130, 1203), normal(20, 1203, seed=1)
    results = {isa: two.linear(x, two.pack_linear(weight, "bfloat16", leaves=leaves)) for isa, (_, two) in SETS.items()}
    assert all(identical(result, results[ISAS[0]]) for result in results.values())


@pytest.mark.parametrize("format", INTEGERS)
def test_leaves_of_int4_are_what_ranks_of_tensor_parallelism_would_sum(format: WeightFormat) -> None:
    """Ranks with a leaf's groups each, summed by the tree, give the bits of one process."""
    if format == "int8":
        pytest.skip("int8 has one scale an output: its sums are of the whole row")
    ops, size = SETS[ISAS[0]][1], int(format.split("-")[1])
    inputs = 11 * size - 5
    weight, x = normal(50, inputs), normal(9, inputs, seed=1)
    whole = ops.linear(x, ops.pack_linear(weight, format, leaves=LEAVES))
    parts = [slice(i * 11 // LEAVES * size, (i + 1) * 11 // LEAVES * size) for i in range(LEAVES)]
    sums = [ops.linear(x[:, part], ops.pack_linear(weight[:, part], format)) for part in parts]
    while len(sums) > 1:
        sums = [left + right for left, right in zip(sums[::2], sums[1::2], strict=True)]
    assert identical(sums[0], whole)
