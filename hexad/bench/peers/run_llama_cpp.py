"""llama.cpp through the C API that llama-cpp-python binds, batched over sequences as its server does.

Greedy: the argmax of the logits. Its KV cache holds STREAMS sequences; more requests wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as api
import numpy as np
import protocol

STREAMS = 32
BATCH = 512


class Engine:
    """A context of `streams` sequences, and one more that holds a shared prefix."""

    def __init__(self, model: Any, settings: dict[str, Any], streams: int) -> None:
        params = api.llama_context_default_params()
        params.n_threads = params.n_threads_batch = settings["threads"]
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = streams + 1
        params.n_ctx = (streams + 1) * settings["max_model_len"]
        self.streams = streams
        self.context = api.llama_init_from_model(model, params)
        self.memory = api.llama_get_memory(self.context)
        self.vocab_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self.batch = api.llama_batch_init(BATCH, 0, 1)
        self.waiting: deque[tuple[int, list[int], int]] = deque()
        self.running: dict[int, list[Any]] = {}  # sequence: index, tokens to compute, position, tokens to generate
        self.shared = 0

    def share(self, prefix: list[int]) -> None:
        """Compute a prefix once; requests that follow start behind a copy of it."""
        api.llama_memory_seq_rm(self.memory, self.streams, -1, -1)
        self.running[self.streams] = [-1, prefix, 0, 1]
        while self.running:
            list(self.step())
        self.shared = len(prefix)

    def add(self, index: int, prompt: list[int], length: int) -> None:
        self.waiting.append((index, prompt[self.shared :], length))

    def step(self) -> Iterator[tuple[int, int]]:
        free = [sequence for sequence in range(self.streams) if sequence not in self.running]
        for sequence in free[: len(self.waiting)]:
            index, tokens, length = self.waiting.popleft()
            api.llama_memory_seq_rm(self.memory, sequence, -1, -1)
            if self.shared:
                api.llama_memory_seq_cp(self.memory, self.streams, sequence, -1, -1)
            self.running[sequence] = [index, tokens, self.shared, length]
        ends = list(self._fill())
        if status := api.llama_decode(self.context, self.batch):
            raise RuntimeError(f"llama_decode gave {status}")
        for sequence, row in ends:
            logits = np.ctypeslib.as_array(api.llama_get_logits_ith(self.context, row), (self.vocab_size,))
            state = self.running[sequence]
            state[1], state[3] = [int(logits.argmax())], state[3] - 1
            if state[3] == 0:
                del self.running[sequence]
            if state[0] >= 0:
                yield state[0], 1

    def _fill(self) -> Iterator[tuple[int, int]]:
        """Put up to BATCH tokens into the batch, decoding sequences first; yields where one's next token comes from."""
        batch, n = self.batch, 0
        for sequence, state in sorted(self.running.items(), key=lambda item: len(item[1][1])):
            chunk = state[1][: BATCH - n]
            for token in chunk:
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = token, state[2], 1
                batch.seq_id[n][0], batch.logits[n] = sequence, False
                state[2], n = state[2] + 1, n + 1
            state[1] = state[1][len(chunk) :]
            if chunk and not state[1]:
                batch.logits[n - 1] = True
                yield sequence, n - 1
        batch.n_tokens = n


def load(settings: dict[str, Any]) -> Any:
    model = api.llama_model_load_from_file(settings["model"].encode(), api.llama_model_default_params())
    engines: dict[int, Engine] = {}

    def run(message: dict[str, Any]) -> Any:
        streams = 1 if len(message["requests"]) == 1 else STREAMS
        if streams not in engines:  # in a run that is not counted
            engines[streams] = Engine(model, settings, streams)
        engine = engines[streams]
        engine.shared = 0
        if shared := message.get("shared"):
            engine.share(message["requests"][0][0][:shared])
        return protocol.drive(engine, message)

    return run


def convert(checkpoint: str, target: str, bits: int) -> None:
    from convert_llama_cpp import convert

    convert(Path(checkpoint), Path(target), bits)


protocol.main(load, convert)
