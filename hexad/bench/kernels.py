"""How near the native linears come to the machine: GB/s of weights and TFLOP/s.

    python -m hexad.bench.kernels [--threads N] [--isa NAME] [--format NAME ...] [--rows N ...]

Beside the speed of memory and of the arithmetic units, measured here too. A single row is
bound by the one, hundreds of rows by the other; of integers an operation is one of a byte. Each
call takes another copy of its weight, so that no weight is found in a cache; the best call
counts. Knows nothing of models.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple, get_args

import numpy as np

from hexad.kernels._native import Engine, LinearWeight
from hexad.kernels.native import NativeOps
from hexad.kernels.ops import WeightFormat
from hexad.kernels.threads import default_threads

SHAPES = ((4096, 1024), (6144, 1024), (1024, 3072), (32000, 1024))
"""Outputs and inputs: a fused projection, an MLP's ways up and down, and a head."""
ROWS = (1, 8, 30, 256)
WORKING_SET = 192 << 20
"""Bytes of weights that one measurement walks through: several times a last-level cache."""
ROUNDS = 5


class Machine(NamedTuple):
    read_gb: float
    """GB/s"""
    tops: dict[WeightFormat, float]
    """TFLOP/s, or 10^12 operations on bytes"""


def main() -> None:
    formats: tuple[WeightFormat, ...] = get_args(WeightFormat)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--isa", help="one of those that `hexad doctor` shows; else the best this CPU has")
    parser.add_argument("--format", choices=formats, nargs="*", default=formats)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    args = parser.parse_args()
    ops = NativeOps(args.threads, args.isa)
    machine = Machine(ops.read_bandwidth(), {format: ops.arithmetic_rate(format) for format in formats})
    print(
        f"{ops.name}: memory {machine.read_gb:.1f} GB/s, float32 {machine.tops['float32']:.2f} TFLOP/s, "
        f"bfloat16 {machine.tops['bfloat16']:.2f} TFLOP/s, bytes {machine.tops['int8']:.2f} TOP/s"
    )
    print(f"{'outputs x inputs':>16}  {'weights':8}  {'rows':>4}  {'us':>8}  {'GB/s':>6}  {'of memory':>9}  "
          f"{'TOP/s':>7}  {'of peak':>7}")  # fmt: skip
    for outputs, inputs in SHAPES:
        for format in args.format:
            measure(Engine(args.threads, ops.isa), machine, outputs, inputs, format, args.rows)


def measure(
    engine: Engine, machine: Machine, outputs: int, inputs: int, format: WeightFormat, all_rows: list[int]
) -> None:
    """Prints a line for each number of rows."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((outputs, inputs), np.float32)
    copies = [engine.pack_linear(weight, format, 1)]
    copies += [engine.pack_linear(weight, format, 1) for _ in range(WORKING_SET // copies[0].nbytes)]
    for rows in all_rows:
        x, out = generator.standard_normal((rows, inputs), np.float32), np.zeros((rows, outputs), np.float32)
        used = copies[: max(2, len(copies) // max(1, rows // 8))]
        best = min(seconds(engine, x, packed, out) for _ in range(ROUNDS) for packed in used)
        gb, tops = copies[0].nbytes / best / 1e9, 2 * rows * outputs * inputs / best / 1e12
        print(
            f"{f'{outputs} x {inputs}':>16}  {format:8}  {rows:>4}  {best * 1e6:>8.1f}  {gb:>6.1f}  "
            f"{gb / machine.read_gb:>9.0%}  {tops:>7.3f}  {tops / machine.tops[format]:>7.0%}"
        )


def seconds(engine: Engine, x: np.ndarray, packed: LinearWeight, out: np.ndarray) -> float:
    start = time.perf_counter()
    engine.linear(x, packed, None, out)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
