"""Many streams of every dialect, clients that vanish, an engine that is killed: what survives is whole and right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.running import Server, serving
from tests.server.streams import DIALECTS, Clients, Dialect, Question

WORDS = ["the", "baker", "sells", "bread", "in", "a", "town", "by", "sea", "while", "cats", "watch", "her", "boats"]
DEAD_CLIENTS = 0.2
"""Share of streams that are left early: before the first token, in the middle, or by closing the connection."""
QUESTIONS = 3
"""To each dialect."""
GROUP = 16
"""Visitors who share clients: a pool of connections takes time that grows with the square of its size."""
ADMIN = "boss-secret-key-12345"
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts, one by one, for what may take a while."""
HEALTH_S = 1.0
"""99 of 100 looks at /health take less, on two cores that are shared with everything else."""
PROBE = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
while True:
    begun = time.monotonic()
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    print(time.monotonic() - begun, flush=True)
    time.sleep(0.1)
"""


@pytest.fixture
def loaded(chat_model: Path, tmp_path: Path) -> Iterator[Server]:
    keys = tmp_path / "keys"
    keys.write_text(f"boss:{ADMIN}:admin\n")
    keys.chmod(0o600)
    options = ("--kv-memory", "64MiB", "--max-num-seqs", "64", "--api-keys", str(keys))
    with serving(chat_model, tmp_path / "server.log", *options) as running:
        yield running


def questions() -> list[tuple[Dialect, Question]]:
    rng = random.Random(0)
    return [
        (
            dialect,
            Question(
                text=" ".join(rng.choices(WORDS, k=rng.randint(3, 200))),
                max_tokens=rng.randint(8, 120),
                temperature=rng.choice([0.0, 1.0]),
                seed=seed,
            ),
        )
        for dialect in DIALECTS
        for seed in range(QUESTIONS)
    ]


async def whole(clients: Clients, dialect: Dialect, question: Question) -> str:
    return "".join([piece async for piece in dialect(clients, question)])


async def left_early(clients: Clients, dialect: Dialect, question: Question, rng: random.Random) -> None:
    """Ends by cancellation before the first token, or by closing the connection in the middle."""
    if rng.random() < 0.5:
        asking = asyncio.create_task(whole(clients, dialect, question))
        await asyncio.sleep(rng.random() * 0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return
    async with contextlib.aclosing(dialect(clients, question)) as pieces:
        async for _ in pieces:
            if rng.random() < 0.1:
                break


def resident(server: Server) -> int:
    total = 0
    for pid in (server.process.pid, *server.engine_pids()):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        total += int(fields["VmRSS"].split()[0]) * 1024
    return total


def held(server: Server) -> tuple[int, int]:
    """Open files and threads of the server process."""
    proc = Path(f"/proc/{server.process.pid}")
    return len(list((proc / "fd").iterdir())), len(list((proc / "task").iterdir()))


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100]


@contextlib.contextmanager
def looks_at_health(server: Server, file: Path) -> Iterator[list[float]]:
    """From a process of its own: how many seconds each took, known at the end."""
    taken: list[float] = []
    with file.open("w") as out:
        probe = subprocess.Popen([sys.executable, "-c", PROBE, str(server.port)], stdout=out)
        try:
            yield taken
            assert probe.poll() is None, "the connection of the looks at /health was lost"
        finally:
            probe.kill()
            probe.wait()
    taken += [float(line) for line in file.read_text().split("\n")[:-1]]


@pytest.mark.parametrize(
    ("streams", "seconds"), [(48, 8), pytest.param(256, 300, marks=pytest.mark.slow)], ids=["short", "five minutes"]
)
def test_surviving_streams_are_whole_and_right(loaded: Server, streams: int, seconds: float, tmp_path: Path) -> None:
    asked = questions()
    counts: Counter[str] = Counter()
    memory: list[int] = []

    async def main() -> None:
        groups = [Clients.of(loaded.url, ADMIN) for _ in range(0, streams, GROUP)]
        expected = [await whole(groups[0], *question) for question in asked]
        files, threads = held(loaded)
        ends_at = time.monotonic() + seconds

        async def visitor(number: int) -> None:
            rng, clients = random.Random(number), groups[number // GROUP]
            while time.monotonic() < ends_at:
                which = rng.randrange(len(asked))
                if rng.random() < DEAD_CLIENTS:
                    await left_early(clients, *asked[which], rng)
                    counts["left"] += 1
                else:
                    assert await whole(clients, *asked[which]) == expected[which], asked[which]
                    counts["whole"] += 1

        async def killer() -> None:
            for _ in range(2):
                await asyncio.sleep(seconds / 3)
                os.kill(loaded.engine_pid(), signal.SIGKILL)
                counts["killed"] += 1

        async def watcher() -> None:
            while time.monotonic() < ends_at:
                await asyncio.sleep(seconds / 60)
                try:
                    memory.append(resident(loaded))
                except (OSError, KeyError):  # the engine is just being restarted
                    continue

        await asyncio.gather(killer(), watcher(), *(visitor(number) for number in range(streams)))
        for clients in groups:
            await clients.close()
        await asyncio.to_thread(loaded.until_idle, 20, ADMIN)
        now_files, now_threads = held(loaded)
        assert now_files <= files + 8 and now_threads <= threads + POOL, (files, now_files, threads, now_threads)
        clients = Clients.of(loaded.url, ADMIN)
        assert [await whole(clients, *question) for question in asked] == expected
        await clients.close()

    with looks_at_health(loaded, tmp_path / "looks") as taken:
        asyncio.run(main())
    audit = loaded.http.get(loaded.url + "/debug/invariants", headers={"x-api-key": ADMIN})
    assert audit.json() == {"ok": True, "broken": {}}
    assert counts["killed"] == 2 and counts["whole"] >= streams and counts["left"] >= streams / 8, counts
    print(dict(counts), f"memory {min(memory) / 2**20:.0f} to {max(memory) / 2**20:.0f} MiB")
    print(f"/health: {len(taken)} looks, median {sorted(taken)[len(taken) // 2]:.3f} s, p99 {p99(taken):.3f} s")
    assert p99(taken) < HEALTH_S
    quarter = len(memory) // 4
    early, late = sorted(memory[quarter : 2 * quarter])[quarter // 2], sorted(memory[-quarter:])[quarter // 2]
    assert late < early + 32 * 2**20, (early, late)
