"""What the browser keeps: where it may keep nothing, in two tabs at once, and over a page that is closed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Server
from tests.server.web.browsing import (
    SAID,
    answer_of,
    ask,
    ask_long,
    conversation,
    expect,
    imported,
    kept,
    opened,
    said,
    setting,
    settle,
    shown,
)

FORBIDDEN = """for (const name of ["localStorage", "sessionStorage", "indexedDB"])
  Object.defineProperty(window, name, { get() { throw new DOMException("denied", "SecurityError"); } });"""
FULL = """const full = () => { throw new DOMException("full", "QuotaExceededError"); };
Storage.prototype.setItem = IDBObjectStore.prototype.put = full;"""
SPOILED = """if (location.protocol === "http:") {
  localStorage.setItem("hexad.settings", "{oops");
  localStorage.setItem("hexad.theme", "purple");
}"""


@pytest.mark.parametrize(
    ("browser_does", "complaint"),
    [(FORBIDDEN, "keeps no conversations here (denied)"), (FULL, "storage is full"), (SPOILED, "")],
    ids=["forbids", "is full", "holds nonsense"],
)
def test_a_browser_that_keeps_nothing_is_enough(context: Any, demo: Server, browser_does: str, complaint: str) -> None:
    context.add_init_script(browser_does)
    page = opened(context, demo)
    setting(page, "temperature", "0")
    page.get_by_role("button", name="Theme: as the system").click()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Tell me about Bruno.")
    assert sent.value.post_data_json["temperature"] == 0
    settle(page)
    assert "Bruno" in said(page)[1]
    expect(page.locator("#toast")).to_contain_text(complaint)


def test_two_tabs_lose_nothing_of_each_other(context: Any, demo: Server) -> None:
    first = opened(context, demo)
    ask(first, "Tell me about Ada.")
    settle(first)
    second = opened(context, demo)
    second.locator("#conversations .open").click()
    ask(second, "Tell me about Bruno.")
    settle(second)
    expect(first.locator(".bubble")).to_have_text(["Tell me about Ada.", "Tell me about Bruno."])
    ask(first, "Tell me about Hugo.")
    settle(first)
    settle(second)
    expect(second.locator(".bubble")).to_have_count(3)
    kept(second, "done", "done", "done")
    second.reload()
    second.locator("#conversations .open").click()
    expect(second.locator(SAID)).to_have_text(said(first), use_inner_text=True)
    second.on("dialog", lambda dialog: dialog.accept())
    second.locator("#conversations li[data-id]").hover()
    second.get_by_role("button", name="Delete Tell me about Ada.").click()
    expect(first.locator("#conversations .open")).to_have_count(0)
    expect(first.locator("#empty")).to_be_visible()


def test_both_tabs_may_ask_at_once(context: Any, endless: Server) -> None:
    """Neither hears of the other's question before it asks: they become branches."""
    context.add_init_script("window.BroadcastChannel = class { postMessage() {} };")
    first = opened(context, endless)
    setting(first, "max_tokens", "200")
    ask(first, "One")
    kept(first, "done")
    second = opened(context, endless)
    second.locator("#conversations .open").click()
    ask(first, "Two")
    ask(second, "Three")
    kept(first, "done", "done", "done")
    for page in (first, second):
        page.reload()
        page.locator("#conversations .open").click()
        versions = page.locator(".message.user .branches")
        expect(versions).to_have_text(re.compile("[12]/2"))
        for arrow in ("Earlier", "Later") if "2/2" in versions.inner_text() else ("Later", "Earlier"):
            expect(page.locator(".message.assistant .stats").last).to_contain_text("200 tokens")
            page.get_by_role("button", name=f"{arrow} version").click()


def test_what_had_come_when_the_page_was_closed_is_kept(context: Any, endless: Server) -> None:
    page = opened(context, endless)
    setting(page, "temperature", "0")
    ask_long(page)
    page.reload()
    expect(page.locator(".notice")).to_contain_text("Incomplete. The page was closed")
    (answer,) = kept(page, "incomplete")
    assert len(re.findall(r"\w", answer["content"])) >= 100, "as many as had been seen"
    whole = answer_of(endless, "Go on and on.", max_tokens=answer["stats"]["completion"])
    assert whole.choices[0].message.content.startswith(answer["content"])
    endless.until_idle(30)


# A disk so slow that the page is closed before it answers.
SLOW = """() => {
  IDBObjectStore.prototype.get = function () {
    const hold = () => (this.count().onsuccess = hold);
    hold();
    return {};
  };
}"""
# Another window that keeps the browser's database to itself.
BUSY = """() => (indexedDB.open("hexad").onsuccess = ({ target }) => {
  const objects = target.result.transaction("conversations", "readwrite").objectStore("conversations");
  const hold = () => (objects.count().onsuccess = hold);
  hold();
})"""


def test_what_was_done_last_is_kept_however_slow_the_disk(context: Any, demo: Server) -> None:
    page = opened(context, demo)
    ask(page, "Tell me about Ada.")
    settle(page)
    page.get_by_role("button", name="Answer again").click()
    kept(page, "done", "done")
    page.evaluate(SLOW)
    page.get_by_role("button", name="Earlier version").click()
    page.reload()
    expect(page.locator(".branches")).to_have_text("1/2")
    page.on("dialog", lambda dialog: dialog.accept())
    page.evaluate(SLOW)
    page.get_by_role("button", name="Later version").click()
    page.locator("#conversations li[data-id]").hover()
    page.get_by_role("button", name="Delete Tell me about Ada.").click()
    page.reload()
    expect(page.locator("#conversations")).to_have_text("No conversations yet")


def test_what_was_asked_before_the_disk_answered_is_shown_again(context: Any, demo: Server) -> None:
    other = opened(context, demo)
    other.evaluate(BUSY)
    page = opened(context, demo)
    ask(page, "Tell me about Ada.")
    settle(page)
    other.close()
    kept(page, "done")
    page.reload()
    expect(page.locator(".bubble")).to_have_text("Tell me about Ada.")


@pytest.mark.parametrize("status", ["streaming", "", "<b>"])
def test_a_file_made_before_an_answer_was_complete(page: Any, tmp_path: Path, status: str) -> None:
    shown(page, tmp_path, "Half of", status=status)
    expect(page.locator(".notice")).to_contain_text("Incomplete. The file does not hold the end of this answer.")
    expect(page.get_by_role("button", name="Continue")).to_be_visible()
    settle(page)


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString"])
def test_names_of_javascripts_own_are_no_messages(page: Any, tmp_path: Path, name: str) -> None:
    question = {"id": "q", "parent": "", "role": "user", "content": "Seen"}
    stray = {"id": "z", "parent": name, "role": "user", "content": "Below nothing"}
    imported(page, tmp_path, conversation(question, stray))
    expect(page.locator(".bubble")).to_have_text("Seen")
    imported(page, tmp_path, conversation(question | {"id": name}))
    expect(page.locator("#toast")).to_contain_text("holds a message that is none")
    ask(page, "Tell me about Ada.")
    settle(page)
    assert "Ada" in said(page)[-1]
