"""The pages that walk through the code name only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`((?:hexad|native|tests|tools|docs)/[\w/.]*)`", page.read_text())
    linked = re.findall(r"\]\((?!http)([\w/.]+)(?:#[\w-]+)?\)", page.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in linked if not (page.parent / name).exists()]
    assert not missing


def test_every_symbol_on_the_walk_is_in_the_file_behind_it() -> None:
    """`Symbol` (`path.py`), `Symbol` (path) and "`Symbol` in `path.py`" are all read."""
    text = (ROOT / "docs/request.md").read_text()
    pairs = re.findall(r"`(\w+)`\s*(?:\(|in\s+)(?:for\s+example\s+)?`(hexad/[\w/]+\.py)`", text)
    assert len(pairs) > 20
    missing = [
        (symbol, path)
        for symbol, path in pairs
        if not re.search(rf"^\s*(class|def|async def) {symbol}\b", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert not missing
