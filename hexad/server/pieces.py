"""Outputs as they go over the wire: what was gained since the last look, counts, log-probabilities.

This module knows no endpoint and no transport.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from hexad.text.tokenizer import Tokenizer
from hexad.types import CompletionOutput, Logprob, RequestOutput

LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity."""


class Piece(NamedTuple):
    """What one answer gained since the last piece."""

    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None
    stop_reason: int | str | None


def whole(answer: CompletionOutput) -> Piece:
    return Piece(answer.text, answer.token_ids, answer.logprobs, answer.finish_reason, answer.stop_reason)


class Cursor:
    """How far one answer has been sent. `by_token`: tokens are of interest that show no text yet."""

    def __init__(self, *, by_token: bool) -> None:
        self._by_token = by_token
        self._text = 0
        self._tokens = 0
        self._ended = False

    def take(self, answer: CompletionOutput) -> Piece | None:
        """None when there is nothing to send; an answer that failed ends in an exception, not in a piece."""
        finish = answer.finish_reason
        gained = len(answer.text) > self._text or (self._by_token and len(answer.token_ids) > self._tokens)
        if self._ended or finish == "error" or not (gained or finish):
            return None
        text, tokens = self._text, self._tokens
        self._text, self._tokens, self._ended = len(answer.text), len(answer.token_ids), finish is not None
        logprobs = None if answer.logprobs is None else answer.logprobs[tokens:]
        return Piece(answer.text[text:], answer.token_ids[tokens:], logprobs, finish, answer.stop_reason)


def usage(outputs: Iterable[RequestOutput], reasoning: int = 0) -> dict[str, Any]:
    """Token counts so far, in OpenAI's shape; `reasoning` of the completion tokens were reasoning."""
    prompt = completion = cached = 0
    for output in outputs:
        prompt += len(output.prompt_token_ids)
        cached += output.num_cached_tokens
        completion += sum(len(answer.token_ids) for answer in output.outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)


def logprobs_of(tokenizer: Tokenizer, piece: Piece, most: int) -> list[dict[str, Any]]:
    """A piece's tokens as chats and responses show them, each with the `most` likely that could have been."""

    def named(token_id: int, found: Logprob) -> dict[str, Any]:
        spelled = list(tokenizer.token_bytes(token_id))
        return {"token": found.decoded_token or "", "logprob": finite(found.logprob), "bytes": spelled}

    shown = []
    for token_id, entry in zip(piece.token_ids, piece.logprobs or (), strict=True):
        best = sorted(entry.items(), key=lambda item: item[1].rank or 0)[:most]
        shown.append(named(token_id, entry[token_id]) | {"top_logprobs": [named(*item) for item in best]})
    return shown


def prompt_logprobs(output: RequestOutput) -> list[dict[str, Any] | None] | None:
    """In vLLM's shape: {token id: {logprob, rank, decoded_token}} a position."""
    known = output.prompt_logprobs
    if known is None:
        return None
    return [
        None if entry is None else {str(token_id): _shown(found) for token_id, found in entry.items()}
        for entry in known
    ]


def _shown(found: Logprob) -> dict[str, Any]:
    return {"logprob": finite(found.logprob), "rank": found.rank, "decoded_token": found.decoded_token}
