"""The pages that walk through the code name only what is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from hexad.text.formats import FORMATS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`((?:hexad|native|tests|tools|docs)/[\w/.]*)`", page.read_text())
    linked = re.findall(r"\]\((?!http)([\w/.]+)(?:#[\w-]+)?\)", page.read_text())
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in linked if not (page.parent / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_a_page_leads_to_a_heading(page: Path) -> None:
    for name, anchor in re.findall(r"\]\((?!http)([\w/.]*)#([\w-]+)\)", page.read_text()):
        other = (page.parent / name).read_text() if name else page.read_text()
        headings = re.findall(r"^#+ (.+)", other, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", text).lower().replace(" ", "-") for text in headings], (name, anchor)


def test_every_reply_format_has_its_row() -> None:
    rows = re.findall(r"^\| `(.+?)` \| .* \| .* \|$", (ROOT / "docs/tools.md").read_text(), re.MULTILINE)
    assert list(FORMATS) and set(FORMATS) <= set(rows)


CONSOLE = re.compile(r"^ *\$ (hexad generate .+|cat .+)\n *(.+)", re.MULTILINE)
EXAMPLES = [(page.name, *found) for page in PAGES for found in CONSOLE.findall(page.read_text())]


def test_what_a_page_says_that_a_command_prints_it_prints(tmp_path: Path) -> None:
    assert len({command for _, command, _ in EXAMPLES}) > 3
    for page, command, printed in sorted(EXAMPLES, key=lambda example: example[1]):  # `cat` before `hexad`
        program, *words = (str(tmp_path / word) if word.endswith(".json") else word for word in shlex.split(command))
        if program == "cat":
            Path(words[0]).write_text(printed)
            continue
        run = [sys.executable, "-m", "hexad.cli.main", *words]
        done = subprocess.run(run, capture_output=True, text=True, timeout=120)
        assert done.stdout == printed + "\n", (page, command, done.stderr)


@pytest.mark.parametrize("page", ["README.md", "docs/structured.md"])
def test_the_python_of_a_page_runs(page: str) -> None:
    blocks = [token.content for token in MarkdownIt().parse((ROOT / page).read_text())]
    (code,) = (block for block in blocks if block.startswith("from hexad import"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout) > 10, done.stderr


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
