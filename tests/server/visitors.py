"""A process of clients that ask without a pause: `python -m tests.server.visitors`.

One line of JSON on its standard input says whom, with how many, and what the answers are. Everybody has a stream open
all the time, until the input ends; then each reads its last to the end, and one line of JSON says what has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from typing import Any

from tests.server.streams import DIALECTS, Clients, Dialect, Question

WORDS = ["the", "baker", "sells", "bread", "in", "a", "town", "by", "sea", "while", "cats", "watch", "her", "boats"]
LEFT_EARLY = 0.2
"""Share of the streams: before the first token, or by closing the connection in the middle."""
QUESTIONS = 3
"""To each dialect."""
GROUP = 16
"""Visitors who share clients: a pool of connections takes time that grows with the square of its size."""


def questions(fewest: int, most: int) -> list[tuple[Dialect, Question]]:
    """The same in every process. `fewest` to `most` tokens are asked for."""
    rng = random.Random(0)
    return [
        (
            dialect,
            Question(
                text=" ".join(rng.choices(WORDS, k=rng.randint(3, 200))),
                max_tokens=rng.randint(fewest, most),
                temperature=rng.choice([0.0, 1.0]),
                seed=seed,
            ),
        )
        for dialect in DIALECTS
        for seed in range(QUESTIONS)
    ]


async def whole(clients: Clients, dialect: Dialect, question: Question) -> str:
    return "".join([piece async for piece in dialect(clients, question)])


class Visitors:
    def __init__(self, url: str, key: str, numbers: list[int], tokens: list[int], expected: list[str]) -> None:
        self.groups = [Clients.of(url, key) for _ in range(0, len(numbers), GROUP)]
        self.numbers = numbers
        self.asked = questions(*tokens)
        self.expected = expected
        self.closing = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest_gap = 0.0

    async def stay(self) -> None:
        await asyncio.gather(*(self._visit(place, number) for place, number in enumerate(self.numbers)))
        for clients in self.groups:
            await clients.close()

    async def _visit(self, place: int, number: int) -> None:
        rng, clients = random.Random(number), self.groups[place // GROUP]
        while not self.closing.is_set():
            which = rng.randrange(len(self.asked))
            begun = time.time()
            try:
                if rng.random() < LEFT_EARLY:
                    await self._left_early(clients, which, rng)
                    self.counts["left"] += 1
                else:
                    await self._read_whole(clients, which)
            except Exception as error:  # told at the end: others may meet the same
                self.wrong.append(f"{self.asked[which]}: {error!r}, {time.time() - begun:.1f} s after {begun:.1f}")
                await asyncio.sleep(1)

    async def _read_whole(self, clients: Clients, which: int) -> None:
        dialect, question = self.asked[which]
        pieces, last = [], 0.0
        async for piece in dialect(clients, question):
            now = time.monotonic()
            self.longest_gap = max(self.longest_gap, now - last if last else 0.0)
            last = now
            pieces.append(piece)
        if (got := "".join(pieces)) != (wanted := self.expected[which]):
            same = len(os.path.commonprefix([got, wanted]))
            raise AssertionError(f"after {same} characters {got[same:][:60]!r}, not {wanted[same:][:60]!r}")
        self.counts["whole"] += 1

    async def _left_early(self, clients: Clients, which: int, rng: random.Random) -> None:
        if rng.random() < 0.5:
            asking = asyncio.create_task(whole(clients, *self.asked[which]))
            await asyncio.sleep(rng.random() * 2)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return
        dialect, question = self.asked[which]
        async with contextlib.aclosing(dialect(clients, question)) as pieces:
            async for _ in pieces:
                if rng.random() < 0.02:
                    break


class Crowd:
    """Such a process, seen from outside."""

    def __init__(self, **told: Any) -> None:
        command = [sys.executable, "-m", "tests.server.visitors"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def vanishes(self) -> None:
        """With all its connections, in the middle of what they are doing."""
        self.process.kill()
        self.process.communicate()

    def goes_home(self, timeout_s: float) -> dict[str, Any]:
        """What it tells. To send several home at the same time, ask each in a thread."""
        told: dict[str, Any] = json.loads(self.process.communicate(timeout=timeout_s)[0])
        return told


async def main() -> None:
    visitors = Visitors(**json.loads(sys.stdin.readline()))
    staying = asyncio.create_task(visitors.stay())
    await asyncio.to_thread(sys.stdin.read)
    visitors.closing.set()
    await staying
    print(json.dumps({"counts": visitors.counts, "wrong": visitors.wrong, "longest_gap": visitors.longest_gap}))


if __name__ == "__main__":
    asyncio.run(main())
