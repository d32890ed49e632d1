"""Clients with dependencies of their own, each in a folder of its own: from PyPI in a virtual environment, from npm."""

from __future__ import annotations

import os
import shutil
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
    [
        ("litellm_chat.py", ["litellm", "mcp"]),
        ("langchain_chat.py", ["langchain-openai"]),
        ("frameworks.py", ["openai-agents", "pydantic-ai-slim[openai]", "instructor"]),
    ],
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
@pytest.mark.parametrize(
    ("script", "packages"),
    [
        ("openai_client.mjs", ["openai", "zod"]),
        ("anthropic_client.mjs", ["@anthropic-ai/sdk"]),
        ("ollama_client.mjs", ["ollama"]),
        ("ai_sdk.mjs", ["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "@ai-sdk/anthropic", "zod"]),
        ("agents.mjs", ["@openai/agents", "openai", "zod"]),
        ("langchain_client.mjs", ["@langchain/openai", "@langchain/core", "zod"]),
    ],
)
def test_a_client_from_npm_is_served(script: str, packages: list[str], tmp_path: Path) -> None:
    shutil.copy(CLIENTS / script, tmp_path)
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(tmp_path), *packages]
    subprocess.run(install, check=True, capture_output=True)
    with serving(Path("demo"), tmp_path / "log") as server:
        command = ["node", script, server.url]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert found.stdout.endswith("all well\n"), found.stdout + found.stderr
