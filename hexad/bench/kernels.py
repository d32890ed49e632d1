"""How near the native linears come to the machine: GB/s of weights and TFLOP/s.

    python -m hexad.bench.kernels [--threads N] [--isa NAME]

Beside the speed of memory and of the arithmetic units, measured here too. A single row is
bound by the one, hundreds of rows by the other. Each call takes another copy of its weight,
so that no weight is found in a cache; the best call counts. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np

from hexad.kernels._native import LinearWeight
from hexad.kernels.native import NativeOps
from hexad.kernels.ops import Dtype
from hexad.kernels.threads import default_threads

SHAPES = ((4096, 1024), (1024, 3072), (32000, 1024))
"""Outputs and inputs: a fused projection, an MLP's way down, and a head."""
ROWS = (1, 8, 32, 256)
BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}
WORKING_SET = 192 << 20
"""Bytes of weights that one measurement walks through: several times a last-level cache."""
ROUNDS = 5


class Machine(NamedTuple):
    read_gb: float
    """GB/s"""
    tflops: dict[Dtype, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--isa", help="avx512, avx2 or portable; else the best this CPU has")
    args = parser.parse_args()
    ops = NativeOps(args.threads, args.isa)
    machine = Machine(ops.read_bandwidth(), {dtype: ops.arithmetic_rate(dtype) for dtype in BYTES})
    print(
        f"{ops.name}: memory {machine.read_gb:.1f} GB/s, "
        f"float32 {machine.tflops['float32']:.2f} TFLOP/s, bfloat16 {machine.tflops['bfloat16']:.2f} TFLOP/s"
    )
    print(f"{'outputs x inputs':>16}  {'weights':8}  {'rows':>4}  {'us':>8}  {'GB/s':>6}  {'of memory':>9}  "
          f"{'TFLOP/s':>7}  {'of peak':>7}")  # fmt: skip
    for outputs, inputs in SHAPES:
        for dtype in BYTES:
            measure(ops, machine, outputs, inputs, dtype)


def measure(ops: NativeOps, machine: Machine, outputs: int, inputs: int, dtype: Dtype) -> None:
    """Prints a line for each number of rows."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((outputs, inputs), np.float32)
    weight_bytes = outputs * inputs * BYTES[dtype]
    copies = [ops.pack_linear(weight, dtype) for _ in range(-(-WORKING_SET // weight_bytes))]
    for rows in ROWS:
        x = generator.standard_normal((rows, inputs), np.float32)
        used = copies[: max(2, len(copies) // max(1, rows // 8))]
        best = min(seconds(ops, x, packed) for _ in range(ROUNDS) for packed in used)
        gb, tflops = weight_bytes / best / 1e9, 2 * rows * outputs * inputs / best / 1e12
        print(
            f"{f'{outputs} x {inputs}':>16}  {dtype:8}  {rows:>4}  {best * 1e6:>8.1f}  {gb:>6.1f}  "
            f"{gb / machine.read_gb:>9.0%}  {tflops:>7.3f}  {tflops / machine.tflops[dtype]:>7.0%}"
        )


def seconds(ops: NativeOps, x: np.ndarray, packed: LinearWeight) -> float:
    start = time.perf_counter()
    ops.linear(x, packed)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
