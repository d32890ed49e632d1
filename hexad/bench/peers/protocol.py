"""How a contestant of `hexad bench` speaks: JSON lines over standard input and output.

    python run_PEER.py convert CHECKPOINT TARGET BITS     write the engine's own format
    python run_PEER.py                                    serve runs

The first line in says what to load (model, bits, threads); the answer is the time of the first token.
Each further line is a run: requests of [prompt token ids, new tokens, arrival in seconds]; the answer
has the time of every token. Standard library only: it runs in the environments of the peers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

Run = Callable[[dict[str, Any]], list[list[float]]]
"""From a message {"requests", "shared", "ahead"} to the perf_counter() time of each request's tokens."""


class Engine(Protocol):
    def add(self, index: int, prompt: list[int], length: int) -> None: ...

    def step(self) -> Iterable[tuple[int, int]]:
        """Do one step; returns (index, number of new tokens) of requests that gained some."""


def own_peak() -> int:
    """The most bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(
    load: Callable[[dict[str, Any]], Run],
    convert: Callable[[str, str, int], None] | None = None,
    peak: Callable[[], int] = own_peak,
) -> None:
    if sys.argv[1:2] == ["convert"] and convert:
        return convert(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    try:
        run = load(json.loads(sys.stdin.readline()))
        run({"requests": [[list(range(3, 11)), 1, 0.0]]})
        answer({"first_token_at": time.time()})
        for line in sys.stdin:
            answer(_measure(run, json.loads(line)) | {"peak_rss_bytes": peak()})
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)


def drive(engine: Engine, message: dict[str, Any]) -> list[list[float]]:
    """Continuous batching: hand over each request when it arrives, step until all have their tokens.

    With `ahead`, all others wait until the first has a token, so that it has computed their common prefix. With
    `concurrency`, no more than that many run at once.
    """
    requests = message["requests"]
    token_s: list[list[float]] = [[] for _ in requests]
    waiting = deque(enumerate(requests))
    left = sum(length for _, length, _ in requests)
    seats = message.get("concurrency") or len(requests)
    added = gained = 0
    started = time.perf_counter()
    while left > gained:
        while waiting and waiting[0][1][2] <= time.perf_counter() - started:
            if seats == 0 or (message.get("ahead") and added and not token_s[0]):
                break
            index, (prompt, length, _) = waiting.popleft()
            engine.add(index, prompt, length)
            added += length
            seats -= 1
        if added == gained:
            time.sleep(max(0.0, waiting[0][1][2] - (time.perf_counter() - started)))
            continue
        for index, count in engine.step():
            token_s[index] += [time.perf_counter()] * count
            gained += count
            seats += len(token_s[index]) == requests[index][1]
    return token_s


def _measure(run: Run, message: dict[str, Any]) -> dict[str, Any]:
    own, all_cpus, started = time.process_time(), _busy_s(), time.perf_counter()
    token_s = run(message)
    seconds = time.perf_counter() - started
    others = (_busy_s() - all_cpus) - (time.process_time() - own)
    return {
        "seconds": seconds,
        "token_s": [[moment - started for moment in moments] for moments in token_s],
        "other_cpus": max(0.0, others / seconds),
    }


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have used, stolen time included; 0 where there is no /proc."""
    try:
        user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    except (OSError, ValueError):
        return 0.0
    return float(user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
