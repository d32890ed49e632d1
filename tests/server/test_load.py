"""Many streams of every dialect, clients that vanish, an engine that is killed: what survives is whole and right."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.server.running import AT_LAST_S, Server, serving
from tests.server.streams import MODEL, Clients
from tests.server.variants import write_variant
from tests.server.visitors import Crowd, questions, whole

ADMIN = "boss-secret-key-12345"
LIVE = 0.5
"""Share of the streams that have reached the engine when it is killed, at least: the others are on their way."""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts, one by one, for what may take a while."""
CACHE = 128 * 2**20
GROWTH = 32 * 2**20
"""Bytes of memory that are still flat."""
HEALTH_S = 1.0
"""Nearly all looks at /health take less, on two cores that are shared with everything else."""
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


SIZES = {
    "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64,
}  # fmt: skip
"""The demo model's. A step of a tiny one is over sooner than its tokens are sent, and nobody would be in the engine."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_variant(tmp_path_factory.mktemp("loaded") / MODEL, sizes=SIZES, dtype="bfloat16")


@pytest.fixture
def loaded(model: Path, tmp_path: Path) -> Iterator[Server]:
    """As it is by default, but for its memory: all of the cache is soon in use, and then it is flat."""
    keys = tmp_path / "keys"
    keys.write_text(f"boss:{ADMIN}:admin\n")
    keys.chmod(0o600)
    with serving(model, tmp_path / "server.log", "--kv-memory", str(CACHE), "--api-keys", str(keys)) as running:
        yield running


def held(pid: int) -> tuple[int, int, int]:
    """Open files, threads and bytes of resident memory of a process."""
    proc = Path(f"/proc/{pid}")
    fields = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return len(list((proc / "fd").iterdir())), int(fields["Threads"]), int(fields["VmRSS"].split()[0]) * 1024


def nearly_all(seconds: list[float]) -> float:
    """The longest but one of a hundred; of a few, one in ten may be longer."""
    return sorted(seconds)[-1 - len(seconds) // (100 if len(seconds) > 1000 else 10)]


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


def in_engine(found: dict[str, float]) -> int:
    return int(found["hexad:num_requests_running"] + found["hexad:num_requests_waiting"])


def until_live(server: Server, least: int) -> None:
    """So many requests are being answered."""
    deadline = time.monotonic() + 90
    while True:
        shown = server.http.get(server.url + "/admin/models", headers={"x-api-key": ADMIN}).json()["models"]
        if shown[0]["users"] >= least:
            return
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)


@dataclass
class Watch:
    """Looks at the server once a second, and kills its engine."""

    server: Server
    begun: float = field(default_factory=time.monotonic)
    live: list[int] = field(default_factory=list)
    """Sequences in the engine; a completion has two."""
    of_server: list[tuple[int, int, int]] = field(default_factory=list)
    of_engine: list[tuple[int, int, int]] = field(default_factory=list)
    """Since it was last killed."""

    def look(self) -> None:
        self.live.append(in_engine(self.server.metrics(ADMIN)))
        self.of_server.append(held(self.server.process.pid))
        with contextlib.suppress(OSError, KeyError, IndexError):  # the engine is just being restarted
            self.of_engine.append(held(self.server.engine_pid()))

    def until(self, seconds: float) -> None:
        """That many from the beginning are over."""
        while (left := self.begun + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 1))
            self.look()

    def kill(self, nth: int, full: int) -> None:
        """With so many requests live; returns when its successor computes."""
        with self.server.standing_still():
            until_live(self.server, full)
            time.sleep(0.3)  # who was on the way out has asked again, who was on the way in has reached the engine
            until_live(self.server, full)
            killed = time.monotonic()
            os.kill(self.server.engine_pid(), signal.SIGKILL)
        self.of_engine.clear()
        self.server.until(lambda found: found["hexad:engine_restarts_total"] == nth, ADMIN, 30)
        started = time.monotonic()
        self.server.until(lambda found: found["hexad:computed_tokens_total"] > 0, ADMIN, 30)
        computes = time.monotonic()
        print(f"kill {nth}: another engine after {started - killed:.2f} s, it computes after {computes - killed:.2f} s")
        self.look()


def flat(looks: list[tuple[int, int, int]], filling: int = 0) -> bool:
    """Memory does not grow any more when half of the time is over, but for what still fills."""
    return looks[-1][2] < looks[len(looks) // 2][2] + filling + GROWTH


async def alone(server: Server, tokens: tuple[int, int]) -> list[str]:
    clients = Clients.of(server.url, ADMIN)
    answers = [await whole(clients, *question) for question in questions(*tokens)]
    await clients.close()
    return answers


@pytest.mark.parametrize(
    ("streams", "seconds", "tokens"),
    [(48, 5, (60, 180)), pytest.param(256, 300, (200, 500), marks=pytest.mark.slow)],
    ids=["short", "five minutes"],
)
def test_surviving_streams_are_whole_and_right(
    loaded: Server, streams: int, seconds: float, tokens: tuple[int, int], tmp_path: Path
) -> None:
    expected = asyncio.run(alone(loaded, tokens))
    before = held(loaded.process.pid)
    with looks_at_health(loaded, tmp_path / "looks") as taken:
        told = {"url": loaded.url, "key": ADMIN, "tokens": tokens, "expected": expected}
        processes = max(3, streams // 64)
        crowds = [Crowd(numbers=list(range(n, streams, processes)), **told) for n in range(processes)]
        full = streams * 3 // 4
        until_live(loaded, full)
        watch = Watch(loaded)
        for kill in 1, 2:
            watch.until(seconds * kill / 3)
            watch.kill(kill, full)
        watch.until(seconds * 5 / 6)
        crowds.pop().vanishes()
        watch.until(seconds)
        with ThreadPoolExecutor(processes) as pool:
            ends = list(pool.map(lambda crowd: crowd.goes_home(120), crowds))
    counts: Counter[str] = sum((Counter(each["counts"]) for each in ends), Counter())
    wrong = [each for end in ends for each in end["wrong"]]
    killed = [int(found) for found in re.findall(r"restarting it for (\d+) live", loaded.log.read_text())]
    print(f"{dict(counts)}, {len(wrong)} wrong; requests at the kills: {killed}; sequences each second: {watch.live}")
    print(f"the longest gap in a stream: {max(each['longest_gap'] for each in ends):.2f} s")
    print(f"/health: {len(taken)} looks, median {sorted(taken)[len(taken) // 2]:.3f} s, most {nearly_all(taken):.3f} s")
    for name, looks in (("server", watch.of_server), ("engine", watch.of_engine)):
        shown = [f"{files} files, {threads} threads, {size >> 20} MiB" for files, threads, size in looks]
        print(f"{name}: {shown[0]}; {shown[len(shown) // 2]}; {shown[-1]}")
    assert not wrong, "\n".join(wrong[:5])
    assert len(killed) == 2 and min(killed) >= LIVE * streams, killed
    assert counts["whole"] >= streams / 2 and counts["left"] >= streams / 16, counts
    loaded.until_idle(key=ADMIN)
    audit = loaded.http.get(loaded.url + "/debug/invariants", headers={"x-api-key": ADMIN})
    assert audit.json() == {"ok": True, "broken": {}}
    deadline = time.monotonic() + AT_LAST_S
    while (after := held(loaded.process.pid))[0] > before[0] + 8:  # who has gone home is noticed
        assert time.monotonic() < deadline, (before, after)
        time.sleep(0.05)
    assert after[1] <= before[1] + POOL, (before, after)
    # An engine that was started some seconds ago has not touched all of its cache yet.
    assert flat(watch.of_server) and flat(watch.of_engine, filling=CACHE if seconds < 60 else 0)
    assert nearly_all(taken) < HEALTH_S
    assert asyncio.run(alone(loaded, tokens)) == expected
