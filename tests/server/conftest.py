"""One server for most tests: random weights with the demo model's tokenizer and chat template."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import Server, serving
from tests.server.variants import QWEN, write_variant

MAX_MODEL_LEN = 2048


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_variant(tmp_path_factory.mktemp("served") / "tiny-chat", context=MAX_MODEL_LEN)


@pytest.fixture(scope="session")
def server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(chat_model, tmp_path_factory.mktemp("log") / "server.log", "--kv-memory", "64MiB") as running:
        yield running


@pytest.fixture(scope="session")
def thinking_server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its template opens a reasoning section, unless it is told not to."""
    model = tmp_path_factory.mktemp("thinking") / "tiny-thinker"
    shutil.copytree(chat_model, model)
    template = (model / "chat_template.jinja").read_text()
    template = template.rstrip() + "{% if add_generation_prompt and enable_thinking is not false %}<think>\n{% endif %}"
    (model / "chat_template.jinja").write_text(template)
    with serving(model, tmp_path_factory.mktemp("log") / "thinking.log", "--kv-memory", "64MiB") as running:
        yield running


@pytest.fixture(scope="session")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its tokenizer has Qwen's fill-in-the-middle tokens."""
    root = tmp_path_factory.mktemp("coder")
    with serving(write_variant(root / "tiny-coder", added=QWEN), root / "log", "--kv-memory", "32MiB") as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the shared server still answers and holds nothing."""
    yield
    if "server" in request.fixturenames:
        shared: Server = request.getfixturevalue("server")
        assert shared.process.poll() is None, shared.log.read_text()
        shared.until_idle()
