"""What a person does with the page, as functions; for the tests beside this file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Server

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
expect.set_options(timeout=30_000)  # what must come may come late on a busy machine

LONG = "60000"
"""Tokens of an answer that no machine ends while a test looks at it."""
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
    expect(page.locator(".message[aria-busy=true]")).to_have_count(0)


def setting(page: Any, name: str, value: str) -> None:
    if page.locator("#settings").is_hidden():
        page.get_by_role("button", name="Settings", exact=True).click()
    page.fill(f"#set-{name}", value)


def ask_long(page: Any) -> None:
    """Until some of the answer is seen."""
    setting(page, "max_tokens", LONG)
    ask(page, "Go on and on.")
    expect(page.locator(".message.assistant .content")).to_have_text(re.compile(r"(\w\W*){100}"))


def stop(page: Any) -> None:
    page.keyboard.press("Escape")
    expect(page.locator(".message.assistant")).to_have_attribute("data-status", "stopped")


KEPT = """async (wanted) => {
  const done = (request) => new Promise((resolve) => (request.onsuccess = () => resolve(request.result)));
  const database = await done(indexedDB.open("hexad"));
  let answers;
  for (const begun = performance.now(); performance.now() - begun < 30_000; ) {
    const all = await done(database.transaction("conversations").objectStore("conversations").getAll());
    answers = all.flatMap(({ nodes }) => Object.values(nodes)).filter(({ role }) => role === "assistant");
    if (answers.map(({ status }) => status).join() === wanted.join()) return answers;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`after 30 s the browser holds ${JSON.stringify(answers)}`);
}"""


def kept(page: Any, *statuses: str) -> list[dict[str, Any]]:
    """The answers as the browser has written them, once they have these statuses."""
    found: list[dict[str, Any]] = page.evaluate(KEPT, statuses)
    return found


SAID = ".bubble, .message.assistant .content"


def said(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(SAID).all_inner_texts()]


def answer_of(server: Server, *turns: str, **more: Any) -> Any:
    """What the official client gets for the same conversation; always the likeliest token."""
    roles = ("user", "assistant") * len(turns)
    messages: list[Any] = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    client = server.client()
    model = client.models.list().data[0].id
    return client.chat.completions.create(model=model, messages=messages, temperature=0, **more)


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
