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
    measure(model, Workload(input_len=8, output_len=1, num_prompts=1, vocab_size=model.config.vocab_size), -1)
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
    ids = torch.tensor(workload.prompts(run))
    steps = _Steps()
    started = time.perf_counter()
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=workload.output_len,
            min_new_tokens=workload.output_len,
            eos_token_id=-1,
            pad_token_id=0,
            logits_processor=transformers.LogitsProcessorList([steps]),
        )
    ended = time.perf_counter()
    return Run(
        seconds=ended - started,
        first_token_s=[steps.times[0] - started] * len(ids),
        last_token_s=[ended - started] * len(ids),
        output_tokens=int(output.shape[0] * (output.shape[1] - ids.shape[1])),
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


if __name__ == "__main__":
    main()
