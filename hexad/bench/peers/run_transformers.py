"""transformers: static batches through `generate`; a shared prefix is computed once and its cache repeated."""

from __future__ import annotations

import logging
import time
from typing import Any

import protocol
import torch
import transformers


class Steps(transformers.LogitsProcessor):
    """Notes when each step's logits are there; a streamer would not take a batch."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.times.append(time.perf_counter())
        return scores


class Batches:
    def __init__(self, settings: dict[str, Any]) -> None:
        transformers.logging.set_verbosity(logging.ERROR)
        torch.set_num_threads(settings["threads"])
        family: Any = transformers.AutoModelForCausalLM
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[settings["dtype"]]
        if settings.get("load_format") == "dummy":
            config = transformers.AutoConfig.from_pretrained(settings["model"])
            self.model = family.from_config(config, dtype=dtype).eval()
        else:
            self.model = family.from_pretrained(settings["model"], dtype=dtype).eval()

    def run(self, message: dict[str, Any]) -> list[list[float]]:
        """Prompts are padded on the left to the longest, and all run to the longest output; only asked tokens count."""
        requests, shared = message["requests"], message.get("shared", 0)
        width, length = max(len(r[0]) for r in requests), max(r[1] for r in requests)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _, _ in requests])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _, _ in requests])
        steps = Steps()
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=mask,
                past_key_values=self.prefix(ids[:1, :shared], len(requests)) if shared else None,
                do_sample=False,
                max_new_tokens=length,
                min_new_tokens=length,
                eos_token_id=-1,
                pad_token_id=0,
                logits_processor=transformers.LogitsProcessorList([steps]),
            )
        if output.shape[1] != width + length:
            raise RuntimeError(f"transformers gave {output.shape[1] - width} tokens, not {length}")
        return [steps.times[:count] for _, count, _ in requests]

    def prefix(self, ids: Any, batch: int) -> Any:
        cache = self.model(ids, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(batch)
        return cache


protocol.main(lambda settings: Batches(settings).run)
