"""Clients with dependencies of their own, each in a fresh virtual environment: litellm, langchain-openai."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import serving

CLIENTS = Path(__file__).resolve().parent / "clients"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "packages"), [("litellm_chat.py", "litellm"), ("langchain_chat.py", "langchain-openai")]
)
def test_a_client_is_served(script: str, packages: str, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", packages], check=True)
    with serving(Path("demo"), tmp_path / "log") as server:
        found = subprocess.run([python, str(CLIENTS / script), server.url], capture_output=True, text=True, check=False)
    assert found.stdout.endswith("all well\n"), found.stdout + found.stderr
