"""The laws of `pick`: a row does not see its neighbours, fails alone, and is the same at every replay."""

from __future__ import annotations

import math
import types
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hexad.decoding.sampler import pick, prompt_logprobs
from hexad.decoding.state import RowState
from hexad.errors import RequestFailed
from hexad.kernels.ops import Ops

from .rows import picked_bytes, random_state, state

V = 61


def logits(rng: np.random.Generator, rows: int, vocab: int = V) -> np.ndarray:
    return rng.normal(0, 3, (rows, vocab)).astype(np.float32)


def pick_one(ops: Ops, row_V: np.ndarray, who: RowState) -> bytes:
    return picked_bytes(pick(ops, row_V[None].copy(), [who])[0])


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), vocab=st.sampled_from([17, 64, 1000]))
def test_a_row_is_the_same_alone_and_among_32_at_any_place(ops: Ops, seed: int, vocab: int) -> None:
    rng = np.random.default_rng(seed)
    rows, states = logits(rng, 32, vocab), [random_state(rng, vocab) for _ in range(32)]
    together = [picked_bytes(p) for p in pick(ops, rows.copy(), states)]
    assert together == [pick_one(ops, row, who) for row, who in zip(rows, states, strict=True)]
    order = rng.permutation(32)
    shuffled = pick(ops, rows[order], [states[i] for i in order])
    assert [picked_bytes(p) for p in shuffled] == [together[i] for i in order]


def test_ties_are_broken_alike_at_any_place(ops: Ops) -> None:
    rows = np.zeros((32, V), np.float32)
    states = [state(temperature=0, logprobs=5)] * 32
    picks = pick(ops, rows, states)
    assert {p.token_id for p in picks} == {0}
    assert all(p.logprobs and p.logprobs.token_ids == [0, 0, 1, 2, 3, 4] and p.logprobs.rank == 1 for p in picks)


def break_row(kind: str, rows: np.ndarray, states: list[RowState], at: int) -> None:
    if kind == "nan":
        rows[at, 7] = np.nan
    elif kind == "inf":
        rows[at, 9] = np.inf
    elif kind == "all -inf":
        rows[at] = -np.inf
    elif kind == "masked":
        states[at] = state(allowed_token_ids=[4], eos=[4], min_tokens=5, logprobs=2)
    elif kind == "overflow":
        rows[at, 1] = 3e38
        states[at] = state([1], repetition_penalty=0.01)
    else:
        states[at] = state([V + 1000], repetition_penalty=2.0)


CAUSES = {
    "nan": "logits of this request hold NaN at token 7 (1 of 61 values)",
    "inf": "logits of this request hold +inf at token 9 (1 of 61 values)",
    "all -inf": "logits of this request are -inf for all 61 tokens",
    "masked": "rule out all 61 tokens",
    "overflow": "hold +inf at token 1",
    "exception": "IndexError",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", CAUSES)
@pytest.mark.parametrize("at", [0, 5, 11])
@pytest.mark.parametrize("plain", [False, True])
def test_a_broken_row_fails_alone(ops: Ops, kind: str, at: int, plain: bool) -> None:
    rng = np.random.default_rng(3)
    rows = logits(rng, 12)
    states = [state(temperature=0, logprobs=1) if plain else random_state(rng, V) for _ in range(12)]
    before = [picked_bytes(p) for p in pick(ops, rows.copy(), states)]
    break_row(kind, rows, states, at)
    given_bytes = rows.tobytes()
    picks = pick(ops, rows, states)
    assert rows.tobytes() == given_bytes
    error = picks[at].error
    assert error is not None and CAUSES[kind] in error.message
    assert error.error().status == (400 if kind in ("masked", "overflow") else 500)
    assert (picks[at].token_id, picks[at].logprobs) == (-1, None)
    after = [picked_bytes(p) for p in picks]
    assert after[:at] + after[at + 1 :] == before[:at] + before[at + 1 :]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(data=st.data(), magnitude=st.sampled_from([0.0, 1e-30, 1.0, 1e30, 1e36, 3e38]), seed=st.integers(0, 2**32 - 1))
def test_legal_parameters_over_finite_logits_are_never_our_fault(
    ops: Ops, data: st.DataObject, magnitude: float, seed: int
) -> None:
    """Each gives a token, or a refusal of the request's."""
    row = np.random.default_rng(seed).uniform(-1, 1, V).astype(np.float32) * np.float32(magnitude)
    ranges: dict[str, tuple[float, float]] = {
        "temperature": (0, 100), "top_p": (1e-9, 1), "min_p": (0, 1), "repetition_penalty": (0.01, 100),
        "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2),
    }  # fmt: skip
    params = {
        name: data.draw(st.sampled_from(ends) | st.floats(*ends, exclude_min=name == "top_p"), name)
        for name, ends in ranges.items()
    }
    bias = data.draw(st.dictionaries(st.integers(0, V - 1), st.sampled_from([-100.0, 100.0]), max_size=3))
    seen = data.draw(st.lists(st.integers(0, V - 1), max_size=8))
    (only,) = pick(ops, row[None], [state(seen, seen, logit_bias=bias, seed=seed, **params)])
    assert only.error is None or only.error.error().status == 400
    assert only.error is None or magnitude >= 1e36, "nor the request's, where logits are those of a model"


def test_log_probabilities_never_meet_a_broken_row(ops: Ops) -> None:
    seen: list[np.ndarray] = []
    spy = types.SimpleNamespace(
        to_host=ops.to_host,
        array=ops.array,
        take_rows=ops.take_rows,
        top_logprobs=lambda rows, *rest: seen.append(rows) or ops.top_logprobs(rows, *rest),
        sample=ops.sample,
    )
    rows = logits(np.random.default_rng(4), 3)
    rows[1, 2] = np.nan
    pick(cast(Ops, spy), rows, [state(logprobs=1)] * 3)
    assert [len(rows) for rows in seen] == [2]
    assert all(np.isfinite(rows).all() for rows in seen)


def test_minus_infinity_in_a_row_is_allowed(ops: Ops) -> None:
    row = np.full((1, V), -np.inf, np.float32)
    row[0, 33] = -4.0
    (only,) = pick(ops, row, [state(temperature=1.0, logprobs=0)])
    assert (only.token_id, only.error) == (33, None)
    assert only.logprobs is not None and only.logprobs.logprobs == [0.0]


def test_no_rows_no_picks(ops: Ops) -> None:
    assert pick(ops, np.zeros((0, V), np.float32), []) == []
    assert prompt_logprobs(ops, np.zeros((0, V), np.float32), [], 3) == []


def test_four_answers_are_four_requests(ops: Ops) -> None:
    rng = np.random.default_rng(11)
    for seed in (0, 5, -1, -3, 2**63 - 2, -(2**63)):
        row = logits(rng, 1)[0]
        answers = [state(seed=seed, choice=j, logprobs=2) for j in range(4)]
        requests = [state(seed=seed + j if seed + j < 2**63 else seed + j - 2**64, logprobs=2) for j in range(4)]
        assert [pick_one(ops, row, a) for a in answers] == [pick_one(ops, row, r) for r in requests]


def test_every_seed_has_noise_of_its_own() -> None:
    """Signed 64-bit seeds and choices map onto uint64 keys without collision."""
    for seed, choice, key in ((-1, 0, 2**64 - 1), (-1, 1, 0), (2**63 - 1, 1, 2**63), (-(2**63), 0, 2**63)):
        assert state(seed=seed, choice=choice).seed == key


def test_seed_position_and_choice_change_the_draw(ops: Ops) -> None:
    """256 draws each: with the noise unchanged, all would be equal."""
    flat = np.zeros((256, V), np.float32)
    by_seed = pick(ops, flat, [state(seed=s) for s in range(256)])
    by_choice = pick(ops, flat, [state(choice=c) for c in range(256)])
    by_position = pick(ops, flat, [state(generated=[0] * p) for p in range(256)])
    assert [p.token_id for p in by_seed] == [p.token_id for p in by_choice]
    assert min(len({p.token_id for p in picks}) for picks in (by_seed, by_position)) > 50


def test_a_vanishing_temperature_is_greedy(ops: Ops) -> None:
    """As in vLLM below 1e-5: even between logits so close that the division would leave a choice."""
    rows = np.zeros((64, V), np.float32)
    rows[:, 40], rows[:, 20] = 1.0, np.nextafter(np.float32(1), np.float32(0))
    for temperature in (0.0, 1e-30, 1e-6):
        picks = pick(ops, rows, [state(temperature=temperature, seed=s) for s in range(64)])
        assert {p.token_id for p in picks} == {40}


@pytest.mark.parametrize("top", [0, 1, 7, V])
def test_logprobs_are_log_softmax_of_the_raw_logits(ops: Ops, top: int) -> None:
    """Even where processors decide the token. torch is the oracle; equal to float32 rounding."""
    rng = np.random.default_rng(5)
    rows = logits(rng, 8)
    states = [state(seed=i, logprobs=top, logit_bias={int(rows[i].argmin()): 100.0}) for i in range(8)]
    expected = torch.log_softmax(torch.from_numpy(rows).double(), dim=-1).numpy()
    for row, one in enumerate(pick(ops, rows, states)):
        assert one.token_id == int(rows[row].argmin()) and one.logprobs is not None
        best = np.argsort(-rows[row])[:top].tolist()
        assert one.logprobs.token_ids == [one.token_id, *best]
        np.testing.assert_allclose(one.logprobs.logprobs, expected[row][one.logprobs.token_ids], atol=1e-5)
        assert one.logprobs.rank == V


def test_each_row_gets_as_many_logprobs_as_it_asked_for(ops: Ops) -> None:
    rows = logits(np.random.default_rng(6), 5)
    picks = pick(ops, rows, [state(logprobs=n) for n in (3, None, 0, 20, 1)])
    assert [p.logprobs and len(p.logprobs.logprobs) for p in picks] == [4, None, 1, 21, 2]


def test_prompt_logprobs_are_log_softmax_and_do_not_depend_on_the_chunk(ops: Ops) -> None:
    rows = logits(np.random.default_rng(8), 20)
    tokens = np.random.default_rng(9).integers(0, V, 20).tolist()
    whole = prompt_logprobs(ops, rows, tokens, 4)
    chunks = [prompt_logprobs(ops, rows[i:j], tokens[i:j], 4) for i, j in ((0, 1), (1, 8), (8, 20))]
    assert [one for chunk in chunks for one in chunk] == whole
    expected = torch.log_softmax(torch.from_numpy(rows).double(), dim=-1).numpy()
    for row, one in enumerate(whole):
        assert one.token_ids == [tokens[row], *np.argsort(-rows[row])[:4].tolist()]
        np.testing.assert_allclose(one.logprobs, expected[row][one.token_ids], atol=1e-5)
        assert one.rank == 1 + int((rows[row] > rows[row, tokens[row]]).sum())


def test_prompt_logprobs_of_a_broken_row_name_the_cause(ops: Ops) -> None:
    rows = logits(np.random.default_rng(8), 4)
    rows[2, 3] = np.nan
    with pytest.raises(RequestFailed, match=r"hold NaN at token 3 .* before prompt token 6"):
        prompt_logprobs(ops, rows, [4, 5, 6, 7], 2)


@pytest.mark.parametrize("extra", [{"top_k": 2**31 - 1}, {"top_k": V}, {"top_k": -1}, {"top_p": 1.0}, {"min_p": 0.0}])
def test_a_filter_that_keeps_all_changes_nothing(ops: Ops, extra: dict[str, Any]) -> None:
    rows = logits(np.random.default_rng(10), 64)
    free = pick(ops, rows, [state(seed=s) for s in range(64)])
    assert pick(ops, rows, [state(seed=s, **extra) for s in range(64)]) == free


@pytest.mark.parametrize("extra", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_a_filter_that_keeps_one_is_greedy(ops: Ops, extra: dict[str, Any]) -> None:
    rows = logits(np.random.default_rng(10), 64)
    picks = pick(ops, rows, [state(seed=s, temperature=1.5, **extra) for s in range(64)])
    assert [p.token_id for p in picks] == rows.argmax(axis=1).tolist()
    assert all(math.isfinite(p.token_id) for p in picks)
