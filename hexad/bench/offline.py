"""`hexad bench offline` and `serve`: Hexad and, beside it, a peer, Hexad without something, or Hexad behind its own
server, each in a process, in turns."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

import hexad
from hexad.bench import contestant
from hexad.bench.workload import Figures, Run, Workload, figures
from hexad.engine.process import own_module
from hexad.kernels.threads import default_threads


def compare(peer: str | None, settings: dict[str, Any], workload: Workload, repeats: int) -> list[Figures]:
    """Run the contestants in turns, after one run each that is not counted. The peer is of this environment.

    Settings with `without` are run beside the same with all optimisations: what those are worth on this machine.
    """
    contestants = [contestant.hexad({**settings, "without": ""})]
    if without := settings.get("without"):
        contestants.append(contestant.hexad(settings, f"hexad without {without}"))
    if peer:
        threads = settings.get("threads") or default_threads()
        command = [sys.executable, contestant.peer_script(peer)]
        contestants.append(contestant.Contestant(peer, command, {**settings, "threads": threads}))
    return _in_turns(contestants, workload, repeats)


def behind_http(settings: dict[str, Any], workload: Workload, repeats: int) -> list[Figures]:
    """What streaming clients see, beside what the engine in a process of its own does: the price of the server."""
    command = own_module("hexad.bench.run_serve")
    contestants = [contestant.Contestant("hexad serve", command, settings), contestant.hexad(settings)]
    return _in_turns(contestants, workload, repeats)


def _in_turns(contestants: Sequence[contestant.Contestant], workload: Workload, repeats: int) -> list[Figures]:
    try:
        cold_start_s = {c.name: c.start() for c in contestants}
        runs: dict[str, list[Run]] = {c.name: [] for c in contestants}
        for run in range(repeats + 1):
            for c in contestants:
                measured = c.run(workload, run)
                if run > 0:
                    runs[c.name].append(measured)
    finally:
        for c in contestants:
            c.close()
    return [figures(c.name, workload, runs[c.name], cold_start_s[c.name]) for c in contestants]


def document(
    kind: str, model: str, settings: dict[str, Any], workload: Workload, rows: Sequence[Figures]
) -> dict[str, Any]:
    """What was measured of what, for a file."""
    return {
        "hexad": hexad.__version__,
        "kind": kind,
        "machine": {"processor": platform.processor() or platform.machine(), "python": platform.python_version()},
        "model": model,
        "settings": {name: value for name, value in settings.items() if name != "model"},
        "workload": msgspec.to_builtins(workload),
        "results": [msgspec.to_builtins(row) for row in rows],
    }
