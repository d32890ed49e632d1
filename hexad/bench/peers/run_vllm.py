"""vLLM's CPU backend, its engine in this process."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import protocol

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "4",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_AOT_COMPILE": "0",  # its CPU backend cannot load what it saved, and would compile at every start
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Engine:
    def __init__(self, settings: dict[str, Any]) -> None:
        import vllm

        self.vllm = vllm
        self.engine = vllm.LLM(
            model=settings["model"],
            dtype="bfloat16",
            max_model_len=settings["max_model_len"],
            max_num_seqs=64,
            enable_prefix_caching=True,
            disable_log_stats=True,
        ).llm_engine
        self.counts: dict[str, int] = {}
        self.accepted = 0

    def add(self, index: int, prompt: list[int], length: int) -> None:
        self.accepted += 1
        params = self.vllm.SamplingParams(
            temperature=0, max_tokens=length, min_tokens=length, ignore_eos=True, detokenize=False
        )
        name = f"{self.accepted}:{index}"
        self.counts[name] = 0
        self.engine.add_request(name, self.vllm.inputs.TokensPrompt(prompt_token_ids=prompt), params)

    def step(self) -> Iterator[tuple[int, int]]:
        for output in self.engine.step():
            name, count = output.request_id, len(output.outputs[0].token_ids)
            yield int(name.partition(":")[2]), count - self.counts[name]
            self.counts[name] = count


def load(settings: dict[str, Any]) -> Any:
    processors = sorted(os.sched_getaffinity(0))[: settings["threads"]]
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, processors))
    engine = Engine(settings)
    return lambda message: protocol.drive(engine, message)


def preload() -> None:
    """What its installation guide asks for: tcmalloc (where the system has it) and the OpenMP runtime of its wheel."""
    wanted = [Path(sys.prefix, "lib", "libiomp5.so"), ctypes.util.find_library("tcmalloc_minimal")]
    found = ":".join(str(library) for library in wanted if library)
    if os.environ.get("LD_PRELOAD") != found:
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": found})


def convert(checkpoint: str, target: str, bits: int) -> None:
    from convert_vllm import quantize

    quantize(Path(checkpoint), Path(target), bits)


if __name__ == "__main__":
    if sys.argv[1:2] != ["convert"]:
        preload()
    protocol.main(load, convert)
