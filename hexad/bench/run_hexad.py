"""The contestant `hexad` of `offline.py`: the engine in this process."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import msgspec

from hexad.bench.workload import Run, Workload
from hexad.engine.llm import LLM
from hexad.types import SamplingParams


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    llm = LLM(**settings)
    vocab_size = llm.frontend.model_config.vocab_size
    measure(llm, Workload(input_len=(8, 8), output_len=(1, 1), num_prompts=1, vocab_size=vocab_size), -1)
    print(json.dumps({"first_token_at": time.time()}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        measured = measure(llm, msgspec.convert(message["workload"], Workload), message["run"])
        print(json.dumps(msgspec.to_builtins(measured)), flush=True)


def measure(llm: LLM, workload: Workload, run: int) -> Run:
    streams = [
        llm.submit(prompt, SamplingParams(temperature=0.0, max_tokens=length, min_tokens=length, ignore_eos=True))
        for prompt, length in workload.requests(run)
    ]
    first = [0.0] * len(streams)
    last = [0.0] * len(streams)
    counts = [0] * len(streams)
    started = time.perf_counter()
    for _ in llm.run(streams):
        now = time.perf_counter() - started
        for i, stream in enumerate(streams):
            count = len(stream.output.outputs[0].token_ids)
            if count > counts[i]:
                first[i] = first[i] or now
                last[i] = now
                counts[i] = count
    return Run(
        seconds=time.perf_counter() - started,
        first_token_s=first,
        last_token_s=last,
        output_tokens=sum(counts),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    main()
