"""Several models in one process, with real engines: who is loaded, who waits, who leaves."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hexad import LLM, SamplingParams
from hexad.config import Config, resolve
from hexad.engine.async_llm import AsyncLLM
from hexad.engine.setup import resolve_settings
from hexad.errors import (
    CheckpointError,
    ConfigError,
    DeadlineExceeded,
    EngineUnavailable,
    HexadError,
    OutOfMemory,
    Overloaded,
)
from hexad.server.auth import Client
from hexad.server.caller import Caller
from hexad.server.generation import Service
from hexad.server.log import Record
from hexad.server.models import Models, Served
from hexad.testing.zoo import write_model
from hexad.text.tokenizer import Tokenizer
from tests.server.running import AT_LAST_S

SETTINGS = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "kv_memory": "4MiB", "threads": 1}
PROMPT = [5, 9, 2, 7] * 8
GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
LONG = SamplingParams(temperature=0.0, max_tokens=500, ignore_eos=True)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("several")
    made = {name: write_model(root / name, {"model_type": "llama"}, seed=seed) for seed, name in enumerate(NAMES)}
    for directory in made.values():
        Tokenizer.of_bytes().save(directory)
    return made


@pytest.fixture(scope="module")
def answers(directories: dict[str, Path]) -> dict[str, list[int]]:
    """What each model says when it has the machine to itself."""
    said = {}
    for name, directory in directories.items():
        engine = LLM(str(directory), **SETTINGS)
        said[name] = engine.generate([PROMPT], GREEDY)[0].outputs[0].token_ids
    assert len({tuple(tokens) for tokens in said.values()}) == len(NAMES)
    return said


def config_of(directory: Path, **more: object) -> Config:
    return resolve([("test", {"model": str(directory), **SETTINGS, **more})])[0]


def models_for(directories: dict[str, Path], fits: float, **more: object) -> Models:
    """All of them, in memory for `fits` of them."""
    memory = resolve_settings(config_of(directories["a"])).memory
    budget = int(fits * (memory.weights + memory.scratch + memory.kv))
    configs = {name: config_of(directory, model_memory=budget, **more) for name, directory in directories.items()}
    return Models([Served(name, config) for name, config in configs.items()])


async def tokens(service: Service, params: SamplingParams = GREEDY) -> list[int]:
    outputs = [output async for output in service.engine.generate(PROMPT, params)]
    return outputs[-1].outputs[0].token_ids


async def ask(models: Models, name: str, params: SamplingParams = GREEDY) -> list[int]:
    async with models.use(name, None) as service:
        return await tokens(service, params)


def asking(client: str = "", deadline: float | None = None) -> Caller:
    return Caller("1", Client(client), deadline, Record("POST", "/", "1"))


def states(models: Models) -> str:
    return " ".join(f"{name}:{entry.state}" for name, entry in models.entries.items())


def run(main: Callable[[AsyncExitStack], object]) -> None:
    async def closing() -> None:
        async with AsyncExitStack() as stack:
            await main(stack)  # type: ignore[misc]

    asyncio.run(closing())


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), AT_LAST_S)


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """Engines start, really, once the event is set."""
    go = asyncio.Event()
    start = AsyncLLM.start

    async def later(*args: object) -> AsyncLLM:
        await go.wait()
        return await start(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(AsyncLLM, "start", later)
    yield go


def test_the_longest_unused_makes_room_and_all_answers_stay_the_same(
    directories: dict[str, Path], answers: dict[str, list[int]]
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 2.5)
        stack.push_async_callback(models.close)
        for name, expected in (
            ("a", "a:loaded b:unloaded c:unloaded"),
            ("b", "a:loaded b:loaded c:unloaded"),
            ("a", "a:loaded b:loaded c:unloaded"),
            ("c", "a:loaded b:unloaded c:loaded"),
            ("b", "a:unloaded b:loaded c:loaded"),
        ):
            assert await ask(models, name) == answers[name]
            assert states(models) == expected
        held = [(await models.about(entry)).memory for entry in models.entries.values()]
        assert held[0] == 0 and 0 < sum(held) <= models.budget
        many = [name for name in NAMES for _ in range(4)]
        assert await asyncio.gather(*[ask(models, name) for name in many]) == [answers[name] for name in many]
        samples = models.metrics.exposition().decode()
        assert 'hexad:model_loads_total{model_name="b"}' in samples
        assert samples.count("hexad:model_loaded{") == len(NAMES)

    run(main)


def test_one_that_is_in_use_is_waited_for(directories: dict[str, Path], answers: dict[str, list[int]]) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 1.5)
        stack.push_async_callback(models.close)
        async with models.use("a", None) as service:
            other = asyncio.create_task(ask(models, "b"))
            await until(lambda: states(models).startswith("a:leaving"))
            again = asyncio.create_task(ask(models, "a"))  # behind b: nobody waits for ever
            assert await tokens(service) == answers["a"] and not other.done()
            assert states(models).startswith("a:loading b:loading")
        assert await other == answers["b"]
        assert await again == answers["a"]
        assert states(models) == "a:loaded b:unloaded c:unloaded"

    run(main)


def test_the_pinned_stay_and_what_can_never_fit_is_refused(directories: dict[str, Path]) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 1.5)
        stack.push_async_callback(models.close)
        models.entries["a"].pinned = True
        await models.load("a")
        with pytest.raises(HexadError, match="are held by others that cannot leave; raise model_memory"):
            await ask(models, "b")
        assert states(models) == "a:loaded b:failed c:unloaded"
        models.entries["a"].pinned = False
        await ask(models, "b")
        assert states(models) == "a:unloaded b:loaded c:unloaded"

    run(main)


def test_one_that_sleeps_holds_nothing_and_wakes_only_where_there_is_room(
    directories: dict[str, Path], answers: dict[str, list[int]]
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 1.5)
        stack.push_async_callback(models.close)
        await models.load("a")
        sleeper = models.entries["a"].instance
        assert sleeper is not None and sleeper.service is not None
        await sleeper.service.engine.sleep()
        models.entries["b"].pinned = True
        assert await ask(models, "b") == answers["b"]
        waiting = asyncio.create_task(ask(models, "a"))
        with pytest.raises(OutOfMemory, match="are held by others that cannot leave"):
            await models.wake(sleeper)
        assert states(models) == "a:asleep b:loaded c:unloaded" and not waiting.done()
        models.entries["b"].pinned = False
        await models.wake(sleeper)
        assert await waiting == answers["a"] and states(models) == "a:loaded b:unloaded c:unloaded"

    run(main)


def test_there_is_always_room_for_another_client_to_wait(directories: dict[str, Path]) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 2.5, max_queue=8)
        stack.push_async_callback(models.close)

        async def wait(client: str) -> None:
            async with models.use("a", asking(client)):
                pass

        waiting = [asyncio.create_task(wait(client)) for client in ["greedy"] * 8 + ["late"]]
        said = await asyncio.gather(*waiting, return_exceptions=True)
        assert said[:4] == [None] * 4 and said[8] is None
        assert all(isinstance(each, Overloaded) and each.code == "client_queue_full" for each in said[4:8])

    run(main)


def test_a_load_is_shared_survives_who_leaves_and_has_a_queue(
    directories: dict[str, Path], answers: dict[str, list[int]], slow_start: asyncio.Event
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 2.5, max_queue=3)
        stack.push_async_callback(models.close)
        waiting = [asyncio.create_task(ask(models, "a")) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded, match="3 requests wait for models to be loaded"):
            await ask(models, "b")
        waiting[0].cancel()
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded, match="before a was loaded"):
            async with models.use("a", asking(deadline=time.monotonic() + 0.05)):
                pass
        slow_start.set()
        assert [await task for task in waiting[1:]] == [answers["a"]] * 2
        assert b'hexad:model_loads_total{model_name="a"} 1.0' in models.metrics.exposition()

    run(main)


def test_waiting_has_an_end(directories: dict[str, Path], slow_start: asyncio.Event) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = Models([Served("a", config_of(directories["a"]))], load_timeout_s=0.1)
        stack.push_async_callback(models.close)
        with pytest.raises(EngineUnavailable, match="could not be loaded in 0.1 s"):
            await ask(models, "a")
        slow_start.set()
        await models.entries["a"].instance.loading  # type: ignore[union-attr, misc]
        await ask(models, "a")

    run(main)


def test_a_load_that_fails_tells_everybody_and_is_tried_again(
    directories: dict[str, Path], answers: dict[str, list[int]], tmp_path: Path
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        broken = shutil.copytree(directories["b"], tmp_path / "b")
        weights = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(weights[:-100])
        models = models_for({**directories, "b": broken}, 2.5)
        stack.push_async_callback(models.close)
        tried = await asyncio.gather(*[ask(models, "b") for _ in range(3)], ask(models, "a"), return_exceptions=True)
        assert [type(each) for each in tried[:3]] == [CheckpointError] * 3 and tried[3] == answers["a"]
        assert states(models).startswith("a:loaded b:failed")
        (broken / "model.safetensors").write_bytes(weights)
        assert await ask(models, "b") == answers["b"]

    run(main)


def test_an_engine_that_dies_while_it_loads_is_tried_again(
    directories: dict[str, Path], answers: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 2.5)
        stack.push_async_callback(models.close)
        with monkeypatch.context() as patched:
            patched.setattr("hexad.engine.process.BOOTSTRAP", "import os; os.kill(os.getpid(), 9)")
            with pytest.raises(EngineUnavailable, match="killed by signal 9"):
                await ask(models, "a")
        assert await ask(models, "a") == answers["a"]

    run(main)


def test_one_whose_engine_is_gone_is_loaded_again(
    directories: dict[str, Path], answers: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 1.5)
        stack.push_async_callback(models.close)
        await models.load("a")
        service = models.entries["a"].service
        assert service is not None
        with monkeypatch.context() as patched:
            patched.setattr("hexad.engine.process.BOOTSTRAP", "import sys; sys.exit(3)")
            patched.setattr("hexad.engine.async_llm.RESTART_DELAYS_S", (0.0,))
            os.kill(service.engine.engine_pid, signal.SIGKILL)
            await until(lambda: service.engine.gone)
        assert not models.healthy
        assert await ask(models, "a") == answers["a"] and models.healthy

    run(main)


def test_what_is_idle_for_long_enough_leaves(directories: dict[str, Path], answers: dict[str, list[int]]) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for(directories, 2.5, keep_alive=0.2)
        stack.push_async_callback(models.close)
        async with models.use("a", None) as service:
            await asyncio.sleep(0.4)
            assert await tokens(service) == answers["a"]
        assert (await models.about(models.entries["a"])).expires_at is not None
        async with models.use("b", None, -1):
            pass
        await until(lambda: states(models) == "a:unloaded b:loaded c:unloaded")
        async with models.use("b", None, 0):
            pass
        leaving = models.entries["b"].instance
        assert leaving is not None
        await asyncio.sleep(0.05)
        assert leaving.leaving is not None
        await leaving.leaving
        assert await ask(models, "a") == answers["a"]

    run(main)


@pytest.mark.parametrize("fits", [2.5, 1.5], ids=["beside", "in place"])
def test_an_update_changes_no_stream_in_the_middle(
    directories: dict[str, Path], answers: dict[str, list[int]], fits: float
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        models = models_for({"a": directories["a"]}, fits)
        stack.push_async_callback(models.close)
        entry = models.entries["a"]
        first = await ask(models, "a", LONG)
        asked = [asyncio.create_task(ask(models, "a", LONG)) for _ in range(3)]
        await asyncio.sleep(0.1)
        update = asyncio.create_task(models.replace(entry, config_of(directories["b"])))
        said = []
        while not update.done():
            said.append(asyncio.create_task(ask(models, "a")))
            await asyncio.sleep(0.02)
        assert await update == (fits > 2)
        assert await ask(models, "a") == answers["b"]
        assert [await task for task in asked] == [first] * 3
        both = [await task for task in said]
        assert all(each in (answers["a"], answers["b"]) for each in both)
        assert fits > 2 or answers["b"] in both
        await until(lambda: len(models._living) == 1)
        assert entry.state == "loaded"

    run(main)


@pytest.mark.parametrize("fits", [2.5, 1.5], ids=["beside", "in place"])
def test_an_update_that_fails_leaves_what_was(
    directories: dict[str, Path], answers: dict[str, list[int]], fits: float, tmp_path: Path
) -> None:
    async def main(stack: AsyncExitStack) -> None:
        broken = shutil.copytree(directories["b"], tmp_path / "b")
        (broken / "model.safetensors").write_bytes(b"")
        models = models_for({"a": directories["a"]}, fits)
        stack.push_async_callback(models.close)
        assert await ask(models, "a") == answers["a"]
        update = asyncio.create_task(models.replace(models.entries["a"], config_of(broken)))
        said = []
        while not update.done():
            said.append(asyncio.create_task(ask(models, "a")))
            await asyncio.sleep(0.02)
        with pytest.raises(CheckpointError):
            await update
        assert [await task for task in said] == [answers["a"]] * len(said)
        assert await ask(models, "a") == answers["a"]

    run(main)


def test_two_models_of_one_name_are_refused(directories: dict[str, Path]) -> None:
    config = config_of(directories["a"])
    with pytest.raises(ConfigError, match="two models would be served as 'a'"):
        Models([Served("a", config), Served("a", config)])
