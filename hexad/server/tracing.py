"""OpenTelemetry: a span a request, with the attributes of the GenAI and HTTP semantic conventions.

On where the extra `hexad[otel]` is installed and OpenTelemetry's own variable OTEL_EXPORTER_OTLP_ENDPOINT is set;
its other OTEL_* variables hold too. A span begins and ends with its request, under the caller's `traceparent`.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from hexad.server.log import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

log = logging.getLogger("hexad.server")

_TEXT_ROUTES = frozenset({"/v1/completions", "/api/generate", "/infill"})


class Tracing:
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("hexad")

    def write(self, record: Record) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        attributes: dict[str, str | int | float | list[str]] = {
            "http.request.method": record.method,
            "url.path": record.path,
            "http.route": record.route,
            "http.response.status_code": record.status,
        }
        name = f"{record.method} {record.route or 'unknown'}"
        if record.model:
            operation = "text_completion" if record.route in _TEXT_ROUTES else "chat"
            name = f"{operation} {record.model}"
            attributes |= {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "hexad",
                "gen_ai.request.model": record.model,
                "gen_ai.usage.input_tokens": record.prompt_tokens,
                "gen_ai.usage.output_tokens": record.completion_tokens,
                "gen_ai.response.finish_reasons": record.finish_reasons,
            }
        for key, value in (
            ("gen_ai.latency.time_in_queue", record.queue_s),
            ("gen_ai.latency.time_to_first_token", record.ttft_s),
            ("error.type", record.error),
        ):
            if value is not None:
                attributes[key] = value
        end = time.time_ns()
        parent = TraceContextTextMapPropagator().extract(record.parent)
        start = end - int(record.duration_s * 1e9)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes, start_time=start)
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def start_tracing() -> Tracing | None:
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set and OpenTelemetry missing: pip install hexad[otel]")
        return None
    name = os.environ.get("OTEL_SERVICE_NAME", "hexad")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
