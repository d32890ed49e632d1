"""From `add` to the one terminal output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hexad.errors import BadRequest, ContextTooLong
from hexad.scheduler.plan import Result, StepResult
from hexad.scheduler.scheduler import Scheduler, SchedulerConfig
from hexad.testing.fake_model import sequential_oracle

from .world import EOS, STOP, VOCAB, World, make_request

CONFIG = SchedulerConfig(
    num_pages=10, max_num_seqs=4, max_num_batched_tokens=8, max_model_len=30, prefix_caching=True, page_size=2
)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "fields", "words"),
    [
        (0, 4, {}, ["empty"]),
        (25, 6, {}, ["25", "6", "31", "30", "at most 5"]),
        (30, 1, {}, ["prompt is too long: 30 tokens > 29 maximum", "this model's maximum context length is 30"]),
        (18, 3, {}, ["11 pages", "10", "20 tokens"]),
        (4, 4, {"n": 5}, ["n is 5", "at most 4"]),
        (4, 4, {"n": 2, "generated": [1]}, ["resume one choice"]),
        (4, 4, {"generated": [1, 1, 1, 1]}, ["unfinished"]),
    ],
)
def test_what_can_never_run_is_refused_with_the_limit(
    prompt: int, max_tokens: int, fields: dict[str, object], words: list[str]
) -> None:
    world = World(CONFIG)
    with pytest.raises(BadRequest) as refusal:
        world.add(make_request("r", [0] * prompt, max_tokens, **fields))
    for word in words:
        assert word in str(refusal.value)
    assert isinstance(refusal.value, ContextTooLong) == (prompt >= 18)
    assert not world.scheduler.has_work
    world.add(make_request("r", [0] * 16, 4))
    world.drain()


def test_an_id_is_taken_until_its_choice_has_ended() -> None:
    world = World(CONFIG)
    world.add(make_request("r", [0], 2, ignore_eos=True))
    with pytest.raises(BadRequest, match="already"):
        world.scheduler.add(make_request("r", [1], 2))
    world.add(make_request("r", [0], 2, choice=1, ignore_eos=True))
    world.drain()
    world.streams.clear()
    world.add(make_request("r", [1], 2))
    world.drain()


def commit_tokens(scheduler: Scheduler, token: int) -> list[tuple[str | None, int | None]]:
    plan = scheduler.next_plan()
    assert plan is not None
    sampled = {sample.key: Result(token) for chunk in plan.chunks for sample in chunk.samples}
    return [(output.finish_reason, output.stop_reason) for output in scheduler.commit(plan, StepResult(sampled))]


@pytest.mark.parametrize(
    ("tokens", "fields", "end"),
    [
        ([0, 0, 0], {}, ("length", None)),
        ([0, EOS], {}, ("stop", None)),
        ([STOP], {}, ("stop", STOP)),
        ([EOS, 0, EOS], {"ignore_eos": True}, ("length", None)),
        ([EOS, STOP, 0], {"min_tokens": 3}, ("length", None)),
        ([EOS, EOS], {"min_tokens": 2}, ("stop", None)),
    ],
)
def test_how_a_choice_ends(tokens: list[int], fields: dict[str, object], end: tuple[str, int | None]) -> None:
    scheduler = Scheduler(CONFIG)
    scheduler.add(make_request("r", [0, 1], 3, eos_token_ids=[EOS], stop_token_ids=[STOP], **fields))
    ends = [pair for token in tokens for pair in commit_tokens(scheduler, token)]
    assert ends == [(None, None)] * (len(tokens) - 1) + [end]
    assert not scheduler.has_work


def test_without_max_tokens_the_context_is_the_limit() -> None:
    scheduler = Scheduler(SchedulerConfig(10, 4, 64, 12, True, 2))
    request = make_request("r", [0, 1])
    request.params = type(request.params)(max_tokens=None)
    scheduler.add(request)
    ends = []
    while scheduler.has_work:
        ends += commit_tokens(scheduler, 0)
    assert ends == [(None, None)] * 9 + [("length", None)]


def test_an_abort_in_flight_frees_its_pages_only_after_the_step() -> None:
    world = World(CONFIG)
    world.add(make_request("r", [0] * 4, 4))
    plan = world.begin()
    assert plan is not None
    held = world.scheduler.stats().num_free_pages
    world.abort("r")
    assert world.scheduler.stats().num_free_pages == held < CONFIG.num_pages
    assert world.finish() == []
    world.drain()


def test_a_request_that_breaks_breaks_alone() -> None:
    world = World(CONFIG)
    for name in ("good", "broken", "unsampled"):
        world.add(make_request(name, [0, 1], 3, ignore_eos=True))
    world.begin()
    outputs = world.finish(broken=[("broken", 0)], unsampled=[("unsampled", 0)])
    errors = {
        output.request_id: str(output.error and output.error.message)
        for output in outputs
        if output.finish_reason == "error"
    }
    assert errors == {"broken": "the chunk broke", "unsampled": "the sampler broke"}
    world.drain()
    assert len(world.streams["good", 0].tokens) == 3


def test_all_choices_of_a_broken_prompt_end() -> None:
    world = World(CONFIG)
    world.add(make_request("r", [0, 1], 3, n=3))
    world.begin()
    outputs = world.finish(broken=[("r", 0)])
    assert [(output.choice, output.finish_reason) for output in outputs] == [(0, "error"), (1, "error"), (2, "error")]
    world.drain()


def test_one_choice_can_be_aborted_before_its_prompt_is_computed() -> None:
    world = World(CONFIG)
    world.add(make_request("r", [0] * 10, 3, n=3, ignore_eos=True))
    world.step()
    world.abort("r", 0)
    world.abort("r", 1)
    world.drain()
    lengths = [len(world.streams["r", choice].tokens) for choice in range(3)]
    assert lengths == [0, 0, 3]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_resumed_choice_goes_on_exactly(cut: int) -> None:
    whole = make_request("r", [0, 1, 1], 5, n=3, ignore_eos=True)
    expected = [sequential_oracle(whole, choice, VOCAB) for choice in range(3)]
    world = World(CONFIG)
    for choice in range(3):
        given = expected[choice][:cut]
        world.add(make_request("r", [0, 1, 1], 5, choice=choice, generated=given, ignore_eos=True))
    world.drain()
    assert [world.streams["r", choice].tokens for choice in range(3)] == [tokens[cut:] for tokens in expected]


def test_steps_are_taken_one_at_a_time() -> None:
    world = World(CONFIG)
    world.add(make_request("r", [0], 3))
    plan = world.begin()
    assert plan is not None
    with pytest.raises(RuntimeError, match="commit"):
        world.scheduler.next_plan()
    world.finish()
    with pytest.raises(RuntimeError, match="not in flight"):
        world.scheduler.commit(plan, StepResult())


ROOT = Path(__file__).resolve().parents[2]
REPLAY = """
from random import Random
from tests.scheduler.world import World, make_request
from hexad.scheduler.scheduler import SchedulerConfig

chance = Random(7)
world = World(SchedulerConfig(9, 4, 5, 18, True, 2))
for index in range(60):
    prompt = [chance.randrange(2) for _ in range(chance.randrange(1, 9))]
    fields = {"n": chance.choice([1, 1, 2]), "priority": chance.randrange(2), "cache_salt": chance.choice(["", "a"])}
    world.add(make_request(f"r{index}", prompt, chance.randrange(1, 8), **fields))
    for _ in range(chance.randrange(3)):
        world.step()
    if chance.random() < 0.2:
        world.abort(f"r{chance.randrange(index + 1)}")
world.drain()
print(world.scheduler.stats().num_preemptions, world.trace)
"""


def test_equal_inputs_give_equal_plans_whatever_the_hash_seed() -> None:
    traces = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run([sys.executable, "-c", REPLAY], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        traces.append(run.stdout)
    assert traces[0] == traces[1]
    assert int(traces[0].split()[0]) > 0
