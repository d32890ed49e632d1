"""An engine process that hangs is taken for dead; one that was told to stand still is not; its books can be seen."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import msgspec
import pytest

from hexad import SamplingParams
from hexad.config import Config, resolve
from hexad.engine import async_llm
from hexad.engine.llm import LLM
from hexad.engine.messages import Audit, Audited, Outputs
from hexad.errors import DeadlineExceeded, EngineUnavailable, Overloaded
from tests.engine.test_pause import lengths
from tests.engine.test_supervisor import answer, running, until

LONG = SamplingParams(temperature=1.0, seed=7, max_tokens=700, ignore_eos=True)
HUNG_S = 0.5


@pytest.fixture
def config(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(async_llm, "HUNG_S", HUNG_S)
    return resolve([("test", {"model": str(tiny_model), "max_num_batched_tokens": 64, "kv_memory": "16MiB"})])[0]


def test_a_stopped_engine_is_replaced_and_its_stream_goes_on(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed, stopped = await answer(engine, LONG), engine.engine_pid
            while engine.restarts == 0:  # nobody waits for an answer that was complete before the engine was stopped
                asked = asyncio.create_task(answer(engine, LONG))
                await until(lambda: asked.done() or any(lengths(engine)))  # noqa: B023
                os.kill(stopped, signal.SIGSTOP)
                await until(lambda: asked.done() or engine.restarts == 1, 20 * HUNG_S)  # noqa: B023
                if engine.restarts == 0:
                    os.kill(stopped, signal.SIGCONT)
            assert engine.engine_pid != stopped
            assert (await asked).outputs[0].token_ids == undisturbed.outputs[0].token_ids

    asyncio.run(main())


def test_an_engine_stopped_while_idle_is_noticed_by_the_next_request(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            undisturbed = await answer(engine, LONG)
            os.kill(engine.engine_pid, signal.SIGSTOP)
            await asyncio.sleep(3 * HUNG_S)
            assert engine.restarts == 0, "nobody waits for it"
            assert (await answer(engine, LONG)).outputs[0].token_ids == undisturbed.outputs[0].token_ids
            assert engine.restarts == 1

    asyncio.run(main())


def test_an_engine_that_was_paused_or_idles_is_left_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_llm, "HUNG_S", 2 * HUNG_S)  # it is asked after half of it, and must find time to answer

    async def main() -> None:
        async with running(config) as engine:
            await engine.pause()
            asked = asyncio.create_task(answer(engine, LONG))
            await asyncio.sleep(6 * HUNG_S)
            assert engine.restarts == 0 and not asked.done()
            await engine.resume()
            assert len((await asked).outputs[0].token_ids) == 700 and engine.restarts == 0

    asyncio.run(main())


def test_who_was_held_up_itself_takes_nobody_for_dead(config: Config) -> None:
    """What the engine said meanwhile is still to be read, and what it was to be asked is still to be sent."""

    async def main() -> None:
        async with running(config) as engine:
            asked = asyncio.create_task(answer(engine, LONG))
            await until(lambda: bool(engine._live))
            await engine.pause()
            time.sleep(4 * HUNG_S)
            await asyncio.sleep(HUNG_S)
            await engine.resume()
            assert (await asked).finished and engine.restarts == 0

    asyncio.run(main())


def test_a_pause_of_a_stopped_engine_ends(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            os.kill(engine.engine_pid, signal.SIGSTOP)
            await asyncio.wait_for(engine.pause(), 20 * HUNG_S)
            await until(lambda: engine.restarts == 1)
            asked = asyncio.create_task(answer(engine, LONG))
            await asyncio.sleep(2 * HUNG_S)
            assert not asked.done() and not any(
                live.stream.output.outputs[0].token_ids for live in engine._live.values()
            )
            await engine.resume()
            assert (await asked).finished and engine.restarts == 1

    asyncio.run(main())


def test_the_books_are_audited_across_the_border(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(config) as engine:
            monkeypatch.undo()  # who is asked may take its time
            asked = [asyncio.create_task(answer(engine, LONG)) for _ in range(3)]
            assert await asyncio.gather(*(engine.audit() for _ in range(5))) == [None] * 5
            await asyncio.gather(*asked)
            os.kill(engine.engine_pid, signal.SIGSTOP)
            monkeypatch.setattr(async_llm, "HUNG_S", HUNG_S)
            with pytest.raises(EngineUnavailable, match="did not answer"):
                await engine.audit()

    asyncio.run(main())


def test_a_broken_book_is_named(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), kv_memory="16MiB")
    sent: list[Outputs | Audited] = []
    llm._loop.outbox.send = sent.append  # type: ignore[method-assign]
    llm._loop._obey([Audit()])
    llm._loop.scheduler.memory.pool._free.pop()
    llm._loop._obey([Audit()])
    first, second = (report for report in sent if isinstance(report, Audited))
    assert first.broken is None and second.broken is not None and second.broken.startswith("I")


def test_a_deadline_frees_what_it_ends(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            wide = msgspec.structs.replace(LONG, n=48)
            with pytest.raises(DeadlineExceeded, match="was over before the engine"):
                [_ async for _ in engine.generate([1], LONG, deadline=time.monotonic() - 1)]
            with pytest.raises(DeadlineExceeded, match=r"before it was complete"):
                [_ async for _ in engine.generate([1], wide, deadline=time.monotonic() + 0.05)]
            await until(lambda: engine.stats().num_running == 0)
            assert engine.stats().num_steps < 700, "nobody waits for the rest"
            assert await engine.audit() is None and not engine._live
            outputs = [output async for output in engine.generate([1], LONG, deadline=time.monotonic() + 60)]
            assert outputs[-1].finished and outputs[-1].queue_s is not None and 0 <= outputs[-1].queue_s < 5

    asyncio.run(main())


def test_there_is_always_room_for_another_client(config: Config) -> None:
    async def main() -> None:
        import dataclasses

        async with running(dataclasses.replace(config, max_num_seqs=2, max_queue=8)) as engine:
            await engine.pause()  # so that nobody is done and gives a place back

            async def hold(client: str) -> None:
                async for _ in engine.generate([1], LONG, client=client):
                    pass

            async def places(client: str) -> int:
                """Requests that it gets in, until it is refused."""
                count = 0
                while True:
                    try:
                        engine.check_open(client)
                    except Overloaded:
                        return count
                    tasks.append(asyncio.create_task(hold(client)))
                    await asyncio.sleep(0)
                    count += 1

            tasks: list[asyncio.Task[None]] = []
            assert [await places(client) for client in ("a", "b", "c", "d")] == [5, 3, 1, 1]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            tasks.clear()
            assert await places("") == 10, "without keys nobody is told apart"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
