"""`hexad bench start`: how soon the first token comes, what an idle server holds, what an install takes."""

from __future__ import annotations

import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hexad.bench import run_serve
from hexad.bench.contestant import with_bytecode
from hexad.engine.process import own_module
from hexad.errors import HexadError

REPEATS = 9
QUESTION = "Who are you?"
SETTLE_S = 1.0


def measure_start() -> str:
    """A line a figure, with what dominates it."""
    sizes = dict(sorted(installed_bytes().items(), key=lambda item: -item[1]))
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in list(sizes.items())[:4])
    slowest = ", ".join(f"{name} {1e3 * seconds:.0f}" for name, seconds in list(import_seconds().items())[:4])
    idle = idle_rss()
    return "\n".join(
        [
            f"hexad --help                    {1e3 * seconds_to_output(['--help']):6.0f} ms",
            f"hexad generate, first token     {1e3 * seconds_to_output(['generate', 'demo', QUESTION]):6.0f} ms"
            f"  (imports, ms: {slowest})",
            f"idle server, both processes     {idle / 2**20:6.0f} MiB",
            f"installed, with dependencies    {sum(sizes.values()) / 1e6:6.0f} MB  ({largest})",
        ]
    )


def seconds_to_output(words: list[str]) -> float:
    """Median seconds from process start to the first byte on standard output."""
    taken = []
    command, env = own_module("hexad.cli.main", *words), with_bytecode()
    for _ in range(REPEATS):
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            taken.append(time.perf_counter() - started)
            process.stdout.read()
        if process.returncode != 0:
            raise HexadError(f"`hexad {' '.join(words)}` failed with status {process.returncode}")
    return statistics.median(taken)


def import_seconds() -> dict[str, float]:
    """Seconds that `hexad generate` spends importing, by top-level package, most first."""
    command = [sys.executable, "-X", "importtime", "-c", "import hexad.cli.generate, hexad.kernels.load"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    totals: dict[str, float] = {}
    for microseconds, module in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", report):
        package = module.partition(".")[0]
        totals[package] = totals.get(package, 0.0) + int(microseconds) / 1e6
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def idle_rss() -> int:
    """Resident bytes of a server of the built-in model and its engine process, before any request."""
    process, _ = run_serve.start({})
    try:
        time.sleep(SETTLE_S)
        return run_serve.resident_bytes("VmRSS", os.getpid())
    finally:
        process.terminate()
        process.wait()


def installed_bytes() -> dict[str, int]:
    """Bytes on disk of Hexad and of each distribution that it needs, by name."""
    return {name: sum(_file_sizes(name)) for name in _needed("hexad")}


def _needed(root: str) -> set[str]:
    """The closure of the requirements without extras."""
    found: set[str] = set()
    left = [root]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # for another platform or Python
            continue
        found.add(name)
        left += [match[0] for text in requirements if "extra ==" not in text and (match := re.match(r"[\w.-]+", text))]
    return found


def _file_sizes(name: str) -> Iterator[int]:
    for file in importlib.metadata.files(name) or []:
        path = Path(str(file.locate()))
        if path.is_file():
            yield path.stat().st_size
