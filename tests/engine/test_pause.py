"""An engine stands still, sleeps and is killed in any of these states; every answer stays what it was."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hexad import AsyncLLM, RequestOutput, SamplingParams
from hexad.config import Config, resolve
from hexad.engine.messages import EngineInfo
from hexad.engine.process import EngineProcess
from hexad.engine.setup import Progress
from hexad.errors import EngineUnavailable
from tests.engine.test_supervisor import answer, running, until

LONG = [
    SamplingParams(temperature=0.0, max_tokens=900, ignore_eos=True, logprobs=1),
    SamplingParams(temperature=1.0, seed=3, max_tokens=900, ignore_eos=True, n=2),
]
SHORT = SamplingParams(temperature=1.0, seed=4, max_tokens=8, ignore_eos=True)


@pytest.fixture
def config(tiny_model: Path) -> Config:
    return resolve([("test", {"model": str(tiny_model), "max_num_batched_tokens": 64, "kv_memory": "16MiB"})])[0]


def shown(output: RequestOutput) -> list[object]:
    return [(choice.token_ids, choice.logprobs, choice.finish_reason) for choice in output.outputs]


def lengths(engine: AsyncLLM) -> list[int]:
    """Of the answers that are not complete."""
    outputs = [choice for live in engine._live.values() for choice in live.stream.output.outputs]
    return [len(choice.token_ids) for choice in outputs if choice.finish_reason is None]


async def started(engine: AsyncLLM) -> list[asyncio.Task[RequestOutput]]:
    """Seen in the middle of their answers. Who looks too late, on a busy machine, asks again."""
    while True:
        asked = [asyncio.create_task(answer(engine, params)) for params in LONG]
        while not any(task.done() for task in asked):
            if len(lengths(engine)) == 3 and min(lengths(engine)) >= 10:
                return asked
            await asyncio.sleep(0.001)
        await asyncio.gather(*asked)


async def held(
    engine: AsyncLLM, hold: Callable[[], Awaitable[None]], release: Callable[[], Awaitable[None]]
) -> list[asyncio.Task[RequestOutput]]:
    """Held in the middle of their answers, and again where what was still to be read completed one of them."""
    while True:
        asked = await started(engine)
        await hold()
        if len(lengths(engine)) == 3:
            return asked
        await release()
        await asyncio.gather(*asked)


@contextmanager
def spawns() -> Iterator[list[EngineProcess]]:
    """The engine processes that are started meanwhile."""
    spawned: list[EngineProcess] = []
    spawn = EngineProcess.spawn

    async def noting(config: Config, progress: Progress) -> tuple[EngineProcess, EngineInfo]:
        process, info = await spawn(config, progress)
        spawned.append(process)
        return process, info

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EngineProcess, "spawn", noting)
        yield spawned


def killed(engine: AsyncLLM) -> None:
    os.kill(engine.engine_pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [False, True], ids=["", "killed"])
def test_a_paused_engine_goes_on_with_the_same_tokens(config: Config, kill: bool) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = [shown(await answer(engine, params)) for params in (*LONG, SHORT)]
            asked = await held(engine, engine.pause, engine.resume)
            before = lengths(engine)
            asked.append(asyncio.create_task(answer(engine, SHORT)))
            if kill:
                killed(engine)
                await until(lambda: engine.restarts == 1)
            await asyncio.sleep(0.2)
            assert lengths(engine) == [*before, 0]
            assert engine.healthy
            await engine.resume()
            assert [shown(await task) for task in asked] == undisturbed

    asyncio.run(main())


@pytest.mark.parametrize("kill", [False, True], ids=["", "killed"])
def test_a_sleeping_engine_has_no_process_and_wakes_with_the_same_tokens(config: Config, kill: bool) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = [shown(await answer(engine, params)) for params in (*LONG, SHORT)]
            pid = 0

            async def sleep() -> None:
                nonlocal pid
                pid = engine.engine_pid
                if kill:  # the supervisor may be in the middle of a restart
                    killed(engine)
                await engine.sleep()

            asked = await held(engine, sleep, engine.wake)
            assert not Path(f"/proc/{pid}").exists()
            asked.append(asyncio.create_task(answer(engine, SHORT)))
            await asyncio.sleep(0.1)
            assert engine.asleep and engine.healthy and not any(task.done() for task in asked)
            await engine.wake()
            if kill:
                killed(engine)
            assert [shown(await task) for task in asked] == undisturbed

    asyncio.run(main())


def test_a_request_that_is_aborted_in_its_sleep_is_not_woken(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            asked = await started(engine)
            await engine.sleep()
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await engine.wake()
            assert shown(await answer(engine, SHORT)) and engine.stats().num_running == 0

    asyncio.run(main())


def test_an_engine_that_cannot_wake_sleeps_on(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = shown(await answer(engine, SHORT))
            await engine.sleep()
            waiting = asyncio.create_task(answer(engine, SHORT))
            with monkeypatch.context() as patched:
                patched.setattr("hexad.engine.process.BOOTSTRAP", "import sys; sys.exit(3)")
                with pytest.raises(EngineUnavailable, match="exit status 3"):
                    await engine.wake()
            assert engine.asleep and not waiting.done()
            await engine.wake()
            assert shown(await waiting) == undisturbed

    asyncio.run(main())


def test_wakings_side_by_side_start_one_engine(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = shown(await answer(engine, SHORT))
            await engine.sleep()
            with spawns() as spawned:
                await asyncio.gather(engine.wake(), engine.wake())
            assert [process.pid for process in spawned if process._process.returncode is None] == [engine.engine_pid]
            assert shown(await answer(engine, SHORT)) == undisturbed

    asyncio.run(main())


def test_a_sleep_or_waking_that_is_given_up_is_carried_out(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = [shown(await answer(engine, params)) for params in LONG]
            asked = await started(engine)
            for _ in range(2):
                pid = engine.engine_pid
                for verb in (engine.sleep, engine.wake):
                    given_up = asyncio.create_task(verb())
                    await asyncio.sleep(0)
                    given_up.cancel()
                    await asyncio.gather(given_up, return_exceptions=True)
                    await verb()
                assert not Path(f"/proc/{pid}").exists()
            assert [shown(await task) for task in asked] == undisturbed

    asyncio.run(main())


def test_a_second_pause_waits_for_the_engine_too(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            asked = await started(engine)
            await engine.pause()
            await engine.resume()
            again = asyncio.create_task(engine.pause())
            await asyncio.sleep(0)
            assert not again.done()  # it has not been answered yet
            await again
            before = lengths(engine)
            await asyncio.sleep(0.2)
            assert lengths(engine) == before
            await engine.resume()
            await asyncio.gather(*asked)

    asyncio.run(main())
