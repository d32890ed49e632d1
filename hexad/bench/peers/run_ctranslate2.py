"""CTranslate2: static batches, with a cached static prompt for a shared prefix."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ctranslate2
import protocol

FORMATS = {16: "bfloat16", 8: "int8"}


class Batches:
    def __init__(self, settings: dict[str, Any]) -> None:
        self.words = json.loads(Path(settings["model"], "vocabulary.json").read_text())
        self.generator = ctranslate2.Generator(
            settings["model"],
            compute_type=FORMATS[settings["bits"]],
            inter_threads=1,
            intra_threads=settings["threads"],
        )

    def run(self, message: dict[str, Any]) -> list[list[float]]:
        """All run to the longest output: it takes one length for a batch; only asked tokens count."""
        requests, shared = message["requests"], message.get("shared", 0)
        length = max(r[1] for r in requests)
        moments: list[list[float]] = [[] for _ in requests]

        def note(result: Any) -> bool:
            moments[result.batch_id].append(time.perf_counter())
            return False

        sharing = {"static_prompt": self.spell(requests[0][0][:shared]), "cache_static_prompt": True} if shared else {}
        self.generator.generate_batch(
            [self.spell(prompt[shared:]) for prompt, _, _ in requests],
            max_length=length,
            min_length=length,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
            callback=note,
            **sharing,
        )
        return [times[:count] for times, (_, count, _) in zip(moments, requests, strict=True)]

    def spell(self, ids: list[int]) -> list[str]:
        return [self.words[i] for i in ids]


def convert(checkpoint: str, target: str, bits: int) -> None:
    words = ["--model", checkpoint, "--output_dir", target, "--quantization", FORMATS[bits]]
    subprocess.run([str(Path(sys.executable).with_name("ct2-transformers-converter")), *words], check=True)


protocol.main(lambda settings: Batches(settings).run, convert)
