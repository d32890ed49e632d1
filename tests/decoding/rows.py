"""Rows and states for the tests of this room."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from hexad.decoding.sampler import Pick
from hexad.decoding.state import RowState
from hexad.types import Request, SamplingParams


def state(
    prompt: list[int] | None = None,
    generated: list[int] | None = None,
    *,
    choice: int = 0,
    eos: list[int] | None = None,
    bad_words: list[list[int]] | None = None,
    reasoning: tuple[list[int], list[int]] = ([], []),
    grammar: list[int] | None = None,
    **params: Any,
) -> RowState:
    prompt = [1, 2, 3] if prompt is None else prompt
    request = Request(
        request_id="r",
        prompt_token_ids=prompt,
        params=SamplingParams(**{"seed": 0, **params}),
        eos_token_ids=eos or [],
        bad_words_token_ids=bad_words or [],
        reasoning_start=reasoning[0],
        reasoning_end=reasoning[1],
    )
    return RowState.of(request, choice, prompt + (generated or []), None if grammar is None else allowing(grammar))


def allowing(tokens: list[int]) -> Future[NDArray[np.uint8]]:
    """What a grammar that allows `tokens` hands in; as long as its last token needs."""
    bits = np.zeros(max(tokens) + 1, np.uint8)
    bits[tokens] = 1
    future: Future[NDArray[np.uint8]] = Future()
    future.set_result(np.packbits(bits, bitorder="little"))
    return future


def random_state(rng: np.random.Generator, vocab: int) -> RowState:
    """Any mixture of features, each on about half of the time."""

    def some(value: Any, otherwise: Any) -> Any:
        return value if rng.random() < 0.5 else otherwise

    def ids(count: int) -> list[int]:
        return [int(token) for token in rng.integers(0, vocab, count)]

    return state(
        ids(int(rng.integers(1, 20))),
        ids(int(rng.integers(0, 20))),
        choice=int(rng.integers(0, 4)),
        eos=ids(1),
        bad_words=some([ids(1), ids(2)], []),
        reasoning=some((ids(int(rng.integers(0, 2))), ids(2)), ([], [])),
        thinking_budget=some(int(rng.integers(0, 20)), None),
        grammar=some(ids(20), None),
        seed=int(rng.integers(-(2**63), 2**63 - 1)),
        temperature=some(float(rng.uniform(0.1, 2.0)), 0.0),
        top_p=some(float(rng.uniform(0.3, 1.0)), 1.0),
        top_k=some(int(rng.integers(1, vocab)), -1),
        min_p=some(float(rng.uniform(0.0, 0.3)), 0.0),
        repetition_penalty=some(float(rng.uniform(0.7, 1.5)), 1.0),
        presence_penalty=some(float(rng.uniform(-2, 2)), 0.0),
        frequency_penalty=some(float(rng.uniform(-2, 2)), 0.0),
        logit_bias=some({token: float(rng.uniform(-5, 5)) for token in ids(5)}, None),
        allowed_token_ids=some(ids(12), None),
        min_tokens=some(10, 0),
        max_tokens=100,
        logprobs=some(int(rng.integers(0, 8)), None),
    )


def picked_bytes(pick: Pick) -> bytes:
    """Equal exactly when token, log-probabilities (bit for bit) and error are."""
    return msgspec.msgpack.encode(tuple(pick))
