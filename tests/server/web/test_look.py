"""How the page looks and is reached: keys, a phone, light and dark, scrolling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Server
from tests.server.web.browsing import PHONE, ask, ask_long, expect, opened, setting, settle, shown, stop


def test_keys_alone_are_enough(page: Any) -> None:
    ask(page, "Tell me about Ada.")
    settle(page)
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("textbox", name="Edit message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".bubble")).to_have_text("Tell me about Ada.")
    page.locator("body").click(position={"x": 5, "y": 5})
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        focus = "e => [e.ariaLabel || e.textContent || e.id, getComputedStyle(e).outlineStyle]"
        name, outline = page.evaluate(f"({focus})(document.activeElement)")
        border = page.evaluate("document.activeElement.id") == "text"
        assert outline != "none" or border or name.startswith("\n"), name
        reached.add(name.strip())
    wanted = {"New chat", "Search conversations", "Export", "Import", "Model", "Chat", "Engine", "Settings", "Message"}
    assert wanted | {"Copy message", "Edit message", "Answer again"} <= reached
    unnamed = "buttons => buttons.filter(b => b.offsetParent && !(b.ariaLabel || b.textContent.trim())).length"
    assert page.locator("button").evaluate_all(unnamed) == 0


def test_the_focus_is_where_the_next_key_is_wanted(page: Any) -> None:
    page.get_by_role("link", name="Engine").click()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#text")).to_be_focused()
    ask(page, "Tell me about Ada.")
    settle(page)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    copy = page.locator(".message.assistant").get_by_role("button", name="Copy message")
    copy.focus()
    page.keyboard.press("Enter")
    expect(copy).to_be_focused()


def test_a_phone_is_wide_enough(browser: Any, demo: Server) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = opened(context, demo)
    expect(page.locator("#sidebar")).to_be_hidden()
    ask(page, "Who lives in Tide Alley? " + "x" * 300)
    settle(page)
    for panel in ("Conversations", "Settings"):
        page.get_by_role("button", name=panel, exact=True).click()
        box = page.get_by_role("complementary", name=panel).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
        page.locator("#shade").click(position={"x": 380 if panel == "Conversations" else 5, "y": 400})
        expect(page.get_by_role("complementary", name=panel)).to_be_hidden()
    for link in ("Engine", "Chat"):
        page.get_by_role("link", name=link).click()
        expect(page.locator(f"#{link.lower()}-view")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.querySelector('header').scrollWidth") <= PHONE["width"]
    context.close()


def test_a_tablet_has_no_hover(browser: Any, demo: Server) -> None:
    """What a mouse finds by hovering is always there for a finger."""
    context = browser.new_context(viewport={"width": 1100, "height": 800}, has_touch=True)
    page = opened(context, demo)
    ask(page, "Tell me about Ada.")
    settle(page)
    opacity = "button => Number(getComputedStyle(button).opacity)"
    assert page.get_by_role("button", name="Edit message").evaluate(opacity) == 1
    expect(page.get_by_role("button", name="Rename Tell me about Ada.")).to_be_visible()
    context.close()


# The contrast of WCAG 2.2, section 1.4.3, of every text that is seen.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const luminance = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(":disabled, svg, option")) continue;
    const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""

SAMPLE = """# One
Some *words*, `code` and a [link](https://example.org/).

> A quotation

```python
# a comment
def twice(x): return "a" + str(2 * x)
```

| a | b |
| --- | --- |
| 1 | 2 |
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read_in_both_themes(page: Any, tmp_path: Path, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    tokens = [
        {"text": f"word{p}", "logprob": -p, "top": [{"text": "x", "logprob": -1}]} for p in (0.01, 0.3, 0.9, 1.8, 4)
    ]
    stats = {"completion": 5, "rate": 100, "first": 0.1, "prompt": 9}
    call = {"id": "1", "name": "get_weather", "args": "{}"}
    more = {
        "tokens": tokens,
        "stats": stats,
        "reasoning": "Hm.",
        "status": "incomplete",
        "error": "gone",
        "calls": [call],
    }
    shown(page, tmp_path, SAMPLE, **more)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.locator("#settings summary").last.click()
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("button", name="Token probabilities").click()
    page.locator(".token").first.hover()
    expect(page.locator(".card")).to_be_visible()
    assert page.evaluate(CONTRAST) == []
    page.get_by_role("link", name="Engine").click()
    expect(page.locator(".facts")).to_contain_text("ready")
    assert page.evaluate(CONTRAST) == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark" if theme == "light" else "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != background
    page.get_by_role("button", name="Theme: as the system").click()
    page.reload()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", PHONE["width"])])
def test_axe_finds_nothing(page: Any, tmp_path: Path, theme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=theme)

    def look() -> list[str]:
        found = axe.Axe().run(page).response["violations"]
        return [f"{violation['id']}: {node['html'][:200]}" for violation in found for node in violation["nodes"]]

    assert look() == []
    shown(page, tmp_path, SAMPLE, status="incomplete", error="gone", calls=[{"id": "1", "name": "f", "args": "{}"}])
    assert look() == []
    page.get_by_role("button", name="Settings", exact=True).click()
    page.fill("#set-temperature", "7")
    assert look() == []
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Engine").click()
    page.get_by_text("All metrics").click()
    expect(page.locator("tr").nth(3)).to_be_visible()
    assert look() == []


def test_what_lies_under_a_panel_is_not_reached(page: Any) -> None:
    page.set_viewport_size(PHONE)
    page.get_by_role("button", name="Conversations").click()
    expect(page.get_by_role("button", name="New chat")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main')") is None
    page.keyboard.press("Escape")
    expect(page.locator("#text")).to_be_focused()


def test_on_paper_are_all_messages(page: Any, tmp_path: Path) -> None:
    shown(page, tmp_path, "\n\n".join(f"Paragraph {number}" for number in range(100)))
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollHeight") > 3000
    expect(page.locator("#sidebar")).to_be_hidden()


def test_messages_that_stay_are_left_alone(page: Any, tmp_path: Path) -> None:
    """However long a conversation is, a further message costs one message."""
    shown(page, tmp_path, "Hello")
    changed = """() => {
      window.changed = 0;
      new MutationObserver((all) => (changed += all.length)).observe(document.querySelector(".message.user"),
        { subtree: true, childList: true, characterData: true });
    }"""
    page.evaluate(changed)
    ask(page, "Tell me about Ada.")
    settle(page)
    assert page.evaluate("changed") == 0


BELOW = "scroller => scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop"


def test_reading_further_up_is_not_disturbed(context: Any, endless: Server) -> None:
    page = opened(context, endless)
    scroller = page.locator("#scroller")
    ask_long(page)
    answer = page.locator(".message.assistant")
    while scroller.evaluate("scroller => scroller.scrollTop") < 600:
        assert answer.get_attribute("data-status") == "streaming"
    # The wheel has turned and the window has not moved yet when more text comes.
    scroller.dispatch_event("wheel", {"deltaY": -4})
    expect(page.locator("#to-end")).to_be_visible()
    page.get_by_role("button", name="Go to the newest message").click()
    expect(page.locator("#to-end")).to_be_hidden()
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -40)
    expect(page.locator("#to-end")).to_be_visible()
    at = scroller.evaluate("scroller => scroller.scrollTop")
    while scroller.evaluate(BELOW) < 400:
        assert answer.get_attribute("data-status") == "streaming"
    stop(page)
    assert scroller.evaluate("scroller => scroller.scrollTop") <= at
    assert scroller.evaluate(BELOW) >= 200
    page.get_by_role("button", name="Go to the newest message").click()
    assert scroller.evaluate(BELOW) < 5
    setting(page, "max_tokens", "800")
    page.get_by_role("button", name="Answer again").click()
    settle(page)
    assert scroller.evaluate(BELOW) < 5


WIDE = """| Parameters | Context | Notes of what it is good for and what not | Vocabulary | Released | Licence |
| --- | --- | --- | --- | --- | --- |
| 751,632,384 | 40,960 | thinks | 151,936 | 2025 | Apache |

שלום `code` עולם.

- שלום
- עולם

```
שלום = 1
```

Hello שלום."""


def test_words_stay_whole_in_tables_and_go_their_own_way(page: Any, tmp_path: Path) -> None:
    page.set_viewport_size(PHONE)
    shown(page, tmp_path, WIDE)
    lines = """cells => cells.filter(({ firstChild: text }) => {
      const range = document.createRange();
      range.selectNode(text);
      return !text.data.includes(" ") && range.getClientRects().length > 1;
    }).map((cell) => cell.textContent)"""
    assert page.locator(".markdown :is(th, td)").evaluate_all(lines) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    ways = "parts => parts.map((part) => getComputedStyle(part).direction)"
    parts = page.locator(".markdown > :is(p, ul, .code)")
    assert parts.evaluate_all(ways) == ["rtl", "rtl", "ltr", "ltr"]
