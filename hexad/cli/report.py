"""What a person sees while a model loads, and the few lines once it runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hexad.checkpoints.config import ModelConfig
from hexad.engine.messages import EngineInfo
from hexad.placement.memory import gib

BAR_WIDTH = 30
SHOW_AFTER_S = 0.5
"""A load shorter than this draws no bar."""


@contextmanager
def loading_bar(label: str | Callable[[], str]) -> Iterator[Callable[[float], None]]:
    """A progress callback that draws on a terminal and is silent elsewhere."""
    started = time.monotonic()
    drawn = False

    def draw(fraction: float) -> None:
        nonlocal drawn
        if not sys.stderr.isatty() or time.monotonic() - started < SHOW_AFTER_S:
            return
        filled = int(BAR_WIDTH * min(fraction, 1.0))
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        said = label if isinstance(label, str) else label()
        print(f"\r{said} [{bar}] {fraction:4.0%}", end="", file=sys.stderr, flush=True)
        drawn = True

    try:
        yield draw
    finally:
        if drawn:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def startup_lines(name: str, model: ModelConfig, info: EngineInfo) -> list[str]:
    """Model, kernels, threads, memory plan: the same lines for `serve` and `explain`."""
    memory = info.memory
    lines = [
        f"model    {name}: {model.model_type}, {model.num_layers} layers, hidden {model.hidden_size}, {info.precision}",
        f"kernels  {info.kernels}" + (f" ({info.kernels_note})" if info.kernels_note else ""),
        f"weights  {info.weights} in {info.load_seconds:.1f} s",
        f"threads  {info.threads} of {os.cpu_count()} processors",
        f"memory   {gib(memory.available)} available = weights {gib(memory.weights)} + scratch {gib(memory.scratch)}"
        f" + KV {gib(memory.kv)} + {gib(memory.left)} left",
        f"KV       {memory.num_pages} pages = {memory.kv_tokens} tokens; context {info.max_model_len}",
    ]
    if model.dtype == "float16" and info.precision.linear == "bfloat16":
        lines.insert(1, "         the checkpoint is float16; it runs as bfloat16 (--dtype float32 keeps every bit)")
    return lines
