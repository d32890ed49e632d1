"""What becomes of the gate's records: every request is counted, logged and, where that is set up, traced.

Labels are bounded: declared routes, statuses, the codes of our errors, the names in the key file.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from hexad.server.auth import Client
from hexad.server.log import Record, write_access
from hexad.server.metrics import PREFIX, SECONDS
from hexad.server.tracing import Tracing


class Traffic:
    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._registry = registry = CollectorRegistry()
        self._by_client = CollectorRegistry()
        self._requests = Counter(
            PREFIX + "http_requests", "Requests that have ended.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            PREFIX + "http_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            PREFIX + "http_errors", "Requests refused or failed, by the error's code.", ["code"], registry=registry
        )
        self._refused = Counter(
            PREFIX + "http_connections_refused",
            "Connections answered and closed before a request was read, by the error's code.",
            ["code"],
            registry=registry,
        )
        self._tokens = Counter(
            PREFIX + "client_tokens", "Tokens by who asked for them.", ["client", "kind"], registry=self._by_client
        )

    def finished(self, record: Record) -> None:
        route = record.route or "unknown"
        self._requests.labels(route, str(record.status)).inc()
        self._seconds.labels(route).observe(record.duration_s)
        if record.error is not None:
            self._errors.labels(record.error).inc()
        if record.prompt_tokens:
            name = record.client or "anonymous"
            self._tokens.labels(name, "prompt").inc(record.prompt_tokens)
            self._tokens.labels(name, "generation").inc(record.completion_tokens)
        record.write()
        if self._tracing is not None:
            self._tracing.write(record)

    def refused(self, status: int, code: str, address: str) -> None:
        """A connection was answered below HTTP, where there is no request to speak of."""
        self._refused.labels(code).inc()
        write_access("connection refused", status, {"status": status, "error": code, "address": address})

    def exposition(self, reader: Client) -> bytes:
        """Prometheus' text format. Who else is served, and how much, is told to admins only."""
        by_client = b"" if reader.name and not reader.admin else generate_latest(self._by_client)
        return generate_latest(self._registry) + by_client
