"""What hostile text, broken streams and a server with keys do to the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.running import serving
from tests.server.web.browsing import (
    answer_of,
    ask,
    ask_long,
    delta,
    expect,
    kept,
    opened,
    setting,
    settle,
    shown,
    streamed,
)

HOSTILE = """<img src=x onerror="alert(1)"> <script>alert(2)</script> <svg onload=alert(3)></svg>
<iframe src="javascript:alert(4)"></iframe> <style>body{display:none}</style>

[a](javascript:alert(5)) [b](JaVaScRiPt:alert(6)) [c](data:text/html,<script>alert(7)</script>) [d](vbscript:x)
[e](\x01javascript:alert(8)) [f](/v1/models) [g](#engine) <javascript:alert(9)> [h](https://example.org/?a="onclick=x)

![pixel](https://example.org/pixel.png) ![x](x" onerror="alert(10))

| <b>h</b> | i |
| --- | --- |
| <img src=x onerror=alert(11)> | [j](javascript:alert(12)) |

```html"onmouseover="alert(13)
</code></pre><script>alert(14)</script>
```"""


def test_what_a_model_says_stays_text(page: Any, tmp_path: Path) -> None:
    """Through an import, so that the file's own fields are hostile, too."""
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url) if "example.org" in request.url else None)
    evil = "<img src=x onerror=alert(15)>"
    call = {"id": evil, "name": evil, "args": evil}
    top = [{"text": evil, "logprob": -1}, None, {"text": 5, "logprob": "x"}]
    tokens = [{"text": evil, "logprob": -1, "top": top}, {"text": 1, "logprob": None, "top": "no list"}]
    shown(page, tmp_path, HOSTILE, reasoning=evil, model=evil, error=evil, calls=[call], tokens=tokens)
    answer = page.locator(".message.assistant")
    assert (
        answer.locator("img, script, iframe, style, object, embed, form, [onerror], [onload], [onclick]").count() == 0
    )
    links = answer.locator("a").evaluate_all("links => links.map(link => [link.protocol, link.rel, link.target])")
    assert links and all(link == ["https:", "noopener noreferrer nofollow", "_blank"] for link in links)
    expect(answer).to_contain_text('<img src=x onerror="alert(1)">')
    expect(answer).to_contain_text("javascript:alert(5)")
    answer.locator("summary").first.click()
    answer.get_by_role("button", name="Token probabilities").click()
    answer.locator(".token").first.hover()
    expect(answer.locator(".card")).to_contain_text("onerror")
    expect(page.locator(".message.assistant .call")).to_contain_text(evil)
    assert page.locator(".message img, .message script").count() == 0
    assert asked == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("no json", "not JSON"),
        ("{}", "no conversations of Hexad"),
        (
            '{"format": "hexad-conversations", "version": 1, "conversations": [{"nodes": {"": {"role": "user"}}}]}',
            "none",
        ),
        ('{"format": "hexad-conversations", "version": 1, "conversations": [{"nodes": {"a": 5}}]}', "none"),
    ],
)
def test_a_file_that_is_no_export_is_refused_in_words(page: Any, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "in.json").write_text(content)
    page.set_input_files("#file", tmp_path / "in.json")
    expect(page.locator("#toast")).to_contain_text(complaint)
    expect(page.locator("#conversations .open")).to_have_count(0)


def test_a_server_that_dies_leaves_an_incomplete_answer_never_a_finished_one(
    context: Any, endless_model: Path, tmp_path: Path
) -> None:
    with serving(endless_model, tmp_path / "log", "--kv-memory", "64MiB") as mortal:
        page = opened(context, mortal)
        ask_long(page)
        mortal.process.kill()
        expect(page.locator(".message.assistant")).to_have_attribute("data-status", "incomplete")
        expect(page.locator(".notice")).to_contain_text("Incomplete. The connection broke")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".notice")).to_contain_text("No answer. The server cannot be reached.")


def test_an_answer_goes_on_after_a_restart(context: Any, endless_model: Path, tmp_path: Path) -> None:
    options = ("--kv-memory", "64MiB")
    with serving(endless_model, tmp_path / "log", *options) as mortal:
        page = opened(context, mortal)
        setting(page, "temperature", "0")
        ask_long(page)
    expect(page.locator(".message.assistant")).to_have_attribute("data-status", "incomplete")
    (begun,) = kept(page, "incomplete")
    setting(page, "max_tokens", "20")
    with serving(endless_model, tmp_path / "again", *options, "--port", str(mortal.port)) as again:
        page.get_by_role("button", name="Continue").click()
        expect(page.locator(".notice")).to_have_text("The limit of tokens ended this answer.Continue")
        (longer,) = kept(page, "done")
        further = {"add_generation_prompt": False, "continue_final_message": True}
        rest = answer_of(again, "Go on and on.", begun["content"], max_tokens=20, extra_body=further)
    assert longer["content"] == begun["content"] + rest.choices[0].message.content
    assert longer["stats"]["completion"] == begun["stats"]["completion"] + 20


def test_a_server_that_is_not_there_yet_is_asked_again(page: Any) -> None:
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    page.unroute("**/v1/models")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#model option")).to_have_text(["demo"])
    expect(page.locator("#suggestions > button")).to_have_count(4)


def test_the_engine_page_shows_nothing_that_it_does_not_know(page: Any) -> None:
    page.get_by_role("link", name="Engine").click()
    expect(page.locator(".facts")).to_contain_text("ready")
    running = page.locator(".chart", has_text="Requests").locator("strong").first
    expect(running).to_have_text("0")
    page.route("**/metrics", lambda route: route.abort())
    expect(page.locator("#engine-view .error")).to_have_text("The server cannot be reached. Is it running?")
    expect(page.locator(".facts")).to_be_empty()
    expect(running).to_have_text("–")
    page.unroute("**/metrics")
    expect(page.locator(".facts")).to_contain_text("ready")
    expect(page.locator("#engine-view .error")).to_be_hidden()


def test_a_script_that_does_not_come_is_told(page: Any) -> None:
    page.route("**/store.js", lambda route: route.fulfill(status=403))
    page.reload()
    expect(page.locator("body")).to_contain_text("A part of this page could not be loaded; reload it.")


def test_a_draft_that_is_too_long_is_told_before_it_is_sent(page: Any) -> None:
    page.fill("#text", "word " * 3000)
    expect(page.locator("#context-label")).to_contain_text("of 2,560 tokens with this draft: no room for an answer")


@pytest.mark.parametrize(
    ("wire", "status", "words"),
    [
        (
            streamed(delta(content="Half"), {"error": {"message": "the engine is gone"}}, done=False),
            "incomplete",
            "gone",
        ),
        (streamed(delta(content="Half"), delta("stop"), done=False), "incomplete", "connection broke"),
        (streamed(delta(content="Half"), done=True), "incomplete", "without saying why"),
        ("", "incomplete", "before it began"),
        ("data: {oops\n\n", "incomplete", "connection broke"),
        (streamed(delta(content="Half"), delta("stop"), done=True), "done", ""),
        (streamed(delta(content=""), delta("stop"), done=True), "done", "without a word"),
    ],
    ids=["error", "no-done", "no-reason", "nothing", "no-json", "complete", "wordless"],
)
def test_only_a_stream_that_says_so_is_complete(page: Any, wire: str, status: str, words: str) -> None:
    """Each way in which a stream of OpenAI's can end; the wire is written here, so that each can be had."""
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=wire, content_type="text/event-stream"))
    ask(page, "Hello")
    expect(page.locator(".message.assistant")).to_have_attribute("data-status", status)
    expect(page.locator(".notice")).to_contain_text(words)
    retry = page.get_by_role("button", name="Try again")
    expect(retry).to_have_count(1 if words else 0)


def test_a_server_that_wants_a_key_is_asked_with_one(context: Any, endless_model: Path, tmp_path: Path) -> None:
    secret = "0123456789abcdef0123"
    keys = tmp_path / "keys"
    keys.write_text(f"somebody:{secret}\n")
    keys.chmod(0o600)
    models = ["demo", f"second={endless_model}"]
    with serving(models, tmp_path / "log", "--kv-memory", "32MiB", "--api-keys", str(keys)) as locked:
        page = context.new_page()
        page.goto(locked.url)
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This server wants an API key.")
        page.keyboard.press("Escape")
        expect(page.locator("#suggestions")).to_contain_text("This server wants an API key.")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#key")).to_be_focused()
        page.keyboard.type("not the one it wants")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The server does not take this key.")
        page.fill("#key", secret)
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#model option")).to_have_text(["demo", "second"])
        page.get_by_role("link", name="Engine").click()
        expect(page.locator(".facts")).to_contain_text("second · context 65,536 tokens · not loaded")
        expect(page.get_by_role("heading", name="Engine · demo")).to_be_visible()
        page.select_option("#model", "second")
        expect(page.get_by_role("heading", name="Engine · second")).to_be_visible()
        page.get_by_role("link", name="Chat").click()
        setting(page, "max_tokens", "5")
        for model in ("demo", "second"):
            page.select_option("#model", model)
            ask(page, "Who is the baker?")
            settle(page)
            expect(page.locator(".message.assistant .stats").last).to_contain_text(model)
    stored = page.evaluate("[Object.values(sessionStorage).join(), Object.values(localStorage).join()]")
    assert secret in stored[0] and secret not in stored[1]
