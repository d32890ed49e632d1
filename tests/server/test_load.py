"""Many streams of the real client, clients that vanish, an engine that is killed: what survives is whole and right."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from tests.server.running import Server, serving

WORDS = [
    "the",
    "baker",
    "sells",
    "bread",
    "in",
    "a",
    "town",
    "by",
    "sea",
    "while",
    "cats",
    "watch",
    "her",
    "old",
    "boats",
]
DEAD_CLIENTS = 0.2
"""Share of streams that are left early: before the first token, in the middle, or by closing the connection."""

POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts, one by one, for what may take a while."""


@pytest.fixture
def loaded(chat_model: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(chat_model, tmp_path / "server.log", "--kv-memory", "64MiB", "--max-num-seqs", "64") as running:
        yield running


def questions(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {
            "model": "tiny-chat",
            "messages": [{"role": "user", "content": " ".join(rng.choices(WORDS, k=rng.randint(3, 200)))}],
            "max_tokens": rng.randint(8, 120),
            "temperature": rng.choice([0.0, 1.0]),
            "seed": number,
            "stream": True,
            "extra_body": {"ignore_eos": True},
        }
        for number in range(count)
    ]


async def whole(client: AsyncOpenAI, question: dict[str, Any]) -> tuple[str, str | None]:
    text, ending = "", None
    async for chunk in await client.chat.completions.create(**question):
        text += chunk.choices[0].delta.content or ""
        ending = chunk.choices[0].finish_reason or ending
    return text, ending


async def left_early(client: AsyncOpenAI, question: dict[str, Any], rng: random.Random) -> None:
    """Ends by cancellation before the first token, or by closing the connection in the middle."""
    if rng.random() < 0.5:
        asking = asyncio.create_task(whole(client, question))
        await asyncio.sleep(rng.random() * 0.2)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return
    stream = await client.chat.completions.create(**question)
    async for _ in stream:
        if rng.random() < 0.1:
            break
    await stream.close()


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


@pytest.mark.parametrize(
    ("streams", "seconds"), [(48, 6), pytest.param(256, 300, marks=pytest.mark.slow)], ids=["short", "five minutes"]
)
def test_surviving_streams_are_whole_and_right(loaded: Server, streams: int, seconds: float) -> None:
    asked = questions(24)
    counts: Counter[str] = Counter()
    memory: list[int] = []

    async def main() -> None:
        client = AsyncOpenAI(
            base_url=f"{loaded.url}/v1",
            api_key="unused",
            max_retries=0,
            timeout=120,
            http_client=DefaultAsyncHttpxClient(limits=httpx2.Limits(max_connections=streams + 8)),
        )
        expected = [await whole(client, question) for question in asked]
        files, threads = held(loaded)
        ends_at = time.monotonic() + seconds

        async def visitor(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < ends_at:
                which = rng.randrange(len(asked))
                if rng.random() < DEAD_CLIENTS:
                    await left_early(client, asked[which], rng)
                    counts["left"] += 1
                else:
                    assert await whole(client, asked[which]) == expected[which]
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
        await client.close()
        await asyncio.to_thread(loaded.until_idle, 20)
        assert await whole(loaded.async_client(), asked[0]) == expected[0]
        now_files, now_threads = held(loaded)
        assert now_files <= files + 8 and now_threads <= threads + POOL, (files, now_files, threads, now_threads)

    asyncio.run(main())
    assert counts["killed"] == 2 and counts["whole"] >= streams and counts["left"] >= streams / 8, counts
    print(dict(counts), f"memory {min(memory) / 2**20:.0f} to {max(memory) / 2**20:.0f} MiB")
    quarter = len(memory) // 4
    early, late = sorted(memory[quarter : 2 * quarter])[quarter // 2], sorted(memory[-quarter:])[quarter // 2]
    assert late < early + 32 * 2**20, (early, late)
