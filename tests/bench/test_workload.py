"""Requests, arrivals and percentiles, from their definitions."""

from __future__ import annotations

import math
import statistics

import msgspec
import numpy as np
import pytest

from hexad.bench.workload import Run, Workload, figures, percentile

W3 = Workload(input_len=(64, 256), output_len=(32, 96), num_prompts=32, vocab_size=32000)


def test_a_run_has_new_tokens_and_the_same_lengths() -> None:
    first, second = W3.requests(0), W3.requests(1)
    assert [(len(p), n) for p, n in first] == [(len(p), n) for p, n in second]
    assert not {tuple(p[:16]) for p, _ in first} & {tuple(p[:16]) for p, _ in second}  # no prefix cache helps
    assert all(64 <= len(p) <= 256 and 32 <= n <= 96 for p, n in first)
    assert first == W3.requests(0)


def test_shared_tokens_come_first_and_are_the_same_for_all_requests_of_a_run() -> None:
    requests = msgspec.structs.replace(W3, shared=100).requests(0)
    assert len({tuple(prompt[:100]) for prompt, _ in requests}) == 1
    assert len({tuple(prompt[100:]) for prompt, _ in requests}) == 32


def test_arrivals_are_poisson_and_the_same_pattern_at_every_rate() -> None:
    many = msgspec.structs.replace(W3, num_prompts=20_000, rate=4.0)
    moments = many.arrivals(0)
    gaps = np.diff(moments)
    assert moments[0] == 0.0 and (gaps >= 0).all()
    assert statistics.mean(gaps) == pytest.approx(1 / 4, rel=0.03)
    # exponential: the deviation is the mean, and a share 1/e of the gaps is longer than it
    assert statistics.stdev(gaps) == pytest.approx(1 / 4, rel=0.05)
    assert np.mean(gaps > 1 / 4) == pytest.approx(math.exp(-1), abs=0.01)
    faster = msgspec.structs.replace(many, rate=8.0).arrivals(0)
    np.testing.assert_allclose(np.array(faster) * 2, moments, rtol=1e-9)
    assert many.arrivals(1) != moments
    assert W3.arrivals(0) == [0.0] * 32


@pytest.mark.parametrize("count", [1, 2, 10, 99, 100, 101, 1000])
@pytest.mark.parametrize("percent", [50, 99, 100])
def test_percentile_is_the_nearest_rank(count: int, percent: int) -> None:
    values = np.random.default_rng(count).permutation(count).astype(float)
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(list(values), percent) == expected


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 99) == 0.0


def test_figures_pool_the_gaps_and_first_tokens_of_all_runs() -> None:
    workload = Workload(input_len=(10, 10), output_len=(3, 3), num_prompts=1, vocab_size=100)

    def run(first: float, gap: float) -> Run:
        last = first + 2 * gap
        return Run(
            seconds=last,
            first_token_s=[first],
            last_token_s=[last],
            output_tokens=3,
            peak_rss_bytes=1,
            gaps_s=[gap] * 2,
        )

    shown = figures("x", workload, [run(0.1, 0.01), run(0.2, 0.02), run(0.9, 0.03)], 1.0)
    assert shown.ttft_ms == pytest.approx(200) and shown.ttft_p99_ms == pytest.approx(900)
    assert shown.gap_p50_ms == pytest.approx(20) and shown.gap_p99_ms == pytest.approx(30)
    assert shown.decode_tps == pytest.approx(50) and shown.prefill_tps == pytest.approx(50)
