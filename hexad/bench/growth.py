"""`hexad bench growth`: how Hexad's speed and memory grow with concurrency, context and prompt length.

Each of the three is measured in a fresh process whose points ascend, so that the peak of its memory
belongs to the point.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hexad.bench import contestant, plot
from hexad.bench.workload import Run, Workload, percentile
from hexad.checkpoints.config import ModelConfig

CONCURRENCIES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = tuple(128 << i for i in range(9))
LENGTHS = CONTEXTS[:7]
NEW_TOKENS = 24
DECODED_TOKENS = 96
"""Of each of many: most of them when the last prompt is done, so that the median step decodes all."""
KV_MEMORY = "4608MiB"
"""32,768 tokens of the 0.5B shape in bfloat16, and some."""

Measure = Callable[[contestant.Contestant, int], tuple[float, Run]]


def growth(settings: dict[str, Any], model: ModelConfig, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Writes growth.json and an SVG for each plot into `out`; `settings` are those of `LLM`."""
    longest = settings.get("max_model_len", model.max_position) - NEW_TOKENS

    def alone(length: int, new_tokens: int) -> Workload:
        return Workload(
            input_len=(length, length),
            output_len=(new_tokens,) * 2,
            num_prompts=1,
            vocab_size=model.vocab_size,
            tokens_of="growth",
        )

    def decode(c: contestant.Contestant, count: int) -> tuple[float, Run]:
        """Tokens a second in a step where all decode: its duration is the median time between tokens."""
        workload = Workload(
            input_len=(64, 64), output_len=(DECODED_TOKENS,) * 2, num_prompts=count, vocab_size=model.vocab_size
        )
        run = c.run(workload, count)
        return count / percentile(run.gaps_s, 50), run

    def step(c: contestant.Contestant, length: int) -> tuple[float, Run]:
        """Milliseconds. The same run number gives a prompt that begins with the last one, whose pages are cached."""
        run = c.run(alone(length, NEW_TOKENS), 0)
        return 1e3 * percentile(run.gaps_s, 50), run

    def prefill(c: contestant.Contestant, length: int) -> tuple[float, Run]:
        """Tokens a second."""
        run = c.run(alone(length, 1), length)
        return length / run.first_token_s[0], run

    sweeps: list[tuple[str, str, str, Measure, Sequence[int]]] = [
        ("concurrency", "requests at once", "decoded tokens a second", decode, CONCURRENCIES),
        ("context", "tokens of context", "ms a step of one stream", step, [n for n in CONTEXTS if n <= longest]),
        ("prefill", "tokens of prompt", "prefilled tokens a second", prefill, [n for n in LENGTHS if n <= longest]),
    ]
    result: dict[str, Any] = {"settings": settings}
    for name, x_label, y_label, measure, points in sweeps:
        say(name)
        measured = sweep({"prefix_caching": name == "context", **settings}, measure, points, say)
        result[name] = {"x": x_label, "y": y_label, "points": measured}
        for kind, label, column in (("", y_label, 1), ("-memory", "peak resident MiB", 2)):
            curve = plot.Series("hexad", [(point[0], point[column]) for point in measured])
            title = f"{label[0].upper()}{label[1:]} against {x_label}"
            (out / f"growth-{name}{kind}.svg").write_text(plot.chart(title, x_label, label, [curve]))
    (out / "growth.json").write_text(json.dumps(result, indent=2))
    return result


def sweep(
    settings: dict[str, Any], measure: Measure, points: Sequence[int], say: Callable[[str], None]
) -> list[list[float]]:
    """[point, figure, peak MiB] of each point, behind a run of the first that is not counted."""
    c = contestant.hexad({"kv_memory": KV_MEMORY, "max_num_seqs": max(CONCURRENCIES), **settings})
    measured = []
    try:
        c.start()
        measure(c, points[0])
        for point in points:
            figure, run = measure(c, point)
            measured.append([float(point), figure, run.peak_rss_bytes / 2**20])
            say(f"  {point:>6}: {plot.number(figure)} ({plot.number(measured[-1][2])} MiB)")
    finally:
        c.close()
    return measured
