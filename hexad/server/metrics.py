"""Every metric, once, in one table: Prometheus names in the style that vLLM's users know.

This module knows numbers and clocks; it knows no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hexad.types import EngineStats, RequestOutput

PREFIX = "hexad:"


class _FromEngine(NamedTuple):
    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[EngineStats], float]


ENGINE_METRICS = (
    _FromEngine("num_requests_running", "gauge", "Sequences that are running.", lambda s: s.num_running),
    _FromEngine("num_requests_waiting", "gauge", "Sequences that wait to run.", lambda s: s.num_waiting),
    _FromEngine(
        "kv_cache_usage_perc",
        "gauge",
        "Share of the KV pages that running sequences hold, 0 to 1.",
        lambda s: 1 - s.num_free_pages / s.num_pages if s.num_pages else 0.0,
    ),
    _FromEngine("engine_steps", "counter", "Steps of the engine.", lambda s: s.num_steps),
    _FromEngine("computed_tokens", "counter", "Tokens that went through the model.", lambda s: s.num_computed_tokens),
    _FromEngine("num_preemptions", "counter", "Sequences put back to make room.", lambda s: s.num_preemptions),
    _FromEngine(
        "engine_restarts", "counter", "Engine processes that died and were replaced.", lambda s: s.num_restarts
    ),
    _FromEngine("prefix_cache_queries", "counter", "Prompt tokens looked up.", lambda s: s.prefix_cache_queries),
    _FromEngine("prefix_cache_hits", "counter", "Prompt tokens found.", lambda s: s.prefix_cache_hits),
)

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 20, 40, 80)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class _FromRequests(NamedTuple):
    name: str
    help: str
    buckets: tuple[float, ...] = ()
    """Empty for a counter."""
    label: str = ""


REQUEST_METRICS = (
    _FromRequests("prompt_tokens", "Prompt tokens of answered requests."),
    _FromRequests("generation_tokens", "Tokens generated."),
    _FromRequests("request_success", "Answers, by what ended them.", label="finished_reason"),
    _FromRequests("time_to_first_token_seconds", "From the request to its first token.", SECONDS),
    _FromRequests("request_queue_time_seconds", "From the request until it left the queue.", SECONDS),
    _FromRequests("inter_token_latency_seconds", "Between a token and the next of the same answer.", _GAPS),
    _FromRequests("e2e_request_latency_seconds", "From the request to its last token.", SECONDS),
    _FromRequests("request_prompt_tokens", "Prompt tokens of a request.", _TOKENS),
    _FromRequests("request_generation_tokens", "Tokens generated for a request.", _TOKENS),
    _FromRequests("model_loads", "Times that it was loaded."),
    _FromRequests("model_unloads", "Times that it was unloaded."),
    _FromRequests("model_load_failures", "Times that it could not be loaded."),
    _FromRequests("model_load_seconds", "From the start of its engine process until it was ready.", SECONDS),
)

ReadStats = Callable[[], Mapping[str, EngineStats | None]]
"""Of each model by name; None for one that is not loaded."""


class _EngineCollector(Collector):
    def __init__(self, stats: ReadStats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        loaded = GaugeMetricFamily(PREFIX + "model_loaded", "1 while the model is loaded.", labels=["model_name"])
        for model, found in stats.items():
            loaded.add_metric([model], found is not None)
        yield loaded
        for name, kind, help, read in ENGINE_METRICS:
            family = (GaugeMetricFamily if kind == "gauge" else CounterMetricFamily)(
                PREFIX + name, help, labels=["model_name"]
            )
            for model, found in stats.items():
                if found is not None:
                    family.add_metric([model], read(found))
            yield family


class Metrics:
    """A registry of its own, so that two servers in one process do not meet."""

    def __init__(self, stats: ReadStats) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(stats))
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        for name, help, buckets, label in REQUEST_METRICS:
            labels = ["model_name", *([label] if label else [])]
            if buckets:
                histogram = Histogram(PREFIX + name, help, labels, buckets=buckets, registry=self._registry)
                self._histograms[name] = histogram
            else:
                self._counters[name] = Counter(PREFIX + name, help, labels, registry=self._registry)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)

    def of_each_token(self, model: str) -> tuple[Histogram, Counter]:
        """Gaps and counts of tokens: looked up once a request, for they are written once a token."""
        gaps, tokens = self._histograms["inter_token_latency_seconds"], self._counters["generation_tokens"]
        return gaps.labels(model), tokens.labels(model)

    def count(self, model: str, name: str, amount: float = 1, *label: str) -> None:
        self._counters[name].labels(model, *label).inc(amount)

    def observe(self, model: str, name: str, value: float) -> None:
        self._histograms[name].labels(model).observe(value)


class RequestTimer:
    """Watches one request from its arrival to its end."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model
        self._start = time.monotonic()
        self._last: dict[int, tuple[float, int]] = {}
        self._gaps, self._tokens = metrics.of_each_token(model)
        self.output: RequestOutput | None = None
        self.first_token_s: float | None = None

    def grew(self, output: RequestOutput) -> None:
        """Call when the engine has reported progress."""
        now = time.monotonic()
        self.output = output
        for choice in output.outputs:
            before, count = self._last.get(choice.index, (self._start, 0))
            gained = len(choice.token_ids) - count
            if gained == 0:
                continue
            if count:
                self._gaps.observe((now - before) / gained)
            elif not self._last:
                self.first_token_s = now - before
                self._metrics.observe(self._model, "time_to_first_token_seconds", self.first_token_s)
            self._tokens.inc(gained)
            self._last[choice.index] = now, len(choice.token_ids)

    def ended(self) -> None:
        """Call once, however the request ended."""
        if self.output is None:
            return
        prompt, generated = len(self.output.prompt_token_ids), sum(count for _, count in self._last.values())
        self._metrics.count(self._model, "prompt_tokens", prompt)
        self._metrics.observe(self._model, "request_prompt_tokens", prompt)
        if self.output.queue_s is not None:
            self._metrics.observe(self._model, "request_queue_time_seconds", self.output.queue_s)
        self._metrics.observe(self._model, "request_generation_tokens", generated)
        self._metrics.observe(self._model, "e2e_request_latency_seconds", time.monotonic() - self._start)
        for choice in self.output.outputs:
            self._metrics.count(self._model, "request_success", 1, choice.finish_reason or "abort")
