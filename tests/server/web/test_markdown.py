"""The page's markdown against markdown-it, which follows CommonMark's and GitHub's specifications."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.server.running import Server

ORACLE = MarkdownIt("commonmark", {"breaks": True, "linkify": False}).enable(["table", "strikethrough"])

SAMPLES = {
    "paragraphs": "One line\nand the next.\n\nAnother *paragraph* with **strong** and ***both***.",
    "headings": "# One #\n## Two\n### Three `code`\n\nText\n#not a heading\n####### seven",
    "emphasis": "*a* _b_ **c** __d__ *e **f** g* **h *i* j** snake_case_name 2 * 3 * 4 **not strong* ~~gone~~ a*b*c",
    "code": "`a` ``b ` c`` ` d ` `not closed and *em*\n\n```py\nx = 1\n\n  y\n```\n\n~~~\n```\n~~~\nafter",
    "open fence": "text\n```js\nlet x = 1;\n",
    "fence ends text": "text\n```\ncode\n```\ntext",
    "bullets": "- a\n- b\n  - c\n  - d\n    - e\n- f\n\nafter",
    "numbers": "3. a\n4. b\n   1. c\n   2. d\n5. e",
    "loose": "- a\n\n- b\n\n  more of b\n\n- c",
    "loose by one": "1. a\n   - b\n2. c\n\n   more of c\n3. d",
    "code in a list": "1. first:\n   ```sh\n   ls -l\n   ```\n2. second",
    "two lists": "- a\n- b\n\n1. c\n2. d",
    "list after text": "Things:\n- a\n- b",
    "lazy": "- a\nlazy\n- b",
    "quote": "> one\n> two\n>\n> - a\n> - b\n\nafter",
    "rules": "a\n\n---\n\nb\n\n* * *\n\n___",
    "links": "[a](https://example.org/x_(y)) [**b**](http://example.org 'no') [c](https://example.org \"title\")\n<https://x.org/>",
    "table": "| a | b *em* |\n| :-- | --: |\n| 1 | `x` |\n| 2 \\| 3 |\n\nafter",
    "table without borders": "a | b\n--- | ---\n1 | 2",
    "escapes": r"\*no\* \`no\` \[no \# 1\. back\slash \\",
    "dollars": "It costs $5 and $10, or US$7; *not* $9.",
    "html": "a <b>bold</b> <i onclick=x>y</i> & &amp; 1 < 2",
    "unicode": "**Ünïcode** *日本語* 🎉 `ß`",
}

# Where the page does otherwise on purpose, the text is made what it says of it.
AS_TEXT = ORACLE.disable(["html_inline", "html_block", "entity", "code", "lheading", "reference"])

TREE = """element => {
  const skip = new Set(["codebar"]);
  const walk = (node) => {
    if (node.nodeType === 3) return node.data;
    if (skip.has(node.className)) return null;
    const inner = [...node.childNodes].map(walk).filter((part) => part !== null);
    return [node.tagName.toLowerCase(), inner];
  };
  return walk(element)[1];
}"""
TRANSPARENT = {"div", "span", "thead", "tbody"}


class _Tree(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[list[Any]] = [[]]
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node: list[Any] = [tag, []]
        self.stack[-1].append(node)
        if tag not in ("br", "hr", "img"):
            self.stack.append(node[1])

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("br", "hr", "img"):
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].append(data)


def plain(nodes: list[Any], pre: bool = False) -> list[Any]:
    """Without what is only for looks: wrappers, space between blocks, the level of headings, `s` for `del`."""
    found: list[Any] = []
    for node in nodes:
        if isinstance(node, str):
            parts: list[Any] = [node if pre else node.replace("\n", "")]
        else:
            tag, inner = node
            parts = plain(inner, pre or tag == "pre")
            if tag not in TRANSPARENT:
                tag = "h" if tag[0] == "h" and tag[1:].isdigit() else {"s": "del"}.get(tag, tag)
                parts = [[tag, [part.rstrip("\n") if isinstance(part, str) else part for part in parts]]]
        for part in parts:
            if isinstance(part, str) and found and isinstance(found[-1], str):
                found[-1] += part
            elif part != "":
                found.append(part)
    return found


SAMPLE = "document.body.append(Object.assign(document.createElement('div'), { id: 'sample' }))"


def renderer(page: Any) -> str:
    return str(page.locator("script[type=module]").get_attribute("src")).replace("main.js", "render.js")


@pytest.fixture
def show(page: Any, demo: Server) -> Any:
    page.evaluate(SAMPLE)
    module = renderer(page)

    def shown(*texts: str) -> list[Any]:
        run = "async ([module, texts]) => { const { showMarkdown } = await import(module);"
        run += " for (const text of texts) showMarkdown(document.querySelector('#sample'), text); }"
        page.evaluate(run, [module, texts])
        return plain(page.locator("#sample").evaluate(TREE))

    return shown


@pytest.mark.parametrize("name", SAMPLES)
def test_the_elements_are_those_of_commonmark(show: Any, name: str) -> None:
    assert show(SAMPLES[name]) == plain(_Tree(AS_TEXT.render(SAMPLES[name])).stack[0])


def test_an_answer_that_grew_looks_as_if_it_had_come_whole(show: Any) -> None:
    text = "\n\n".join(SAMPLES.values())
    whole = show(text)
    assert show("", *(text[:end] for end in range(0, len(text), 3)), text) == whole


HARD = [
    "*a ",
    "**a",
    "[",
    "[a](",
    "`a``",
    "> ",
    "- ",
    "a|",
    "_a ",
    "# ",
    "<",
    "![",
    "https://a)",
    "- a\n\n",
    "~~a",
    "\\",
    "|\n",
    "$$",
    "$a",
    "\\(",
    "\\[\n",
    "$a$ ",
    "$${",
]


LIMIT_MS = 1000


def test_no_text_takes_long(page: Any) -> None:
    """A hundred thousand characters of each, parsed to the last span; the shortest time of some, for the machine may
    have been busy with something else."""
    module = page.locator("script[type=module]").get_attribute("src").replace("main.js", "markdown.js")
    run = """async ([module, hard, limit]) => {
      const { blocks, spans } = await import(module);
      const each = (block) => {
        if (block.type === "paragraph" || block.type === "heading") spans(block.text);
        block.blocks?.forEach(each);
        block.items?.forEach((item) => item.blocks.forEach(each));
        block.head?.concat(block.rows.flat()).forEach((cell) => spans(cell));
      };
      const timed = (text) => {
        const before = performance.now();
        blocks(text).forEach(each);
        return performance.now() - before;
      };
      return hard.map((piece) => {
        let least = Infinity;
        for (let left = 5; left && least > limit; left -= 1)
          least = Math.min(least, timed(piece.repeat(100_000 / piece.length)));
        return least;
      });
    }"""
    for piece, milliseconds in zip(HARD, page.evaluate(run, [module, HARD, LIMIT_MS]), strict=True):
        assert milliseconds < LIMIT_MS, piece


GROWING = """# A *heading*

Some **bold words**, *others*, ~~none~~, `code here` and a [link](https://example.org/a/long/way?x=1).

---

1. **One:** 2 * 3 is six
   - nested `x`
2. Two

> **said** by one

| a | b |
| :-- | --: |
| 1 | 2 |

```python
x = 2 ** 3
```

The *end*"""


def test_no_mark_is_seen_before_its_meaning(page: Any) -> None:
    """After each character; what is code may look like marks."""
    page.evaluate(SAMPLE)
    run = """async ([module, text]) => {
      const { showMarkdown } = await import(module);
      const sample = document.querySelector("#sample");
      const seen = [];
      for (let end = 1; end <= text.length; end += 1) {
        showMarkdown(sample, text.slice(0, end), true);
        const copy = sample.cloneNode(true);
        copy.querySelectorAll("code").forEach((code) => code.remove());
        if (/[`#|~>]|\\*(?! 3)|---|\\]\\(|https/.test(copy.textContent)) seen.push(text.slice(0, end).slice(-20));
      }
      showMarkdown(sample, text);
      return seen;
    }"""
    assert page.evaluate(run, [renderer(page), GROWING]) == []
    assert plain(page.locator("#sample").evaluate(TREE)) == plain(_Tree(AS_TEXT.render(GROWING)).stack[0])
