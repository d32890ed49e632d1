"""ONNX Runtime GenAI: static batches; it has no continuous batching in Python and no prefix cache."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnxruntime_genai
import protocol


class Batches:
    def __init__(self, settings: dict[str, Any]) -> None:
        config = onnxruntime_genai.Config(settings["model"])
        session = {"intra_op_num_threads": settings["threads"], "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model = onnxruntime_genai.Model(config)

    def run(self, message: dict[str, Any]) -> list[list[float]]:
        requests = message["requests"]
        if shared := message.get("shared"):
            return self.one_by_one(requests, shared)
        width, length = max(len(r[0]) for r in requests), max(r[1] for r in requests)
        generator = self.generator(len(requests), width + length)
        ids = np.array([[0] * (width - len(prompt)) + prompt for prompt, _, _ in requests], np.int32)
        generator.append_tokens(ids if len(requests) > 1 else ids[0])
        moments = self.generate(generator, length)
        return [moments[:count] for _, count, _ in requests]

    def one_by_one(self, requests: list[Any], shared: int) -> list[list[float]]:
        """Rewinding to the end of the shared prefix keeps its keys and values."""
        generator = self.generator(1, max(len(prompt) + length for prompt, length, _ in requests))
        generator.append_tokens(np.array(requests[0][0][:shared], np.int32))
        moments = []
        for prompt, length, _ in requests:
            generator.append_tokens(np.array(prompt[shared:], np.int32))
            moments.append(self.generate(generator, length))
            generator.rewind_to(shared)
        return moments

    def generator(self, batch: int, length: int) -> Any:
        params = onnxruntime_genai.GeneratorParams(self.model)
        params.set_search_options(max_length=length, min_length=length, do_sample=False, batch_size=batch)
        return onnxruntime_genai.Generator(self.model, params)

    def generate(self, generator: Any, length: int) -> list[float]:
        moments = []
        for _ in range(length):
            generator.generate_next_token()
            moments.append(time.perf_counter())
        return moments


def convert(checkpoint: str, target: str, bits: int) -> None:
    words = ["-m", "onnxruntime_genai.models.builder", "-m", checkpoint, "-o", target, "-p", f"int{bits}", "-e", "cpu"]
    subprocess.run([sys.executable, *words], check=True)


protocol.main(lambda settings: Batches(settings).run, convert)
