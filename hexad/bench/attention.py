"""How near native attention comes to the machine: TFLOP/s of a prompt, GB/s of single tokens.

    python -m hexad.bench.attention [--threads N] [--isa NAME]

Shapes of Qwen3-0.6B: 16 query heads, 8 key-value heads, head dimension 128, bfloat16 pages in
shuffled order. Beside the speed of the arithmetic units and of memory, measured here too. Each
call takes other pages, so that none is found in a cache; the best call counts. `shared` is
single tokens of sequences that begin with the same 1,024 tokens, together and each by itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import cycle, islice

import numpy as np

from hexad.kernels import _native
from hexad.kernels.native import NativeOps
from hexad.kernels.ops import PAGE_SIZE, Step
from hexad.kernels.threads import default_threads
from hexad.testing.step import Piece, make_step

HEADS, KV_HEADS, WIDTH = 16, 8, 128
TOKEN_BYTES = 2 * KV_HEADS * WIDTH * 2
PAGES = 6144
"""Of one cache, 384 MiB: several times a last-level cache."""
ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--isa", help="one of those that `hexad doctor` shows; else the best this CPU has")
    args = parser.parse_args()
    ops = NativeOps(args.threads, args.isa)
    memory, peak = ops.read_bandwidth(), ops.arithmetic_rate("bfloat16")
    print(f"{ops.name}: memory {memory:.1f} GB/s, bfloat16 {peak:.3f} TFLOP/s")
    bench = Bench(ops)
    for tokens in (256, 1024):
        best = bench.seconds([(0, tokens)])
        tflops = tokens * (tokens + 1) / 2 * HEADS * WIDTH * 4 / best / 1e12
        print(f"prompt of {tokens:>4}: {best * 1e6:>8.1f} us  {tflops:.3f} TFLOP/s  {tflops / peak:.0%}")
    for streams, context in ((1, 200), (1, 2000), (8, 200), (32, 200), (32, 600)):
        best = bench.seconds([(context - 1, 1)] * streams)
        gb = streams * context * TOKEN_BYTES / best / 1e9
        print(f"{streams:>2} x 1 at {context:>4}: {best * 1e6:>8.1f} us  {gb:.1f} GB/s  {gb / memory:.0%}")
    mixed = [(0, 256)] + [(100 + 20 * i, 1) for i in range(31)]
    print(f"prompt of 256 and 31 x 1: {bench.seconds(mixed) * 1e6:.1f} us")
    for streams in (4, 16):
        alike = [(1024 + 20 + i, 1) for i in range(streams)]
        together, apart = (bench.seconds(alike, 1024, cascade=cascade) * 1e6 for cascade in (True, False))
        print(f"{streams:>2} shared: {together:.1f} us, each by itself {apart:.1f} us")


class Bench:
    def __init__(self, ops: NativeOps) -> None:
        self.ops, self.engine = ops, _native.Engine(ops.threads, ops.isa)
        generator = np.random.default_rng(0)
        self.kv = ops.new_kv(PAGES, KV_HEADS, WIDTH, "bfloat16")
        sample = generator.standard_normal(self.kv.k_pages[0].shape, np.float32).astype(self.kv.k_pages.dtype)
        for pages in self.kv:
            pages[:] = sample if pages[0].shape == sample.shape else sample.reshape(pages[0].shape)
        self.pages: Iterator[int] = cycle(generator.permutation(PAGES).tolist())

    def step(self, rows: list[tuple[int, int]], shared: int) -> Step:
        """Of sequences of (tokens known, tokens of this step); all begin with the same `shared` tokens."""
        first = list(islice(self.pages, shared // PAGE_SIZE))
        pieces = [
            Piece(range(count), known, first + list(islice(self.pages, (known + count - shared) // PAGE_SIZE + 1)))
            for known, count in rows
        ]
        return make_step(self.ops, pieces)

    def seconds(self, rows: list[tuple[int, int]], shared: int = 0, *, cascade: bool = True) -> float:
        tokens = sum(count for _, count in rows)
        q_THE = np.random.default_rng(1).standard_normal((tokens, HEADS, WIDTH), np.float32)
        out = np.empty((tokens, HEADS * WIDTH), np.float32)
        steps = [self.step(rows, shared) for _ in range(ROUNDS)]
        return min(self.call(q_THE, step, cascade, out) for step in steps)

    def call(self, q_THE: np.ndarray, step: Step, cascade: bool, out: np.ndarray) -> float:
        where = step.positions_T, step.query_starts_S1, step.page_table_SP
        start = time.perf_counter()
        self.engine.attention(q_THE, *where, *self.kv, WIDTH**-0.5, 0, cascade, out)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
