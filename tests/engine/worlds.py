"""A model, a workload, and the ways to run it that must not be told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hexad import LLM, RequestOutput, SamplingParams, StructuredOutputs

Job = tuple[list[int], SamplingParams]

MAX_MODEL_LEN = 320
ROOM = 2**24
"""KV bytes in which every workload here fits at once."""

_PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "is_known": {"enum": [1, 2]}}}
STRUCTURES = [
    StructuredOutputs(json={**_PERSON, "required": ["name", "is_known"]}),
    StructuredOutputs(regex="(the same answer|[a-d]+), always"),
    StructuredOutputs(json={"type": "array", "items": {"const": "twelve bytes"}, "minItems": 3}),
    StructuredOutputs(grammar='start: "for ever" (" and ever")+'),
]


@dataclass
class World:
    directory: Path
    kernels: str
    dtype: str
    jobs: list[Job]

    def llm(self, **settings: Any) -> LLM:
        usual = {"threads": 1, "kv_memory": ROOM, "max_model_len": MAX_MODEL_LEN, "prefix_caching": False}
        return LLM(str(self.directory), kernels=self.kernels, dtype=self.dtype, **{**usual, **settings})

    @cached_property
    def alone(self) -> list[bytes]:
        """Each job with nothing beside, before or behind it."""
        llm = self.llm(max_num_batched_tokens=MAX_MODEL_LEN)
        return [answer(one) for prompt, params in self.jobs for one in llm.generate([prompt], params)]

    def run(self, llm: LLM, jobs: Sequence[Job] | None = None) -> list[RequestOutput]:
        jobs = self.jobs if jobs is None else jobs
        return llm.generate([prompt for prompt, _ in jobs], [params for _, params in jobs])

    def assert_as_alone(self, outputs: list[RequestOutput]) -> None:
        differing = [i for i, (one, alone) in enumerate(zip(outputs, self.alone, strict=True)) if answer(one) != alone]
        assert not differing, f"jobs {differing} are not what they are alone"


def answer(output: RequestOutput) -> bytes:
    """All that was answered, bit for bit; not how it came about (`num_cached_tokens`)."""
    return msgspec.msgpack.encode([output.outputs, output.prompt_logprobs])


def workload(lengths: Sequence[int], max_tokens: int, vocab: int = 512) -> list[Job]:
    """Prompts of these lengths, by turns greedy, at temperature 1, greedy, and with every feature; some are scored."""
    features = {"top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.2, "frequency_penalty": 0.4, "min_tokens": 5}
    jobs: list[Job] = []
    for i, length in enumerate(lengths):
        prompt = np.random.default_rng(length).integers(2, vocab, length).tolist()
        params = SamplingParams(
            temperature=float(i % 2),
            seed=1000 + i,
            max_tokens=max_tokens,
            ignore_eos=True,
            logprobs=3,
            prompt_logprobs=2 if i % 5 == 0 else None,
            stop_token_ids=[i],
            **(features if i % 4 == 3 else {}),  # type: ignore[arg-type]
        )
        if i % 4 == 2:
            params = msgspec.structs.replace(params, structured_outputs=STRUCTURES[i // 4 % len(STRUCTURES)])
        if i % 8 == 2:  # who asks for the logits of forced tokens does not jump
            params = msgspec.structs.replace(params, logprobs=None, prompt_logprobs=None)
        jobs.append((prompt, params))
    return jobs


def meant(happened: bool, otherwise: str) -> None:
    """Not an AssertionError: a law that had nothing to look at has not failed, its test is useless."""
    if not happened:
        raise RuntimeError(f"this run shows nothing: {otherwise}")


# The laws. Each raises AssertionError where it does not hold.


def a_batch_changes_nothing(world: World) -> None:
    world.assert_as_alone(world.run(world.llm(max_num_seqs=32, max_num_batched_tokens=2048)))


def chunks_change_nothing(world: World) -> None:
    for max_num_seqs, budget in ((3, 3), (8, 19), (32, 64)):
        world.assert_as_alone(world.run(world.llm(max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)))


def a_prefix_hit_changes_nothing(world: World) -> None:
    llm = world.llm(prefix_caching=True)
    first = world.run(llm)
    again = world.run(llm)
    world.assert_as_alone(first)
    world.assert_as_alone(again)
    for (prompt, params), one in zip(world.jobs, again, strict=True):
        if params.prompt_logprobs is None:
            meant(one.num_cached_tokens == (len(prompt) - 1) // 16 * 16, "the cache was not read")


def a_prefix_of_another_changes_nothing(world: World) -> None:
    """Prompts that begin alike, in one batch, and with pages that another left behind."""
    prompt, scored = world.jobs[-1]
    params = msgspec.structs.replace(scored, prompt_logprobs=None)
    jobs = [(prompt[:cut] + [7, 8, 9], params) for cut in (16, 17, 40, 48) if cut < len(prompt)]
    shared = World(world.directory, world.kernels, world.dtype, jobs)
    llm = shared.llm(prefix_caching=True)
    shared.assert_as_alone(shared.run(llm))
    shared.assert_as_alone(shared.run(llm, jobs))
    meant(llm.stats().prefix_cache_hits > 0, "nothing was shared")


def preemption_changes_nothing(world: World) -> None:
    """Short prompts, some with several answers, that are let in together and outgrow the pages that there are."""
    jobs = [
        (prompt, msgspec.structs.replace(params, n=1 + i % 3))
        for i, (prompt, params) in enumerate(workload([14, 15, 16, 17, 30, 31, 32, 33], max_tokens=40))
    ]
    crowd = World(world.directory, world.kernels, world.dtype, jobs)
    page = world.llm().info.memory.page_bytes
    for prefix_caching in (False, True):
        llm = crowd.llm(
            kv_memory=(MAX_MODEL_LEN // 16 + 1) * page, max_num_batched_tokens=64, prefix_caching=prefix_caching
        )
        crowd.assert_as_alone(crowd.run(llm))
        meant(llm.stats().num_preemptions > 2, "hardly anybody was preempted")


def going_on_elsewhere_changes_nothing(world: World) -> None:
    """Each stream is cut after some steps; a fresh engine gets what is left, as after a crash."""
    old, new = world.llm(max_num_batched_tokens=64), world.llm(max_num_batched_tokens=100)
    streams = [old.submit(prompt, params) for prompt, params in world.jobs]
    running = old.run(streams)
    for _ in range(max(1, max(len(prompt) for prompt, _ in world.jobs) // 16)):
        next(running)
    meant(any(one.output.outputs[0].token_ids for one in streams if not one.finished), "nothing was cut")
    running.close()
    left = [stream for stream in streams if not stream.finished]
    for stream in left:
        (stream.request,) = stream.remaining()
    for _ in new.run(left):
        pass
    world.assert_as_alone([stream.output for stream in streams])


def an_answer_in_the_prompt_changes_nothing(world: World) -> None:
    """The first tokens of the answer, handed in as prompt, lead to the same rest: noise belongs to a position."""
    llm = world.llm(prefix_caching=True)
    for prompt, params in world.jobs[1::4]:  # penalties tell prompt and answer apart
        plain = msgspec.structs.replace(params, prompt_logprobs=None, stop_token_ids=[])
        (whole,) = llm.generate([prompt], plain)
        cut = params.max_tokens // 2 if params.max_tokens else 1
        shorter = msgspec.structs.replace(plain, max_tokens=(params.max_tokens or 2) - cut)
        (rest,) = llm.generate([prompt + whole.outputs[0].token_ids[:cut]], shorter)
        assert rest.outputs[0].token_ids == whole.outputs[0].token_ids[cut:]
        assert rest.outputs[0].logprobs == (whole.outputs[0].logprobs or [])[cut:]


def four_answers_are_four_requests(world: World) -> None:
    for length in (1, 15, 16, 17, 40):
        prompt = list(range(2, 2 + length))
        params = SamplingParams(n=4, temperature=1.0, seed=-2, max_tokens=20, ignore_eos=True, logprobs=2)
        (many,) = world.llm(max_num_batched_tokens=64).generate([prompt], params)
        one_each = [msgspec.structs.replace(params, n=1, seed=-2 + j) for j in range(4)]
        singles = world.llm().generate([prompt] * 4, one_each)
        assert len({tuple(one.token_ids) for one in many.outputs}) == 4
        for got, single in zip(many.outputs, singles, strict=True):
            assert msgspec.structs.replace(got, index=0) == single.outputs[0]


def a_cached_prompt_scores_alike(world: World) -> None:
    """Prompt log-probabilities, where the prompt's KV already lies in the cache."""
    scored = [(prompt, msgspec.structs.replace(params, prompt_logprobs=4)) for prompt, params in world.jobs]
    fresh = World(world.directory, world.kernels, world.dtype, scored)
    llm = fresh.llm(prefix_caching=True, max_num_batched_tokens=64)
    fresh.run(llm, [(prompt, msgspec.structs.replace(params, prompt_logprobs=None)) for prompt, params in scored])
    fresh.assert_as_alone(fresh.run(llm))


def threads_change_nothing(world: World) -> None:
    world.assert_as_alone(world.run(world.llm(threads=2, max_num_batched_tokens=100)))


def jumping_changes_nothing(world: World) -> None:
    """Forced tokens are taken at once, or one by one."""
    jumping, walking = (
        world.llm(max_num_batched_tokens=64),
        world.llm(max_num_batched_tokens=64, without="jump-forward"),
    )
    world.assert_as_alone(world.run(jumping))
    world.assert_as_alone(world.run(walking))
    steps = [llm.stats().num_steps for llm in (jumping, walking)]
    jobs = [job for job in world.jobs if job[1].structured_outputs and job[1].logprobs is None]
    cut = [(prompt, msgspec.structs.replace(params, max_tokens=5, min_tokens=0)) for prompt, params in jobs]
    structured = jobs + cut  # in the middle of what is forced
    answers = [list(map(answer, world.run(llm, structured))) for llm in (jumping, walking)]
    assert answers[0] == answers[1]
    taken = [llm.stats().num_steps - before for llm, before in zip((jumping, walking), steps, strict=True)]
    meant(taken[0] < taken[1], "nobody jumped")


LAWS: tuple[Callable[[World], None], ...] = (
    a_batch_changes_nothing,
    chunks_change_nothing,
    a_prefix_hit_changes_nothing,
    a_prefix_of_another_changes_nothing,
    preemption_changes_nothing,
    going_on_elsewhere_changes_nothing,
    an_answer_in_the_prompt_changes_nothing,
    four_answers_are_four_requests,
    a_cached_prompt_scores_alike,
    threads_change_nothing,
    jumping_changes_nothing,
)
