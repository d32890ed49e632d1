"""The law: a row's bits depend on the row alone. Each op, bitwise, on every instruction set.

Alone or among others, at any place of the batch, in any chunks, on one thread or several, and
whatever lies in the parts of the cache that a row does not own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("hexad.kernels._native")

from hexad.errors import KernelError
from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import KV, LEAVES, PAGE_SIZE, Dtype, Sampling, Step
from hexad.testing.step import Piece, make_step

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


class World:
    """Sequences with their own queries, keys and values; run in any steps, over a cache full of NaN."""

    heads, groups, width, pages = 6, 2, 40, 128
    lengths = (1, 16, 17, 70, 129, 260)

    def __init__(self, isa: str, dtype: Dtype, window: int) -> None:
        self.isa, self.dtype, self.window = isa, dtype, window
        shape = (len(self.lengths), max(self.lengths))
        counts = (self.heads, self.groups, self.groups)
        self.qkv = [normal(*shape, count, self.width, seed=seed) for seed, count in enumerate(counts)]
        angles = np.outer(np.arange(300), 0.9 ** np.arange(self.width // 2))
        self.cos_sin = np.concatenate((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)

    def run(self, threads: int, sequences: list[int], chunk: int, page_seed: int) -> dict[int, np.ndarray]:
        """[length, H*E] of each sequence, computed together in steps of up to `chunk` tokens of each."""
        ops = NativeOps(threads, self.isa)
        pages = np.random.default_rng(page_seed).permutation(self.pages)
        kv = ops.new_kv(self.pages, self.groups, self.width, self.dtype)
        for cache in kv:
            cache[:] = np.nan
        rows: dict[int, list[np.ndarray]] = {i: [] for i in sequences}
        for start in range(0, max(self.lengths[i] for i in sequences), chunk):
            alive = [i for i in sequences if self.lengths[i] > start]
            pieces = [
                Piece(range(start, min(start + chunk, self.lengths[i])), start, pages[i * 20 : i * 20 + 20].tolist())
                for i in alive
            ]
            step = make_step(ops, pieces)
            for i, out in zip(alive, self.attend(ops, step, kv, alive), strict=True):
                rows[i].append(out)
                self.forget(kv, pages[i * 20 : i * 20 + 20], start + chunk)
        return {i: np.concatenate(parts) for i, parts in rows.items()}

    def attend(self, ops: NativeOps, step: Step, kv: KV, alive: list[int]) -> list[np.ndarray]:
        sequence = np.repeat(alive, np.diff(step.query_starts_S1))
        q, k, v = (x[sequence, step.positions_T] for x in self.qkv)
        turned = ops.rope_kv_write(q, k, v, self.cos_sin, step, kv)
        out = ops.attention(turned, step, kv, self.width**-0.5, self.window)
        return np.split(out, step.query_starts_S1[1:-1])

    def forget(self, kv: KV, pages: np.ndarray, next_position: int) -> None:
        """NaN over what no later token's window reaches: such pages may belong to others by then."""
        behind = np.arange(max(0, next_position - self.window + 1) if self.window else 0)
        behind = behind[behind < len(pages) * PAGE_SIZE]
        at, offset = pages[behind // PAGE_SIZE], behind % PAGE_SIZE
        kv.k_pages[at, :, :, offset] = np.nan
        kv.v_pages[at, :, offset, :] = np.nan


@pytest.mark.parametrize("window", [0, 5, 50])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_alone_in_a_batch_in_chunks_and_on_threads(isa: str, dtype: Dtype, window: int) -> None:
    world = World(isa, dtype, window)
    everyone = list(range(len(world.lengths)))
    whole = world.run(1, everyone, 300, page_seed=0)
    assert all(np.isfinite(rows).all() for rows in whole.values())
    for threads, sequences, chunk, page_seed in (
        (1, [5], 300, 0),
        (1, [5], 1, 1),
        (2, [3], 7, 2),
        (2, everyone, 64, 3),
        (2, everyone[::-1], 33, 4),
        (1, [4, 1], 100, 5),
    ):
        for i, rows in world.run(threads, sequences, chunk, page_seed).items():
            assert identical(rows, whole[i])


def test_attention_is_softmax_attention_with_bfloat16_pages(isa: str) -> None:
    """Against float64 over what rope_kv_write put into the pages."""
    world = World(isa, "bfloat16", 0)
    ops, length = NativeOps(2, isa), 260
    kv = ops.new_kv(32, world.groups, world.width, "bfloat16")
    step = make_step(ops, [Piece(range(length), 0, list(range(20, 3, -1)))])
    q, k, v = (x[5, :length] for x in world.qkv)
    turned = ops.rope_kv_write(q, k, v, world.cos_sin, step, kv)
    got = ops.attention(turned, step, kv, 0.2, 0)
    pages, offsets = step.slots_T // PAGE_SIZE, step.slots_T % PAGE_SIZE
    keys, values = kv.k_pages[pages, :, :, offsets], kv.v_pages[pages, :, offsets, :]
    np.testing.assert_array_equal(values, v.astype(values.dtype))
    keys, values = (np.repeat(x.astype(np.float64), world.heads // world.groups, axis=1) for x in (keys, values))
    scores = np.einsum("qhe,khe->hqk", turned, keys) * 0.2
    scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("hqk,khe->qhe", weights / weights.sum(-1, keepdims=True), values)
    np.testing.assert_allclose(got, expected.reshape(length, -1), atol=3e-6)


@pytest.mark.parametrize(("heads", "groups", "width"), [(1, 1, 2), (7, 1, 64), (60, 2, 18), (4, 4, 512)])
def test_attention_of_unusual_shapes(isa: str, heads: int, groups: int, width: int) -> None:
    ops, length = NativeOps(2, isa), 90
    kv = ops.new_kv(8, groups, width, "float32")
    step = make_step(ops, [Piece(range(length), 0, [5, 3, 1, 0, 2, 4])])
    q, k, v = (normal(length, n, width, seed=seed) for seed, n in enumerate((heads, groups, groups)))
    flat = np.concatenate((np.ones((100, width // 2)), np.zeros((100, width // 2))), axis=1).astype(np.float32)
    got = ops.attention(ops.rope_kv_write(q, k, v, flat, step, kv), step, kv, width**-0.5, 0)
    keys, values = (np.repeat(x.astype(np.float64), heads // groups, axis=1) for x in (k, v))
    scores = np.einsum("qhe,khe->hqk", q, keys) * width**-0.5
    scores[:, np.triu(np.ones((length, length), bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("hqk,khe->qhe", weights / weights.sum(-1, keepdims=True), values)
    np.testing.assert_allclose(got, expected.reshape(length, -1), atol=5e-6)


def test_a_page_table_that_points_nowhere_is_refused() -> None:
    ops = NativeOps(1)
    kv = ops.new_kv(4, 1, 8, "float32")
    step = make_step(ops, [Piece(range(20), 0, [1, 4])])
    q = normal(20, 1, 8)
    with pytest.raises(KernelError, match="names page 4; there are 4"):
        ops.attention(q, step, kv, 1.0, 0)
    with pytest.raises(KernelError, match="slots_T has 64"):
        ops.rope_kv_write(q, q, q, normal(32, 8), step, kv)
    with pytest.raises(KernelError, match="1 columns, but a sequence needs 2 pages"):
        ops.attention(q, replace(step, page_table_SP=step.page_table_SP[:, :1].copy()), kv, 1.0, 0)


def test_a_token_is_drawn_the_same_alone_and_among_others(isa: str) -> None:
    one, two, rows = NativeOps(1, isa), NativeOps(2, isa), 40
    logits = normal(rows, 4000) * 2
    generator = np.random.default_rng(0)
    how = Sampling(
        generator.choice(np.array([0, 0.5, 1, 2], np.float32), rows),
        generator.choice(np.array([0, 1, 20, 3000], np.int32), rows),
        generator.choice(np.array([0.5, 0.95, 1], np.float32), rows),
        generator.choice(np.array([0, 0.05], np.float32), rows),
        generator.integers(0, 2**63, rows).astype(np.uint64),
        generator.integers(0, 2**40, rows),
    )
    together = two.sample(logits, how)
    for row in range(rows):
        single = Sampling(*(column[row : row + 1] for column in how))
        assert one.sample(logits[row : row + 1], single)[0] == together[row]


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
