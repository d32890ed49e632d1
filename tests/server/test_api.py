"""docs/api.md says what the server does: every row of its tables, against a running server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hexad.server.app import ROUTES
from tests.server.api import Endpoint, Parameter, endpoints
from tests.server.running import Server

ROOT = Path(__file__).resolve().parents[2]
ENDPOINTS = list(endpoints())
ROWS = [(endpoint, row) for endpoint in ENDPOINTS for row in endpoint.parameters]


def _named(endpoint: Endpoint) -> str:
    return f"{endpoint.dialect} {endpoint.method} {endpoint.path}"


def _body(endpoint: Endpoint, row: Parameter, value: Any) -> dict[str, Any]:
    body = {**endpoint.base, **row.beside}
    outer, _, inner = row.name.partition(".")
    return body | {outer: {**body.get(outer, {}), inner: value} if inner else value}


def test_no_route_that_takes_a_body_is_missing_from_the_table() -> None:
    told = {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    taken = {(route.method, route.path) for route in ROUTES if route.body is not None and route.access == "user"}
    assert len(taken) > 12 and taken <= told, taken - told


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=_named)
def test_no_parameter_is_missing_from_the_table(endpoint: Endpoint) -> None:
    declared = [row.name for row in endpoint.parameters]
    assert len(declared) == len(set(declared))
    outer = {name.partition(".")[0] for name in declared}
    assert endpoint.fields <= outer, "the server takes what the table does not have"
    assert endpoint.documented <= outer, "the dialect documents what the table does not have"


@pytest.mark.parametrize(("endpoint", "row"), ROWS, ids=[f"{_named(endpoint)} {row.name}" for endpoint, row in ROWS])
def test_a_parameter_is_honoured_or_refused(endpoint: Endpoint, row: Parameter, request: pytest.FixtureRequest) -> None:
    server: Server = request.getfixturevalue(row.server)
    assert row.refused if row.fate == "refused" else row.accepted, "a row needs an example"
    for value in row.accepted:
        answer = server.http.request(endpoint.method, server.url + endpoint.path, json=_body(endpoint, row, value))
        assert answer.is_success, (value, answer.text)
    for value in row.refused:
        answer = server.http.request(endpoint.method, server.url + endpoint.path, json=_body(endpoint, row, value))
        assert 400 <= answer.status_code < 500, (value, answer.text)
        assert row.name.rpartition(".")[2] in answer.text, (value, answer.text)


def test_the_page_is_what_the_tables_say() -> None:
    command = [sys.executable, str(ROOT / "tools" / "api_table.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
