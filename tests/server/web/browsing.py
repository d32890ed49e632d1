"""What a person does with the page, as functions; for the tests beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

PHONE = {"width": 390, "height": 844}


def opened(context: Any, server: Server) -> Any:
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#model option")).to_have_count(1)
    return page


def ask(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def settle(page: Any) -> None:
    """Until nothing is being answered."""
    expect(page.locator(".message[aria-busy=true]")).to_have_count(0, timeout=30_000)


def setting(page: Any, name: str, value: str) -> None:
    if page.locator("#settings").is_hidden():
        page.get_by_role("button", name="Settings", exact=True).click()
    page.fill(f"#set-{name}", value)


def said(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(".bubble, .message.assistant .content").all_inner_texts()]


def conversation(*nodes: dict[str, Any]) -> dict[str, Any]:
    """As an export holds it."""
    return {
        "title": "Imported",
        "created": 1,
        "updated": 1,
        "nodes": {node["id"]: node for node in nodes},
        "chosen": {},
    }


def imported(page: Any, tmp_path: Path, *conversations: dict[str, Any]) -> None:
    file = tmp_path / "in.json"
    file.write_text(json.dumps({"format": "hexad-conversations", "version": 1, "conversations": conversations}))
    page.set_input_files("#file", file)


def shown(page: Any, tmp_path: Path, content: str, **more: Any) -> None:
    """Opens a conversation in which the model has said `content`."""
    question = {"id": "q", "parent": "", "role": "user", "content": "?"}
    answer = {"id": "a", "parent": "q", "role": "assistant", "content": content, "status": "done", "finish": "stop"}
    imported(page, tmp_path, conversation(question, answer | more))
    expect(page.locator("#toast")).to_have_text("1 conversation imported")


def streamed(*events: Any, done: bool) -> str:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines)


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
