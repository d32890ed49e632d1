"""`hexad doctor`: the machine, the kernels that are there and the one that is chosen, the read bandwidth."""

from __future__ import annotations

import argparse
import importlib
import platform

import hexad
from hexad.kernels.load import load
from hexad.kernels.threads import default_threads, processor
from hexad.placement.memory import available_memory, gib

READ_BYTES = 1 << 30


def run(args: argparse.Namespace) -> int:
    threads = default_threads()
    loaded = load("auto", threads)
    print(
        f"hexad      {hexad.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    print(f"processor  {processor()}, {threads} threads for kernels")
    print(f"memory     {gib(available_memory())} available")
    print(f"kernels    {loaded.ops.name}" + (f" ({loaded.note})" if loaded.note else ""))
    try:
        native = importlib.import_module("hexad.kernels.native")
    except ImportError as error:
        print(f"native     not available: {error}")
        return 0
    ops = native.NativeOps(threads)
    print(f"native     instruction sets here: {', '.join(native.available_isas())}; chosen: {ops.isa}")
    print(f"bandwidth  {ops.read_bandwidth(READ_BYTES):.1f} GB/s read by {threads} threads")
    return 0
