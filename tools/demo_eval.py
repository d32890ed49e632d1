"""Held-out accuracy of an exported model, measured as users run it: transformers, chat template, greedy decoding."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from hexad.bench.skills import Example, example, is_correct

# Upper ends, in prompt tokens, of the buckets that retrieval is reported by.
BUCKETS = (100, 250, 500, 1000, 1500, 2100)


def held_out_examples(skill: str, count: int, seed: int) -> list[Example]:
    """Distinct held-out examples of a skill, the same for every model."""
    rng = random.Random(f"{skill} {seed} held out")
    found: dict[str, Example] = {}
    for _ in range(100 * count):
        fresh = example(skill, rng, held_out=True)
        found.setdefault(str(fresh.messages), fresh)
        if len(found) == count:
            break
    return list(found.values())


class Chatter:
    """An exported model and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def prompt(self, each: Example) -> str:
        text = self.tokenizer.apply_chat_template(
            each.messages, tools=each.tools, tokenize=False, add_generation_prompt=True
        )
        return str(text)

    @torch.inference_mode()
    def replies(self, prompts: list[str]) -> list[str]:
        """Greedy replies to a batch of prompts, padded on the left."""
        inputs = self.tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = self.model.generate(**inputs, max_new_tokens=90, do_sample=False)
        fresh = output[:, inputs["input_ids"].shape[1] :]
        return list(self.tokenizer.batch_decode(fresh, skip_special_tokens=True))


def judge(chatter: Chatter, examples: list[Example], show: int) -> list[tuple[int, bool]]:
    """For each example the length of its prompt in tokens and whether the reply is right."""
    prompts = [chatter.prompt(each) for each in examples]
    sizes = [len(ids) for ids in chatter.tokenizer(prompts, add_special_tokens=False)["input_ids"]]
    order = sorted(range(len(examples)), key=sizes.__getitem__)
    results: list[tuple[int, bool]] = []
    while order:
        rows = max(1, min(64, 16384 // sizes[order[0]]))
        chunk, order = order[:rows], order[rows:]
        for index, reply in zip(chunk, chatter.replies([prompts[i] for i in chunk]), strict=True):
            right = is_correct(examples[index], reply)
            results.append((sizes[index], right))
            if not right and show > 0:
                show -= 1
                print(f"  {prompts[index][-160:]!r}\n    said {reply!r}\n    not  {examples[index].answer!r}")
    return results


def evaluate(folder: Path, skills: Sequence[str], count: int, seed: int, show: int) -> None:
    """Prints a table: skill, examples, right ones, accuracy; retrieval also by length of the prompt."""
    chatter = Chatter(folder)
    print(f"{'skill':<24}{'examples':>10}{'right':>8}{'accuracy':>10}{'seconds':>9}")
    for skill in skills:
        start = time.monotonic()
        results = judge(chatter, held_out_examples(skill, count, seed), show)
        row(skill, [right for _, right in results], time.monotonic() - start)
        if skill == "retrieve":
            for low, high in zip((0, *BUCKETS), BUCKETS, strict=False):
                row(f"  {low + 1} to {high} tokens", [right for size, right in results if low < size <= high])


def row(name: str, rights: list[bool], seconds: float | None = None) -> None:
    if rights:
        took = "" if seconds is None else f"{seconds:9.0f}"
        print(f"{name:<24}{len(rights):>10}{sum(rights):>8}{sum(rights) / len(rights):>10.1%}{took}", flush=True)
