"""The thinking budget, by the definition: replay an answer token by token and look at what may come next."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.decoding.processors import needs_processing, process

from .rows import state

V = 8
START, END = 6, 7


def replay(wishes: list[int], budget: int | None, start: list[int], end: list[int]) -> list[int]:
    """An answer of a model that wants `wishes`, one after another, as far as it is allowed to."""
    answer: list[int] = []
    for wish in wishes:
        row = np.zeros(V, np.float32)
        row[wish] = 1.0
        who = state([1], answer, thinking_budget=budget, reasoning=(start, end))
        after = process(who, row)
        assert needs_processing(who) or after is row
        answer.append(int(after.argmax()))
    return answer


def test_an_answer_that_ends_its_reasoning_in_time_is_left_alone() -> None:
    wishes = [START, 1, 2, END, 3, 4, 5, 3, 4]
    assert replay(wishes, 3, [START], [END]) == wishes
    assert replay(wishes, 2, [START], [END]) == wishes


def test_a_reasoning_over_budget_is_ended() -> None:
    assert replay([START, 1, 1, 1, 1, 1, 1], 3, [START], [END]) == [START, 1, 1, 1, END, 1, 1]
    assert replay([1, 1, 1, 1], 0, [], [END]) == [END, 1, 1, 1]
    assert replay([START, 1, 1], 0, [START], [END]) == [START, END, 1]


def test_an_answer_without_reasoning_has_no_budget() -> None:
    wishes = [1, 1, START, 2, 3, 4, 5]
    assert replay(wishes, 1, [START], [END]) == wishes


def test_one_token_may_come_before_a_reasoning() -> None:
    """GLM begins a line."""
    assert replay([1, START, 2, 3, 4, 5], 1, [START], [END]) == [1, START, 2, END, 4, 5]
    assert replay([1, START, 2, END, 4, 5], 1, [START], [END]) == [1, START, 2, END, 4, 5]


def test_an_end_of_several_tokens_is_forced_one_after_another_and_completed_where_it_has_begun() -> None:
    end = [5, 4, END]
    assert replay([1] * 8, 2, [], end) == [1, 1, *end, 1, 1, 1]
    assert replay([1, 5, 1, 1, 1], 2, [], end) == [1, *end, 1]
    assert replay([1, 5, 4, 1, 1], 3, [], end) == [1, *end, 1]


@settings(max_examples=300)
@given(
    wishes=st.lists(st.integers(0, V - 1), max_size=14),
    budget=st.integers(0, 8),
    end=st.lists(st.integers(4, 7), min_size=1, max_size=3),
)
def test_no_reasoning_is_longer_than_its_budget(wishes: list[int], budget: int, end: list[int]) -> None:
    answer = replay(wishes, budget, [], end)
    closed = next((at for at in range(len(answer)) if answer[at : at + len(end)] == end), None)
    if closed is None:
        assert len(answer) < budget + len(end)
    else:
        assert closed <= budget
        assert answer[closed + len(end) :] == wishes[closed + len(end) :]
