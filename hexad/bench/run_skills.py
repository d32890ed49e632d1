"""`hexad bench skills`: how often the demo model is right, through the engine, on questions it has not seen."""

from __future__ import annotations

import random

from hexad.bench.skills import SKILLS, example, is_correct
from hexad.config import Config
from hexad.engine.llm import LLM
from hexad.errors import BadRequest, RequestFailed
from hexad.types import SamplingParams

ANSWER_TOKENS = 200


def accuracy(llm: LLM, skill: str, count: int) -> float:
    """The share of `count` held-out examples of a skill that are answered right, greedily."""
    rng = random.Random(f"held-out {skill}")
    examples = [example(skill, rng, held_out=True) for _ in range(count)]
    params = SamplingParams(temperature=0.0, max_tokens=ANSWER_TOKENS)
    streams = [
        llm.submit(llm.frontend.render(asked.messages, tools=asked.tools), params, add_special_tokens=False)
        for asked in examples
    ]
    for _ in llm.run(streams):
        pass
    if broken := next((stream.error for stream in streams if stream.error is not None), None):
        raise RequestFailed(f"a question of {skill}: {broken.message}")
    replies = [stream.output.outputs[0].text for stream in streams]
    return sum(map(is_correct, examples, replies)) / count


def measure_skills(config: Config, count: int) -> str:
    """A line a skill."""
    if count < 1:
        raise BadRequest(f"--examples is {count}; it must be at least 1", param="examples")
    llm = LLM(config)
    lines = [f"{skill:12} {accuracy(llm, skill, count):6.1%}" for skill in SKILLS]
    return "\n".join([f"{config.model_name}: {count} held-out questions a skill, greedy, {llm.info.precision}", *lines])
