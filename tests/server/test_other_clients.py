"""Clients with dependencies of their own, each in a fresh virtual environment: litellm, langchain-openai."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import serving

CLIENTS = Path(__file__).resolve().parent / "clients"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "packages"),
    # litellm imports mcp for a chat with tools, and does not say that it needs it.
    [("litellm_chat.py", ["litellm", "mcp"]), ("langchain_chat.py", ["langchain-openai"])],
)
def test_a_client_is_served(script: str, packages: list[str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    with serving(Path("demo"), tmp_path / "log") as server:
        command = [python, str(CLIENTS / script), server.url]
        offline = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        found = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert found.stdout.endswith("all well\n"), found.stdout + found.stderr
