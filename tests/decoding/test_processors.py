"""Processors against transformers' logits processors, and where there is none, against the published formula.

Differences of meaning, by choice (ours are vLLM's): transformers looks for bad words and counts
repetitions over prompt and answer alike; we look for bad words in the answer only, so its oracle
is shown the answer only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from hexad.decoding import processors
from hexad.decoding.processors import needs_processing, process
from hexad.decoding.state import RowState
from hexad.types import Request, SamplingParams

from .rows import random_state, state

V = 40
TOKENS = st.lists(st.integers(0, V - 1), max_size=30)
ROWS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(0, 4, V).astype(np.float32))


def oracle(processor: LogitsProcessor, input_ids: Sequence[int], row: np.ndarray) -> np.ndarray:
    ids = torch.tensor([list(input_ids)], dtype=torch.long)
    out: np.ndarray = processor(ids, torch.from_numpy(row.copy())[None])[0].numpy()
    return out


@settings(max_examples=60)
@given(row=ROWS, prompt=TOKENS, generated=TOKENS, penalty=st.floats(0.1, 5.0))
def test_repetition_penalty_is_transformers(
    row: np.ndarray, prompt: list[int], generated: list[int], penalty: float
) -> None:
    ours = process(state(prompt, generated, repetition_penalty=penalty), row)
    np.testing.assert_array_equal(ours, oracle(RepetitionPenaltyLogitsProcessor(penalty), prompt + generated, row))


@settings(max_examples=60)
@given(
    row=ROWS,
    generated=st.lists(st.integers(0, 3), max_size=8),
    words=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=5),
)
def test_bad_words_are_transformers_over_the_answer(
    row: np.ndarray, generated: list[int], words: list[list[int]]
) -> None:
    ours = process(state([0, 1, 2, 3], generated, bad_words=words), row)
    np.testing.assert_array_equal(ours, oracle(NoBadWordsLogitsProcessor(words), generated, row))


def test_a_bad_word_does_not_begin_in_the_prompt() -> None:
    row = np.zeros(V, np.float32)
    assert process(state([5, 6], [], bad_words=[[6, 7]]), row)[7] == 0
    assert process(state([5], [6], bad_words=[[6, 7]]), row)[7] == -np.inf


@pytest.mark.parametrize("num_generated", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("ignore_eos", [False, True])
def test_min_tokens_is_transformers(num_generated: int, ignore_eos: bool) -> None:
    row = np.random.default_rng(7).normal(0, 4, V).astype(np.float32)
    prompt, generated = [1, 2, 3], [4] * num_generated
    ours = process(
        state(prompt, generated, eos=[9, 11, V + 5], stop_token_ids=[13], min_tokens=4, ignore_eos=ignore_eos), row
    )
    expected = oracle(MinNewTokensLengthLogitsProcessor(3, 4, [9, 11, 13]), prompt + generated, row)
    np.testing.assert_array_equal(ours, expected)


@settings(max_examples=40)
@given(row=ROWS, bias=st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100), min_size=1, max_size=10))
def test_logit_bias_is_transformers_sequence_bias(row: np.ndarray, bias: dict[int, float]) -> None:
    expected = oracle(SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()}), [1], row)
    np.testing.assert_array_equal(process(state(logit_bias=bias), row), expected)


@settings(max_examples=40)
@given(row=ROWS, allowed=st.lists(st.integers(0, V - 1), min_size=1, max_size=10))
def test_allowed_tokens_suppress_all_others(row: np.ndarray, allowed: list[int]) -> None:
    expected = oracle(SuppressTokensLogitsProcessor([t for t in range(V) if t not in allowed]), [1], row)
    np.testing.assert_array_equal(process(state(allowed_token_ids=allowed), row), expected)


@settings(max_examples=60)
@given(row=ROWS, allowed=st.lists(st.integers(0, V + 30), min_size=1, max_size=20))
def test_a_grammar_suppresses_all_others_and_what_it_does_not_know(row: np.ndarray, allowed: list[int]) -> None:
    """Its mask may be shorter or longer than the row."""
    expected = oracle(SuppressTokensLogitsProcessor([t for t in range(V) if t not in allowed]), [1], row)
    np.testing.assert_array_equal(process(state(grammar=allowed), row), expected)


@settings(max_examples=60)
@given(row=ROWS, generated=TOKENS, frequency=st.floats(-2, 2), presence=st.floats(-2, 2))
def test_frequency_and_presence_are_the_published_formula(
    row: np.ndarray, generated: list[int], frequency: float, presence: float
) -> None:
    """mu[j] - c[j] * alpha_frequency - (c[j] > 0) * alpha_presence, from the OpenAI API guide."""
    ours = process(state([0, 1, 2], generated, frequency_penalty=frequency, presence_penalty=presence), row)
    counts = Counter(generated)
    expected = [row[j] - counts[j] * frequency - (counts[j] > 0) * presence for j in range(V)]
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_order_is_masks_then_bias_then_penalties() -> None:
    """A positive logit that a bias made negative is multiplied; a masked token stays masked."""
    row = np.full(V, 2.0, np.float32)
    out = process(
        state([5, 6], [5], repetition_penalty=2.0, presence_penalty=1.0, logit_bias={5: -3.0, 6: 1.0, 7: 100.0},
              allowed_token_ids=[5, 6]),
        row,
    )  # fmt: skip
    assert out[5] == (2.0 - 3.0) * 2.0 - 1.0
    assert out[6] == (2.0 + 1.0) / 2.0
    assert np.isneginf(np.delete(out, [5, 6])).all()


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_processing_is_pure_and_skipped_only_where_it_does_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    row, who = rng.normal(0, 4, V).astype(np.float32), random_state(rng, V)
    before = row.tobytes()
    first = process(who, row).tobytes()
    assert row.tobytes() == before
    assert process(who, row).tobytes() == first
    if not needs_processing(who):
        assert first == before


@pytest.mark.parametrize("processor", processors.PROCESSORS, ids=lambda processor: processor.__name__)
def test_a_processor_that_changes_the_row_is_never_skipped(processor: processors.Processor) -> None:
    active = {
        "grammar": {"grammar": [1]},
        "allowed_tokens": {"allowed_token_ids": [1]},
        "bad_words": {"bad_words": [[1]]},
        "min_tokens": {"min_tokens": 5, "eos": [1]},
        "logit_bias": {"logit_bias": {1: 1.0}},
        "repetition_penalty": {"repetition_penalty": 1.5},
        "frequency_penalty": {"frequency_penalty": 0.5},
        "presence_penalty": {"presence_penalty": 0.5},
        "thinking_budget": {"thinking_budget": 2, "reasoning": ([], [5])},
    }
    row = np.ones(V, np.float32)
    who = state([1], [1, 1], **active[processor.__name__])
    assert needs_processing(who)
    assert processor(who, row).tobytes() != row.tobytes()
    assert not needs_processing(state([1], [1, 1], eos=[1], stop_token_ids=[2], ignore_eos=True, logprobs=3))


def test_a_state_does_not_see_tokens_that_come_later() -> None:
    tokens = [1, 2, 3, 4]
    request = Request(request_id="r", prompt_token_ids=[1, 2], params=SamplingParams(seed=0, frequency_penalty=1.0))
    who = RowState.of(request, 0, tokens)
    row = np.ones(V, np.float32)
    before = process(who, row)
    tokens += [4, 5]
    np.testing.assert_array_equal(process(who, row), before)
    assert (list(who.generated), who.position) == ([3, 4], 4)
