"""Admission: what a vocabulary cannot hold is refused with the parameter, the finding and the limit."""

from __future__ import annotations

from typing import Any

import pytest

from hexad.decoding.check import check_params
from hexad.errors import BadRequest
from hexad.types import Request, SamplingParams

V = 40


def request(prompt: list[int], bad_words: list[list[int]], **params: Any) -> Request:
    return Request(
        request_id="r", prompt_token_ids=prompt, params=SamplingParams(**params), bad_words_token_ids=bad_words
    )


@pytest.mark.parametrize(
    ("param", "prompt", "bad_words", "params", "message"),
    [
        ("prompt", [1, V], [], {}, f"holds token {V}; the vocabulary has tokens 0 to {V - 1}"),
        ("logit_bias", [1], [], {"logit_bias": {V: 1.0}}, f"holds token {V}; .* 0 to {V - 1}"),
        ("logit_bias", [1], [], {"logit_bias": {-1: 1.0}}, f"holds token -1; .* 0 to {V - 1}"),
        ("allowed_token_ids", [1], [], {"allowed_token_ids": [3, V + 7]}, f"holds token {V + 7}; .* 0 to {V - 1}"),
        ("stop_token_ids", [1], [], {"stop_token_ids": [-5]}, f"holds token -5; .* 0 to {V - 1}"),
        ("logprobs", [1], [], {"logprobs": V + 1}, f"is {V + 1}, .* only {V} tokens"),
        ("prompt_logprobs", [1], [], {"prompt_logprobs": V + 2}, f"is {V + 2}, .* only {V} tokens"),
        ("bad_words", [1], [[1, V]], {}, f"holds token {V}; .* 0 to {V - 1}"),
        ("bad_words", [1], [[1], []], {}, "holds a word without tokens"),
    ],
)
def test_what_the_vocabulary_cannot_hold_is_refused(
    param: str, prompt: list[int], bad_words: list[list[int]], params: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest, match=f"^{param} {message}") as caught:
        check_params(request(prompt, bad_words, **params), V)
    assert caught.value.param == param


def test_the_limits_themselves_are_taken() -> None:
    ends = [0, V - 1]
    check_params(
        request(
            ends,
            [ends],
            logit_bias=dict.fromkeys(ends, 1.0),
            allowed_token_ids=ends,
            stop_token_ids=ends,
            logprobs=V,
            prompt_logprobs=V,
        ),
        V,
    )
