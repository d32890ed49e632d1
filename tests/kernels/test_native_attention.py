"""Native attention on every instruction set: float64 softmax attention, and the law of the rows, bitwise.

Caches are full of NaN but for what the step's tokens wrote, also behind their windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("hexad.kernels._native")

from hexad.errors import KernelError
from hexad.kernels import _native
from hexad.kernels.native import NativeOps, available_isas
from hexad.kernels.ops import KV, PAGE_SIZE, Dtype, Step
from hexad.testing.step import Piece, make_step

SHAPES = [(2, 2, 2), (4, 2, 24), (6, 2, 64), (7, 1, 80), (8, 4, 128), (3, 1, 256)]
"""Query heads, key-value heads, head dimension: groups of 1, 2, 3 and 7."""
ODD_SHAPES = [*SHAPES, (100, 2, 18), (2, 2, 512)]
WEIGHT_ERROR = 2.0**-8
"""A weight is rounded to the 8 bits of a bfloat16, relative."""


@pytest.fixture(params=available_isas(), scope="module")
def isa(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def as_stored(x: np.ndarray, dtype: Dtype) -> np.ndarray:
    """What is left of float32 values in such pages, as float64."""
    kept: np.ndarray = (x.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else x).astype(np.float64)
    return kept


def stain(kv: KV, pages: np.ndarray, offsets: np.ndarray) -> None:
    """NaN over the keys and values of some slots, in the layouts of NativeOps.new_kv."""
    if kv.k_pages.ndim == 5:
        kv.k_pages[pages, :, :, offsets, :] = np.nan
        kv.v_pages[pages, :, offsets // 2, :, offsets % 2] = np.nan
    else:
        kv.k_pages[pages, :, :, offsets] = np.nan
        kv.v_pages[pages, :, offsets, :] = np.nan


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def flat(positions: int, width: int) -> np.ndarray:
    """A rotary table that turns nothing."""
    return np.repeat(np.array([[1, 0]], np.float32), width // 2, axis=1).repeat(positions, axis=0)


class World:
    """Sequences with their own queries, keys and values; run in any steps, over a cache full of NaN."""

    pages = 160

    def __init__(self, isa: str, dtype: Dtype, window: int, shape: tuple[int, int, int], lengths: Sequence[int]):
        self.isa, self.dtype, self.window, self.lengths = isa, dtype, window, lengths
        self.heads, self.groups, self.width = shape
        rows = (len(lengths), max(lengths))
        counts = (self.heads, self.groups, self.groups)
        self.q, self.k, self.v = (normal(*rows, count, self.width, seed=seed) for seed, count in enumerate(counts))
        self.table = flat(max(lengths), self.width)

    def run(self, threads: int, sequences: list[int], chunk: int, page_seed: int) -> dict[int, np.ndarray]:
        """[length, H*E] of each sequence, computed together in steps of up to `chunk` tokens of each."""
        ops = NativeOps(threads, self.isa)
        pages = np.random.default_rng(page_seed).permutation(self.pages)
        kv = ops.new_kv(self.pages, self.groups, self.width, self.dtype)
        for side in kv:
            side[:] = np.nan
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
        q, k, v = (x[sequence, step.positions_T] for x in (self.q, self.k, self.v))
        turned = ops.rope_kv_write(q, k, v, self.table, step, kv)
        out = ops.attention(turned, step, kv, self.width**-0.5, self.window)
        return np.split(out, step.query_starts_S1[1:-1])

    def forget(self, kv: KV, pages: np.ndarray, next_position: int) -> None:
        """NaN over what no later token's window reaches: such pages may belong to others by then."""
        behind = np.arange(max(0, next_position - self.window + 1) if self.window else 0)
        behind = behind[behind < len(pages) * PAGE_SIZE]
        stain(kv, pages[behind // PAGE_SIZE], behind % PAGE_SIZE)


@cache
def exact(dtype: Dtype, shape: tuple[int, int, int], window: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Float64 attention over what is stored of the first sequence of a World, [length, H*E], and how far off
    it may be: rounded weights w(1 + d) give sum(w d (v - out)) / sum(w (1 + d)) too much."""
    world = World("", dtype, window, shape, [length])
    q, k, v = (as_stored(x[0], dtype) for x in (world.q, world.k, world.v))
    k, v = (np.repeat(x, world.heads // world.groups, axis=1) for x in (k, v))
    out, off = np.empty(q.shape), np.full(q.shape, 5e-6)
    for t in range(length):
        seen = slice(max(0, t + 1 - window) if window else 0, t + 1)
        scores = np.einsum("he,khe->kh", q[t], k[seen]) * world.width**-0.5
        weights = np.exp(scores - scores.max(0))
        weights = (weights / weights.sum(0))[:, :, None]
        out[t] = (weights * v[seen]).sum(0)
        if dtype == "bfloat16":
            off[t] += 1.01 * WEIGHT_ERROR * (weights * np.abs(v[seen] - out[t])).sum(0)
    return out.reshape(length, -1), off.reshape(length, -1)


@pytest.mark.parametrize("window", [0, 1, 151])
@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_softmax_attention(isa: str, dtype: Dtype, shape: tuple[int, int, int], window: int) -> None:
    """Over three blocks of keys."""
    expected, off = exact(dtype, shape, window, length := 270)
    assert (np.abs(World(isa, dtype, window, shape, [length]).run(2, [0], 160, 0)[0] - expected) <= off).all()


@pytest.mark.parametrize("window", [0, 5, 50])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_alone_in_a_batch_in_chunks_and_on_threads(
    isa: str, dtype: Dtype, shape: tuple[int, int, int], window: int
) -> None:
    world = World(isa, dtype, window, shape, (1, 16, 17, 70, 129, 260) if shape == (6, 2, 64) else (1, 70, 131))
    everyone = list(range(len(world.lengths)))
    last = everyone[-1]
    whole = world.run(1, everyone, 300, page_seed=0)
    assert all(np.isfinite(rows).all() for rows in whole.values())
    for threads, sequences, chunk, page_seed in (
        (1, [last], 300, 0),
        (1, [last], 1, 1),
        (2, [1], 7, 2),
        (2, everyone, 64, 3),
        (3, everyone[::-1], 33, 4),
        (1, [last, 1], 100, 5),
    ):
        for i, rows in world.run(threads, sequences, chunk, page_seed).items():
            assert identical(rows, whole[i])


def attend(engine: _native.Engine, q: np.ndarray, step: Step, kv: KV, window: int, cascade: bool) -> np.ndarray:
    out = np.full((len(q), q.shape[1] * q.shape[2]), np.nan, np.float32)
    where = step.positions_T, step.query_starts_S1, step.page_table_SP
    engine.attention(q, *where, *kv, 0.3, window, cascade, out)
    return out


def family(window: int) -> list[Piece]:
    """Decodes and short chunks whose page tables begin alike to different depths, up to a shared last page."""
    pages = np.random.default_rng(1).permutation(400).tolist()
    trunk, branches = pages[:24], [pages[24 + 9 * i : 33 + 9 * i] for i in range(3)]
    own = iter(pages[60:])
    pieces = [Piece(range(1), 511, trunk[:20] + pages[52:60] + [399, 398, 397, 396])]
    for i in range(20):
        known, count = 24 * PAGE_SIZE + 30 * i, 1 + 4 * (i % 5 == 0)
        table = trunk + branches[i % 3][: i // 3 + 1]
        table += [next(own) for _ in range(max(0, (known + count) // PAGE_SIZE + 1 - len(table)))]
        pieces.append(Piece(range(count), known, table))
    pieces.append(Piece(range(1), 30, trunk[:2]))
    pieces.append(Piece(range(2), 383, trunk + pages[40:41]))
    pieces.append(Piece(range(30), 385, trunk + branches[0][:3]))
    return pieces if not window else pieces[::-1]


@pytest.mark.parametrize("window", [0, 40, 600])
@pytest.mark.parametrize("shape", [(4, 2, 64), (1, 1, 24), (7, 1, 80), (30, 1, 16)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sequences_that_begin_alike(isa: str, dtype: Dtype, shape: tuple[int, int, int], window: int) -> None:
    """Together over shared pages, each by itself, and alone: one answer."""
    heads, groups, width = shape
    ops, pieces = NativeOps(1, isa), family(window)
    kv = ops.new_kv(400, groups, width, dtype)
    for seed, side in enumerate(kv):
        side[:] = normal(*side.shape, seed=seed).astype(side.dtype)
    step = make_step(ops, pieces)
    q = normal(len(step.positions_T), heads, width)
    apart = attend(_native.Engine(1, isa), q, step, kv, window, False)
    assert np.isfinite(apart).all()
    for threads in (1, 2, 5):
        assert identical(attend(_native.Engine(threads, isa), q, step, kv, window, True), apart)
    first = 0
    for piece in pieces:
        rows = slice(first, first := first + len(piece.token_ids))
        alone = attend(_native.Engine(1, isa), q[rows], make_step(ops, [piece]), kv, window, True)
        assert identical(alone, apart[rows])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bits_on_every_instruction_set_with_fma(dtype: Dtype) -> None:
    if not {"avx2", "avx512"} <= set(available_isas()):
        pytest.skip("this CPU has only one of them")
    one, other = (
        World(isa, dtype, 50, (6, 2, 40), (1, 70, 131)).run(2, [0, 1, 2], 60, 0) for isa in ("avx2", "avx512")
    )
    assert all(identical(one[i], other[i]) for i in one)


@pytest.mark.parametrize(("heads", "groups", "width"), [(3, 1, 6), (4, 2, 80)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_norm_within_rope_is_the_norm_before_it(isa: str, dtype: Dtype, heads: int, groups: int, width: int) -> None:
    ops, tokens = NativeOps(2, isa), 40
    angles = np.outer(np.arange(tokens), 0.9 ** np.arange(width // 2))
    table = np.concatenate((np.cos(angles), np.sin(angles)), axis=1).astype(np.float32)
    step = make_step(ops, [Piece(range(tokens), 0, [2, 0, 1])])
    q, k, v = (normal(tokens, n, width, seed=seed) for seed, n in enumerate((heads, groups, groups)))
    q_weight, k_weight = normal(width, seed=3), normal(width, seed=4)
    apart, fused = (ops.new_kv(3, groups, width, dtype) for _ in range(2))
    turned = ops.rope_kv_write(ops.rms_norm(q, q_weight, 1e-6), ops.rms_norm(k, k_weight, 1e-6), v, table, step, apart)
    out, engine = np.empty_like(q), _native.Engine(2, isa)
    where = table, step.positions_T, step.slots_T
    engine.rope_kv_write(q, k, v, *where, *fused, q_weight, k_weight, 1e-6, out)
    assert identical(out, turned)
    assert all(identical(a, b) for a, b in zip(apart, fused, strict=True))


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


def test_pages_of_another_layout_are_refused() -> None:
    ops = NativeOps(1)
    step = make_step(ops, [Piece(range(2), 0, [0])])
    kv = ops.new_kv(2, 1, 8, "bfloat16")
    for wrong in (KV(kv.k_pages, kv.v_pages.reshape(2, 1, 16, 8)), KV(kv.k_pages.reshape(2, 1, 8, 16), kv.v_pages)):
        with pytest.raises(KernelError, match=r"kv\.[kv]_pages must have shape"):
            ops.attention(normal(2, 1, 8), step, wrong, 1.0, 0)
