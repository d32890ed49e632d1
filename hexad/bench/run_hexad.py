"""The contestant `hexad`: the engine in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from hexad.bench.peers import protocol
from hexad.engine.llm import LLM
from hexad.engine.setup import BACKGROUND_THREADS
from hexad.engine.stream import Stream
from hexad.types import SamplingParams


class Engine:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.llm = LLM(**settings)
        self.running: dict[int, Stream] = {}
        self.counts: dict[int, int] = {}

    def add(self, index: int, prompt: list[int], length: int) -> None:
        params = SamplingParams(temperature=0.0, max_tokens=length, min_tokens=length, ignore_eos=True)
        self.running[index] = self.llm.submit(prompt, params)
        self.counts[index] = 0
        self.llm.begin([self.running[index]])

    def step(self) -> Iterator[tuple[int, int]]:
        self.llm.step()
        for index, stream in list(self.running.items()):
            if stream.error is not None:
                raise stream.error.error()
            count = len(stream.output.outputs[0].token_ids)
            if count > self.counts[index]:
                yield index, count - self.counts[index]
                self.counts[index] = count
            if stream.finished:
                del self.running[index]


def load(settings: dict[str, Any]) -> protocol.Run:
    engine = Engine(settings)

    def run(message: dict[str, Any]) -> list[list[float]]:
        for thread in threading.enumerate():  # no run but the first, of a cold start, is to be measured beside these
            if engine.counts and thread.name in BACKGROUND_THREADS:
                thread.join()
        return protocol.drive(engine, message)

    return run


if __name__ == "__main__":
    protocol.main(load)
