"""The contestant `transformers` of `offline.py`: one static batch through `generate`."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from typing import Any

import msgspec
import torch
import transformers

from hexad.bench.workload import Run, Workload


class _Steps(transformers.LogitsProcessor):
    """Notes when each step's logits are there; a streamer would not take a batch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


def main() -> None:
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    transformers.logging.set_verbosity(logging.ERROR)
    if settings.get("threads"):
        torch.set_num_threads(settings["threads"])
    model = load(settings)
    measure(model, Workload(input_len=(8, 8), output_len=(1, 1), num_prompts=1, vocab_size=model.config.vocab_size), -1)
    print(json.dumps({"first_token_at": time.time()}), flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        measured = measure(model, msgspec.convert(message["workload"], Workload), message["run"])
        print(json.dumps(msgspec.to_builtins(measured)), flush=True)


def load(settings: dict[str, Any]) -> Any:
    family: Any = transformers.AutoModelForCausalLM
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings["dtype"]]
    if settings.get("load_format") == "dummy":
        return family.from_config(transformers.AutoConfig.from_pretrained(settings["model"]), dtype=dtype).eval()
    return family.from_pretrained(settings["model"], dtype=dtype).eval()


def measure(model: Any, workload: Workload, run: int) -> Run:
    """Prompts are padded on the left to the longest, and all run to the longest output; only asked tokens count."""
    requests = workload.requests(run)
    width = max(len(prompt) for prompt, _ in requests)
    length = max(length for _, length in requests)
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in requests])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in requests])
    steps = _Steps()
    started = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=length,
            min_new_tokens=length,
            eos_token_id=-1,
            pad_token_id=0,
            logits_processor=transformers.LogitsProcessorList([steps]),
        )
    ended = time.perf_counter()
    if output.shape[1] != width + length:
        raise RuntimeError(f"transformers gave {output.shape[1] - width} tokens, not {length}")
    return Run(
        seconds=ended - started,
        first_token_s=[steps.times[0] - started] * len(requests),
        last_token_s=[steps.times[count - 1] - started for _, count in requests],
        output_tokens=workload.output_tokens(),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    main()
