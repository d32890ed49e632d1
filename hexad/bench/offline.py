"""`hexad bench offline`: Hexad, and a peer if asked, each in a process of its own, in turns.

A contestant is a program that reads one JSON line a run from standard input and answers with one;
the first line tells it what to load. So both are measured alike, and neither sees the other's memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import msgspec

from hexad.bench.workload import Figures, Run, Workload, figures
from hexad.errors import HexadError

CONTESTANTS = {"hexad": "hexad.bench.run_hexad", "transformers": "hexad.bench.run_transformers"}


class Contestant:
    """One engine in its own process."""

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        self._started = time.time()
        self._process = subprocess.Popen(
            [sys.executable, "-m", CONTESTANTS[name]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._write(settings)
        self.cold_start_s = float(self._read()["first_token_at"]) - self._started

    def run(self, workload: Workload, run: int) -> Run:
        self._write({"workload": msgspec.to_builtins(workload), "run": run})
        return msgspec.convert(self._read(), Run)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _write(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise HexadError(f"the benchmark of {self.name} ended early with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(names: list[str], settings: dict[str, Any], workload: Workload, repeats: int) -> list[Figures]:
    """Run the contestants in turns, after one run each that is not counted."""
    contestants = [Contestant(name, settings) for name in names]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    try:
        for run in range(repeats + 1):
            for contestant in contestants:
                measured = contestant.run(workload, run)
                expected = workload.output_tokens()
                if measured.output_tokens != expected:
                    raise HexadError(f"{contestant.name} gave {measured.output_tokens} tokens, not {expected}")
                if run > 0:
                    runs[contestant.name].append(measured)
    finally:
        for contestant in contestants:
            contestant.close()
    return [figures(c.name, workload, runs[c.name], c.cold_start_s) for c in contestants]
