"""Spans as a collector receives them: OTLP over HTTP, decoded with OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.outside import Quiet, answering
from tests.server.running import serving

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra hexad[otel] is not installed")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[tuple[int, list[Any]]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[Any] = []

    class Handler(Quiet):
        def do_POST(self) -> None:
            message = ExportTraceServiceRequest()
            message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
            received.append((self.path, message))
            self.send_response(200)
            self.end_headers()

    with answering(Handler) as port:
        yield port, received


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    inner = getattr(value, kind)
    return [plain(item) for item in inner.values] if kind == "array_value" else inner


def test_a_span_a_request(
    chat_model: Path, tmp_path: Path, collector: tuple[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    with serving(chat_model, tmp_path / "log") as server:
        answered = httpx.post(
            server.url + "/v1/completions",
            json={"prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True, "n": 2},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        refused = httpx.get(server.url + "/v1/models/none", headers={"traceparent": "nonsense"})
        assert (answered.status_code, refused.status_code) == (200, 404)
        server.process.terminate()
        assert server.process.wait(15) == 0, "what is left is sent at the end"
    assert {path for path, _ in received} == {"/v1/traces"}
    scopes = [scope for _, message in received for each in message.resource_spans for scope in each.scope_spans]
    resources = [plain(a.value) for _, m in received for r in m.resource_spans for a in r.resource.attributes]
    assert "hexad" in resources
    first, second = sorted((span for scope in scopes for span in scope.spans), key=lambda span: span.end_time_unix_nano)
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert first.name == "text_completion tiny-chat" and first.kind == 2
    attributes = {each.key: plain(each.value) for each in first.attributes}
    latencies = {key: attributes.pop(key) for key in list(attributes) if key.startswith("gen_ai.latency")}
    seconds = (first.end_time_unix_nano - first.start_time_unix_nano) / 1e9
    assert len(latencies) == 2 and all(0 < value <= seconds for value in latencies.values())
    assert attributes == {
        "http.request.method": "POST",
        "url.path": "/v1/completions",
        "http.route": "/v1/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "hexad",
        "gen_ai.request.model": "tiny-chat",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.response.finish_reasons": ["length", "length"],
    }
    assert second.trace_id.hex() != TRACE and second.name == "GET /v1/models/{name:path}"
    assert {each.key: plain(each.value) for each in second.attributes}["error.type"] == "model_not_found"


def test_a_collector_that_is_gone_disturbs_nobody(
    chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with serving(chat_model, tmp_path / "log") as server:
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}).status_code == 200


def test_the_end_waits_for_no_collector(chat_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        with serving(chat_model, tmp_path / "log") as server:
            assert server.http.get(server.url + "/v1/models").status_code == 200
            server.process.terminate()
            silent.settimeout(30)
            with silent.accept()[0]:
                assert server.process.wait(20) == 0
        assert "did not take the last spans" in server.log.read_text()
