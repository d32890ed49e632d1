"""Many draws against the probabilities that transformers' warpers leave; seeds are fixed, so nothing flickers.

Order: ours is temperature, min_p, top_k, top_p, so the oracle's warpers run in that order.
transformers' top_k keeps every token that ties with the k-th; ours breaks ties by token id, so
these rows hold no ties.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hexad.decoding.processors import process
from hexad.decoding.sampler import pick
from hexad.decoding.state import RowState
from hexad.kernels.ops import Ops

from .rows import state

V = 24
DRAWS = 2_500
ROW = np.random.default_rng(12).normal(0, 1.5, V).astype(np.float32)

CASES: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.15},
    {"temperature": 1.4, "min_p": 0.05, "top_k": 9, "top_p": 0.8},
    {"temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.3, "presence_penalty": 0.5, "logit_bias": {3: 1.5}},
    {"allowed_token_ids": [2, 4, 6, 8], "frequency_penalty": -0.3},
]


def probabilities(who: RowState) -> np.ndarray:
    params, scores = who.params, torch.from_numpy(process(who, ROW).copy())[None]
    warpers: list[Any] = [TemperatureLogitsWarper(params.temperature)]
    warpers += [MinPLogitsWarper(params.min_p)] if params.min_p else []
    warpers += [TopKLogitsWarper(params.top_k)] if params.top_k else []
    warpers += [TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []
    for warper in warpers:
        scores = warper(torch.tensor([[1]]), scores)
    out: np.ndarray = torch.softmax(scores.double(), dim=-1)[0].numpy()
    return out


def draw(ops: Ops, states: list[RowState]) -> np.ndarray:
    picks = pick(ops, np.broadcast_to(ROW, (len(states), V)).copy(), states)
    assert all(p.error is None for p in picks)
    return np.array([p.token_id for p in picks])


def excess(counts: np.ndarray, expected: np.ndarray) -> float:
    """Chi-square of the cells that hold at least 5 expected draws, in standard deviations above its mean."""
    big = expected >= 5
    chi = float((((counts - expected) ** 2)[big] / expected[big]).sum())
    freedom = int(big.sum()) - 1
    return (chi - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("params", CASES, ids=lambda params: "+".join(params) or "plain")
@pytest.mark.parametrize("vary", ["seed", "position"])
def test_draws_follow_the_probabilities(ops: Ops, params: dict[str, Any], vary: str) -> None:
    history = [3, 3, 6]
    if vary == "seed":
        states = [state([1, 2], history, seed=7_000 + i, **params) for i in range(DRAWS)]
    else:
        states = [state([1, 2] + [1] * i, history, seed=99, **params) for i in range(DRAWS // 3)]
    chances = probabilities(states[0])
    counts = np.bincount(draw(ops, states), minlength=V)
    assert counts[chances == 0].sum() == 0
    assert excess(counts, chances * len(states)) < 4
    assert excess(counts, np.full(V, len(states) / V)) > 20, "the test could not tell this from uniform"


def test_neighbouring_seeds_and_positions_are_independent(ops: Ops) -> None:
    """Pairs (draw at s, draw at s + 1) against the product of the margins: n answers share nothing."""
    chances = probabilities(state())
    kept = np.argsort(-chances)[:5]
    product = np.outer(chances[kept], chances[kept]).ravel()
    by_seed = draw(ops, [state(seed=s) for s in range(DRAWS)])
    by_position = draw(ops, [state(generated=[0] * p) for p in range(DRAWS // 3)])
    for tokens in (by_seed, by_position):
        first, second = tokens[:-1], tokens[1:]
        counts = np.array([((first == a) & (second == b)).sum() for a in kept for b in kept])
        assert excess(counts, product * len(first)) < 4
