"""What a benchmark asks and what it reports: prompts from a seed, and figures from time stamps."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections.abc import Sequence

import msgspec

from hexad.errors import ConfigError

Span = tuple[int, int]
"""Least and most, both included."""


def parse_span(text: str) -> Span:
    """`128` or `64:256`."""
    low, _, high = text.partition(":")
    try:
        span = int(low), int(high or low)
    except ValueError:
        raise ConfigError(f"{text!r} is not a length; write 128, or 64:256 for a range") from None
    if not 1 <= span[0] <= span[1]:
        raise ConfigError(f"{text!r} is not a range of lengths; it must be at least 1 and ascend")
    return span


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """`num_prompts` requests: random tokens in, an exact number of tokens out, lengths drawn from spans."""

    input_len: Span
    output_len: Span
    num_prompts: int
    vocab_size: int
    shared: int = 0
    """Tokens before these that all prompts begin with."""
    rate: float = 0.0
    """Requests a second, arriving as a Poisson process; 0: all at once."""
    concurrency: int = 0
    """At most so many at once; 0: all."""
    tokens_of: str = ""
    """Workloads of one name draw the same tokens, so that of two prompts one begins with the other."""

    def requests(self, run: int) -> list[tuple[list[int], int]]:
        """Prompt token ids and output length. The lengths are the same in each run, the tokens are not, nor those of
        two workloads, so that no prefix cache helps."""
        lengths = random.Random(f"{self.input_len} {self.output_len} {self.num_prompts}")
        tokens = random.Random(f"{run} {self.tokens_of or self}")

        def draw(count: int) -> list[int]:
            return [tokens.randrange(3, self.vocab_size) for _ in range(count)]

        prefix = draw(self.shared)
        return [
            (prefix + draw(lengths.randint(*self.input_len)), lengths.randint(*self.output_len))
            for _ in range(self.num_prompts)
        ]

    def arrivals(self, run: int) -> list[float]:
        """Seconds from the start, the first at 0. The same pattern, stretched, at every rate."""
        if not self.rate:
            return [0.0] * self.num_prompts
        gaps = random.Random(f"arrivals {run}")
        moments = itertools.accumulate((gaps.expovariate(self.rate) for _ in range(self.num_prompts - 1)), initial=0.0)
        return list(moments)

    def output_tokens(self) -> int:
        return sum(length for _, length in self.requests(0))

    def input_tokens(self) -> int:
        return sum(len(prompt) for prompt, _ in self.requests(0))


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the start of one run."""

    seconds: float
    first_token_s: list[float]
    """Of each request, from its arrival."""
    last_token_s: list[float]
    output_tokens: int
    peak_rss_bytes: int
    gaps_s: list[float] = []
    """Between the tokens of a request, of all requests."""
    other_cpus: float = 0.0
    """CPUs that other processes, or other machines on the same cores, took meanwhile."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over the runs. Rates are tokens a second."""

    name: str
    runs: int
    seconds: float
    ttft_ms: float
    """Median request's time to its first token."""
    tpot_ms: float
    """Mean time per output token after the first, median request."""
    prefill_tps: float
    """Prompt tokens over the time to the last request's first token."""
    decode_tps: float
    """Tokens after the first over the time behind the last request's first token."""
    output_tps: float
    total_tps: float
    peak_rss_mib: float
    cold_start_s: float
    """Process start to first token, on the first run."""
    ttft_p99_ms: float = 0.0
    gap_p50_ms: float = 0.0
    """Between tokens, over all requests of all runs; p99 too."""
    gap_p99_ms: float = 0.0
    other_cpus: float = 0.0
    """The most in a run."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else 0.0


def figures(name: str, workload: Workload, runs: Sequence[Run], cold_start_s: float) -> Figures:
    median = statistics.median
    rest = [max(1, length - 1) for _, length in workload.requests(0)]
    prompt_tokens = workload.input_tokens()
    gaps = [gap for run in runs for gap in run.gaps_s]

    def decode(run: Run) -> float:
        """With several requests the first tokens come at different times: count from the last of them."""
        span = max(run.last_token_s) - max(run.first_token_s)
        return (run.output_tokens - workload.num_prompts) / span if span > 0 else 0.0

    return Figures(
        name=name,
        runs=len(runs),
        seconds=median(run.seconds for run in runs),
        ttft_ms=1e3 * median(median(run.first_token_s) for run in runs),
        tpot_ms=1e3
        * median(
            median((last - first) / n for first, last, n in zip(run.first_token_s, run.last_token_s, rest, strict=True))
            for run in runs
        ),
        prefill_tps=median(prompt_tokens / max(run.first_token_s) for run in runs),
        decode_tps=median(decode(run) for run in runs),
        output_tps=median(run.output_tokens / run.seconds for run in runs),
        total_tps=median((run.output_tokens + prompt_tokens) / run.seconds for run in runs),
        peak_rss_mib=max(run.peak_rss_bytes for run in runs) / 2**20,
        cold_start_s=cold_start_s,
        ttft_p99_ms=1e3 * percentile([first for run in runs for first in run.first_token_s], 99),
        gap_p50_ms=1e3 * percentile(gaps, 50),
        gap_p99_ms=1e3 * percentile(gaps, 99),
        other_cpus=max(run.other_cpus for run in runs),
    )


def table(rows: Sequence[Figures]) -> str:
    """The figures side by side, for a terminal."""
    columns = (
        ("", lambda f: f.name),
        ("TTFT ms", lambda f: f"{f.ttft_ms:.1f}"),
        ("TPOT ms", lambda f: f"{f.tpot_ms:.2f}"),
        ("prefill tok/s", lambda f: f"{f.prefill_tps:.0f}"),
        ("decode tok/s", lambda f: f"{f.decode_tps:.1f}"),
        ("output tok/s", lambda f: f"{f.output_tps:.1f}"),
        ("total tok/s", lambda f: f"{f.total_tps:.1f}"),
        ("peak MiB", lambda f: f"{f.peak_rss_mib:.0f}"),
        ("cold start s", lambda f: f"{f.cold_start_s:.2f}"),
    )
    cells = [[head for head, _ in columns], *[[show(row) for _, show in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def ratio(ours: Figures, peer: Figures) -> str:
    return (
        f"{ours.name} over {peer.name}: time per token {ours.tpot_ms / peer.tpot_ms:.3f}x, "
        f"decode {ours.decode_tps / peer.decode_tps:.2f}x, "
        f"prefill {ours.prefill_tps / peer.prefill_tps:.2f}x, total {ours.total_tps / peer.total_tps:.2f}x"
    )
