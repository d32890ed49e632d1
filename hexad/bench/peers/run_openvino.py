"""OpenVINO GenAI: continuous batching over paged attention, the path its own server takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
import protocol

FORMATS = {
    16: ("fp16",),
    8: ("int8",),
    4: ("int4", "--group-size", "128", "--ratio", "1.0", "--sym"),
}


class Engine:
    def __init__(self, settings: dict[str, Any]) -> None:
        scheduler = openvino_genai.py_openvino_genai.SchedulerConfig()
        scheduler.cache_size = 4
        scheduler.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": settings["threads"]}
        self.pipeline = openvino_genai.py_openvino_genai.ContinuousBatchingPipeline(
            settings["model"], scheduler, "CPU", properties
        )
        self.running: dict[int, Any] = {}
        self.left: dict[int, int] = {}
        self.accepted = 0

    def add(self, index: int, prompt: list[int], length: int) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = length
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        self.accepted += 1
        ids = openvino.Tensor(np.array([prompt], np.int64))
        self.running[index] = self.pipeline.add_request(self.accepted, ids, config)
        self.left[index] = length

    def step(self) -> Iterator[tuple[int, int]]:
        self.pipeline.step()
        for index, handle in list(self.running.items()):
            if handle.can_read():
                count = sum(len(output.generated_ids) for output in handle.read().values())
                yield index, count
                self.left[index] -= count
                if self.left[index] <= 0:
                    del self.running[index]


def load(settings: dict[str, Any]) -> Any:
    engine = Engine(settings)
    return lambda message: protocol.drive(engine, message)


def convert(checkpoint: str, target: str, bits: int) -> None:
    words = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino", "-m", checkpoint]
    words += ["--task", "text-generation-with-past", "--weight-format", *FORMATS[bits], target]
    subprocess.run(words, check=True)


protocol.main(load, convert)
