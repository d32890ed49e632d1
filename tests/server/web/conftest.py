"""A browser and the built-in model. Skips where Chromium (Debian: `apt install chromium`) or Playwright is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.running import Server, serving
from tests.server.variants import write_variant


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(Path("demo"), tmp_path_factory.mktemp("log") / "server.log", "--kv-memory", "64MiB") as running:
        yield running


@pytest.fixture(scope="package")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and no token that ends: an answer is as long as it may be."""
    return write_variant(tmp_path_factory.mktemp("served") / "endless", context=65_536, eos=None)


@pytest.fixture(scope="package")
def endless(endless_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(endless_model, tmp_path_factory.mktemp("log") / "server.log", "--kv-memory", "64MiB") as running:
        yield running


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium is installed")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A fresh browser: nothing stored. After the test no script has failed and the policy has refused nothing."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(30_000)
    problems: list[str] = []
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield context
    context.close()
    # The browser itself notes each failed request; whether it may fail is up to the test.
    assert [problem for problem in problems if "Failed to load resource" not in problem] == []


@pytest.fixture
def page(context: Any, demo: Server) -> Any:
    from tests.server.web.browsing import opened

    return opened(context, demo)
