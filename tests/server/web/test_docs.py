"""The API's page shows every path of the server's own description, and every parameter of a body."""

from __future__ import annotations

from typing import Any

from tests.server.running import Server


def test_every_path_and_its_parameters_can_be_read(context: Any, demo: Server) -> None:
    described = demo.http.get(demo.url + "/openapi.json").json()
    page = context.new_page()
    page.goto(demo.url + "/docs")
    page.wait_for_selector("#paths > details")
    shown = " ".join(page.locator("#paths > details > summary").all_inner_texts())
    for path, methods in described["paths"].items():
        refused = all(about["summary"] in ("Absent", "Refuse") for about in methods.values())
        assert refused or path in shown, path
    page.locator("summary", has_text="/v1/chat/completions").click()
    page.wait_for_selector("#paths > details[open] > table")
    body = described["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    rows = page.locator("#paths > details[open] > table > tbody > tr > td:first-child").all_inner_texts()
    assert {row.removesuffix(" needed") for row in rows} == set(body["properties"])
    assert "messages needed" in rows
