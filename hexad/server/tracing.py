"""OpenTelemetry: a span a request, with the attributes of the GenAI and HTTP semantic conventions.

On where the extra `hexad[otel]` is installed and OpenTelemetry's own variable OTEL_EXPORTER_OTLP_ENDPOINT is set;
its other variables hold too. A span begins and ends with its request, under the client's `traceparent`.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from hexad.server.log import Record

log = logging.getLogger("hexad.server")

_TEXT_ROUTES = frozenset({"/v1/completions", "/api/generate", "/infill"})


class Tracing:
    """Raises ImportError where the extra is missing."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        name = os.environ.get("OTEL_SERVICE_NAME", "hexad")
        self._provider = TracerProvider(resource=Resource.create({"service.name": name}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("hexad")
        self._context = TraceContextTextMapPropagator()

    def write(self, record: Record) -> None:
        from opentelemetry.trace import SpanKind, StatusCode

        name, attributes = _described(record)
        end = time.time_ns()
        start = end - int(record.duration_s * 1e9)
        span = self._tracer.start_span(
            name, self._context.extract(record.parent), SpanKind.SERVER, attributes, start_time=start
        )
        if record.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _described(record: Record) -> tuple[str, dict[str, Any]]:
    """The name and the attributes of a span."""
    attributes = {
        "http.request.method": record.method,
        "url.path": record.path,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "error.type": record.error,
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
            "gen_ai.latency.time_in_queue": record.queue_s,
            "gen_ai.latency.time_to_first_token": record.ttft_s,
        }
    return name, {key: value for key, value in attributes.items() if value is not None}


def start_tracing() -> Tracing | None:
    if not os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        return Tracing()
    except ImportError:
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set and OpenTelemetry missing: pip install hexad[otel]")
        return None
