"""Several answers at once from one `LLM`, and what an interrupt leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from hexad import LLM, SamplingParams
from hexad.engine.runner import Runner
from hexad.scheduler.plan import Plan, StepResult

PARAMS = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tiny_model: Path) -> LLM:
    return LLM(str(tiny_model), kv_memory="16MiB")


def test_streams_may_be_read_side_by_side(llm: LLM) -> None:
    alone = [llm.generate(text, PARAMS)[0].outputs[0].token_ids for text in ("one", "two", "three")]
    first, second = llm.stream("one", PARAMS), llm.stream("two", PARAMS)
    next(first)
    next(second)
    third = llm.generate("three", PARAMS)[0]
    ends = [[output.finished for output in stream][-1] for stream in (second, first)]
    assert ends == [True, True]
    first, second = llm.stream("one", PARAMS), llm.stream("two", PARAMS)
    pairs = list(zip(first, second, strict=False))
    assert [output.outputs[0].token_ids for output in pairs[-1]] == alone[:2]
    assert third.outputs[0].token_ids == alone[2]


def test_a_closed_stream_frees_its_pages_and_no_others(llm: LLM) -> None:
    kept, closed = llm.stream("one", PARAMS), llm.stream("two", PARAMS)
    next(kept)
    next(closed)
    closed.close()  # type: ignore[attr-defined]
    assert llm.stats().num_running == 1
    assert len(list(kept)[-1].outputs[0].token_ids) == 40
    assert llm.stats().num_free_pages == llm.stats().num_pages


def test_an_interrupt_leaves_an_engine_that_answers(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = llm.generate("one", PARAMS)[0].outputs[0].token_ids

    def interrupted(self: Runner, plan: Plan) -> StepResult:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Runner, "run", interrupted)
        llm.generate(["one", "two"], PARAMS)
    llm._loop.scheduler.check_invariants()
    assert llm.stats().num_running == llm.stats().num_waiting == 0
    assert llm.generate("one", PARAMS)[0].outputs[0].token_ids == expected
