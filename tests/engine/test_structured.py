"""Structured outputs behind the supervisor: exact after a kill, and bombs hurt nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from hexad import LLM, SamplingParams, StructuredOutputs
from hexad.bench import skills
from hexad.config import Config, resolve
from hexad.decoding.grammar import Vocabulary
from hexad.engine import grammar_process, grammars
from hexad.engine.messages import READY
from hexad.engine.process import BOOTSTRAP
from hexad.errors import BadRequest, DeadlineExceeded, EngineUnavailable, Overloaded

from .test_supervisor import answer, running, until

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "is_known": {"type": "boolean"}},
    "required": ["name", "is_known"],
    "additionalProperties": False,
}


@pytest.fixture
def config(tiny_model: Path) -> Config:
    return resolve([("test", {"model": str(tiny_model), "max_num_batched_tokens": 64, "kv_memory": "16MiB"})])[0]


def asking(wanted: StructuredOutputs, **params: Any) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 60, "seed": 3, "structured_outputs": wanted, **params})


def test_streams_survive_kill_9_token_for_token(config: Config) -> None:
    """On the slow kernels, so that there is time to kill on a busy machine too."""

    async def main() -> None:
        async with running(dataclasses.replace(config, kernels="reference")) as engine:
            many = {"type": "array", "items": PERSON, "minItems": 60}
            wanted = [
                asking(StructuredOutputs(json=many), max_tokens=500),
                asking(StructuredOutputs(json=many), max_tokens=500, n=2, logprobs=1),
                asking(StructuredOutputs(regex="([a-z ]{5}, and so on and on; ){50,}"), max_tokens=500, seed=4),
            ]
            undisturbed = [await answer(engine, each) for each in wanted]
            asked = [asyncio.create_task(answer(engine, each)) for each in wanted]
            await until(lambda: len(engine._live) == len(wanted))
            live = [live.stream.output for live in engine._live.values()]
            await until(lambda: max(len(output.outputs[0].token_ids) for output in live) >= 10)
            os.kill(engine.engine_pid, signal.SIGKILL)
            assert not all(output.finished for output in live)
            resumed = await asyncio.gather(*asked)
            assert engine.restarts == 1
            for before, after in zip(undisturbed, resumed, strict=True):
                assert [each.token_ids for each in before.outputs] == [each.token_ids for each in after.outputs]
                assert [each.finish_reason for each in before.outputs] == [each.finish_reason for each in after.outputs]

    asyncio.run(main())


def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + "{}" + "}" * depth


BOMBS = {
    "a schema 2,000 deep": StructuredOutputs(json=nested(2000)),
    "100,000 values": StructuredOutputs(json={"enum": [f"value-{i}" for i in range(100_000)]}),
    "20,000 alternatives": StructuredOutputs(
        grammar="start: " + " | ".join(f'"{i}" x' for i in range(20_000)) + '\nx: "a" | "b" x'
    ),
    "alternatives that multiply": StructuredOutputs(
        json={"allOf": [{"anyOf": [{"required": [f"{i}.{j}"]} for j in range(5)]} for i in range(12)]}
    ),
    "conditions that multiply": StructuredOutputs(
        json={"anyOf": [{"properties": {f"a{i}": True}} for i in range(30)], "unevaluatedProperties": False}
    ),
    "a sentence without end": StructuredOutputs(grammar='start: "a" start'),
    "references without end": StructuredOutputs(json={"not": {"$ref": "#"}}),
    "a megabyte of choice": StructuredOutputs(choice=["x" * 10_000 + str(i) for i in range(100)]),
}
FAT = [
    StructuredOutputs(regex="(a{1,1000}){1,1000}"),
    StructuredOutputs(regex="(.*a){20}.{30}b(.*c){20}"),
    StructuredOutputs(json={"type": "string", "maxLength": 10**9}),
    StructuredOutputs(json={"type": "array", "minItems": 10**6, "items": {"type": "integer"}}),
]
"""Large, and served: whoever asks gets what there is."""


def test_a_bomb_is_refused_soon_and_others_go_on(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            alone = await answer(engine, asking(StructuredOutputs(json=PERSON)))
            for name, bomb in BOMBS.items():
                started = asyncio.get_running_loop().time()
                neighbour = asyncio.create_task(answer(engine, asking(StructuredOutputs(json=PERSON))))
                with pytest.raises(BadRequest) as refusal:
                    await answer(engine, asking(bomb))
                assert refusal.value.param == "structured_outputs", name
                assert (await neighbour).outputs[0].token_ids == alone.outputs[0].token_ids
                assert asyncio.get_running_loop().time() - started < 10, name
            for fat in FAT:
                assert (await answer(engine, asking(fat, max_tokens=5))).outputs[0].token_ids
            assert engine.restarts == 0

    asyncio.run(main())


def test_compilations_are_shared_out_between_clients() -> None:
    """One may hold half of the places, and whoever comes late waits for one compilation of each other, not for all."""

    async def main() -> None:
        compiler = grammar_process.GrammarProcess(None, [0])
        done: list[str] = []

        async def compile(client: str, number: int) -> None:
            await compiler.compile(StructuredOutputs(regex=f"{client}{number}[a-z]{{1,9}}"), client)
            done.append(client)

        greedy = [asyncio.create_task(compile("greedy", number)) for number in range(40)]
        await asyncio.sleep(0)
        late = [asyncio.create_task(compile("late", number)) for number in range(3)]
        try:
            refused = [each for each in await asyncio.gather(*greedy, return_exceptions=True) if each]
            await asyncio.gather(*late)
        finally:
            await compiler.close()
        assert len(refused) == 8 and done.count("greedy") == 32
        assert all(isinstance(each, Overloaded) and each.code == "client_queue_full" for each in refused)
        assert [place for place, client in enumerate(done) if client == "late"] == [1, 3, 5]

    asyncio.run(main())


def test_a_vocabulary_that_takes_longer_than_a_grammar_may_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        compiler = grammar_process.GrammarProcess(None, [0])
        words = (sys.executable, "-c", "import time; time.sleep(2); " + BOOTSTRAP, *compiler._command[3:])
        monkeypatch.setattr(compiler, "_command", words)
        monkeypatch.setattr(grammar_process, "TIMEOUT_S", 1.5)
        try:
            assert await compiler.compile(StructuredOutputs(regex="[a-z]"))
        finally:
            await compiler.close()

    asyncio.run(main())


def test_a_compiler_that_dies_or_hangs_costs_one_request(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(config) as engine:

            async def pid() -> int:
                await answer(engine, asking(StructuredOutputs(regex=f"[a-z]{{{next(numbers)}}}")))
                process = engine._grammars._process
                assert process is not None
                return process.pid

            numbers = iter(range(1, 100))
            large = StructuredOutputs(choice=["x" * 2000 + str(i) for i in range(400)])
            narrow = (
                "import resource; limit = resource.setrlimit; resource.setrlimit = lambda what, most: "
                "limit(what, [size - 511 * 2**20 for size in most] if what == resource.RLIMIT_AS else most); "
            )
            words = engine._grammars._command[3:]
            monkeypatch.setattr(engine._grammars, "_command", (sys.executable, "-c", narrow + BOOTSTRAP, *words))
            with pytest.raises(BadRequest, match="512 MiB"):
                await answer(engine, asking(large))
            monkeypatch.undo()
            first = await pid()
            limit = int(Path(f"/proc/{first}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(first, resource.RLIMIT_AS, (limit + 2**20, limit + 2**20))  # as if others had used it up
            larger = StructuredOutputs(choice=["x" * 2000 + str(i) for i in range(9)])
            assert (await answer(engine, asking(larger, max_tokens=5))).outputs[0].text == "xxxxx"
            second = await pid()
            os.kill(second, signal.SIGSTOP)
            monkeypatch.setattr(grammar_process, "TIMEOUT_S", 0.5)
            with pytest.raises(Overloaded, match="busy"):
                await answer(engine, asking(StructuredOutputs(choice=["hang"])))
            monkeypatch.undo()
            assert (await answer(engine, asking(StructuredOutputs(choice=["hang"])))).outputs[0].text == "hang"
            third = await pid()
            os.kill(third, signal.SIGKILL)
            await until(lambda: engine._grammars._process is None or engine._grammars._process.returncode is not None)
            assert len({first, second, third, await pid()}) == 4
            impatient = asyncio.create_task(answer(engine, asking(StructuredOutputs(regex="cancelled [a-z]+"))))
            await asyncio.sleep(0)
            impatient.cancel()
            assert (await answer(engine, asking(StructuredOutputs(choice=["after all"])))).outputs[
                0
            ].text == "after all"

    asyncio.run(main())


def test_how_a_compiler_ended_is_known_however_late_that_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ran out of its time is a verdict: nobody tries the same again."""
    starts, waitpid = [0], os.waitpid

    class Held(grammar_process.GrammarProcess):
        async def _start(self) -> None:
            starts[0] += 1
            await super()._start()

        async def _end(self) -> int | None:
            time.sleep(0.1)
            return await super()._end()

    def late(pid: int, options: int) -> tuple[int, int]:
        time.sleep(0.3)
        return waitpid(pid, options)

    async def main() -> None:
        compiler = Held(None, [0])
        ends = f"import os, signal; os.write(1, {READY!r}); os.read(0, 4); os.kill(os.getpid(), signal.SIGXCPU)"
        monkeypatch.setattr(compiler, "_command", (sys.executable, "-c", ends))
        monkeypatch.setattr(os, "waitpid", late)  # as asyncio looks for an end, on a busy machine
        with pytest.raises(BadRequest, match="too large"):
            await compiler.compile(StructuredOutputs(regex="[a-z]"))
        await compiler.close()
        assert starts == [1]

    asyncio.run(main())


def test_nobody_else_is_held_up_by_a_compiler_that_is_busy_or_killed(config: Config) -> None:
    async def main() -> None:
        async with running(config) as engine:
            known = StructuredOutputs(choice=["known"])
            assert (await answer(engine, asking(known))).outputs[0].text == "known"
            process = engine._grammars._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            stuck = asyncio.create_task(answer(engine, asking(StructuredOutputs(choice=["stuck"]))))
            await until(lambda: engine._grammars._waiting.total() == 1)
            assert (await asyncio.wait_for(answer(engine, asking(known)), 5)).outputs[0].text == "known"
            late = engine.generate([5, 9], asking(StructuredOutputs(regex="late")), deadline=time.monotonic() + 0.2)
            with pytest.raises(DeadlineExceeded):
                await asyncio.wait_for(anext(aiter(late)), 5)
            assert not stuck.done()
            os.kill(process.pid, signal.SIGKILL)
            assert (await stuck).outputs[0].text == "stuck"

    asyncio.run(main())


def test_a_compiler_does_not_outlive_its_engine(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with running(config) as engine:
            await answer(engine, asking(StructuredOutputs(choice=["a"])))
            process = engine._grammars._process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            asked = [asyncio.create_task(answer(engine, asking(StructuredOutputs(choice=[text])))) for text in "bc"]
            await until(lambda: engine._grammars._waiting.total() == 2)
        for each in asked:
            with pytest.raises(EngineUnavailable):
                await each
        assert engine._grammars._process is None
        async with running(config) as engine:
            monkeypatch.setattr(engine._grammars, "_command", (sys.executable, "-c", "raise SystemExit(3)"))
            with pytest.raises(EngineUnavailable, match="start"):
                await answer(engine, asking(StructuredOutputs(choice=["d"])))
            monkeypatch.undo()
            assert (await answer(engine, asking(StructuredOutputs(choice=["d"])))).outputs[0].text == "d"

    asyncio.run(main())


def test_verdicts_are_remembered_within_a_bound(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_process, "MAX_REMEMBERED_BYTES", 20_000)

    async def main() -> None:
        async with running(config) as engine:
            grammars = engine._grammars
            texts = [await grammars.compile(StructuredOutputs(regex=f"[a-z]{{{i}}}")) for i in range(1, 200)]
            assert len(set(texts)) == 199
            assert sum(each.size for each in grammars._verdicts.values()) == grammars._remembered <= 20_000
            newest = StructuredOutputs(regex="[a-z]{199}")
            monkeypatch.setattr(grammars, "_ask", None)  # what is remembered is not asked for again
            assert await grammars.compile(newest) == texts[-1]
            monkeypatch.setattr(grammar_process, "MAX_WAITING", 0)
            with pytest.raises(Overloaded):
                await grammars.compile(StructuredOutputs(regex="new"))

    asyncio.run(main())


def test_an_answer_that_is_cut_says_so_and_one_that_fits_exactly_is_complete(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), threads=1, kv_memory="16MiB", max_model_len=256)
    wanted = StructuredOutputs(choice=["twelve bytes"])
    for most, reason in ((11, "length"), (12, "stop"), (13, "stop")):
        (output,) = llm.generate([[5, 9]], asking(wanted, max_tokens=most))
        assert output.outputs[0].text == "twelve bytes"[:most]
        assert output.outputs[0].finish_reason == reason
    (stopped,) = llm.generate([[5, 9]], asking(wanted, stop=["ve b"]))
    assert (stopped.outputs[0].text, stopped.outputs[0].finish_reason) == ("twel", "stop")
    (late,) = llm.generate([[5, 9]], asking(wanted, min_tokens=30, ignore_eos=True))
    assert (late.outputs[0].text, late.outputs[0].finish_reason) == ("twelve bytes", "stop")


def test_it_composes_with_every_other_parameter(tiny_model: Path) -> None:
    llm = LLM(str(tiny_model), threads=1, kv_memory="16MiB", max_model_len=512)
    letters = [*range(32, 127)]
    for other in (
        {"n": 3, "temperature": 1.0},
        {"logprobs": 2, "prompt_logprobs": 1},
        {"allowed_token_ids": letters},
        {"bad_words": ["z", "zz"], "logit_bias": {65: 5.0}},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.5, "presence_penalty": 0.5},
        {"min_tokens": 20, "top_p": 0.9, "top_k": 50, "min_p": 0.01},
        {"stop_token_ids": [ord("q")], "min_tokens": 5},
    ):
        params = asking(StructuredOutputs(json=PERSON), **{"max_tokens": 200, **other})
        (output,) = llm.generate([list(range(2, 60))], params)
        for each in output.outputs:
            if each.finish_reason == "stop" and each.stop_reason is None:
                text = each.text.removesuffix("\x01")
                assert jsonschema_rs.is_valid(PERSON, json.loads(text)), (other, text)


def test_a_schema_does_not_lead_a_model_astray() -> None:
    """The demo model was trained to extract fields as JSON; held to the schema of the answer it must be as good."""
    rng = random.Random(7)
    examples = [skills.example("extract", rng, held_out=True) for _ in range(20)]
    llm = LLM("demo", kv_memory="64MiB")
    right = 0
    for example in examples:
        fields = {key: {"type": "string" if isinstance(value, str) else "integer"} for key, value in
                  json.loads(example.answer).items()}  # fmt: skip
        schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
        params = SamplingParams(temperature=0, max_tokens=100, structured_outputs=StructuredOutputs(json=schema))
        right += skills.is_correct(example, llm.chat(list(example.messages), params)[0].outputs[0].text)
    assert right >= 18


def test_a_grammar_is_not_compiled_again_while_it_is_walked(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "MAX_COMPILED", 2)
    llm = LLM(str(tiny_model), threads=1, kv_memory="16MiB", max_model_len=256)
    compiled: list[str] = []
    compile = Vocabulary.compile
    monkeypatch.setattr(Vocabulary, "compile", lambda self, text: (compiled.append(text), compile(self, text))[1])
    wanted = [StructuredOutputs(regex=f"[a-z{i}]{{20}}") for i in range(5)]
    alone = [llm.generate([[5, 9]], asking(each))[0].outputs[0].token_ids for each in wanted]
    compiled.clear()
    together = llm.generate([[5, 9]] * 5, [asking(each) for each in wanted])
    assert [output.outputs[0].token_ids for output in together] == alone
    assert len(compiled) <= 3 * len(wanted), "to accept it, to let it in, and to begin"
