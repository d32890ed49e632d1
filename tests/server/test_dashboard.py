"""The Grafana dashboard in docs/ asks only for what a live server says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server import raw
from tests.server.running import Server

DASHBOARD = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
ASKED = re.compile(r"(hexad:[a-z0-9_]+)(?:\{([^}]*)\})?")


@pytest.fixture
def labels(server: Server) -> dict[str, set[str]]:
    """Of every sample, by its name, after a request that succeeded, one that failed and one that was no HTTP."""
    assert raw.status(raw.answer(server, b"nonsense\r\n\r\n")) == 400
    assert server.post("/v1/completions", {"prompt": [5] * 40, "max_tokens": 3}).status_code == 200
    assert server.post("/v1/completions", {"prompt": ""}).status_code == 400
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(server.http.get(server.url + "/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_for_what_there_is(panel: dict[str, Any], labels: dict[str, set[str]]) -> None:
    assert panel["targets"]
    for target in panel["targets"]:
        expression, legend = target["expr"], target["legendFormat"]
        asked = ASKED.findall(expression)
        assert asked and expression.count("(") == expression.count(")")
        for name, selectors in asked:
            assert name in labels, name
            named = re.findall(r"(\w+)\s*[=!]", selectors)
            grouped = [each.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for each in group.split(",")]
            assert {*named, *grouped} <= labels[name], (name, named, grouped, labels[name])
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= set(re.findall(r"[\w]+", expression))


def test_the_variables_are_there(labels: dict[str, set[str]]) -> None:
    name, label = re.fullmatch(r"label_values\((\S+), (\w+)\)", DASHBOARD["templating"]["list"][1]["query"]).groups()  # type: ignore[union-attr]
    assert label in labels[name]
    assert len({panel["id"] for panel in PANELS}) == len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_no_label_grows_with_what_clients_send(server: Server) -> None:
    def series() -> int:
        return len(server.http.get(server.url + "/metrics").text.splitlines())

    server.http.get(server.url + "/nowhere")
    before = series()
    for index in range(50):
        server.http.get(f"{server.url}/nowhere/{index}", headers={"X-Request-Id": f"r{index}"})
        server.http.request("GET", f"{server.url}/v1/models/m{index}")
    server.http.get(f"{server.url}/v1/models/m0")
    assert series() - before <= 40, "one route and one error code more, whatever the paths"
