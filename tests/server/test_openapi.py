"""The server's own OpenAPI document, by schemathesis: whatever it allows is answered or refused as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.running import Server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def _cases(server: Server, examples: int, tmp_path: Path) -> int:
    """How many were tried: `examples` of each operation."""
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"),
        *("--phases", "examples,fuzzing", "--max-examples", str(examples), "--seed", "5", "--checks", CHECKS),
        *("--mode", "all", "--request-timeout", "60", "--suppress-health-check", "all"),
        "--generation-deterministic",
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    counted = re.search(r"(\d+) generated, (\d+) passed", found.stdout)
    assert counted and counted[1] == counted[2]
    return int(counted[1])


def test_the_document_is_kept(server: Server, tmp_path: Path) -> None:
    assert _cases(server, 4, tmp_path) >= 100


@pytest.mark.slow
def test_the_document_is_kept_2000_times(server: Server, tmp_path: Path) -> None:
    assert _cases(server, 80, tmp_path) >= 2000
