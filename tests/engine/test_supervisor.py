"""A stream outlives its engine process: killed in the middle, it goes on with exactly the same tokens."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import zmq
import zmq.asyncio

from hexad import AsyncLLM, RequestOutput, SamplingParams
from hexad.config import Config, resolve
from hexad.engine import process
from hexad.engine.messages import REFUSED, encode
from hexad.engine.process import EngineProcess
from hexad.engine.setup import no_progress
from hexad.errors import BadRequest, ContextTooLong, EngineUnavailable, NotFound, Overloaded, RequestFailed
from hexad.types import Failure

PROMPT = [5, 9, 2, 7] * 12


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[AsyncLLM]:
    engine = await AsyncLLM.start(config)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def config(tiny_model: Path) -> Config:
    return resolve([("test", {"model": str(tiny_model), "max_num_batched_tokens": 64, "kv_memory": "16MiB"})])[0]


DTYPES: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")


async def answer(engine: AsyncLLM, params: SamplingParams, prompt: list[int] = PROMPT) -> RequestOutput:
    outputs = [output async for output in engine.generate(prompt, params)]
    return outputs[-1]


def tokens(output: RequestOutput) -> list[list[int]]:
    return [choice.token_ids for choice in output.outputs]


async def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), timeout_s)


def admitted(engine: AsyncLLM) -> list[bool]:
    return [live.stream.output.queue_s is not None for live in engine._live.values()]


PARAMS = [
    SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True, logprobs=2),
    SamplingParams(temperature=1.0, seed=7, max_tokens=200, ignore_eos=True, n=3),
    SamplingParams(temperature=1.0, seed=8, max_tokens=200, ignore_eos=True, repetition_penalty=1.3, prompt_logprobs=1),
    SamplingParams(temperature=0.7, seed=9, max_tokens=200, ignore_eos=True, min_tokens=150, top_p=0.9),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_streams_survive_kill_9_bit_for_bit(config: Config, dtype: Literal["float32", "bfloat16"]) -> None:
    async def main() -> None:
        # Slow kernels, so that no stream ends before it is killed, on a busy machine too.
        async with running(dataclasses.replace(config, dtype=dtype, kernels="reference")) as engine:
            long = [msgspec.structs.replace(params, max_tokens=250) for params in PARAMS]
            undisturbed = [await answer(engine, params) for params in long]
            asked = [asyncio.create_task(answer(engine, params)) for params in long]
            for death in (20, 90):
                await until(lambda: len(engine._live) == len(PARAMS))
                live = [live.stream.output for live in engine._live.values()]
                await until(lambda: min(len(output.outputs[0].token_ids) for output in live) >= death)  # noqa: B023
                os.kill(engine.engine_pid, signal.SIGKILL)
                restarts = engine.restarts
                await until(lambda: engine.restarts > restarts)  # noqa: B023
            resumed = await asyncio.gather(*asked)
            assert engine.restarts == 2
            for before, after in zip(undisturbed, resumed, strict=True):
                assert tokens(before) == tokens(after)
                assert [c.logprobs for c in before.outputs] == [c.logprobs for c in after.outputs]
                assert before.prompt_logprobs == after.prompt_logprobs

    asyncio.run(main())


POISON = 77
POISONED = (
    "import os, sys, time; sys.path[:] = sys.argv.pop().split(chr(10)); from hexad.engine import runner, worker\n"
    "run = runner.Runner.run\n"
    "def poisoned(self, plan):\n"
    f"    if any(each.sequence.tokens[0] == {POISON} for each in plan.chunks):\n"
    "        while not os.path.exists(%r):\n"
    "            time.sleep(0.001)\n"
    "        os._exit(9)\n"
    "    return run(self, plan)\n"
    "runner.Runner.run = poisoned\n"
    "sys.exit(worker.main(sys.argv[2], int(sys.argv[3])))"
)
"""Starts an engine that dies of a prompt, once a file says that its last report was heard."""


def test_a_request_that_kills_the_engine_again_and_again_fails_alone(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that ran beside it, and those that waited behind it, get the tokens that they would have got."""
    monkeypatch.setattr(process, "BOOTSTRAP", POISONED % str(tmp_path / "heard"))

    async def main() -> None:
        async with running(dataclasses.replace(config, max_num_seqs=6, kernels="reference")) as engine:
            long = [msgspec.structs.replace(params, max_tokens=150) for params in PARAMS]
            undisturbed = [tokens(await answer(engine, params)) for params in long]
            asked = [asyncio.create_task(answer(engine, params)) for params in long[1:]]
            poison = asyncio.create_task(answer(engine, long[0], [POISON, 3]))
            await asyncio.sleep(0)
            asked.insert(0, asyncio.create_task(answer(engine, long[0])))
            await until(lambda: sum(admitted(engine)) == 4)
            (tmp_path / "heard").touch()
            with pytest.raises(RequestFailed, match="died 3 times while this request ran"):
                await poison
            assert [tokens(await task) for task in asked] == undisturbed
            assert engine.restarts == 3 and await engine.audit() is None

    asyncio.run(main())


def test_a_suspect_is_alone_until_it_is_cleared(config: Config) -> None:
    """Whatever is asked of the engine meanwhile is done after; nobody is blamed for a death in company."""

    async def main() -> None:
        async with running(dataclasses.replace(config, kernels="reference")) as engine:
            long = [msgspec.structs.replace(params, max_tokens=150) for params in PARAMS]
            undisturbed = [tokens(await answer(engine, params)) for params in long]
            asked = [asyncio.create_task(answer(engine, params)) for params in long]
            await until(lambda: len(engine._live) == len(PARAMS) and all(admitted(engine)))
            await engine.pause()  # so that nobody is done before the last death
            for death in range(4):
                await until(lambda: not engine._suspects)
                if death == 3:
                    await engine.resume()
                os.kill(engine.engine_pid, signal.SIGKILL)
                await until(lambda: engine.restarts > death)  # noqa: B023
            assert engine._suspects, "they are tried now"
            late = asyncio.create_task(answer(engine, long[0]))
            await asyncio.wait_for(engine.pause(), 20)
            assert not engine._suspects
            before = [tokens(live.stream.output) for live in engine._live.values()]
            await asyncio.sleep(0.2)
            assert [tokens(live.stream.output) for live in engine._live.values()] == before
            await engine.resume()
            assert [tokens(await task) for task in (*asked, late)] == [*undisturbed, undisturbed[0]]
            assert await engine.audit() is None and engine.stats().num_running == 0

    asyncio.run(main())


def test_a_start_that_is_given_up_again_and_again_leaves_nothing_behind(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        async with running(config):
            pass
        before = open_files()
        for wait_s in (0.01, 0.05, 0.1):
            starting = asyncio.create_task(EngineProcess.spawn(config, no_progress))
            await asyncio.sleep(wait_s)
            for _ in range(3):
                starting.cancel()
                await asyncio.sleep(0)
            (ended,) = await asyncio.gather(starting, return_exceptions=True)
            if isinstance(ended, tuple):  # it was quicker than we
                await ended[0].stop()
            await until(lambda: not list(tmp_path.iterdir()) and open_files() <= before)

    asyncio.run(main())


def test_a_start_that_hangs_is_given_up(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that is stopped while its predecessor's streams wait for it is replaced too."""

    async def main() -> None:
        async with running(dataclasses.replace(config, kernels="reference")) as engine:
            undisturbed = await answer(engine, PARAMS[0])
            asked = asyncio.create_task(answer(engine, PARAMS[0]))
            await until(lambda: bool(engine._live))
            with monkeypatch.context() as patched:
                patched.setattr(process, "BOOTSTRAP", "import time; time.sleep(60)")
                patched.setattr(process, "START_HUNG_S", 0.3)
                os.kill(engine.engine_pid, signal.SIGKILL)
                await until(lambda: "neither spoken nor computed" in caplog.text)
            assert tokens(await asyncio.wait_for(asked, 20)) == tokens(undisturbed)
            assert engine.restarts == 1

    asyncio.run(main())


def test_a_closed_iterator_frees_its_request(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            stream = engine.generate(PROMPT, SamplingParams(max_tokens=900, ignore_eos=True))
            async for _ in stream:
                break
            await stream.aclose()  # type: ignore[attr-defined]
            await until(lambda: engine.stats().num_running == 0)
            assert engine.stats().num_free_pages == engine.stats().num_pages

    asyncio.run(main())


def test_an_aborted_request_ends_with_what_it_has(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            seen: list[RequestOutput] = []
            async for output in engine.generate(
                PROMPT, SamplingParams(max_tokens=900, ignore_eos=True), request_id="a"
            ):
                seen.append(output)
                await engine.abort("a")
            assert seen[-1].finished and seen[-1].outputs[0].finish_reason == "abort"
            await until(lambda: engine.stats().num_running == 0)

    asyncio.run(main())


def test_refusals_come_before_the_first_item_and_disturb_nobody(config: Config) -> None:
    async def refused(engine: AsyncLLM, prompt: list[int], params: SamplingParams) -> None:
        async for _ in engine.generate(prompt, params):
            raise AssertionError("it was accepted")

    async def main() -> None:
        async with running(config) as engine:
            neighbour = asyncio.create_task(answer(engine, PARAMS[0]))
            with pytest.raises(ContextTooLong, match="length is 1024"):
                await refused(engine, [1] * 2000, SamplingParams())
            with pytest.raises(BadRequest, match="prompt"):
                await refused(engine, [10**6], SamplingParams())
            with pytest.raises(BadRequest, match="empty"):
                await refused(engine, [], SamplingParams())
            assert tokens(await neighbour) == tokens(await answer(engine, PARAMS[0]))

    asyncio.run(main())


def test_a_full_queue_refuses_at_once(config: Config) -> None:
    async def main() -> None:
        async with running(dataclasses.replace(config, max_num_seqs=1, max_queue=1)) as engine:
            long = SamplingParams(max_tokens=900, ignore_eos=True)
            await engine.pause()
            asked = [asyncio.create_task(answer(engine, long)) for _ in range(2)]
            await until(lambda: len(engine._live) == 2)
            with pytest.raises(Overloaded, match="max_queue 1"):
                await answer(engine, long)
            for task in asked:
                task.cancel()

    asyncio.run(main())


def test_draining_lets_the_running_finish_and_fails_the_late(config: Config) -> None:
    async def drained(timeout_s: float, params: SamplingParams) -> RequestOutput:
        async with running(config) as engine:
            asked = asyncio.create_task(answer(engine, params))
            await until(lambda: bool(engine._live))
            await engine.drain(timeout_s)
            return await asked

    async def main() -> None:
        assert len((await drained(30, PARAMS[0])).outputs[0].token_ids) == 200
        with pytest.raises(EngineUnavailable, match="shut down"):
            await drained(0.0, SamplingParams(max_tokens=900, ignore_eos=True))

    asyncio.run(main())


def test_a_command_to_a_dead_engine_waits_for_nobody(config: Config) -> None:
    """A stop string found, and a request accepted, between the death and its discovery."""

    async def main() -> None:
        async with running(config) as engine:
            asked = asyncio.create_task(answer(engine, PARAMS[0]))
            await until(lambda: bool(engine._live))
            os.kill(engine.engine_pid, signal.SIGKILL)
            time.sleep(0.2)  # the event loop is held, so that nobody has noticed yet
            late = asyncio.create_task(answer(engine, PARAMS[1]))
            await engine.abort("nobody")
            assert [len(ids) for ids in tokens(await asyncio.wait_for(asked, 20))] == [200]
            assert [len(ids) for ids in tokens(await asyncio.wait_for(late, 20))] == [200, 200, 200]

    asyncio.run(main())


def test_a_stream_that_cannot_be_written_fails_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(config) as engine:
            broken = asyncio.create_task(answer(engine, PARAMS[1]))
            await until(lambda: bool(engine._live))
            monkeypatch.setattr(next(iter(engine._live.values())).stream, "feed", lambda gained: 1 / 0)
            neighbour = await answer(engine, PARAMS[0])
            with pytest.raises(RequestFailed, match="ZeroDivisionError"):
                await broken
            assert tokens(neighbour) == tokens(await answer(engine, PARAMS[0]))
            await until(lambda: engine.stats().num_running == 0)

    asyncio.run(main())


def test_a_request_id_may_be_used_again_at_once_but_not_twice_at_a_time(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            stream = engine.generate(PROMPT, SamplingParams(max_tokens=900, ignore_eos=True), request_id="x")
            async for output in stream:
                assert output.request_id == "x"
                with pytest.raises(BadRequest, match="in use"):
                    [_ async for _ in engine.generate(PROMPT, PARAMS[0], request_id="x")]
                break
            await stream.aclose()  # type: ignore[attr-defined]
            outputs = [output async for output in engine.generate(PROMPT, PARAMS[0], request_id="x")]
            assert outputs[-1].outputs[0].finish_reason == "length"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prompt", "params"),
    [
        ([True, 5], SamplingParams()),
        (["a"], SamplingParams()),
        ([5], SamplingParams(top_k=2.5)),  # type: ignore[arg-type]
        ([5], SamplingParams(stop=["\ud800"])),
    ],
)
def test_values_of_the_wrong_type_are_refused_before_they_reach_the_engine(
    config: Config, prompt: list[int], params: SamplingParams
) -> None:
    async def main() -> None:
        async with running(config) as engine:
            with pytest.raises(BadRequest):
                await answer(engine, params, prompt)
            assert not engine._live and engine.healthy

    asyncio.run(main())


def test_a_model_that_cannot_be_read_is_refused_with_its_own_words(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(NotFound, match=r"no config\.json"):
            await AsyncLLM.start(resolve([("test", {"model": str(tmp_path)})])[0])

    asyncio.run(main())


def test_the_engine_ends_with_its_supervisor(config: Config) -> None:
    """A supervisor that is killed leaves no orphan behind."""
    script = (
        "import asyncio, sys\nfrom hexad import AsyncLLM\nfrom hexad.config import resolve\n"
        "async def main():\n    engine = await AsyncLLM.start(resolve([('t', {'model': sys.argv[1]})])[0])\n"
        "    print(engine.engine_pid, flush=True)\n    await asyncio.sleep(60)\nasyncio.run(main())\n"
    )

    async def main() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, config.model, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        engine_pid = int(await parent.stdout.readline())
        parent.kill()
        await parent.wait()
        await until(lambda: not _is_running(engine_pid))

    asyncio.run(main())


def test_an_engine_whose_supervisor_died_before_it_could_speak_ends(tmp_path: Path) -> None:
    nobody = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    command = [sys.executable, "-m", "hexad.engine.worker", f"ipc://{tmp_path}/none.sock", nobody.stdout.decode()]
    assert subprocess.run(command, timeout=20).returncode == 0


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def sleeps(pid: int) -> bool:
    """A process that waits, at every one of many looks, has nothing to do."""
    looks = []
    for _ in range(50):
        looks.append(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.01)
    return set(looks) == {"S"}


def test_a_supervisor_that_was_held_up_takes_many_steps_as_one(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it catches up with its engine, instead of being as far behind for ever."""

    async def main() -> None:
        async with running(config) as engine:
            params = SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True)
            undisturbed = await answer(engine, params)
            outputs = engine.generate(PROMPT, params)
            with monkeypatch.context() as patched:
                patched.setattr(process, "MAX_BYTES", 1)  # however far behind already
                first = await anext(outputs)
            while not sleeps(engine.engine_pid):  # this holds up the event loop
                pass
            assert len(first.outputs[0].token_ids) < 400
            later = [output async for output in outputs]
            assert len(later) < 20 and tokens(later[-1]) == tokens(undisturbed)

    asyncio.run(main())


def test_a_supervisor_that_is_behind_lets_others_have_their_turn(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two reads of reports that are there already, whoever waits for what they say is served."""
    monkeypatch.setattr(process, "MAX_BYTES", 1)

    async def main() -> None:
        async with running(config) as engine:
            outputs = engine.generate(PROMPT, SamplingParams(temperature=0.0, max_tokens=400, ignore_eos=True))
            first = len((await anext(outputs)).outputs[0].token_ids)
            while not sleeps(engine.engine_pid):  # this holds up the event loop
                pass
            later = [output async for output in outputs]
            assert len(later) > (400 - first) / 2

    asyncio.run(main())


def test_a_refusal_is_heard_although_the_end_is_seen_first(tmp_path: Path) -> None:
    async def main() -> None:
        context = zmq.asyncio.Context.instance()
        socket, engine = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        socket.bind(f"ipc://{tmp_path}/s")
        engine.connect(f"ipc://{tmp_path}/s")
        ended = await asyncio.create_subprocess_exec(sys.executable, "-c", f"raise SystemExit({REFUSED})")
        seen = process.EngineProcess(ended, socket, tmp_path / "none")
        await ended.wait()
        asked = asyncio.create_task(seen.receive())
        await asyncio.sleep(0.3)
        await engine.send(encode(Failure("broken", "CheckpointError")))
        assert await asked == [Failure("broken", "CheckpointError")]
        await seen.stop()
        engine.close()

    asyncio.run(main())
